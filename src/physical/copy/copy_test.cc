#include "physical/copy/copy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "base/xxh3.h"

namespace kvbm {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

// Under an emulator, or where KVBM_QUICK is set, only every so many of the cases run.
std::size_t stride() { return std::getenv("KVBM_QUICK") ? 37 : 1; }

std::uint64_t seed() {
  const char* const text = std::getenv("KVBM_SEED");
  return text ? std::strtoull(text, nullptr, 10) : 1;
}

std::vector<std::byte> random_bytes(std::size_t count) {
  std::mt19937_64 random(seed());
  std::vector<std::byte> bytes(count);
  for (std::size_t at = 0; at < count; at += 8) {
    const std::uint64_t value = random();
    std::memcpy(&bytes[at], &value, std::min<std::size_t>(8, count - at));
  }
  return bytes;
}

// Not by std::equal, which is slow for bytes where nothing is optimised.
bool equal(const std::byte* a, const std::byte* b, std::size_t bytes) {
  return bytes == 0 || std::memcmp(a, b, bytes) == 0;
}

void mark(std::byte* target, std::size_t bytes) {
  if (bytes > 0) std::memset(target, 0xA5, bytes);
}

// Memory whose every byte outside the targets must stay as it was.
class Guarded {
 public:
  explicit Guarded(std::size_t bytes) : bytes_(bytes + 2 * kGuard + 128, kMark) {
    const auto address = reinterpret_cast<std::uintptr_t>(bytes_.data());
    begin_ = bytes_.data() + kGuard + (-address % 64);
  }
  std::byte* at(std::size_t offset) { return begin_ + offset; }

  // Whether [offset, offset + bytes) is `expected`, and its surroundings are untouched. Forgets it.
  testing::AssertionResult holds(std::size_t offset, std::span<const std::byte> expected) {
    std::byte* const target = at(offset);
    const bool same = equal(target, expected.data(), expected.size());
    mark(target, expected.size());
    const auto marked = [](std::byte byte) { return byte == kMark; };
    const bool clean =
        std::all_of(target - kGuard, target, marked) &&
        std::all_of(target + expected.size(), target + expected.size() + kGuard, marked);
    if (same && clean) return testing::AssertionSuccess();
    return testing::AssertionFailure() << (same ? "bytes around the target were written"
                                                : "the target differs from the source");
  }

 private:
  static constexpr std::size_t kGuard = 128;
  static constexpr std::byte kMark{0xA5};
  std::vector<std::byte> bytes_;
  std::byte* begin_;
};

class CopyKernelTest : public testing::TestWithParam<const CopyKernel*> {
 protected:
  static constexpr Store kStores[] = {Store::Auto, Store::Cached, Store::Streaming};
  const CopyKernel& kernel() const { return *GetParam(); }

