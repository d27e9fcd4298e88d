#include "store/export_file.h"

#include <array>
#include <cstring>

#include "base/xxh3.h"

namespace kvbm::store {
namespace {

constexpr std::uint64_t kMagic = 0x736b6c62736d766b;  // "kvmsblks"
constexpr std::uint32_t kBlock = 0x4b434c42;          // "BLCK"
constexpr std::uint32_t kEnd = 0x20444e45;            // "END "

struct PackedHeader {
  std::uint64_t magic;
  std::uint32_t version;
  std::uint32_t entry_bytes;
  std::uint64_t num_blocks;
  std::uint64_t exported;
  std::array<std::uint64_t, 3> reserved;  // zeros
  std::uint64_t checksum;                 // of all before it
};
static_assert(sizeof(PackedHeader) + kSuperblockBytes == kExportHeaderBytes);

struct PackedEntry {
  std::uint32_t kind;
  std::uint16_t token_count;
  std::uint8_t name_space;
  std::uint8_t priority;
  std::uint64_t number;  // of the block, from 0; in the end mark, of the blocks before it
  std::uint64_t sequence_hash;
  std::uint64_t parent_hash;
  std::uint64_t digest;
  std::uint64_t payload_sum;
  std::uint32_t position;
  std::uint32_t num_tokens;  // that follow: token_count or 0
  std::uint64_t tokens_sum;  // of those
  std::uint64_t checksum;    // of all before it
};
static_assert(sizeof(PackedEntry) == kExportEntryBytes, "no padding: every byte is summed");

std::uint64_t checksum(const PackedEntry& entry, std::uint64_t store_id) noexcept {
  return xxh3(&entry, offsetof(PackedEntry, checksum), store_id);
}

template <class T>
std::span<const std::byte> bytes_of(const T& packed) {
  return std::as_bytes(std::span(&packed, 1));
}
template <class T>
std::span<std::byte> writable(T& packed) {
  return std::as_writable_bytes(std::span(&packed, 1));
}

Error unusable(std::string why) {
  return Error{ErrorCode::OperationFailed, 0, 0, 0, std::move(why)};
}

// As many as there are, up to bytes.size().
Result<std::size_t> read_up_to(const ExportReader::Source& source, std::span<std::byte> bytes) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    KVBM_TRY(const std::size_t count, source(bytes.subspan(done)));
    if (count == 0) break;
    done += count;
  }
  return done;
}

}  // namespace

// --- writing ---------------------------------------------------------------------------------

Result<ExportWriter> ExportWriter::create(const ExportHeader& header, Sink sink) {
  PackedHeader packed{.magic = kMagic,
                      .version = kExportVersion,
                      .entry_bytes = kExportEntryBytes,
                      .num_blocks = header.num_blocks,
                      .exported = header.exported,
                      .reserved = {},
                      .checksum = 0};
  packed.checksum = xxh3(&packed, offsetof(PackedHeader, checksum));
  const Superblock superblock{
      .shape = header.shape, .store_id = header.store_id, .epochs = {}, .counters = {}};
  KVBM_CHECK_OK(sink(bytes_of(packed)));
  KVBM_CHECK_OK(sink(encode(superblock)));
  return ExportWriter(header.store_id, std::move(sink));
}

Result<void> ExportWriter::add(const ExportedBlock& block, std::span<const std::byte> payload) {
  const std::span tokens(block.tokens);
  PackedEntry entry{.kind = kBlock,
                    .token_count = block.token_count,
                    .name_space = block.name_space,
                    .priority = block.priority,
                    .number = added_,
                    .sequence_hash = block.sequence_hash.value(),
                    .parent_hash = block.parent_hash.value(),
                    .digest = block.digest,
                    .payload_sum = block.payload_sum,
                    .position = block.position,
                    .num_tokens = static_cast<std::uint32_t>(tokens.size()),
                    .tokens_sum = xxh3(tokens.data(), tokens.size_bytes()),
                    .checksum = 0};
  entry.checksum = checksum(entry, store_id_);
  KVBM_CHECK_OK(sink_(bytes_of(entry)));
  if (!tokens.empty()) KVBM_CHECK_OK(sink_(std::as_bytes(tokens)));
  KVBM_CHECK_OK(sink_(payload));
  ++added_;
  return {};
}

