#include "benchmarks/memory_bench.h"

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include "kvbm/manager.h"
#include "platform/os/page_filler.h"
#include "platform/os/pages.h"

namespace kvbm::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kFillBytes = std::size_t{512} << 20;
constexpr std::size_t kPoolBytes = std::size_t{8} << 30;  // most of it is never touched
constexpr std::size_t kBlockBytes = std::size_t{2} << 20;
constexpr std::size_t kRounds = 9;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Bytes that come in a second, counted from when they are asked for.
Result<double> filled_per_second() {
  KVBM_TRY(const auto pages, Pages::map(kFillBytes, Pages::Kind::Pinned));
  const auto begin = Clock::now();
  KVBM_TRY(const auto filler, PageFiller::start({pages->data(), kFillBytes}, {}));
  KVBM_CHECK_OK(filler->wait(std::chrono::nanoseconds::max()));
  return static_cast<double>(kFillBytes) / seconds_since(begin);
}

// The same by writing a byte to every page, with no thread and no pieces.
Result<double> touched_per_second() {
  KVBM_TRY(const auto pages, Pages::map(kFillBytes, Pages::Kind::Pinned));
  const auto begin = Clock::now();
  for (std::size_t at = 0; at < kFillBytes; at += 4096) pages->data()[at] = std::byte{1};
  keep(pages->data());
  return static_cast<double>(kFillBytes) / seconds_since(begin);
}

Result<Row> fill_row() {
  std::vector<double> fill;
  std::vector<double> touch;
  for (std::size_t round = 0; round < kRounds; ++round) {
    KVBM_TRY(fill.emplace_back(), filled_per_second());
    KVBM_TRY(touch.emplace_back(), touched_per_second());
  }
  return Row{.name = "fill",
             .value = median(std::move(fill)) / 1e9,
             .unit = "GB/s",
             .better = Better::Higher,
             .n = kRounds * kFillBytes,
             .aim = {},
             .probes = {{"bare page faults", median(std::move(touch)) / 1e9}}};
}

KvBlockManagerConfig large_pool() {
  KvBlockManagerConfig config;
  config.model = {.num_layers = 32, .outer_dim = 2, .page_size = 16, .inner_dim = 1024};
  config.device_layout = {.num_blocks = 1,
                          .allocator = std::make_shared<HostBackedDeviceAllocator>()};
  config.host_layout = {.num_blocks = kPoolBytes / kBlockBytes,
                        .allocator = std::make_shared<PinnedAllocator>()};
  return config;
}

// From nothing to a block in hand.
Result<double> first_block_ms() {
  const KvBlockManagerConfig config = large_pool();
  const auto begin = Clock::now();
  KVBM_TRY(auto manager, ReferenceBlockManager::create(config));
  KVBM_TRY(const auto blocks, manager.host()->allocate_blocks_blocking(1));
  return seconds_since(begin) * 1e3;
}

Result<double> first_touch_ms() {
  const auto begin = Clock::now();
  KVBM_TRY(const auto pages, Pages::map(kPoolBytes, Pages::Kind::Pinned));
  std::fill_n(pages->data(), kBlockBytes, std::byte{0});
  keep(pages->data());
  return seconds_since(begin) * 1e3;
}

Result<Row> first_block_row() {
  std::vector<double> ours;
  std::vector<double> bare;
  for (std::size_t round = 0; round < kRounds; ++round) {
    KVBM_TRY(ours.emplace_back(), first_block_ms());
    KVBM_TRY(bare.emplace_back(), first_touch_ms());
  }
  return Row{.name = "first_block_8g",
             .value = median(std::move(ours)),
             .unit = "ms",
             .better = Better::Lower,
             .n = kRounds,
             .aim = "<= 50",
             .probes = {{"mapping, and touching a block", median(std::move(bare))}}};
}

}  // namespace

Result<Report> memory_bench(const Options&) {
  Report report;
  KVBM_TRY(report.rows.emplace_back(), fill_row());
  KVBM_TRY(report.rows.emplace_back(), first_block_row());
  return report;
}

}  // namespace kvbm::bench
