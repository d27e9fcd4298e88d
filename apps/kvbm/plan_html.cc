#include "apps/kvbm/plan_html.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
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
  explicit PlanPage(const PlanReport& report) : report_(report) {}
  std::string text(const std::string& trace);

 private:
  void figures();
  void bars();
  void bar(const PlanRow& row, const std::string& sizes, double most);
  void table();
  void table_row(const PlanRow& row);

  template <class... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(out_), format, std::forward<Args>(args)...);
  }

  const PlanReport& report_;
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
  const PlanOptions& options = report_.options;
  figure("prompt tokens", grouped(report_.prompt_tokens));
  figure("device, blocks", grouped(report_.device_blocks));
  figure("device, GB", fmt::format("{:.3f}", report_.device_gb()));
  figure("block, bytes", grouped(options.block_bytes));
  figure("prefill, tokens/s", grouped(options.prefill_tokens_per_second));
  figure("from host, MB/s", grouped(options.host_mb_per_second));
  figure("from disk, MB/s", grouped(options.disk_mb_per_second));
  add("</dl>\n");
}

void PlanPage::bars() {
  add("<section>\n<h2>Time for all prompts</h2>\n<p class=\"soft\">Prefill of what no tier has, "
      "and loading of what the host and the disk have, one after the other; the frame is the "
      "prefill with the device alone, and a bar beyond it loses</p>\n<ul class=\"legend\">\n"
      "<li><span class=\"swatch computed\"></span>prefill</li>\n"
      "<li><span class=\"swatch host\"></span>from host to device</li>\n"
      "<li><span class=\"swatch disk\"></span>from disk to host</li>\n</ul>\n");
  double most = all_seconds(report_.device_alone);
  for (const PlanRow& row : report_.rows) most = std::max(most, all_seconds(row));
  bar(report_.device_alone, "device alone", most);
  for (const PlanRow& row : report_.rows) {
    bar(row, fmt::format("{} GB host, {} GB disk", grouped(row.host_gb), grouped(row.disk_gb)),
        most);
  }
  table();
  add("</section>\n");
}

void PlanPage::bar(const PlanRow& row, const std::string& sizes, double most) {
  const auto width = [most](double seconds) { return most > 0 ? kWidth * seconds / most : 0; };
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
      width(report_.device_alone.computed_seconds), kBar, all_seconds(row));
}

void PlanPage::table() {
  add("<div class=\"scroll\"><table>\n<thead><tr>");
  for (const std::string_view name : kPlanHeader) add("<th>{}</th>", name);
  add("</tr></thead>\n<tbody>\n");
  table_row(report_.device_alone);
  for (const PlanRow& row : report_.rows) table_row(row);
  add("</tbody></table></div>\n");
}

void PlanPage::table_row(const PlanRow& row) {
  add("<tr>");
  const auto cells = plan_cells(report_, row);
  add("<th>{}</th>", cells[0]);
  for (std::size_t i = 1; i < cells.size(); ++i) add("<td>{}</td>", cells[i]);
  add("</tr>\n");
}

}  // namespace

std::string to_html(const PlanReport& report, const std::string& trace) {
  return PlanPage(report).text(trace);
}

}  // namespace kvbm::app
