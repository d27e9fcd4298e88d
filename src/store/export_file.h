// Blocks in one portable file, written and read as a stream:
//
//   header       what the blocks are of (kExportHeaderBytes)
//   per block    an entry (kExportEntryBytes), its tokens if any, its payload without padding
//   end mark     an entry that says how many blocks there were; a file without one was cut
//
// Every entry has a checksum of its own, and the payload sum of its block. All numbers are
// little-endian. docs/disk_store.md has the fields.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "kvbm/result.h"
#include "store/superblock.h"

namespace kvbm::store {

inline constexpr std::uint32_t kExportVersion = 1;
inline constexpr std::size_t kExportHeaderBytes = 64 + kSuperblockBytes;
inline constexpr std::size_t kExportEntryBytes = 72;

struct ExportHeader {
  StoreShape shape;              // of the store that the blocks are from
  std::uint64_t store_id = 0;    // of it, likewise; never 0
  std::uint64_t num_blocks = 0;  // that may follow; there may be fewer
  std::uint64_t exported = 0;    // seconds since 1970
};

struct ExportedBlock {
  SequenceHash sequence_hash;
  SequenceHash parent_hash;
  std::uint64_t digest = 0;
  std::uint64_t payload_sum = 0;
  std::uint32_t position = 0;
  std::uint16_t token_count = 0;
  NamespaceId name_space = 0;
  std::uint8_t priority = 0;
  std::vector<Token> tokens;  // token_count of them, or none
};

// Not thread-safe. After an error the file is of no use.
class ExportWriter {
 public:
  using Sink = std::function<Result<void>(std::span<const std::byte>)>;  // never of no bytes

  // Writes the header. Requires: a valid shape. Errors: the sink's, as of all calls.
  static Result<ExportWriter> create(const ExportHeader& header, Sink sink);
  // Requires: fewer than num_blocks were added; tokens and payload as the header says.
  Result<void> add(const ExportedBlock& block, std::span<const std::byte> payload);
  // Writes the end mark.
  Result<void> finish();

 private:
  ExportWriter(std::uint64_t store_id, Sink sink) : store_id_(store_id), sink_(std::move(sink)) {}

  std::uint64_t store_id_;
  std::uint64_t added_ = 0;
  Sink sink_;
};

// Reads a file that anybody may have made: nothing that it says is used before it is checked, and
// no memory is taken by a number in it. Not thread-safe. After an error nothing more can be read.
class ExportReader {
 public:
  // Reads at most so many bytes and returns how many; 0 at the end.
  using Source = std::function<Result<std::size_t>(std::span<std::byte>)>;

  // Errors: the source's; OperationFailed saying what is wrong: no such file, another version (both
  // named), damaged or cut.
  static Result<ExportReader> open(Source source);
  const ExportHeader& header() const noexcept { return header_; }

  // The next block, or nothing at the end mark, behind which nothing may follow. Passes over a
  // payload that was not read. Errors: as open().
  Result<std::optional<ExportedBlock>> next();
  // Calls sink(piece) for the pieces of the payload of that block. Errors: as open(). Requires: not
  // called before for this block.
  template <class Sink>
  Result<void> read_payload(Sink sink);

 private:
  ExportReader(ExportHeader header, Source source)
      : header_(std::move(header)),
        block_bytes_(header_.shape.block_bytes()),
        source_(std::move(source)),
        piece_(std::min(block_bytes_, kPieceBytes)) {}
  // Fills all of `bytes`. `what` they are is for the error.
  Result<void> read(std::span<std::byte> bytes, const char* what);
  Error damaged(const char* what) const;

  static constexpr std::uint64_t kPieceBytes = 256 << 10;

  ExportHeader header_;
  std::uint64_t block_bytes_;
  std::uint64_t unread_bytes_ = 0;  // of the payload of the last block
  std::uint64_t read_ = 0;          // blocks
  bool ended_ = false;
  Source source_;
  std::vector<std::byte> piece_;
};

template <class Sink>
Result<void> ExportReader::read_payload(Sink sink) {
  while (unread_bytes_ > 0) {
    const std::span piece =
        std::span(piece_).first(std::min<std::uint64_t>(piece_.size(), unread_bytes_));
    KVBM_CHECK_OK(read(piece, "a block's bytes"));
    unread_bytes_ -= piece.size();
    sink(std::span<const std::byte>(piece));
  }
  return {};
}

}  // namespace kvbm::store