  // Copies and sums, in each way.
  void check(std::span<const std::byte> source, Guarded& target, std::size_t offset) {
    const std::uint64_t sum = xxh3(source.data(), source.size());
    SCOPED_TRACE(testing::Message() << source.size() << " bytes to a target at 64 n + " << offset);
    for (const Store store : kStores) {
      copy_bytes(target.at(offset), source.data(), source.size(), store, kernel());
      ASSERT_TRUE(target.holds(offset, source));
      ASSERT_EQ(copy_and_sum(target.at(offset), source.data(), source.size(), store, kernel()),
                sum);
      ASSERT_TRUE(target.holds(offset, source));
    }
    ASSERT_EQ(sum_bytes(source.data(), source.size(), kernel()), sum);
  }
};

TEST_P(CopyKernelTest, CopiesAndSumsEverySize) {
  const auto source = random_bytes(2101);
  Guarded target(source.size());
  for (std::size_t bytes = 0; bytes <= 2100; bytes += stride()) {
    check(std::span(source).first(bytes), target, 0);
    if (HasFatalFailure()) return;
  }
}

TEST_P(CopyKernelTest, CopiesAndSumsLargeSizes) {
  const auto source = random_bytes(3 * kMiB);
  Guarded target(source.size());
  for (const std::size_t bytes :
       {4095, 4096, 4097, 16 * 1024 - 64, 16 * 1024, 16 * 1024 + 1, 65'535, 65'536, 65'600, 66'560,
        100'003, 262'143, 262'144, 262'208, 263'168, 1'000'003, 2'097'152, 3'145'728}) {
    check(std::span(source).first(bytes), target, 0);
    check(std::span(source).subspan(1).first(bytes - 1), target, 19);
    if (HasFatalFailure()) return;
  }
}

TEST_P(CopyKernelTest, CopiesAndSumsAtEveryAlignment) {
  const auto source = random_bytes(5000);
  Guarded target(source.size());
  for (std::size_t i = 0; i < 64 * 64; i += stride()) {
    const std::size_t from = i / 64;
    const std::size_t to = i % 64;
    for (const std::size_t bytes : {100, 64 * 7, 4096 + 70}) {
      check(std::span(source).subspan(from, bytes), target, to);
    }
    if (HasFatalFailure()) return;
  }
}

// A stream cut at random places.
std::vector<std::size_t> random_cuts(std::mt19937_64& random, std::size_t total) {
  // Whole stripes, whole blocks, or anything.
  const std::size_t unit = std::array<std::size_t, 4>{1, 64, 1024, 4096}[random() % 4];
  std::vector<std::size_t> cuts;
  for (std::size_t left = total; left > 0;) {
    const std::size_t most = std::max<std::size_t>(1, std::min(total, 40 * unit) / unit);
    const std::size_t bytes = std::min(left, (random() % (most + 1)) * unit);
    cuts.push_back(bytes);
    left -= bytes;
  }
  return cuts;
}

TEST_P(CopyKernelTest, SumsAStreamHoweverItIsCut) {
  std::mt19937_64 random(seed());
  const auto source = random_bytes(300'000);
  for (int round = 0; round < 2000; round += static_cast<int>(stride())) {
    SCOPED_TRACE(testing::Message() << "KVBM_SEED=" << seed() << ", round " << round);
    const std::size_t most = std::array<std::size_t, 4>{300, 3000, 30'000, 300'000}[random() % 4];
    const std::size_t total = random() % (most + 1);
    const Store store = kStores[random() % 3];
    const std::size_t gap = random() % 2 == 0 ? 64 : random() % 200;  // keeps alignment, or not
    const auto cuts = random_cuts(random, total);

    Guarded target(total + gap * cuts.size());
    SummedCopy copy(total, store, kernel());
    RunningSum sum(total, kernel());
    std::size_t from = 0;
    std::size_t to = 0;
    for (const std::size_t bytes : cuts) {
      copy.add(target.at(to), source.data() + from, bytes);
      sum.add(source.data() + from, bytes);
      from += bytes;
      to += bytes + gap;
    }
    const std::uint64_t expected = xxh3(source.data(), total);
    ASSERT_EQ(copy.finish(), expected);
    ASSERT_EQ(sum.finish(), expected);
    from = to = 0;
    for (const std::size_t bytes : cuts) {
      ASSERT_TRUE(equal(target.at(to), source.data() + from, bytes));
      from += bytes;
      to += bytes + gap;
    }
  }
}

TEST_P(CopyKernelTest, CopiesAndSumsManyRuns) {
  std::mt19937_64 random(seed() + 1);
  const auto source = random_bytes(400'000);
  for (int round = 0; round < 300; round += static_cast<int>(stride())) {
    SCOPED_TRACE(testing::Message() << "KVBM_SEED=" << seed() << ", round " << round);
    const std::size_t count = random() % 12;
    const std::size_t most = std::array<std::size_t, 3>{100, 5000, 400'000}[random() % 3];
    const bool alike = random() % 2 == 0;
    const std::size_t unit = std::array<std::size_t, 3>{1, 64, 1024}[random() % 3];
    const Store store = kStores[random() % 3];
    const auto any_size = [&] { return random() % (most + 1) / unit * unit; };

    const std::size_t one_size = any_size();
    const std::size_t gap = random() % 2 == 0 ? 64 : random() % 200;
    std::vector<std::size_t> places;
    std::vector<CopyRun> runs;
    std::size_t end = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t bytes = alike ? one_size : any_size();
      runs.push_back({nullptr, source.data() + random() % (source.size() - bytes + 1), bytes});
      places.push_back(end);
      end += bytes + gap;
    }
    Guarded target(end);
    for (std::size_t i = 0; i < count; ++i) runs[i].target = target.at(places[i]);

    const auto copied = [&](const CopyRun& run) {
      const bool same = equal(run.target, run.source, run.bytes);
      mark(run.target, run.bytes);
      return same;
    };
    copy_runs(runs, store, kernel());
    ASSERT_TRUE(std::ranges::all_of(runs, copied));
    std::vector<std::uint64_t> sums(count);
    copy_and_sum_runs(runs, sums, store, kernel());
    ASSERT_TRUE(std::ranges::all_of(runs, copied));
    for (std::size_t i = 0; i < count; ++i) {
      ASSERT_EQ(sums[i], xxh3(runs[i].source, runs[i].bytes)) << "run " << i;
    }
    std::vector<std::uint64_t> sums_alone(count);
    sum_runs(runs, sums_alone, kernel());
    ASSERT_EQ(sums_alone, sums);
    ASSERT_TRUE(target.holds(0, std::vector<std::byte>(end, std::byte{0xA5})));
  }
}

TEST_P(CopyKernelTest, SumsAlikeRunsThatEndShortlyBehindABlock) {
  const auto source = random_bytes(4 * 2200);
  for (std::size_t bytes = 2048 - 65; bytes <= 2048 + 65; ++bytes) {
    std::vector<std::byte> target(4 * bytes);
    std::vector<CopyRun> runs;
    for (std::size_t i = 0; i < 4; ++i) {
      runs.push_back({&target[i * bytes], source.data() + i * bytes, bytes});
    }
    std::array<std::uint64_t, 4> sums{};
    copy_and_sum_runs(runs, sums, Store::Cached, kernel());
    for (std::size_t i = 0; i < 4; ++i) {
      ASSERT_EQ(sums[i], xxh3(runs[i].source, bytes)) << "run " << i << " of " << bytes << " bytes";
    }
    ASSERT_TRUE(equal(target.data(), source.data(), target.size()));
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, CopyKernelTest, testing::ValuesIn(copy_kernels()),
                         [](const auto& kernel) { return std::string(kernel.param->name); });

TEST(CopyKernelsTest, TheLastOneIsPortableAndNamesDiffer) {
  ASSERT_FALSE(copy_kernels().empty());
  EXPECT_STREQ(copy_kernels().back()->name, "portable");
  EXPECT_EQ(copy_kernels().back()->stream, nullptr);
  std::vector<std::string> names;
  for (const CopyKernel* kernel : copy_kernels()) names.push_back(kernel->name);
  std::ranges::sort(names);
  EXPECT_EQ(std::ranges::adjacent_find(names), names.end());
  EXPECT_EQ(&best_copy_kernel(), copy_kernels().front());
}

}  // namespace
}  // namespace kvbm
