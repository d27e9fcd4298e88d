#include "apps/kvbm/report_html.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <numeric>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "apps/kvbm/html.h"
#include "apps/kvbm/request_loop.h"
#include "apps/kvbm/text.h"

namespace kvbm::app {
namespace {

// Charts are drawn in these units and stretched to the width of the page; their labels are text of
// the page, so that they stay readable on a narrow one.
constexpr double kWidth = 1000;
constexpr double kHeight = 100;

std::string duration_text(std::uint64_t ms) {
  const std::uint64_t seconds = ms / 1000;
  if (ms == 0) return "0 s";
  if (seconds < 60) return fmt::format("{:.1f} s", static_cast<double>(ms) / 1000);
  if (seconds < 3600) return fmt::format("{} min {:02} s", seconds / 60, seconds % 60);
  return fmt::format("{} h {:02} min", grouped(seconds / 3600), seconds / 60 % 60);
}

// What happened from one sample to the next.
struct Window {
  std::uint64_t first_request;  // counted from 0
  ReplaySample counted;         // but `requests` is the end and `timestamp_ms` a time
};

std::vector<Window> windows_of(const ReplayReport& report) {
  std::vector<Window> windows;
  ReplaySample before;
  for (const ReplaySample& sample : report.samples) {
    Window window{before.requests, sample};
    window.counted.prompt_tokens -= before.prompt_tokens;
    for (std::size_t i = 0; i < kTierCount; ++i) {
      window.counted.hit_tokens[i] -= before.hit_tokens[i];
    }
    for (std::size_t i = 0; i < kEdgeCount; ++i) {
      window.counted.edge_bytes[i] -= before.edge_bytes[i];
    }
    windows.push_back(window);
    before = sample;
  }
  return windows;
}

std::string range_text(const Window& window) {
  const std::uint64_t last = window.counted.requests;
  if (window.first_request + 1 == last) return "request " + grouped(last);
  return fmt::format("requests {} to {}", grouped(window.first_request + 1), grouped(last));
}

std::string trace_name(const ReplayParameters& parameters) {
  return escaped(parameters.trace == "-" ? "standard input" : parameters.trace);
}

class Page {
 public:
  Page(const ReplayReport& report, const ReplayParameters& parameters)
      : report_(report), parameters_(parameters), windows_(windows_of(report)) {}
  std::string text();

 private:
  void header();
  void figures();
  void hits();
  void tier_table();
  void moves();
  void edge(Edge edge, std::uint64_t top_bytes);
  void edge_table();
  void parameters();

  void begin_plot(std::string_view described);
  void end_plot(const std::vector<std::string>& y_labels);
  double x(std::uint64_t requests) const;
  std::string area(std::size_t tier) const;
  void hit_rectangle(const Window& window, std::string_view told);
  std::uint64_t timestamp_at(std::uint64_t requests) const;

  template <class... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(out_), format, std::forward<Args>(args)...);
  }

  const ReplayReport& report_;
  const ReplayParameters& parameters_;
  const std::vector<Window> windows_;
  std::string out_;
};

std::string Page::text() {
  out_ = begin_page(fmt::format("kvbm replay of {}", trace_name(parameters_)));
  header();
  figures();
  hits();
  moves();
  parameters();
  out_ += end_page();
  return std::move(out_);
}

void Page::header() {
  const bool unverified = parameters_.options.verify == Verify::Off;
  add("<header>\n<h1>Replay of {}</h1>\n", trace_name(parameters_));
  add("<p class=\"verdict{}\"><strong>{}</strong> {}</p>\n</header>\n",
      report_.clean() ? "" : " bad",
      !report_.clean() ? "Something was wrong:"
      : unverified     ? "No failures, hits were not verified:"
                       : "Nothing was wrong:",
      verdict(report_));
}

void Page::figures() {
  const auto figure = [this](std::string_view name, const std::string& value) {
    add("<div><dt>{}</dt><dd>{}</dd></div>\n", name, value);
  };
  const std::uint64_t served = report_.prompt_tokens - computed_tokens(report_);
  add("<dl class=\"figures\">\n");
  figure("of the tokens served", fmt::format("{:.1f}%", percent(served, report_.prompt_tokens)));
  figure("prompt tokens", grouped(report_.prompt_tokens));
  figure(report_.requests == 1 ? "request" : "requests", grouped(report_.requests));
  figure("the trace's time",
         duration_text(report_.samples.empty() ? 0 : report_.samples.back().timestamp_ms));
  figure("the replay took", fmt::format("{:.1f} s", report_.seconds));
  add("</dl>\n");
}

