// Blocks of another process of this machine, read straight from its memory (cross memory attach).
// The owner does nothing, and need not even run meanwhile.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kvbm/result.h"
#include "physical/layout/layout.h"
#include "physical/transfer/copy_plan.h"
#include "platform/os/process_memory.h"
#include "platform/os/tcp.h"
#include "remote/block_sink.h"
#include "remote/tier_blocks.h"

namespace kvbm::remote {

// From one tier of one owner to one layout here. Thread-safe: pulls into different blocks at once.
class CmaReader {
 public:
  // Tries it out by reading the first and the last byte of each memory. Errors: those of
  // ProcessMemory::open() and read(), which say why this path cannot be used; NotAccessible unless
  // the CPU can address both sides; InvalidConfig naming both where blocks here and there have
  // regions of different sizes. Requires: `source` is valid.
  static Result<CmaReader> open(const ProcessIdentity& owner, const TierBlocks& source,
                                std::shared_ptr<const Layout> target);

  // Reads a block and verifies it; returns its payload sum. The caller holds the target, which is
  // zeroed unless this succeeds. Whoever owns the source may change it meanwhile: then it is a
  // mismatch. Errors: InvalidBlockIndex of the source, then of the target; InvalidConfig without a
  // sum; those of ProcessMemory::read(); TimedOut and Cancelled, at most one piece late;
  // ChecksumMismatch.
  Result<std::uint64_t> pull(const BlockCopy& copy, Staging& staging, const Until& until) const;

 private:
  // A run of every block, at an address of the owner's.
  struct Run {
    std::uint64_t address;  // of block 0
    std::size_t bytes;
    std::size_t block_stride;
  };

  CmaReader(ProcessMemory memory, std::shared_ptr<const Layout> target)
      : memory_(std::move(memory)), target_(std::move(target)) {}
  void add_runs(const TierBlocks& source);
  Result<void> probe(const TierBlocks& source) const;

  ProcessMemory memory_;
  std::shared_ptr<const Layout> target_;
  std::size_t source_blocks_ = 0;
  std::vector<Run> runs_;  // as few and as long as there are
};

}  // namespace kvbm::remote
