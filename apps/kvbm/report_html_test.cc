#include "apps/kvbm/report_html.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <regex>
#include <vector>

#include "apps/kvbm/request_loop.h"
#include "apps/kvbm/text.h"
#include "apps/kvbm/trace_generate.h"
#include "apps/kvbm/xml_problem.h"

namespace kvbm::app {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(XmlProblemTest, SeesWhatItIsFor) {
  const auto problem = [](const std::string& body) {
    return xml_problem("<!DOCTYPE html>\n" + body);
  };
  EXPECT_EQ(problem("<p class=\"a b\" id=\"x\">a &lt; b<br/></p>\n"), "");
  for (const char* bad : {"<p>", "</p>", "<p><b></p></b>", "<p>a & b</p>", "<p>a < b</p>",
                          "<p id=x></p>", "<p id=\"x></p>", "<p>&nbsp;</p>", "<p>&lt</p>"}) {
    EXPECT_NE(problem(bad), "") << bad;
  }
}

// The contents of the table cells and table headers, without tags.
std::vector<std::string> cells(const std::string& html) {
  static const std::regex kCell("<t[dh]>(.*?)</t[dh]>");
  static const std::regex kTags("<[^>]*>");
  std::vector<std::string> found;
  for (std::sregex_iterator it(html.begin(), html.end(), kCell), end; it != end; ++it) {
    found.push_back(std::regex_replace((*it)[1].str(), kTags, ""));
  }
  return found;
}

// The cells of the row that begins with `name`.
std::vector<std::string> row(const std::string& html, const std::string& name, std::size_t size) {
  const std::vector<std::string> all = cells(html);
  const auto begin = std::find(all.begin(), all.end(), name);
  if (static_cast<std::size_t>(all.end() - begin) <= size) return {};
  return {begin + 1, begin + 1 + static_cast<std::ptrdiff_t>(size)};
}

ReplayParameters small_parameters() {
  ReplayParameters parameters;
  parameters.trace = "chat.jsonl";
  parameters.options.device_blocks = 80;
  parameters.options.host_blocks = 1500;
  parameters.options.disk_blocks = 9000;
  parameters.options.block_bytes = 4096;
  parameters.options.layers = 2;
  return parameters;
}

Trace small_trace(std::size_t requests) {
  GenerateOptions options;
  options.requests = requests;
  options.users = 12;
  options.max_prompt_tokens = 20'000;
  return generate_trace(options).value();
}

ReplayReport replay_of(std::size_t requests) {
  return replay(small_trace(requests), small_parameters().options).value();
}

TEST(ReplaySamplesTest, TheyAreSpreadOverTheRequestsAndEndWithTheReport) {
  const Trace trace = small_trace(250);
  const ReplayReport report = replay(trace, small_parameters().options).value();
  ASSERT_EQ(report.samples.size(), ReplayReport::kMaxSamples);
  for (std::size_t i = 0; i < report.samples.size(); ++i) {
    const ReplaySample& sample = report.samples[i];
    EXPECT_EQ(sample.requests, ((i + 1) * 250 + 99) / 100);
    EXPECT_EQ(sample.timestamp_ms, trace.requests[sample.requests - 1].timestamp_ms);
  }
  const ReplaySample& last = report.samples.back();
  EXPECT_EQ(last.prompt_tokens, report.prompt_tokens);
  EXPECT_EQ(last.hit_tokens, report.hit_tokens);
  for (std::size_t i = 0; i < kEdgesOfARun; ++i) {
    EXPECT_EQ(last.edge_bytes[i], report.transfers.edges[i].bytes);
  }
}

TEST(ReplaySamplesTest, FewRequestsHaveOneSampleEach) {
  EXPECT_EQ(replay_of(1).samples.size(), 1u);
  EXPECT_EQ(replay_of(7).samples.size(), 7u);
}

TEST(ReportHtmlTest, TheTablesTellTheNumbersOfTheReport) {
  const ReplayReport report = replay_of(250);
  const std::string html = to_html(report, small_parameters());
  EXPECT_EQ(xml_problem(html), "");

  for (std::size_t i = 0; i < kTierCount; ++i) {
    const auto told = row(html, to_string(Tier(i)), 6);
    ASSERT_EQ(told.size(), 6u);
    EXPECT_EQ(told[0], grouped(report.pools[i].total_blocks));
    EXPECT_EQ(told[1], size_text(report.pools[i].total_blocks * 4096));
    EXPECT_EQ(told[2], grouped(report.hit_tokens[i]));
    EXPECT_EQ(told[4], grouped(report.blocks_verified[i]));
    EXPECT_EQ(told[5], grouped(report.pools[i].evictions));
  }
  EXPECT_EQ(row(html, "computed", 6).at(2), grouped(computed_tokens(report)));
  for (std::size_t i = 0; i < kEdgesOfARun; ++i) {
    const EdgeStats& edge = report.transfers.edges[i];
    const auto told = row(html, edge_name(Edge(i), "→"), 5);
    ASSERT_EQ(told.size(), 5u);
    EXPECT_EQ(told[0], grouped(edge.blocks));
    EXPECT_EQ(told[1], size_text(edge.bytes));
    EXPECT_EQ(told[4], grouped(edge.failed));
  }
  EXPECT_THAT(html, HasSubstr(fmt::format("<dd>{}</dd>", grouped(report.prompt_tokens))));
  EXPECT_THAT(html, HasSubstr(fmt::format("Nothing was wrong:</strong> {}", verdict(report))));
}

TEST(ReportHtmlTest, EveryWindowIsInEveryChart) {
  const std::string html = to_html(replay_of(250), small_parameters());
  const std::regex hit("<rect class=\"hit\"");
  EXPECT_EQ(std::distance(std::sregex_iterator(html.begin(), html.end(), hit), {}),
            static_cast<std::ptrdiff_t>((1 + kEdgesOfARun) * ReplayReport::kMaxSamples));
  EXPECT_THAT(html, HasSubstr("<title>requests 4 to 5: device "));
}

TEST(ReportHtmlTest, ShareOfAWindowIsTheHeightOfItsStep) {
  ReplayReport report;
  report.requests = 2;
  report.prompt_tokens = 300;
  report.hit_tokens = {50, 25, 0};
  report.samples = {{1, 0, 100, {0, 0, 0}, {}}, {2, 1500, 300, {50, 25, 0}, {}}};
  const std::string html = to_html(report, small_parameters());
  EXPECT_EQ(xml_problem(html), "");
  EXPECT_THAT(html, HasSubstr("class=\"area device\" d=\"M0.00,100.00 500.00,100.00 500.00,75.00 "
                              "1000.00,75.00 1000.00,100.00 500.00,100.00"));
  EXPECT_THAT(html, HasSubstr("request 2: device 25.0%, host 12.5%, disk 0.0% of 200 prompt"));
  EXPECT_THAT(html, HasSubstr("2<br/>1.5 s</span>"));
}

TEST(ReportHtmlTest, EmptyAndTinyTraces) {
  EXPECT_EQ(xml_problem(to_html(ReplayReport{}, small_parameters())), "");
  for (const std::size_t requests : {1, 2, 3}) {
    const std::string html = to_html(replay_of(requests), small_parameters());
    EXPECT_EQ(xml_problem(html), "");
    EXPECT_THAT(html, HasSubstr("request 1: "));
  }
  const Trace empty_prompt{{TraceRequest{}}};
  const auto report = replay(empty_prompt, small_parameters().options).value();
  const std::string html = to_html(report, small_parameters());
  EXPECT_EQ(xml_problem(html), "");
  for (const char* number : {"nan", "inf", "-0.00"}) EXPECT_THAT(html, Not(HasSubstr(number)));
}

TEST(ReportHtmlTest, NamesAreEscaped) {
  ReplayParameters parameters = small_parameters();
  parameters.trace = "<b>&\"'.jsonl";
  parameters.options.disk_dir = "/tmp/\x01\xff\xc3\xa9\xed\xa0\x80</td>";
  const std::string html = to_html(replay_of(3), parameters);
  EXPECT_EQ(xml_problem(html), "");
  EXPECT_THAT(html, HasSubstr("<title>kvbm replay of &lt;b&gt;&amp;&quot;&#39;.jsonl</title>"));
  EXPECT_THAT(html, HasSubstr("/tmp/\uFFFD\uFFFDé\uFFFD\uFFFD\uFFFD&lt;/td&gt;"));
}

TEST(ReportHtmlTest, NothingIsLoadedFromElsewhere) {
  const std::string html = to_html(replay_of(3), small_parameters());
  for (const char* text : {"http", "<script", "<link", "@import", "url(", "src="}) {
    EXPECT_THAT(html, Not(HasSubstr(text)));
  }
}

TEST(ReportHtmlTest, TheVerdictIsTheReports) {
  ReplayReport report = replay_of(3);
  ReplayParameters parameters = small_parameters();
  parameters.options.verify = Verify::Off;
  EXPECT_THAT(to_html(report, parameters), HasSubstr("hits were not verified"));
  report.wrong_blocks = 1234;
  for (const Verify verify : {Verify::Full, Verify::Off}) {
    parameters.options.verify = verify;
    const std::string html = to_html(report, parameters);
    EXPECT_THAT(html,
                HasSubstr("class=\"verdict bad\"><strong>Something was wrong:</strong> 1,234"));
  }
}

TEST(ReportHtmlTest, TheParametersAreTold) {
  ReplayParameters parameters = small_parameters();
  parameters.trace = "-";
  parameters.limit = 1000;
  parameters.options.disk_dir = "/var/cache/kvbm";
  const std::string html = to_html(ReplayReport{}, parameters);
  EXPECT_THAT(row(html, "trace", 1), testing::ElementsAre("standard input"));
  EXPECT_THAT(row(html, "--limit", 1), testing::ElementsAre("1,000"));
  EXPECT_THAT(row(html, "--host-blocks", 1), testing::ElementsAre("1,500"));
  EXPECT_THAT(row(html, "--block-bytes", 1), testing::ElementsAre("4,096 (512 tokens)"));
  EXPECT_THAT(row(html, "--device-layout", 1), testing::ElementsAre("layer-block"));
  EXPECT_THAT(row(html, "--disk-dir", 1), testing::ElementsAre("/var/cache/kvbm"));
}

}  // namespace
}  // namespace kvbm::app
