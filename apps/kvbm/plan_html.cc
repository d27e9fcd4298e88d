#include "apps/kvbm/plan_html.h"

#include <fmt/format.h>

#include <iterator>
#include <string_view>
#include <utility>

#include "apps/kvbm/html.h"
#include "apps/kvbm/text.h"

namespace kvbm::app {
namespace {

// Bars are drawn in these units and stretched to the width of the page.
constexpr double kWidth = 1000;
constexpr double kBar = 18;

constexpr std::string_view kPlanStyle = R"css(
.bar { display: grid; grid-template-columns: 170px 1fr 90px; gap: 12px; align-items: center;
  margin-top: 8px; font-size: 13.5px; }
.bar svg { display: block; width: 100%; height: 18px; }
.bar span:last-child { text-align: right; }
.whole { fill: none; stroke: var(--grid); stroke-width: 1; vector-effect: non-scaling-stroke; }
@media (max-width: 560px) { .bar { grid-template-columns: 110px 1fr 70px; gap: 8px; } }
)css";

class PlanPage {
 public:
  PlanPage(std::span<const PlanRow> rows, const PlanOptions& options)
      : rows_(rows), options_(options) {}
  std::string text(const std::string& trace);

 private:
  void figures();
  void bars();
  void bar(const PlanRow& row, double most);
  void table();

  template <class... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(out_), format, std::forward<Args>(args)...);
  }

  const std::span<const PlanRow> rows_;
  const PlanOptions& options_;
  std::string out_;
};

double all_seconds(const PlanRow& row) { return row.computed_seconds + row.load_seconds(); }

std::string PlanPage::text(const std::string& trace) {
  const std::string name = escaped(trace == "-" ? "standard input" : trace);
  out_ = begin_page("kvbm plan of " + name, kPlanStyle);
  add("<header>\n<h1>Sizes of tiers for {}</h1>\n</header>\n", name);
  figures();
  bars();
  return std::move(out_) + end_page();
}

void PlanPage::figures() {
  const auto figure = [this](std::string_view name, const std::string& value) {
    add("<div><dt>{}</dt><dd>{}</dd></div>\n", name, value);
  };
  add("<dl class=\"figures\">\n");
  figure("prompt tokens", grouped(rows_.empty() ? 0 : rows_.front().prompt_tokens));
  figure("prefill, tokens/s", grouped(options_.prefill_tokens_per_second));
  figure("from host, MB/s", grouped(options_.host_mb_per_second));
  figure("from disk, MB/s", grouped(options_.disk_mb_per_second));
  add("</dl>\n");
}

void PlanPage::bars() {
  add("<section>\n<h2>Time for all prompts</h2>\n<p class=\"soft\">Prefill of what no tier has, "
      "and loading of what the host and the disk have, one after the other; the frame is prefill "
      "of everything</p>\n<ul class=\"legend\">\n"
      "<li><span class=\"swatch computed\"></span>prefill</li>\n"
      "<li><span class=\"swatch host\"></span>from host to device</li>\n"
      "<li><span class=\"swatch disk\"></span>from disk to host</li>\n</ul>\n");
  double most = 0;
  for (const PlanRow& row : rows_) {
    most = std::max({most, all_seconds(row), row.saved_seconds + row.computed_seconds});
  }
  for (const PlanRow& row : rows_) bar(row, most);
  table();
  add("</section>\n");
}

void PlanPage::bar(const PlanRow& row, double most) {
  const auto width = [most](double seconds) { return most > 0 ? kWidth * seconds / most : 0; };
  const std::string sizes =
      fmt::format("{} GB host, {} GB disk", grouped(row.host_gb), grouped(row.disk_gb));
  add("<div class=\"bar\"><span>{0}</span><svg viewBox=\"0 0 {1:.0f} {2:.0f}\" "
      "preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{0}: {3:.1f} s\">\n",
      sizes, kWidth, kBar, all_seconds(row));
  double from = 0;
  const auto part = [&](std::string_view what, double seconds) {
    add("<rect class=\"{0}\" x=\"{1:.2f}\" y=\"0\" width=\"{2:.2f}\" height=\"{3:.0f}\">"
        "<title>{4:.1f} s</title></rect>\n",
        what, from, width(seconds), kBar, seconds);
    from += width(seconds);
  };
  part("computed", row.computed_seconds);
  part("host", row.host_load_seconds);
  part("disk", row.disk_load_seconds);
  add("<rect class=\"whole\" x=\"0\" y=\"0\" width=\"{:.2f}\" height=\"{:.0f}\"/>\n</svg>"
      "<span>{:.1f} s</span></div>\n",
      width(row.saved_seconds + row.computed_seconds), kBar, all_seconds(row));
}

void PlanPage::table() {
  add("<div class=\"scroll\"><table>\n<thead><tr><th>host GB</th><th>disk GB</th><th>hit tokens"
      "</th><th>of the tokens</th><th>saved s</th><th>load s</th><th>computed s</th><th>written to "
      "disk</th></tr></thead>\n<tbody>\n");
  for (const PlanRow& row : rows_) {
    add("<tr><th>{}</th><td>{}</td><td>{}</td><td>{:.2f}%</td><td>{:.1f}</td><td>{:.1f}</td>"
        "<td>{:.1f}</td><td>{}</td></tr>\n",
        grouped(row.host_gb), grouped(row.disk_gb), grouped(row.all_hit_tokens()),
        percent(row.all_hit_tokens(), row.prompt_tokens), row.saved_seconds, row.load_seconds(),
        row.computed_seconds, size_text(row.disk_bytes_written));
  }
  add("</tbody></table></div>\n");
}

}  // namespace

std::string to_html(std::span<const PlanRow> rows, const PlanOptions& options,
                    const std::string& trace) {
  return PlanPage(rows, options).text(trace);
}

}  // namespace kvbm::app