double Page::x(std::uint64_t requests) const {
  return kWidth * static_cast<double>(requests) / static_cast<double>(report_.requests);
}

std::uint64_t Page::timestamp_at(std::uint64_t requests) const {
  for (const ReplaySample& sample : report_.samples) {
    if (sample.requests >= requests) return sample.timestamp_ms;
  }
  return 0;
}

void Page::begin_plot(std::string_view described) {
  add("<div class=\"plot\">\n<svg viewBox=\"0 0 {:.0f} {:.0f}\" preserveAspectRatio=\"none\" "
      "role=\"img\" aria-label=\"{}\">\n",
      kWidth, kHeight, described);
}

// The labels are evenly spaced, from the bottom to the top. A grid line goes with each.
void Page::end_plot(const std::vector<std::string>& y_labels) {
  const double steps = static_cast<double>(y_labels.size()) - 1;
  for (std::size_t i = 0; i < y_labels.size(); ++i) {
    const double y = kHeight * (1 - static_cast<double>(i) / steps);
    add("<line class=\"{0}\" x1=\"0\" y1=\"{1:.2f}\" x2=\"{2:.0f}\" y2=\"{1:.2f}\"/>\n",
        i == 0 ? "base" : "grid", y, kWidth);
  }
  add("</svg>\n");
  for (std::size_t i = 0; i < y_labels.size(); ++i) {
    add("<span class=\"y\" style=\"bottom: {:.2f}%\">{}</span>\n",
        100 * static_cast<double>(i) / steps, y_labels[i]);
  }

  std::set<std::uint64_t> ticks;
  for (std::uint64_t i = 0; i <= 4; ++i) ticks.insert(report_.requests * i / 4);
  std::size_t number = 0;
  for (const std::uint64_t tick : ticks) {
    if (report_.requests == 0) break;
    const char* place = tick == 0                  ? " first"
                        : tick == report_.requests ? " last"
                        : number % 2 == 1          ? " odd"
                                                   : "";
    add("<span class=\"x{}\" style=\"left: {:.2f}%\">{}{}<br/>{}</span>\n", place,
        x(tick) * 100 / kWidth, tick == 0 ? "request " : "", grouped(tick),
        duration_text(tick == 0 ? 0 : timestamp_at(tick)));
    ++number;
  }
  add("</div>\n");
}

// Of one window, over everything that is drawn for it: what a pointer that rests there is told.
void Page::hit_rectangle(const Window& window, std::string_view told) {
  const double left = x(window.first_request);
  add("<rect class=\"hit\" x=\"{:.2f}\" y=\"0\" width=\"{:.2f}\" height=\"{:.0f}\">"
      "<title>{}: {}</title></rect>\n",
      left, x(window.counted.requests) - left, kHeight, range_text(window), told);
}

// The steps of one tier, on top of those of the faster tiers.
std::string Page::area(std::size_t tier) const {
  std::string upper;
  std::string lower;
  for (const Window& window : windows_) {
    const auto& hits = window.counted.hit_tokens;
    const auto below =
        std::accumulate(hits.begin(), hits.begin() + std::ptrdiff_t(tier), std::uint64_t{0});
    const double left = x(window.first_request);
    const double right = x(window.counted.requests);
    const std::uint64_t tokens = window.counted.prompt_tokens;
    const double high = kHeight - percent(below + hits[tier], tokens);
    const double low = kHeight - percent(below, tokens);
    upper += fmt::format(" {:.2f},{:.2f} {:.2f},{:.2f}", left, high, right, high);
    lower = fmt::format(" {:.2f},{:.2f} {:.2f},{:.2f}", right, low, left, low) + lower;
  }
  return upper.empty() ? upper : fmt::format("M{}{}Z", upper.substr(1), lower);
}

