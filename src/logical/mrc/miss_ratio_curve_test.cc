#include "logical/mrc/miss_ratio_curve.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <list>
#include <memory>
#include <random>
#include <unordered_map>
#include <unordered_set>

namespace kvbm {
namespace {

using Stream = std::vector<std::uint64_t>;

std::uint64_t seed_of_this_run() {
  std::uint64_t seed = std::random_device{}();
  if (const char* given = std::getenv("KVBM_SEED")) seed = std::strtoull(given, nullptr, 10);
  std::fprintf(stderr, "KVBM_SEED=%llu\n", static_cast<unsigned long long>(seed));
  return seed;
}

// What names of blocks look like.
std::uint64_t spread(std::uint64_t number, std::uint64_t seed) {
  std::uint64_t x = number + seed * 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Block i of `blocks` has weight 1 / (i + 1)^skew.
Stream zipf(std::uint64_t seed, std::size_t blocks, double skew, std::size_t length) {
  std::vector<double> weights;
  for (std::size_t i = 1; i <= blocks; ++i) {
    weights.push_back(std::pow(static_cast<double>(i), -skew));
  }
  std::mt19937_64 random(seed);
  std::discrete_distribution<std::uint64_t> block(weights.begin(), weights.end());
  Stream stream;
  for (std::size_t i = 0; i < length; ++i) stream.push_back(spread(block(random), seed));
  return stream;
}

Stream loop(std::uint64_t seed, std::size_t blocks, std::size_t length) {
  Stream stream;
  for (std::size_t i = 0; i < length; ++i) stream.push_back(spread(i % blocks, seed));
  return stream;
}

// An LRU cache, as one writes it first.
double lru_hit_ratio(const Stream& stream, std::size_t capacity) {
  std::list<std::uint64_t> order;  // latest first
  std::unordered_map<std::uint64_t, std::list<std::uint64_t>::iterator> places;
  std::size_t hits = 0;
  for (const std::uint64_t hash : stream) {
    if (const auto found = places.find(hash); found != places.end()) {
      ++hits;
      order.splice(order.begin(), order, found->second);
      continue;
    }
    if (order.size() == capacity) {
      places.erase(order.back());
      order.pop_back();
    }
    order.push_front(hash);
    places[hash] = order.begin();
  }
  return static_cast<double>(hits) / static_cast<double>(stream.size());
}

void feed(MissRatioCurve& curve, const Stream& stream) {
  for (const std::uint64_t hash : stream) curve.access(hash);
  curve.check_invariants();
}

// Of a curve that follows so many blocks, over cache sizes up to `largest`.
double mean_error(const Stream& stream, std::size_t max_samples, std::size_t largest) {
  MissRatioCurve curve(max_samples);
  feed(curve, stream);
  constexpr std::size_t kSizes = 8;
  double sum = 0;
  for (std::size_t i = 0; i < kSizes; ++i) {
    const std::size_t capacity = largest * (2 * i + 1) / (2 * kSizes);
    sum += std::abs(curve.hit_ratio(capacity) - lru_hit_ratio(stream, capacity));
  }
  return sum / kSizes;
}

TEST(MissRatioCurveTest, NothingWasUsed) {
  const MissRatioCurve curve;
  EXPECT_EQ(curve.accesses(), 0u);
  EXPECT_EQ(curve.hit_ratio(1000), 0);
  EXPECT_TRUE(curve.points().empty());
  curve.check_invariants();
}

TEST(MissRatioCurveTest, ItIsExactWhileAllBlocksAreFollowed) {
  const std::uint64_t seed = seed_of_this_run();
  const Stream stream = zipf(seed, 120, 0.8, 5000);
  MissRatioCurve curve(120);
  feed(curve, stream);
  for (std::size_t capacity = 1; capacity <= 127; ++capacity) {
    ASSERT_NEAR(curve.hit_ratio(capacity), lru_hit_ratio(stream, capacity), 1e-9) << capacity;
  }
  EXPECT_EQ(curve.hit_ratio(0), 0);
}

TEST(MissRatioCurveTest, OneBlockOverAndOver) {
  MissRatioCurve curve(1);
  for (int i = 0; i < 10; ++i) curve.access(42);
  EXPECT_DOUBLE_EQ(curve.hit_ratio(1), 0.9);
  ASSERT_EQ(curve.points().size(), 1u);
  EXPECT_EQ(curve.points()[0].blocks, 1u);
  EXPECT_DOUBLE_EQ(curve.points()[0].hit_ratio, 0.9);
}

TEST(MissRatioCurveTest, NoReuseIsNoHit) {
  const std::uint64_t seed = seed_of_this_run();
  MissRatioCurve curve;
  feed(curve, loop(seed, 400'000, 400'000));
  // Which blocks were followed is a matter of chance, with a deviation of 0.008.
  EXPECT_NEAR(curve.hit_ratio(1'000'000), 0, 0.04);
  EXPECT_TRUE(curve.points().empty());
}

TEST(MissRatioCurveTest, ZipfStreams) {
  const std::uint64_t seed = seed_of_this_run();
  for (const double skew : {0.6, 0.9, 1.2}) {
    const Stream stream = zipf(seed, 50'000, skew, 200'000);
    const double error = mean_error(stream, 8192, 50'000);
    std::fprintf(stderr, "skew %.1f: mean absolute error %.4f\n", skew, error);
    EXPECT_LE(error, 0.02) << "skew " << skew;
  }
}

TEST(MissRatioCurveTest, LoopingStreams) {
  const std::uint64_t seed = seed_of_this_run();
  for (const std::size_t blocks : {3000, 20'000, 60'000}) {
    const double error = mean_error(loop(seed, blocks, 240'000), 4096, 2 * blocks);
    std::fprintf(stderr, "loop of %zu: mean absolute error %.4f\n", blocks, error);
    EXPECT_LE(error, 0.02) << "loop of " << blocks;
  }
}

TEST(MissRatioCurveTest, AZipfStreamWithALoopBetween) {
  const std::uint64_t seed = seed_of_this_run();
  const Stream hot = zipf(seed, 30'000, 0.9, 120'000);
  const Stream scan = loop(seed + 1, 10'000, 120'000);
  Stream mixed;
  for (std::size_t i = 0; i < hot.size(); ++i) mixed.insert(mixed.end(), {hot[i], scan[i]});
  const double error = mean_error(mixed, 8192, 50'000);
  std::fprintf(stderr, "mean absolute error %.4f\n", error);
  EXPECT_LE(error, 0.02);
}

TEST(MissRatioCurveTest, InvariantsHoldThroughout) {
  const std::uint64_t seed = seed_of_this_run();
  std::mt19937_64 random(seed);
  for (const std::size_t max_samples : {1, 2, 7, 100}) {
    MissRatioCurve curve(max_samples);
    for (int i = 0; i < 3000; ++i) {
      curve.access(spread(random() % 300, seed));
      curve.check_invariants();
    }
  }
}

TEST(MissRatioCurveTest, HashesThatAreOnlyNumbersWorkAsWell) {
  for (const int shift : {0, 16, 40}) {
    MissRatioCurve curve(256);
    for (std::uint64_t i = 0; i < 100'000; ++i) curve.access((i % 5000) << shift);
    curve.check_invariants();
    EXPECT_NEAR(curve.hit_ratio(4000), 0, 0.1) << shift;
    EXPECT_NEAR(curve.hit_ratio(6000), 0.95, 0.1) << shift;
  }
}

TEST(MissRatioCurveTest, PointsRiseAndAgreeWithTheCurve) {
  const std::uint64_t seed = seed_of_this_run();
  MissRatioCurve curve(1000);
  feed(curve, zipf(seed, 20'000, 0.7, 100'000));
  const auto points = curve.points();
  ASSERT_GT(points.size(), 100u);
  for (std::size_t i = 0; i < points.size(); ++i) {
    EXPECT_NEAR(points[i].hit_ratio, curve.hit_ratio(points[i].blocks), 1e-9);
    if (i == 0) continue;
    EXPECT_GT(points[i].blocks, points[i - 1].blocks);
    EXPECT_GE(points[i].hit_ratio, points[i - 1].hit_ratio);
  }
  EXPECT_EQ(curve.hit_ratio(1'000'000), points.back().hit_ratio);
}

}  // namespace
}  // namespace kvbm
