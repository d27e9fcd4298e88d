#include "apps/kvbm/sim_html.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>
#include <vector>

#include "apps/kvbm/xml_problem.h"

namespace kvbm::app {
namespace {

using testing::HasSubstr;
using testing::Not;

SimRow row(SimPolicy policy, std::size_t capacity, std::uint64_t token_hits) {
  return {policy, capacity, token_hits / 512, token_hits, 2000, 1'000'000};
}

const std::vector<SimRow> kRows = {
    row(SimPolicy::Lru, 100, 100'000),        row(SimPolicy::Lru, 1000, 200'000),
    row(SimPolicy::Lru, 10'000, 300'000),     row(SimPolicy::MinForced, 100, 250'000),
    row(SimPolicy::MinForced, 1000, 350'000), row(SimPolicy::MinForced, 10'000, 380'000)};

std::string page(const std::vector<SimRow>& rows, const std::string& trace = "t.jsonl") {
  return to_html(rows, {.trace = trace, .limit = {}, .requests = 9, .unique_blocks = 1234});
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = 0; (at = text.find(part, at)) != text.npos; ++at) ++found;
  return found;
}

TEST(SimHtmlTest, EachPolicyIsALineOverTheLogarithmOfCapacities) {
  const std::string html = page(kRows);
  EXPECT_EQ(xml_problem(html), "");
  // Up to 40 %, so that 10 % is a quarter of the height.
  EXPECT_THAT(html, HasSubstr("<polyline class=\"curve lru\" points=\"0.00,75.00 500.00,50.00 "
                              "1000.00,25.00\"/>"));
  EXPECT_THAT(html, HasSubstr("<polyline class=\"curve min-forced\" points=\"0.00,37.50 "
                              "500.00,12.50 1000.00,5.00\"/>"));
  EXPECT_EQ(count(html, "<path class=\"dot "), kRows.size());
  EXPECT_THAT(html, HasSubstr("<title>lru, 1,000 blocks: 20.00% of the tokens</title>"));
  for (const char* label :
       {">0%<", ">10%<", ">40%<", ">100</span>", ">1,000</span>", ">10,000</span>"}) {
    EXPECT_EQ(count(html, label), 1u) << label;
  }
}

TEST(SimHtmlTest, TheTableHasAllRows) {
  const std::string html = page(kRows);
  EXPECT_EQ(count(html, "<tr><th>"), kRows.size() + 1);
  EXPECT_THAT(html, HasSubstr("min-forced</th><td>10,000</td><td>742</td><td>37.10%</td>"
                              "<td>380,000</td><td>38.00%</td></tr>"));
  for (const char* told : {">9<", ">1,000,000<", ">2,000<", ">1,234<"}) {
    EXPECT_THAT(html, HasSubstr(told));
  }
}

TEST(SimHtmlTest, RowsInAnyOrderAndMoreThanOnceGiveTheSameLines) {
  std::vector<SimRow> rows(kRows.rbegin(), kRows.rend());
  rows.push_back(kRows[0]);
  const std::regex lines("<polyline class=\"curve lru\"[^>]*>");
  std::smatch ordered;
  std::smatch mixed;
  const std::string html = page(kRows);
  const std::string mixed_html = page(rows);
  ASSERT_TRUE(std::regex_search(html, ordered, lines));
  ASSERT_TRUE(std::regex_search(mixed_html, mixed, lines));
  EXPECT_EQ(mixed.str(), ordered.str());
  EXPECT_EQ(count(mixed_html, "<polyline"), 2u);
}

TEST(SimHtmlTest, OneCapacityLiesInTheMiddle) {
  const std::string html = page({row(SimPolicy::Min, 5, 0)});
  EXPECT_EQ(xml_problem(html), "");
  EXPECT_THAT(html, HasSubstr("points=\"500.00,100.00\""));
}

TEST(SimHtmlTest, ManyCapacitiesDoNotCrowdTheAxis) {
  std::vector<SimRow> rows;
  for (std::size_t i = 1; i <= 200; ++i) rows.push_back(row(SimPolicy::Lru, i, i));
  const std::string html = page(rows);
  EXPECT_LE(count(html, "<span class=\"x"), 11u);
  EXPECT_EQ(count(html, "<span class=\"x last\""), 1u);
  EXPECT_EQ(count(html, "<span class=\"x first\""), 1u);
}

TEST(SimHtmlTest, NamesCannotBreakThePage) {
  const std::string html = page(kRows, "</title><script>\xff&");
  EXPECT_EQ(xml_problem(html), "");
  EXPECT_THAT(html, Not(HasSubstr("<script")));
  EXPECT_THAT(page(kRows, "-"), HasSubstr("standard input"));
  EXPECT_EQ(xml_problem(page({})), "");
}

}  // namespace
}  // namespace kvbm::app
