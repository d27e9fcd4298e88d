#include "tests/fuzz/targets.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <variant>
#include <vector>

#include "base/xxh3.h"
#include "leader/protocol.h"
#include "remote/blockset.h"
#include "remote/frames.h"
#include "store/check.h"
#include "store/export_blocks.h"
#include "store/import_blocks.h"
#include "store/survey.h"
#include "store/test_export.h"
#include "tests/fuzz/small_store.h"

namespace kvbm::fuzz {
namespace {

using store::kRecordBytes;
using store::kSuperblockBytes;

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "fuzzing found what must not be: %s\n", what);
  std::abort();
}

// The first byte: which parts of the rest are to be made right. 1: checksums, 2: sums of blocks.
int take_mode(Bytes& input) {
  if (input.empty()) return 0;
  const int mode = std::to_integer<int>(input[0]);
  input = input.subspan(1);
  return mode;
}

template <class T>
void put(std::vector<std::byte>& bytes, std::size_t at, T value) {
  std::memcpy(&bytes[at], &value, sizeof value);
}
template <class T>
T get(Bytes bytes, std::size_t at) {
  T value;
  std::memcpy(&value, &bytes[at], sizeof value);
  return value;
}

// What every store comes to: damage that is found can be taken out, and then there is none.
void expect_repairable(const store::StoreFiles& files) {
  const auto found = check(files, {.deep = true});
  if (!found) return;
  const auto repaired = check(files, {.deep = true, .repair = true});
  require(repaired.has_value(), "a store that can be checked can be repaired");
  require(repaired->damage() == found->damage(), "a check finds the same twice");
  const auto after = check(files, {.deep = true});
  require(after && after->damage() == 0, "nothing is damaged after a repair");
}

// Whatever it offers is what it says, and comes out of an export.
void expect_usable(const store::StoreFiles& files) {
  const auto manifest = survey_manifest(files);
  if (!manifest) return;
  const store::StoreShape shape = manifest->superblock.shape;
  std::vector<std::byte> file;
  const auto exported = export_blocks(files, {}, store::sink_to(file));
  require(exported.has_value(), "a store that is whole can be exported");
  require(exported->damaged == 0, "no block is damaged after a repair");
  const auto opened = store::DiskStore::open(files, shape);
  require(opened.has_value(), "a store that is whole can be opened");
  const auto counts = (*opened)->load([](store::Slot, const store::SlotRecord&) {});
  require(counts && counts->valid >= exported->blocks, "what is exported was there");

  const store::MemoryFiles copy;
  const auto target = store::DiskStore::open(copy.files(), shape);
  if (!target) return;
  auto reader = store::ExportReader::open(store::source_of(file));
  require(reader.has_value(), "an export can be read");
  store::ImportReport report;
  require(import_blocks(**target, *reader, report).has_value(), "an export can be imported");
  require(report.imported == exported->blocks, "all of it");
}

// The bytes as the fields of a record whose checksum is right, and the sum of its block if asked.
store::RecordBytes seal_record(Bytes fields, store::Slot slot, Bytes payload, bool seals_payload) {
  store::SlotRecord record{.sequence_hash = SequenceHash(get<std::uint64_t>(fields, 0)),
                           .parent_hash = SequenceHash(get<std::uint64_t>(fields, 8)),
                           .digest = get<std::uint64_t>(fields, 16),
                           .sealed_sum = get<std::uint64_t>(fields, 24),
                           .put_sequence = get<std::uint64_t>(fields, 32),
                           .position = get<std::uint32_t>(fields, 40),
                           .epoch = get<std::uint32_t>(fields, 44),
                           .put_time = get<std::uint32_t>(fields, 48),
                           .parent_slot = get<std::uint32_t>(fields, 52),
                           .token_count = get<std::uint16_t>(fields, 56),
                           .name_space = get<std::uint8_t>(fields, 58),
                           .priority = get<std::uint8_t>(fields, 59)};
  if (seals_payload) {
    const store::StoreShape shape = small_shape();
    store::PayloadSum sum(shape.region_bytes);
    sum.add(payload);
    record.sealed_sum = sum.finish() ^ seal(record, slot, shape.layout_digest);
  }
  return encode(record, slot, small_superblock(1).store_id);
}

