#include "remote/cma.h"

#include <algorithm>
#include <string>
#include <utility>

namespace kvbm::remote {
namespace {

// A system call of its own for more pieces than that costs nothing beside reading them.
constexpr std::size_t kRunsPerPiece = 512;

iovec run_at(std::uint64_t address, std::size_t bytes) {
  return {reinterpret_cast<void*>(address), bytes};
}

// Bytes of each region.
std::vector<std::size_t> region_sizes(const TierBlocks& blocks) {
  std::vector<std::size_t> sizes;
  std::size_t fragment = 0;
  for (const std::uint32_t count : blocks.fragments_of_region) {
    std::size_t bytes = 0;
    for (std::uint32_t i = 0; i < count; ++i) bytes += blocks.fragments[fragment++].bytes;
    sizes.push_back(bytes);
  }
  return sizes;
}

Result<void> check_same_regions(const TierBlocks& source, const Layout& target) {
  const std::vector<std::size_t> theirs = region_sizes(source);
  const auto ours = target.content()->regions();
  if (theirs.size() != ours.size()) {
    return Error{ErrorCode::InvalidConfig, 0, theirs.size(), ours.size(),
                 "blocks there have " + std::to_string(theirs.size()) + " regions, here " +
                     std::to_string(ours.size())};
  }
  for (std::size_t i = 0; i < ours.size(); ++i) {
    if (theirs[i] == ours[i].bytes) continue;
    return Error{ErrorCode::InvalidConfig, 0, theirs[i], ours[i].bytes,
                 "region " + std::to_string(i) + " has " + std::to_string(theirs[i]) +
                     " bytes there, here " + std::to_string(ours[i].bytes)};
  }
  return {};
}

Result<void> check_accessible(const TierBlocks& source, const Layout& target) {
  bool accessible = source.storage.kind != StorageType::Kind::Device;
  for (const auto& memory : target.memories()) accessible = accessible && memory->data();
  if (accessible) return {};
  return Error{ErrorCode::NotAccessible, 0, 0, 0,
               "the CPU must be able to address a block there and here"};
}

Result<void> check(const Until& until) {
  if (until.stop && until.stop->is_stopped()) return Error{ErrorCode::Cancelled, 0, 0, 0, {}};
  if (std::chrono::steady_clock::now() < until.deadline) return {};
  return Error{ErrorCode::TimedOut, 0, 0, 0, "a block was not read within its deadline"};
}

}  // namespace

Result<CmaReader> CmaReader::open(const ProcessIdentity& owner, const TierBlocks& source,
                                  std::shared_ptr<const Layout> target) {
  KVBM_CHECK_OK(check_accessible(source, *target));
  KVBM_CHECK_OK(check_same_regions(source, *target));
  KVBM_TRY(ProcessMemory memory, ProcessMemory::open(owner));
  CmaReader reader(std::move(memory), std::move(target));
  reader.add_runs(source);
  KVBM_CHECK_OK(reader.probe(source));
  return reader;
}

void CmaReader::add_runs(const TierBlocks& source) {
  source_blocks_ = source.num_blocks;
  for (const Fragment& fragment : source.fragments) {
    const std::uint64_t address = source.memories[fragment.memory].address + fragment.offset;
    // Neighbours have one stride: with two, they would overlap in the next block.
    if (!runs_.empty() && runs_.back().address + runs_.back().bytes == address) {
      runs_.back().bytes += fragment.bytes;
    } else {
      runs_.push_back({address, fragment.bytes, fragment.block_stride});
    }
  }
}

Result<void> CmaReader::probe(const TierBlocks& source) const {
  std::vector<iovec> ends;
  for (const TierBlocks::Range& range : source.memories) {
    ends.push_back(run_at(range.address, 1));
    ends.push_back(run_at(range.address + range.bytes - 1, 1));
  }
  std::vector<std::byte> read(ends.size());
  const iovec local{read.data(), read.size()};
  KVBM_CHECK_OK(memory_.read({&local, 1}, ends));
  return memory_.check_alive();
}

Result<std::uint64_t> CmaReader::pull(const BlockCopy& copy, Staging& staging,
                                      const Until& until) const {
  if (copy.source >= source_blocks_) {
    return Error{ErrorCode::InvalidBlockIndex, 0, copy.source, source_blocks_, {}};
  }
  if (copy.target >= target_->config().num_blocks) {
    return Error{ErrorCode::InvalidBlockIndex, 0, copy.target, target_->config().num_blocks, {}};
  }
  if (!copy.payload_sum) {
    return Error{ErrorCode::InvalidConfig, 0, 0, 0,
                 "a block of another process is only read with the sum that it must have"};
  }
  BlockSink sink(*target_, copy.target);
  auto run = runs_.begin();
  std::size_t in_run = 0;
  std::array<iovec, kRunsPerPiece> remote;
  while (sink.left() > 0) {
    KVBM_CHECK_OK(check(until));
    const auto room = staging.bytes();
    std::size_t bytes = 0;
    std::size_t count = 0;
    for (; run != runs_.end() && bytes < room.size() && count < remote.size(); ++count) {
      const std::size_t part = std::min(run->bytes - in_run, room.size() - bytes);
      remote[count] = run_at(run->address + copy.source * run->block_stride + in_run, part);
      bytes += part;
      in_run += part;
      if (in_run == run->bytes) {
        ++run;
        in_run = 0;
      }
    }
    const iovec local{room.data(), bytes};
    KVBM_CHECK_OK(memory_.read({&local, 1}, std::span(remote).first(count)));
    sink.add(room.first(bytes));
  }
  KVBM_CHECK_OK(memory_.check_alive());
  return sink.finish(*copy.payload_sum);
}

}  // namespace kvbm::remote