void Page::hits() {
  add("<section>\n<h2>Who served the prompts</h2>\n"
      "<p class=\"soft\">Share of the prompt tokens by the tier that had them, over the requests "
      "and the trace&#39;s time</p>\n<ul class=\"legend\">\n");
  for (std::size_t i = 0; i < kTierCount; ++i) {
    add("<li><span class=\"swatch {0}\"></span>{0} {1:.1f}%</li>\n", to_string(Tier(i)),
        percent(report_.hit_tokens[i], report_.prompt_tokens));
  }
  add("<li><span class=\"swatch computed\"></span>computed {:.1f}%</li>\n</ul>\n",
      percent(computed_tokens(report_), report_.prompt_tokens));

  begin_plot("Share of prompt tokens served by each tier; the table below has the totals");
  add("<rect class=\"back\" x=\"0\" y=\"0\" width=\"{:.0f}\" height=\"{:.0f}\"/>\n", kWidth,
      kHeight);
  for (std::size_t i = kTierCount; i-- > 0;) {
    add("<path class=\"area {}\" d=\"{}\"/>\n", to_string(Tier(i)), area(i));
  }
  for (const Window& window : windows_) {
    std::string told;
    for (std::size_t i = 0; i < kTierCount; ++i) {
      told += fmt::format("{}{} {:.1f}%", i == 0 ? "" : ", ", to_string(Tier(i)),
                          percent(window.counted.hit_tokens[i], window.counted.prompt_tokens));
    }
    hit_rectangle(
        window, fmt::format("{} of {} prompt tokens", told, grouped(window.counted.prompt_tokens)));
  }
  end_plot({"0%", "25%", "50%", "75%", "100%"});
  tier_table();
  add("</section>\n");
}

void Page::tier_table() {
  const auto bytes = [this](std::size_t tier) {
    return size_text(report_.pools[tier].total_blocks * parameters_.options.block_bytes);
  };
  const auto cells = [this](const std::vector<std::string>& texts) {
    for (const std::string& text : texts) add("<td>{}</td>", text);
  };
  add("<div class=\"scroll\"><table>\n<thead><tr><th>tier</th><th>blocks</th><th>size</th>"
      "<th>tokens served</th><th>share</th><th>blocks "
      "verified</th><th>evictions</th></tr></thead>\n"
      "<tbody>\n");
  for (std::size_t i = 0; i < kTierCount; ++i) {
    add("<tr><th><span class=\"swatch {0}\"></span>{0}</th>", to_string(Tier(i)));
    cells({grouped(report_.pools[i].total_blocks), bytes(i), grouped(report_.hit_tokens[i]),
           fmt::format("{:.1f}%", percent(report_.hit_tokens[i], report_.prompt_tokens)),
           grouped(report_.blocks_verified[i]), grouped(report_.pools[i].evictions)});
    add("</tr>\n");
  }
  const std::uint64_t computed = computed_tokens(report_);
  add("<tr><th><span class=\"swatch computed\"></span>computed</th>");
  cells({"", "", grouped(computed),
         fmt::format("{:.1f}%", percent(computed, report_.prompt_tokens)), "", ""});
  add("</tr>\n</tbody></table></div>\n");
}

// The least number of the form 2^n or 3 * 2^n that is no less, so that half of it is round as well.
std::uint64_t round_up(std::uint64_t bytes) {
  std::uint64_t top = 2;
  while (top < bytes) top = top % 3 == 0 ? top / 3 * 4 : top == 2 ? 4 : top / 2 * 3;
  return top;
}

void Page::moves() {
  std::uint64_t most = 0;
  for (const Window& window : windows_) {
    for (const std::uint64_t bytes : window.counted.edge_bytes) most = std::max(most, bytes);
  }
  const std::uint64_t width = windows_.empty() ? 0 : windows_.front().counted.requests;
  const std::string each =
      width <= 1 ? "request" : fmt::format("window of about {} requests", grouped(width));
  add("<section>\n<h2>What was moved</h2>\n<p class=\"soft\">Bytes per {}, on one scale; the "
      "colour is that of the tier that receives them</p>\n<div class=\"edges\">\n",
      each);
  for (std::size_t i = 0; i < kEdgesOfARun; ++i) edge(Edge(i), round_up(most));
  add("</div>\n");
  edge_table();
  add("</section>\n");
}