// Makes the checksums of all entries that follow each other right.
void seal_entries(std::vector<std::byte>& file) {
  constexpr std::size_t kNumTokens = 52;
  constexpr std::size_t kTokensSum = 56;
  constexpr std::size_t kChecksum = 64;
  std::size_t at = store::kExportHeaderBytes;
  while (at + store::kExportEntryBytes <= file.size()) {
    const std::size_t tokens = at + store::kExportEntryBytes;
    const std::size_t token_bytes = std::size_t{get<std::uint32_t>(file, at + kNumTokens)} * 4;
    if (token_bytes <= file.size() - tokens) {
      put(file, at + kTokensSum, xxh3(file.data() + tokens, token_bytes));
    }
    put(file, at + kChecksum, xxh3(&file[at], kChecksum, small_superblock(1).store_id));
    if (token_bytes > file.size() - tokens) return;
    at = tokens + token_bytes + kBlockBytes;
  }
}

}  // namespace

void fuzz_manifest(Bytes input) {
  const int mode = take_mode(input);
  std::vector<std::byte> manifest(input.begin(), input.end());
  for (const std::size_t place : {0u, 1u}) {
    const std::size_t end = (place + 1) * kSuperblockBytes;
    if ((mode & 1) == 0 || manifest.size() < end) break;
    put(manifest, end - 8, xxh3(&manifest[end - kSuperblockBytes], kSuperblockBytes - 8));
  }
  if (manifest.size() >= kSuperblockBytes) {
    const auto bytes = std::span<const std::byte>(manifest).first<kSuperblockBytes>();
    if (const auto decoded = store::decode(bytes)) {
      require(decoded->shape.validate().has_value(), "a superblock that is decoded is valid");
      const auto again = store::decode(encode(*decoded));
      require(again && store::check_same(again->shape, decoded->shape).has_value(),
              "a superblock comes back as it was");
    }
  }
  const store::MemoryFiles files = small_store();
  files.manifest->contents() = std::move(manifest);
  expect_repairable(files.files());
  if (survey_manifest(files.files())) expect_usable(files.files());
}

void fuzz_records(Bytes input) {
  const int mode = take_mode(input);
  const store::MemoryFiles files = small_store();
  const std::uint64_t extent = small_shape().extent_bytes();
  // Slot by slot: its record, its tokens, its block.
  constexpr std::size_t kPerSlot = kRecordBytes + kTokenEntryBytes + kBlockBytes;
  for (store::Slot slot = 0; slot < kSlots && input.size() >= kPerSlot; ++slot) {
    const Bytes payload = input.subspan(kRecordBytes + kTokenEntryBytes, kBlockBytes);
    Bytes record = input.first(kRecordBytes);
    store::RecordBytes sealed;
    if ((mode & 1) != 0) {
      sealed = seal_record(record, slot, payload, (mode & 2) != 0);
      record = sealed;
    }
    files.index->write(record, slot * kRecordBytes).value();
    files.tokens->write(input.subspan(kRecordBytes, kTokenEntryBytes), slot * kTokenEntryBytes)
        .value();
    files.blocks->write(payload, slot * extent).value();
    input = input.subspan(kPerSlot);
  }
  expect_repairable(files.files());
  expect_usable(files.files());
}

