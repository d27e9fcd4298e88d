// What a durable store does around the moves of its file's blocks.
#pragma once

#include <cstdint>

#include "physical/transfer/copy_plan.h"

namespace kvbm {

// An executor calls it for every block that it moves to or from a file, on the thread that does
// the I/O: before_write() and after_write() or write_failed(), before_read() and after_read(). A
// block that was cancelled before it began, or that no copy may be made of, is not mentioned.
//
// `copy` is the request's: its target, or its source for a read, is the file's block; the other one
// is where the bytes come from or go to in the end, which may be a device's memory.
//
// Threads: any, for several blocks at once, and where a block is read twice for that block, too.
// The executor holds no lock. Each call delays the I/O behind it.
class BlockJournal {
 public:
  virtual ~BlockJournal() = default;

  // Before the first byte is overwritten. An error means that nothing is written: it is the block's
  // answer, and no other call follows.
  virtual Result<void> before_write(const BlockCopy& copy) = 0;
  // All bytes are written. An error is the block's answer, and no other call follows.
  virtual Result<void> after_write(const BlockCopy& copy, std::uint64_t payload_sum) = 0;
  // After before_write(): the bytes are not, or not all, written. The file's block may hold
  // anything.
  virtual void write_failed(const BlockCopy& copy, const Error& error) noexcept = 0;

  // Before the first byte is read.
  virtual void before_read(const BlockCopy& copy) noexcept = 0;
  // The bytes were read into memory and are what copy.payload_sum says, if it says anything; their
  // sum. Or the error: the file's, or ChecksumMismatch.
  virtual void after_read(const BlockCopy& copy,
                          const Result<std::uint64_t>& payload_sum) noexcept = 0;
};

}  // namespace kvbm