Tier receiver(Edge edge) {
  switch (edge) {
    case Edge::HostToDevice: return Tier::Device;
    case Edge::HostToDisk: return Tier::Disk;
    case Edge::DeviceToHost:
    case Edge::DiskToHost:
    case Edge::PeerToHost: break;
  }
  return Tier::Host;
}

void Page::edge(Edge edge, std::uint64_t top_bytes) {
  const auto index = static_cast<std::size_t>(edge);
  const EdgeStats& stats = report_.transfers.edges[index];
  add("<div class=\"small\">\n<h3>{}</h3>\n<p class=\"soft\">{} in {:.2f} s of thread time, "
      "{:.2f} GB/s</p>\n",
      edge_name(edge, "→"), size_text(stats.bytes), seconds(stats), gigabytes_per_second(stats));
  begin_plot(fmt::format("Bytes moved {} in each window", edge_name(edge, "to")));
  for (const Window& window : windows_) {
    const double height = kHeight * static_cast<double>(window.counted.edge_bytes[index]) /
                          static_cast<double>(top_bytes);
    const double left = x(window.first_request);
    const double width = x(window.counted.requests) - left;
    if (height <= 0) continue;
    add("<rect class=\"{}\" x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" height=\"{:.2f}\"/>\n",
        to_string(receiver(edge)), left + width / 10, kHeight - height, width * 0.8, height);
  }
  for (const Window& window : windows_) {
    hit_rectangle(window, size_text(window.counted.edge_bytes[index]));
  }
  end_plot({"0", size_text(top_bytes / 2), size_text(top_bytes)});
  add("</div>\n");
}

void Page::edge_table() {
  add("<div class=\"scroll\"><table>\n<thead><tr><th>moved</th><th>blocks</th><th>bytes</th>"
      "<th>thread time</th><th>rate</th><th>failed</th></tr></thead>\n<tbody>\n");
  for (std::size_t i = 0; i < kEdgesOfARun; ++i) {
    const EdgeStats& edge = report_.transfers.edges[i];
    add("<tr><th>{}</th><td>{}</td><td>{}</td><td>{:.2f} s</td><td>{:.2f} GB/s</td><td>{}</td>"
        "</tr>\n",
        edge_name(Edge(i), "→"), grouped(edge.blocks), size_text(edge.bytes), seconds(edge),
        gigabytes_per_second(edge), grouped(edge.failed));
  }
  add("</tbody></table></div>\n");
}

std::string_view layout_name(LayoutType layout) {
  switch (layout) {
    case LayoutType::FullyContiguous: return "contiguous";
    case LayoutType::LayerSeparateOuterContiguous: return "layer-outer";
    case LayoutType::LayerSeparateBlockContiguous: return "layer-block";
  }
  return "";
}

std::string_view verify_name(Verify verify) {
  switch (verify) {
    case Verify::Full: return "full: every byte of every hit";
    case Verify::Sample: return "sample: one region of every hit";
    case Verify::Off: return "off";
  }
  return "";
}

void Page::parameters() {
  const ReplayOptions& options = parameters_.options;
  const auto row = [this](std::string_view name, std::string_view value) {
    add("<tr><th>{}</th><td>{}</td></tr>\n", name, escaped(value));
  };
  add("<section>\n<h2>What was asked for</h2>\n<div class=\"scroll\"><table class=\"parameters\">\n"
      "<tbody>\n");
  row("trace", parameters_.trace == "-" ? "standard input" : parameters_.trace);
  row("--limit", parameters_.limit ? grouped(*parameters_.limit) : "all requests");
  row("--device-blocks", grouped(options.device_blocks));
  row("--host-blocks", grouped(options.host_blocks));
  row("--disk-blocks", grouped(options.disk_blocks));
  row("--block-bytes",
      fmt::format("{} ({} tokens)", grouped(options.block_bytes), kTraceBlockTokens));
  row("--layers", grouped(options.layers));
  row("--device-layout", layout_name(options.device_layout));
  row("--disk-dir", options.disk_dir ? *options.disk_dir : "a temporary file");
  row("--verify", verify_name(options.verify));
  add("</tbody></table></div>\n</section>\n");
}

}  // namespace

std::string to_html(const ReplayReport& report, const ReplayParameters& parameters) {
  return Page(report, parameters).text();
}

}  // namespace kvbm::app
