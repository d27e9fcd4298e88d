#include "benchmarks/bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kvbm::bench {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

// Time passes only where a work says so.
class FakeTime {
 public:
  Rounds rounds(std::size_t count, std::uint64_t min_ns) {
    return {count, min_ns, [this] { return now_; }};
  }
  void pass(std::uint64_t ns) { now_ += ns; }
  Work work(std::string name, std::uint64_t ns_per_operation) {
    return {std::move(name), [this, ns_per_operation](std::uint64_t operations) {
              pass(operations * ns_per_operation);
            }};
  }

 private:
  std::uint64_t now_ = 1'000'000;
};

TEST(BenchTest, TheMedianIsTheMiddle) {
  EXPECT_EQ(median({3}), 3);
  EXPECT_EQ(median({9, 1, 5}), 5);
  EXPECT_EQ(median({9, 1, 5, 7}), 6);
}

TEST(BenchTest, WorksRunInTurnsAndTheMedianOfTheirRoundsCounts) {
  FakeTime time;
  std::string order;
  std::uint64_t slow_ns = 10;
  std::vector<Work> works(2);
  works[0] = {"a",
              [&](std::uint64_t operations) {
                order += "a";
                time.pass(operations * 2);
              },
              [&] { time.pass(1000); }, 4};
  works[1] = {"b",
              [&](std::uint64_t operations) {
                order += "b";
                time.pass(operations * slow_ns);
                slow_ns *= 10;
              },
              {},
              1};
  const auto timings = interleave(works, time.rounds(3, 0));
  EXPECT_EQ(order, "ababab");
  EXPECT_EQ(timings[0].ns, 2) << "preparing is not timed";
  EXPECT_EQ(timings[0].operations, 12u);
  EXPECT_EQ(timings[1].ns, 100);
  EXPECT_EQ(timings[1].operations, 3u);
}

TEST(BenchTest, ARunHasEnoughOperationsToBeTimed) {
  FakeTime time;
  const std::vector<Work> works = {time.work("a", 3), time.work("b", 1000)};
  const auto timings = interleave(works, time.rounds(5, 100));
  EXPECT_EQ(timings[0].operations, 5u * 64);
  EXPECT_EQ(timings[0].ns, 3);
  EXPECT_EQ(timings[1].operations, 5u * 1);
}

TEST(BenchTest, ARowIsMeasuredBesideItsProbes) {
  FakeTime time;
  const Row row = measure(time.work("thing", 8), {time.work("plain", 6), time.work("poor", 12)},
                          "ratio >= 0.7", time.rounds(3, 8));
  EXPECT_EQ(row.name, "thing");
  EXPECT_EQ(row.unit, "ns");
  EXPECT_EQ(row.aim, "ratio >= 0.7");
  EXPECT_EQ(row.value, 8);
  EXPECT_EQ(row.n, 3u);
  ASSERT_EQ(row.probes.size(), 2u);
  EXPECT_EQ(row.probes[1].name, "poor");
  EXPECT_EQ(row.probes[1].value, 12);
  EXPECT_EQ(row.limit(), 6);
  EXPECT_EQ(row.ratio(), 0.75);
}

TEST(BenchTest, TheRatioIsSpeedForTimesAndForRates) {
  Row row{.name = "x", .value = 4, .probes = {{"p", 3}, {"q", 2}}};
  EXPECT_EQ(row.limit(), 2);
  EXPECT_EQ(row.ratio(), 0.5);
  row.better = Better::Higher;
  row.value = 1.5;
  EXPECT_EQ(row.limit(), 3);
  EXPECT_EQ(row.ratio(), 0.5);
  row.probes.clear();
  EXPECT_EQ(row.limit(), std::nullopt);
  EXPECT_EQ(row.ratio(), std::nullopt);
  EXPECT_FALSE(row.invalid());
}

TEST(BenchTest, AProbeThatIsTooSlowMakesTheRowInvalid) {
  Row row{.name = "x", .value = 100, .probes = {{"p", 104}}};
  EXPECT_FALSE(row.invalid());
  EXPECT_TRUE((Report{{row}, {}}.valid()));
  row.probes[0].value = 106;
  EXPECT_TRUE(row.invalid());
  EXPECT_FALSE((Report{{row}, {}}.valid()));
}

Report example() {
  return {{{.name = "a", .value = 4, .n = 9, .aim = "<= 5", .probes = {{"bare", 2}}},
           {.name = "b", .value = 1234.5, .unit = "MB/s", .better = Better::Higher, .n = 3},
           {.name = "c", .value = 1, .n = 3, .probes = {{"weak", 2}}}},
          77};
}

TEST(BenchTest, JsonHasNullsWhereThereIsNoLimit) {
  EXPECT_EQ(to_json(example()), nlohmann::json::parse(R"({
    "seed": 77,
    "rows": [
      {"name": "a", "value": 4.0, "unit": "ns", "limit": 2.0, "ratio": 0.5, "n": 9,
       "aim": "<= 5", "probes": [{"name": "bare", "value": 2.0}]},
      {"name": "b", "value": 1234.5, "unit": "MB/s", "limit": null, "ratio": null, "n": 3,
       "probes": []},
      {"name": "c", "value": 1.0, "unit": "ns", "limit": 2.0, "ratio": 2.0, "n": 3,
       "invalid": true, "probes": [{"name": "weak", "value": 2.0}]}
    ]})"));
  EXPECT_FALSE(to_json({}).contains("seed"));
}

TEST(BenchTest, TheTableHasEveryRowAndProbe) {
  EXPECT_EQ(to_table(example()),
            "seed 77\n\n"
            "name           value unit           limit  ratio           AIM              n\n"
            "a               4.00 ns              2.00  0.50            <= 5             9\n"
            "  bare          2.00 ns\n"
            "b               1234 MB/s               -  -                                3\n"
            "c               1.00 ns              2.00  2.00 (invalid)                   3\n"
            "  weak          2.00 ns\n");
}

TEST(BenchTest, EveryBenchHasItsOwnName) {
  std::vector<std::string> names;
  for (const Bench& bench : benches()) names.emplace_back(bench.name);
  EXPECT_THAT(names, testing::Contains("hash"));
  std::ranges::sort(names);
  EXPECT_EQ(std::ranges::adjacent_find(names), names.end());
}

}  // namespace
}  // namespace kvbm::bench