Result<void> ExportWriter::finish() {
  PackedEntry entry{};
  entry.kind = kEnd;
  entry.number = added_;
  entry.checksum = checksum(entry, store_id_);
  return sink_(bytes_of(entry));
}

// --- reading ---------------------------------------------------------------------------------

Result<ExportReader> ExportReader::open(Source source) {
  PackedHeader packed{};
  KVBM_TRY(const std::size_t header_bytes, read_up_to(source, writable(packed)));
  if (header_bytes < sizeof packed.magic || packed.magic != kMagic) {
    return unusable("this is no file of exported blocks");
  }
  if (packed.version != kExportVersion && header_bytes >= offsetof(PackedHeader, entry_bytes)) {
    return unusable("the file of exported blocks has version " + std::to_string(packed.version) +
                    ", this program knows version " + std::to_string(kExportVersion));
  }
  std::array<std::byte, kSuperblockBytes> bytes;
  KVBM_TRY(const std::size_t shape_bytes, read_up_to(source, bytes));
  if (shape_bytes < bytes.size()) return unusable("the file was cut: it ends in its header");
  if (packed.checksum != xxh3(&packed, offsetof(PackedHeader, checksum)) ||
      packed.entry_bytes != kExportEntryBytes) {
    return unusable("the file's header is damaged");
  }
  KVBM_TRY(Superblock superblock, decode(bytes));
  return ExportReader({.shape = std::move(superblock.shape),
                       .store_id = superblock.store_id,
                       .num_blocks = packed.num_blocks,
                       .exported = packed.exported},
                      std::move(source));
}

Error ExportReader::damaged(const char* what) const {
  return unusable("the file is damaged at block " + std::to_string(read_) + ": " + what);
}

Result<void> ExportReader::read(std::span<std::byte> bytes, const char* what) {
  KVBM_TRY(const std::size_t count, read_up_to(source_, bytes));
  if (count == bytes.size()) return {};
  ended_ = true;
  return unusable("the file was cut: it ends in " + std::string(what) + ", behind " +
                  std::to_string(read_) + " blocks of at most " +
                  std::to_string(header_.num_blocks));
}

Result<std::optional<ExportedBlock>> ExportReader::next() {
  if (ended_) return std::optional<ExportedBlock>();
  KVBM_CHECK_OK(read_payload([](std::span<const std::byte>) {}));
  PackedEntry entry;
  KVBM_CHECK_OK(read(writable(entry), "an entry"));
  ended_ = true;  // unless the entry is of a block
  if (entry.checksum != checksum(entry, header_.store_id)) {
    return damaged("the checksum of its entry is wrong");
  }
  if (entry.number != read_) return damaged("a block is missing before it");
  if (entry.kind == kEnd) {
    std::byte more;
    KVBM_TRY(const std::size_t count, read_up_to(source_, {&more, 1}));
    if (count > 0) return damaged("something follows the end mark");
    return std::optional<ExportedBlock>();
  }
  if (entry.kind != kBlock || entry.number >= header_.num_blocks ||
      entry.token_count > header_.shape.page_size || entry.priority > MAX_PRIORITY ||
      (entry.num_tokens != 0 && entry.num_tokens != entry.token_count)) {
    return damaged("its entry says what cannot be");
  }
  ExportedBlock block{.sequence_hash = SequenceHash(entry.sequence_hash),
                      .parent_hash = SequenceHash(entry.parent_hash),
                      .digest = entry.digest,
                      .payload_sum = entry.payload_sum,
                      .position = entry.position,
                      .token_count = entry.token_count,
                      .name_space = entry.name_space,
                      .priority = entry.priority,
                      .tokens = std::vector<Token>(entry.num_tokens)};
  const std::span tokens(block.tokens);
  KVBM_CHECK_OK(read(std::as_writable_bytes(tokens), "a block's tokens"));
  if (entry.tokens_sum != xxh3(tokens.data(), tokens.size_bytes())) {
    return damaged("its tokens are wrong");
  }
  ended_ = false;
  unread_bytes_ = block_bytes_;
  ++read_;
  return std::optional(std::move(block));
}

}  // namespace kvbm::store