void fuzz_export(Bytes input) {
  const int mode = take_mode(input);
  std::vector<std::byte> file;
  if ((mode & 1) != 0) {
    const auto writer = store::ExportWriter::create({.shape = small_shape(),
                                                     .store_id = small_superblock(1).store_id,
                                                     .num_blocks = 16,
                                                     .exported = 1'000'000'000},
                                                    store::sink_to(file));
    require(writer.has_value(), "a header can be written");
  }
  file.insert(file.end(), input.begin(), input.end());
  if ((mode & 1) != 0) seal_entries(file);

  auto reader = store::ExportReader::open(store::source_of(file, 333));
  if (!reader) return;
  // Into a store of what the file says it is of, as far as that is small.
  store::StoreShape shape = reader->header().shape;
  if (shape.extent_bytes() > 1 << 16) return;
  shape.num_slots = 4;
  const store::MemoryFiles files;
  const auto target = store::DiskStore::open(files.files(), shape);
  require(target.has_value(), "a shape that is decoded makes a store");
  store::ImportReport report;
  const auto imported = import_blocks(**target, *reader, report);
  require(report.imported <= 4 && report.imported <= report.blocks, "no more than there are");
  const auto checked = check(files.files(), {.deep = true});
  require(checked && checked->damage() == 0, "an import leaves no damage");
  require(checked->valid == report.imported && checked->stale == 0, "each block once");
  const auto more = reader->next();
  require(!more || !*more, "nothing can be read behind an end or an error");
}

namespace {

std::vector<std::byte> encoded(std::uint64_t request, const leader::Request& decoded) {
  if (const auto* const lookup = std::get_if<leader::LookupRequest>(&decoded)) {
    return leader::encode_lookup(request, lookup->lease, lookup->name_space, lookup->hashes,
                                 lookup->digests);
  }
  if (const auto* const trim = std::get_if<leader::TrimRequest>(&decoded)) {
    return leader::encode_trim(request, *trim);
  }
  if (const auto* const release = std::get_if<leader::ReleaseRequest>(&decoded)) {
    return leader::encode_release(request, release->plan);
  }
  return leader::encode_hello(request);
}

}  // namespace

namespace {

// Reads frame by frame. `again` decodes a frame and encodes what it got; nothing if it refuses it.
template <class Again>
void read_frames(Bytes input, int mode, const Again& again) {
  std::vector<std::byte> bytes(input.begin(), input.end());
  if ((mode & 2) != 0 && bytes.size() >= leader::kHeaderBytes) {
    put(bytes, 0, leader::kProtocolVersion);
    put(bytes, 2, std::uint16_t{0});
    put(bytes, 4, static_cast<std::uint32_t>(bytes.size() - leader::kHeaderBytes));
  }
  Bytes left = bytes;
  for (;;) {
    const auto frame = leader::next_frame(left);
    if (!frame || !*frame) return;
    require((*frame)->size() <= left.size(), "a frame lies within what came");
    const std::vector<std::byte> encoded = again(**frame);
    if (encoded.empty()) return;
    require(std::ranges::equal(encoded, left.first((*frame)->size())),
            "a frame that is decoded encodes to the same bytes");
    left = left.subspan((*frame)->size());
  }
}

}  // namespace

void fuzz_frames(Bytes input) {
  const int mode = take_mode(input);
  read_frames(input, mode, [mode](const leader::Frame& frame) {
    std::vector<std::byte> again;
    if ((mode & 1) != 0) {
      const auto reply = leader::decode_reply(frame);
      if (reply) again = leader::encode_reply(frame.request, *reply);
    } else {
      const auto request = leader::decode_request(frame);
      if (request) again = encoded(frame.request, *request);
    }
    return again;
  });
}

void fuzz_peer_frames(Bytes input) {
  const int mode = take_mode(input);
  read_frames(input, mode, [mode](const leader::Frame& frame) {
    std::vector<std::byte> again;
    if ((mode & 1) != 0) {
      const auto reply = remote::decode_peer_reply(frame);
      if (reply) again = remote::encode_peer_reply(frame.request, *reply);
    } else {
      const auto request = remote::decode_peer_request(frame);
      if (request) again = remote::encode_peer_request(frame.request, *request);
    }
    return again;
  });
}

void fuzz_blockset(Bytes input) {
  const int mode = take_mode(input);
  std::vector<std::byte> bytes(input.begin(), input.end());
  if ((mode & 1) != 0 && bytes.size() >= 24) {
    put(bytes, 12, static_cast<std::uint32_t>(bytes.size()));
    put(bytes, bytes.size() - 8, xxh3(bytes.data(), bytes.size() - 8));
  }
  const auto decoded = remote::decode_blockset(bytes);
  if (!decoded) return;
  require(decoded->validate().has_value(), "a blockset that is decoded is valid");
  require(encode(*decoded) == bytes, "a blockset that is decoded encodes to the same bytes");
  for (const remote::TierBlocks& tier : decoded->tiers) {
    for (const Fragment& fragment : tier.fragments) {
      const auto& memory = tier.memories[fragment.memory];
      const std::uint64_t last = fragment.offset + (tier.num_blocks - 1) * fragment.block_stride;
      require(last + fragment.bytes <= memory.bytes, "a block lies in its memory");
      require(memory.address + memory.bytes > memory.address, "memory does not wrap");
    }
  }
}

}  // namespace kvbm::fuzz
