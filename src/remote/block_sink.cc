#include "remote/block_sink.h"

#include <algorithm>
#include <cassert>
#include <cstdlib>
#include <new>

#include "base/xxh3.h"
#include "physical/transfer/copy_block.h"

namespace kvbm::remote {
namespace {

constexpr std::size_t kPageBytes = 4096;
constexpr std::size_t kRegionsAtOnce = 64;

}  // namespace

void Staging::Free::operator()(std::byte* bytes) const noexcept {
  ::operator delete[](bytes, std::align_val_t(kPageBytes));
}

Staging::Staging()
    : bytes_(static_cast<std::byte*>(::operator new[](kBytes, std::align_val_t(kPageBytes)))) {}

BlockSink::BlockSink(const Layout& target, BlockId block) noexcept
    : target_(target),
      block_(block),
      store_(target.content()->bytes() >= kStreamingBytes ? Store::Streaming : Store::Cached),
      left_(target.content()->bytes()) {}

BlockSink::~BlockSink() {
  if (!is_good_ && left_ < target_.content()->bytes()) zero_block(target_, block_);
}

void BlockSink::add(std::span<const std::byte> bytes) noexcept {
  assert(bytes.size() <= left_ && "no more than the block has");
  left_ -= bytes.size();
  while (!bytes.empty()) {
    const std::size_t whole = region_sum_ ? 0 : add_regions(bytes);
    bytes = bytes.subspan(whole);
    if (!bytes.empty() && whole == 0) bytes = bytes.subspan(add_part(bytes));
  }
}

std::size_t BlockSink::add_regions(std::span<const std::byte> bytes) noexcept {
  std::array<CopyRun, kRegionsAtOnce> runs;
  const auto regions = target_.content()->regions();
  std::size_t count = 0;
  std::size_t added = 0;
  for (std::size_t i = region_; i < regions.size() && count < runs.size(); ++i) {
    const auto fragments = target_.fragments(i);
    if (fragments.size() > 1 || regions[i].bytes > bytes.size() - added) break;
    runs[count++] = {target_.place(fragments.front(), block_).data(), &bytes[added],
                     regions[i].bytes};
    added += regions[i].bytes;
  }
  if (count == 0) return 0;
  copy_and_sum_runs(std::span(runs).first(count), std::span(sums_).subspan(region_, count), store_);
  region_ += count;
  return added;
}

std::size_t BlockSink::add_part(std::span<const std::byte> bytes) noexcept {
  if (!region_sum_) region_sum_.emplace(target_.content()->regions()[region_].bytes, store_);
  const auto fragments = target_.fragments(region_);
  const Region run = target_.place(fragments[fragment_], block_);
  const std::size_t count = std::min(bytes.size(), run.bytes - in_fragment_);
  region_sum_->add(run.data() + in_fragment_, bytes.data(), count);
  in_fragment_ += count;
  if (in_fragment_ < run.bytes) return count;
  in_fragment_ = 0;
  if (++fragment_ < fragments.size()) return count;
  fragment_ = 0;
  sums_[region_++] = region_sum_->finish();
  region_sum_.reset();
  return count;
}

Result<std::uint64_t> BlockSink::finish(std::uint64_t expected_sum) {
  assert(left_ == 0 && "the whole block has come");
  const std::uint64_t sum = xxh3(sums_.data(), region_ * sizeof sums_[0]);
  is_good_ = sum == expected_sum;
  if (!is_good_) {
    zero_block(target_, block_);
    return Error{ErrorCode::ChecksumMismatch, 0, 0, 0, {}};
  }
  return sum;
}

}  // namespace kvbm::remote
