#include "apps/kvbm/html.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>

namespace kvbm::app {
namespace {

constexpr std::string_view kStyle = R"css(
:root { color-scheme: light dark; --page: #f6f7f9; --card: #ffffff; --ink: #1b2430;
  --soft: #5a6675; --line: #dde2e8; --grid: #b4bdc8; --device: #0b62a8; --host: #1a9a78;
  --disk: #dd8a12; --computed: #d8dee5; --good: #11734b; --good-back: #dff3e9; --bad: #a8201a;
  --bad-back: #fbe4e2; }
@media (prefers-color-scheme: dark) {
  :root { --page: #11151b; --card: #1a2029; --ink: #e6eaf0; --soft: #9ba7b6; --line: #2d3643;
    --grid: #566274; --device: #58a9ee; --host: #3ac79d; --disk: #f2b04a; --computed: #364150;
    --good: #6fdcab; --good-back: #143528; --bad: #ff9d95; --bad-back: #451c1a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif;
  font-variant-numeric: tabular-nums; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 48px; }
header { margin-bottom: 20px; }
h1 { margin: 0 0 12px; font-size: 26px; line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 0 0 2px; font-size: 17px; }
h3 { margin: 0; font-size: 15px; }
p { margin: 0; }
.soft { color: var(--soft); font-size: 13.5px; }
.verdict { padding: 10px 14px; border-radius: 8px; background: var(--good-back);
  color: var(--good); }
.verdict.bad { background: var(--bad-back); color: var(--bad); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin: 0 0 16px; }
.figures div, section { background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; }
.figures div { display: flex; flex-direction: column-reverse; justify-content: flex-end;
  padding: 12px 16px; }
.figures dt { color: var(--soft); font-size: 13.5px; }
.figures dd { margin: 0; font-size: 23px; font-weight: 600; line-height: 1.3; }
section { margin-bottom: 16px; padding: 18px 20px 20px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 10px 0 0; padding: 0;
  list-style: none; font-size: 13.5px; }
.swatch { display: inline-block; width: 11px; height: 11px; margin-right: 7px; border-radius: 3px; }
.plot { position: relative; margin: 14px 8px 44px 52px; }
.plot svg { display: block; width: 100%; height: 240px; }
.small .plot { margin: 14px 8px 44px 72px; }
.small .x.odd { display: none; }
.small .plot svg { height: 110px; }
.plot span { position: absolute; color: var(--soft); font-size: 12px; line-height: 14px;
  white-space: nowrap; }
.plot .y { right: 100%; margin: 0 8px -7px 0; }
.plot .x { top: 100%; margin-top: 6px; transform: translateX(-50%); text-align: center; }
.plot .x.first { transform: none; text-align: left; }
.plot .x.last { transform: translateX(-100%); text-align: right; }
.back { fill: var(--computed); }
.grid { stroke: var(--grid); stroke-width: 1; stroke-dasharray: 3 4;
  vector-effect: non-scaling-stroke; }
.base { stroke: var(--soft); stroke-width: 1; vector-effect: non-scaling-stroke; }
.area { stroke: var(--card); stroke-width: 1; vector-effect: non-scaling-stroke; }
.hit { fill: var(--ink); fill-opacity: 0; }
.hit:hover { fill-opacity: 0.14; }
.device { fill: var(--device); background: var(--device); }
.host { fill: var(--host); background: var(--host); }
.disk { fill: var(--disk); background: var(--disk); }
.computed { fill: var(--computed); background: var(--computed); }
.edges { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr));
  gap: 8px 32px; margin-top: 16px; }
.scroll { margin-top: 14px; overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: 14px; }
th, td { padding: 6px 0 6px 20px; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
th { color: var(--soft); font-weight: 500; }
tbody th { color: var(--ink); }
th:first-child, td:first-child { padding-left: 0; text-align: left; }
tr:last-child th, tr:last-child td { border-bottom: 0; }
.parameters td { white-space: normal; overflow-wrap: anywhere; text-align: left; }
.parameters th { width: 1%; color: var(--soft); }
footer { text-align: center; }
@media (max-width: 720px) {
  table { font-size: 13px; }
  th, td { padding-left: 10px; }
  thead th { white-space: normal; vertical-align: bottom; } }
@media (max-width: 560px) {
  main { padding: 20px 10px 32px; }
  section { padding: 14px 14px 16px; }
  .figures { grid-template-columns: 1fr 1fr; gap: 10px; }
  .figures dd { font-size: 20px; }
  .plot, .small .plot { margin-left: 62px; margin-right: 0; }
  .figures div:last-child { grid-column: 1 / -1; }
  .plot .x.odd { display: none; }
  .area { stroke: none; } }
@media print { body { background: #ffffff; } section { break-inside: avoid; } }
)css";

// Length of the UTF-8 sequence at the front that XML may contain; 0 if there is none.
std::size_t good_sequence(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned first = byte(0);
  if (first < 0x80) return first >= 0x20 && first != 0x7F ? 1 : 0;
  const std::size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || text.size() < length) return 0;
  unsigned code = first & (0x7FU >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0U) != 0x80) return 0;
    code = code << 6 | (byte(i) & 0x3FU);
  }
  constexpr std::array<unsigned, 5> kLeast = {0, 0, 0x80, 0x800, 0x10000};
  const bool allowed = code >= kLeast[length] && code <= 0x10FFFF && code >= 0xA0 &&
                       (code < 0xD800 || code > 0xDFFF) && code != 0xFFFE && code != 0xFFFF;
  return allowed ? length : 0;
}

}  // namespace

std::string escaped(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const std::size_t length = good_sequence(text);
    switch (text.front()) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      default: out += length > 0 ? text.substr(0, length) : "\uFFFD";
    }
    text.remove_prefix(std::max<std::size_t>(length, 1));
  }
  return out;
}

std::string begin_page(std::string_view title, std::string_view more_style) {
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
      "<title>{}</title>\n<style>{}{}</style>\n</head>\n<body>\n<main>\n",
      title, kStyle, more_style);
}

std::string end_page() {
  return fmt::format(
      "<footer class=\"soft\">Made by kvbm {}.</footer>\n</main>\n</body>\n</html>\n",
      KVBM_VERSION);
}

}  // namespace kvbm::app
