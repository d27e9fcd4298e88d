#include <algorithm>
#include <cassert>
#include <cstring>

#include "base/xxh3.h"
#include "physical/copy/copy.h"
#include "physical/copy/strands.h"

namespace kvbm {
namespace {

// XXH3 hashes up to so many bytes in other ways.
constexpr std::size_t kShortBytes = 240;

constexpr std::uint64_t kPrime32_1 = 0x9E3779B1;
constexpr std::uint64_t kPrime32_2 = 0x85EBCA77;
constexpr std::uint64_t kPrime32_3 = 0xC2B2AE3D;
constexpr std::uint64_t kPrime64_1 = 0x9E3779B185EBCA87;
constexpr std::uint64_t kPrime64_2 = 0xC2B2AE3D27D4EB4F;
constexpr std::uint64_t kPrime64_3 = 0x165667B19E3779F9;
constexpr std::uint64_t kPrime64_4 = 0x85EBCA77C2B2AE63;
constexpr std::uint64_t kPrime64_5 = 0x27D4EB2F165667C5;
constexpr std::uint64_t kLastPrime = 0x165667919E3779F9;
constexpr Accumulators kStart = {{kPrime32_3, kPrime64_1, kPrime64_2, kPrime64_3, kPrime64_4,
                                  kPrime32_2, kPrime64_5, kPrime32_1}};

// Where in the secret each step begins.
constexpr std::size_t kStirSecret = XXH_SECRET_DEFAULT_SIZE - kStripeBytes;
constexpr std::size_t kLastStripeSecret = kStirSecret - 7;
constexpr std::size_t kMergeSecret = 11;
static_assert(kStirSecret / 8 == kStripesPerBlock);

// Blocks of a strand whose partials wait to be folded: all of them take 4 KiB of the first cache.
constexpr std::size_t kWaitingBlocks = 16;
constexpr std::size_t kStripesPerTurn = kTurnBytes / kStripeBytes;

const std::byte* secret_at(std::size_t offset) noexcept {
  return reinterpret_cast<const std::byte*>(XXH3_kSecret) + offset;
}

std::uint64_t multiply_and_xor(std::uint64_t a, std::uint64_t b) noexcept {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

std::uint64_t merge(const Accumulators& sums, std::size_t total_bytes) noexcept {
  std::uint64_t keys[8];
  std::memcpy(keys, secret_at(kMergeSecret), sizeof keys);
  std::uint64_t result = total_bytes * kPrime64_1;
  for (std::size_t i = 0; i < 8; i += 2) {
    result += multiply_and_xor(sums.lane[i] ^ keys[i], sums.lane[i + 1] ^ keys[i + 1]);
  }
  result ^= result >> 37;
  result *= kLastPrime;
  return result ^ result >> 32;
}

struct Strand {
  std::byte* target;
  const std::byte* source;
  Accumulators* partials;  // one per block, of any content
};

// Accumulates and copies as many blocks of each strand, in turns.
void run_strands(std::span<Strand> strands, std::size_t blocks, Write write,
                 const CopyKernel& kernel) noexcept {
  const CopyKernel::Accumulate accumulate = kernel.accumulate(write);
  for (std::size_t block = 0; block < blocks; ++block) {
    for (std::size_t stripe = 0; stripe < kStripesPerBlock; stripe += kStripesPerTurn) {
      for (Strand& strand : strands) {
        if (stripe == 0) strand.partials[block] = {};
        accumulate(strand.partials[block], strand.target, strand.source, secret_at(8 * stripe),
                   kStripesPerTurn);
        if (write != Write::Nothing) strand.target += kTurnBytes;
        strand.source += kTurnBytes;
      }
    }
  }
}

}  // namespace

StreamSum::StreamSum(std::size_t total_bytes, Write write, const CopyKernel& kernel) noexcept
    : kernel_(&kernel),
      total_bytes_(total_bytes),
      stripes_left_(total_bytes == 0 ? 0 : (total_bytes - 1) / kStripeBytes),
      sums_(kStart),
      write_(write) {}

bool StreamSum::is_short() const noexcept { return total_bytes_ <= kShortBytes; }

Write StreamSum::write_to(const std::byte* target) const noexcept {
  return write_ == Write::Streaming && bytes_to_line(target) != 0 ? Write::Cached : write_;
}

void StreamSum::copy_odd(std::byte* target, const std::byte* source, std::size_t bytes) noexcept {
  if (write_ == Write::Nothing) return;
  if (bytes == kStripeBytes && write_to(target) == Write::Streaming) {
    kernel_->stream(target, source, bytes);
  } else {
    std::memcpy(target, source, bytes);
  }
}

void StreamSum::add(std::byte* target, const std::byte* source, std::size_t bytes) noexcept {
  const auto skip = [&](std::size_t done) {
    if (write_ != Write::Nothing) target += done;
    source += done;
    bytes -= done;
  };
  std::byte* const held = is_short() ? bytes_.data() : bytes_.data() + kStripeBytes;
  const std::size_t most = is_short() ? kShortBytes : kStripeBytes;
  const auto hold = [&](std::size_t count) {
    if (count == 0) return;
    assert(held_bytes_ + count <= most && "no more than total_bytes");
    std::memcpy(held + held_bytes_, source, count);
    held_bytes_ += count;
    copy_odd(target, source, count);
    skip(count);
  };

  if (is_short()) return hold(bytes);
  if (held_bytes_ > 0) hold(std::min(bytes, most - held_bytes_));
  if (held_bytes_ == most && stripes_left_ > 0) {
    add_part_of_block(nullptr, held, 1);
    std::memcpy(bytes_.data(), held, kStripeBytes);
    --stripes_left_;
    held_bytes_ = 0;
  }
  if (held_bytes_ == 0) {
    const std::size_t stripes = std::min(bytes / kStripeBytes, stripes_left_);
    if (stripes > 0) {
      std::memcpy(bytes_.data(), source + (stripes - 1) * kStripeBytes, kStripeBytes);
      add_stripes(target, source, stripes);
      stripes_left_ -= stripes;
      skip(stripes * kStripeBytes);
    }
  }
  hold(bytes);
}

void StreamSum::add_stripes(std::byte* target, const std::byte* source,
                            std::size_t stripes) noexcept {
  const auto skip = [&](std::size_t done) {
    if (write_ != Write::Nothing) target += done * kStripeBytes;
    source += done * kStripeBytes;
    stripes -= done;
  };
  if (stripe_in_block_ > 0) {
    const std::size_t head = std::min(stripes, kStripesPerBlock - stripe_in_block_);
    add_part_of_block(target, source, head);
    skip(head);
  }
  if (const std::size_t blocks = stripes / kStripesPerBlock; blocks > 0) {
    add_blocks(target, source, blocks);
    skip(blocks * kStripesPerBlock);
  }
  if (stripes > 0) add_part_of_block(target, source, stripes);
}

// Not beyond the end of the block. Without a target nothing is written.
void StreamSum::add_part_of_block(std::byte* target, const std::byte* source,
                                  std::size_t stripes) noexcept {
  const Write write = target ? write_to(target) : Write::Nothing;
  kernel_->accumulate(write)(sums_, target, source, secret_at(8 * stripe_in_block_), stripes);
  stripe_in_block_ += stripes;
  if (stripe_in_block_ < kStripesPerBlock) return;
  const Accumulators nothing = {};
  kernel_->fold(sums_, {&nothing, 1}, secret_at(kStirSecret));
  stripe_in_block_ = 0;
}

// Requires: at the begin of a block.
void StreamSum::add_blocks(std::byte* target, const std::byte* source,
                           std::size_t blocks) noexcept {
  const Write write = write_to(target);
  std::array<Accumulators, kStrands * kWaitingBlocks> partials;
  while (blocks > 0) {
    const std::size_t some = std::min(blocks, partials.size());
    const std::size_t count = some * kSumBlockBytes >= kLongRunBytes / kStrands ? kStrands : 1;
    const std::size_t each = some / count;
    std::array<Strand, kStrands> strands;
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t at = i * each * kSumBlockBytes;
      strands[i] = {write == Write::Nothing ? nullptr : target + at, source + at,
                    &partials[i * each]};
    }
    run_strands(std::span(strands).first(count), each, write, *kernel_);
    kernel_->fold(sums_, std::span(partials).first(count * each), secret_at(kStirSecret));
    if (write != Write::Nothing) target += count * each * kSumBlockBytes;
    source += count * each * kSumBlockBytes;
    blocks -= count * each;
  }
}

// Streams that are one run each, of one size and at their begin: adds their whole blocks.
void StreamSum::add_alike(std::span<StreamSum> streams, std::span<const CopyRun> runs) noexcept {
  const CopyKernel& kernel = *streams.front().kernel_;
  Write write = streams.front().write_;
  for (std::size_t i = 0; i < streams.size(); ++i) {
    if (streams[i].write_to(runs[i].target) != write) write = Write::Cached;
  }
  const auto target_of = [&](std::size_t i, std::size_t offset) {
    return write == Write::Nothing ? nullptr : runs[i].target + offset;
  };
  const std::size_t blocks = streams.front().stripes_left_ / kStripesPerBlock;
  std::array<Accumulators, kStrands * kWaitingBlocks> partials;
  for (std::size_t done = 0; done < blocks;) {
    const std::size_t some = std::min(blocks - done, kWaitingBlocks);
    std::array<Strand, kStrands> strands;
    for (std::size_t i = 0; i < streams.size(); ++i) {
      const std::size_t offset = done * kSumBlockBytes;
      strands[i] = {target_of(i, offset), runs[i].source + offset, &partials[i * some]};
    }
    run_strands(std::span(strands).first(streams.size()), some, write, kernel);
    for (std::size_t i = 0; i < streams.size(); ++i) {
      kernel.fold(streams[i].sums_, std::span(partials).subspan(i * some, some),
                  secret_at(kStirSecret));
    }
    done += some;
  }
  const std::size_t bytes = blocks * kSumBlockBytes;
  for (std::size_t i = 0; i < streams.size(); ++i) {
    StreamSum& stream = streams[i];
    stream.stripes_left_ -= blocks * kStripesPerBlock;
    std::memcpy(stream.bytes_.data(), runs[i].source + bytes - kStripeBytes, kStripeBytes);
    stream.add(target_of(i, bytes), runs[i].source + bytes, runs[i].bytes - bytes);
  }
}

void StreamSum::add_runs(std::span<const CopyRun> runs, std::span<std::uint64_t> sums, Write write,
                         const CopyKernel& kernel) noexcept {
  assert(runs.size() == sums.size());
  while (!runs.empty()) {
    const std::size_t bytes = runs.front().bytes;
    std::size_t count = 1;
    while (count < std::min(kStrands, runs.size()) && runs[count].bytes == bytes) ++count;
    if (count < kStrands || bytes <= kSumBlockBytes) count = 1;
    StreamSum one(bytes, write, kernel);
    std::array<StreamSum, kStrands> streams = {one, one, one, one};
    if (count == 1) {
      one.add(runs.front().target, runs.front().source, bytes);
      sums.front() = one.finish();
    } else {
      add_alike(streams, runs);
      for (std::size_t i = 0; i < count; ++i) sums[i] = streams[i].finish();
    }
    runs = runs.subspan(count);
    sums = sums.subspan(count);
  }
}

std::uint64_t StreamSum::finish() noexcept {
  if (is_short()) {
    assert(held_bytes_ == total_bytes_ && "exactly total_bytes");
    return xxh3(bytes_.data(), total_bytes_);
  }
  assert(stripes_left_ == 0 && held_bytes_ > 0 && "exactly total_bytes");
  // The last 64 bytes of the stream, some of which may have been accumulated before.
  Accumulators sums = sums_;
  kernel_->accumulate_only(sums, nullptr, bytes_.data() + held_bytes_, secret_at(kLastStripeSecret),
                           1);
  return merge(sums, total_bytes_);
}

SummedCopy::SummedCopy(std::size_t total_bytes, Store store, const CopyKernel& kernel) noexcept
    : stream_(total_bytes, write_for(store, total_bytes, kernel), kernel) {}

std::uint64_t SummedCopy::finish() noexcept {
  fence_streams();
  return stream_.finish();
}

std::uint64_t sum_bytes(const std::byte* source, std::size_t bytes,
                        const CopyKernel& kernel) noexcept {
  if (bytes <= kShortBytes) return xxh3(source, bytes);
  RunningSum sum(bytes, kernel);
  sum.add(source, bytes);
  return sum.finish();
}

std::uint64_t copy_and_sum(std::byte* target, const std::byte* source, std::size_t bytes,
                           Store store, const CopyKernel& kernel) noexcept {
  SummedCopy copy(bytes, store, kernel);
  copy.add(target, source, bytes);
  return copy.finish();
}

void copy_and_sum_runs(std::span<const CopyRun> runs, std::span<std::uint64_t> sums, Store store,
                       const CopyKernel& kernel) noexcept {
  StreamSum::add_runs(runs, sums, write_for(store, bytes_of(runs), kernel), kernel);
  fence_streams();
}

void sum_runs(std::span<const CopyRun> runs, std::span<std::uint64_t> sums,
              const CopyKernel& kernel) noexcept {
  StreamSum::add_runs(runs, sums, Write::Nothing, kernel);
}

}  // namespace kvbm
