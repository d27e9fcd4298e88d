#include "apps/kvbm/sim_html.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "apps/kvbm/html.h"
#include "apps/kvbm/text.h"

namespace kvbm::app {
namespace {

// The chart is drawn in these units and stretched to the width of the page.
constexpr double kWidth = 1000;
constexpr double kHeight = 100;

// Bounds are dashed: no cache reaches them. A dot is a line of no length with round ends, which
// stretching leaves round.
constexpr std::string_view kSimStyle = R"css(
:root { --min: #7a4fb5; --min-forced: #b03a6e; }
@media (prefers-color-scheme: dark) { :root { --min: #b495e8; --min-forced: #ee86b0; } }
.curve, .dot { fill: none; stroke: var(--of); vector-effect: non-scaling-stroke; }
.curve { stroke-width: 2; stroke-linejoin: round; }
.dot { stroke-width: 8; stroke-linecap: round; }
.swatch { background: var(--of); }
.lru { --of: var(--device); }
.age-index { --of: var(--host); }
.fifo { --of: var(--disk); }
.min { --of: var(--min); }
.min-forced { --of: var(--min-forced); }
.curve.min, .curve.min-forced { stroke-dasharray: 7 5; }
@media (max-width: 560px) { .figures div:last-child { grid-column: auto; } }
)css";

class SimPage {
 public:
  SimPage(std::span<const SimRow> rows, const SimParameters& parameters)
      : rows_(rows), parameters_(parameters) {
    for (const SimRow& row : rows) {
      if (std::ranges::find(policies_, row.policy) == policies_.end()) {
        policies_.push_back(row.policy);
      }
      capacities_.insert(row.capacity);
    }
  }
  std::string text();

 private:
  void figures();
  void chart();
  void curve(SimPolicy policy, double top);
  void y_axis(double top);
  void x_axis();
  void table();
  double x(std::size_t capacity) const;

  template <class... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(out_), format, std::forward<Args>(args)...);
  }

  const std::span<const SimRow> rows_;
  const SimParameters& parameters_;
  std::vector<SimPolicy> policies_;  // in the order of the rows
  std::set<std::size_t> capacities_;
  std::string out_;
};

double token_rate(const SimRow& row) { return percent(row.token_hits, row.tokens); }

// Of the axis: round, and four round steps.
double round_up(double rate) {
  for (const double step : {1, 2, 5, 10, 15, 20}) {
    if (4 * step >= rate) return 4 * step;
  }
  return 100;
}

std::string SimPage::text() {
  const std::string name = escaped(parameters_.trace == "-" ? "standard input" : parameters_.trace);
  out_ = begin_page("kvbm sim of " + name, kSimStyle);
  add("<header>\n<h1>Hits over {}</h1>\n", name);
  if (parameters_.limit) {
    add("<p class=\"soft\">The first {} requests of it at most</p>\n", grouped(*parameters_.limit));
  }
  add("</header>\n");
  figures();
  chart();
  return std::move(out_) + end_page();
}

void SimPage::figures() {
  const auto figure = [this](std::string_view name, std::uint64_t value) {
    add("<div><dt>{}</dt><dd>{}</dd></div>\n", name, grouped(value));
  };
  add("<dl class=\"figures\">\n");
  figure("requests", parameters_.requests);
  figure("prompt tokens", rows_.empty() ? 0 : rows_.front().tokens);
  figure("blocks asked for", rows_.empty() ? 0 : rows_.front().accesses);
  figure("of them different", parameters_.unique_blocks);
  add("</dl>\n");
}

// Logarithmic: capacities that are worth comparing differ by factors.
double SimPage::x(std::size_t capacity) const {
  const auto least = static_cast<double>(*capacities_.begin());
  const auto most = static_cast<double>(*capacities_.rbegin());
  if (least == most) return kWidth / 2;
  return kWidth * std::log(static_cast<double>(capacity) / least) / std::log(most / least);
}

void SimPage::chart() {
  add("<section>\n<h2>Hit rate over capacity</h2>\n<p class=\"soft\">Share of the prompt tokens "
      "that were in the cache, over its size in blocks; dashed lines are bounds</p>\n"
      "<ul class=\"legend\">\n");
  for (const SimPolicy policy : policies_) {
    add("<li><span class=\"swatch {0}\"></span>{0}</li>\n", to_string(policy));
  }
  add("</ul>\n<div class=\"plot\">\n<svg viewBox=\"0 0 {:.0f} {:.0f}\" "
      "preserveAspectRatio=\"none\" overflow=\"visible\" role=\"img\" aria-label=\"Token hit rate "
      "of each policy over capacity; the table below has the numbers\">\n",
      kWidth, kHeight);
  double most = 0;
  for (const SimRow& row : rows_) most = std::max(most, token_rate(row));
  const double top = round_up(most);
  for (int i = 0; i <= 4; ++i) {
    add("<line class=\"{0}\" x1=\"0\" y1=\"{1:.0f}\" x2=\"{2:.0f}\" y2=\"{1:.0f}\"/>\n",
        i == 0 ? "base" : "grid", kHeight * (1 - i / 4.0), kWidth);
  }
  for (const SimPolicy policy : policies_) curve(policy, top);
  add("</svg>\n");
  y_axis(top);
  x_axis();
  add("</div>\n");
  table();
  add("</section>\n");
}

void SimPage::curve(SimPolicy policy, double top) {
  std::string line;
  std::string dots;
  for (const std::size_t capacity : capacities_) {
    const auto row = std::ranges::find_if(
        rows_, [&](const SimRow& one) { return one.policy == policy && one.capacity == capacity; });
    if (row == rows_.end()) continue;
    const double y = kHeight * (1 - token_rate(*row) / top);
    line += fmt::format("{}{:.2f},{:.2f}", line.empty() ? "" : " ", x(capacity), y);
    dots += fmt::format(
        "<path class=\"dot {0}\" d=\"M{1:.2f},{2:.2f}h0\"><title>{0}, {3} blocks: "
        "{4:.2f}% of the tokens</title></path>\n",
        to_string(policy), x(capacity), y, grouped(capacity), token_rate(*row));
  }
  add("<polyline class=\"curve {}\" points=\"{}\"/>\n{}", to_string(policy), line, dots);
}

void SimPage::y_axis(double top) {
  for (int i = 0; i <= 4; ++i) {
    add("<span class=\"y\" style=\"bottom: {}%\">{:.4g}%</span>\n", 25 * i, top * i / 4);
  }
}

// Labels of capacities, as far as there is room for them; the last one always. Every other one and
// those near the ends leave a narrow page.
void SimPage::x_axis() {
  constexpr double kRoom = kWidth / 10;
  double free_from = 0;
  std::size_t number = 0;
  for (const std::size_t capacity : capacities_) {
    const bool is_last = capacity == *capacities_.rbegin();
    const double at = x(capacity);
    if (!is_last && (at < free_from || at > kWidth - kRoom)) continue;
    const bool is_near_end = at < 2 * kRoom || at > kWidth - 2 * kRoom;
    const char* place = at == 0                          ? " first"
                        : at == kWidth                   ? " last"
                        : is_near_end || number % 2 == 1 ? " odd"
                                                         : "";
    add("<span class=\"x{}\" style=\"left: {:.2f}%\">{}</span>\n", place, at * 100 / kWidth,
        grouped(capacity));
    free_from = at + kRoom;
    ++number;
  }
}

void SimPage::table() {
  add("<div class=\"scroll\"><table>\n<thead><tr><th>policy</th><th>capacity</th><th>block "
      "hits</th><th>of the blocks</th><th>token hits</th><th>of the tokens</th></tr></thead>\n"
      "<tbody>\n");
  for (const SimRow& row : rows_) {
    add("<tr><th><span class=\"swatch {0}\"></span>{0}</th><td>{1}</td><td>{2}</td><td>{3:.2f}%"
        "</td><td>{4}</td><td>{5:.2f}%</td></tr>\n",
        to_string(row.policy), grouped(row.capacity), grouped(row.block_hits),
        percent(row.block_hits, row.accesses), grouped(row.token_hits), token_rate(row));
  }
  add("</tbody></table></div>\n");
}

}  // namespace

std::string to_html(std::span<const SimRow> rows, const SimParameters& parameters) {
  return SimPage(rows, parameters).text();
}

}  // namespace kvbm::app
