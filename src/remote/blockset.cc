#include "remote/blockset.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>
#include <utility>

#include "base/xxh3.h"
#include "leader/frame.h"

namespace kvbm::remote {
namespace {

constexpr std::string_view kMagic = "kvbm-bks";
constexpr std::size_t kSumBytes = 8;
constexpr std::size_t kHeaderBytes = 80;
constexpr std::size_t kMemoryBytes = 16;
constexpr std::size_t kRegionBytes = 4;
constexpr std::size_t kFragmentBytes = 28;
constexpr std::size_t kMaxTiers = 2;

using Reader = leader::FrameReader;

Error invalid(std::string what, std::uint64_t requested = 0, std::uint64_t available = 0) {
  return Error{ErrorCode::InvalidConfig, 0, requested, available,
               "a blockset is refused: " + std::move(what)};
}

Error out_of_bounds(const char* what, std::uint64_t found, std::uint64_t least,
                    std::uint64_t most) {
  return invalid(std::string(what) + " is " + std::to_string(found) + ", it must be " +
                     std::to_string(least) + " .. " + std::to_string(most),
                 found, most);
}

// Numbers as they lie in memory: kvbm runs on little-endian machines only.
class Writer {
 public:
  template <class T>
  void put(T value) {
    append(&value, sizeof value);
  }
  void append(const void* data, std::size_t size) {
    const auto* const from = static_cast<const std::byte*>(data);
    bytes_.insert(bytes_.end(), from, from + size);
  }
  std::vector<std::byte>& bytes() noexcept { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

// The texts of a blockset with what they are called, in the order of the format.
template <class Set>
auto texts_of(Set& set) {
  return std::array{std::pair("the kvbm version", &set.kvbm_version),
                    std::pair("the NIXL version", &set.nixl_version),
                    std::pair("the address", &set.address), std::pair("the model", &set.model),
                    std::pair("the hash profile", &set.hash_profile)};
}

void put(Writer& to, const ProcessIdentity& process) {
  to.append(process.boot_id.data(), process.boot_id.size());
  to.put(process.pid_namespace);
  to.put(process.start_ticks);
  to.put(process.pid);
  to.put(process.user);
}

ProcessIdentity get_process(Reader& from) {
  ProcessIdentity process;
  from.copy(process.boot_id.data(), process.boot_id.size());
  process.pid_namespace = from.get<std::uint64_t>();
  process.start_ticks = from.get<std::uint64_t>();
  process.pid = from.get<std::uint32_t>();
  process.user = from.get<std::uint32_t>();
  return process;
}

void put(Writer& to, const TierBlocks& blocks) {
  to.put(static_cast<std::uint8_t>(blocks.tier));
  to.put(static_cast<std::uint8_t>(blocks.storage.kind));
  to.put(std::uint16_t{0});
  to.put(blocks.num_blocks);
  to.put(blocks.storage.id);
  to.put(static_cast<std::uint32_t>(blocks.memories.size()));
  to.put(static_cast<std::uint32_t>(blocks.fragments_of_region.size()));
  to.put(static_cast<std::uint32_t>(blocks.fragments.size()));
  to.put(std::uint32_t{0});
  for (const TierBlocks::Range& range : blocks.memories) {
    to.put(range.address);
    to.put(range.bytes);
  }
  for (const std::uint32_t count : blocks.fragments_of_region) to.put(count);
  for (const Fragment& fragment : blocks.fragments) {
    to.put(fragment.memory);
    to.put(fragment.offset);
    to.put(std::uint64_t{fragment.bytes});
    to.put(std::uint64_t{fragment.block_stride});
  }
}

Result<TierBlocks> get_tier(Reader& from) {
  TierBlocks blocks;
  blocks.tier = static_cast<Tier>(from.get<std::uint8_t>());
  blocks.storage.kind = static_cast<StorageType::Kind>(from.get<std::uint8_t>());
  const auto zero = from.get<std::uint16_t>();
  blocks.num_blocks = from.get<std::uint32_t>();
  blocks.storage.id = from.get<std::uint64_t>();
  const std::size_t memories = from.get<std::uint32_t>();
  const std::size_t regions = from.get<std::uint32_t>();
  const std::size_t fragments = from.get<std::uint32_t>();
  if (from.get<std::uint32_t>() != 0 || zero != 0) {
    return invalid("a tier's reserved bytes are not 0");
  }
  // Before memory is taken for them. The counts have 32 bits, so nothing overflows.
  const std::size_t bytes =
      memories * kMemoryBytes + regions * kRegionBytes + fragments * kFragmentBytes;
  if (from.is_short() || bytes > from.left()) {
    return invalid("a tier's lists need " + std::to_string(bytes) + " bytes, there are " +
                       std::to_string(from.left()),
                   bytes, from.left());
  }
  blocks.memories.resize(memories);
  for (TierBlocks::Range& range : blocks.memories) {
    range.address = from.get<std::uint64_t>();
    range.bytes = from.get<std::uint64_t>();
  }
  blocks.fragments_of_region.resize(regions);
  for (std::uint32_t& count : blocks.fragments_of_region) count = from.get<std::uint32_t>();
  blocks.fragments.resize(fragments);
  for (Fragment& fragment : blocks.fragments) {
    fragment.memory = from.get<std::uint32_t>();
    fragment.offset = from.get<std::uint64_t>();
    fragment.bytes = from.get<std::uint64_t>();
    fragment.block_stride = from.get<std::uint64_t>();
  }
  return blocks;
}

std::size_t encoded_bytes(const Blockset& set) {
  std::size_t bytes = kHeaderBytes + set.nixl_metadata.size() + (set.process ? 40 : 0) + kSumBytes;
  for (const auto& [name, text] : texts_of(set)) bytes += text->size();
  for (const TierBlocks& blocks : set.tiers) {
    bytes += 32 + blocks.memories.size() * kMemoryBytes +
             blocks.fragments_of_region.size() * kRegionBytes +
             blocks.fragments.size() * kFragmentBytes;
  }
  return bytes;
}

// What must be so before a field is looked at. Nothing may be inferred from bytes of another
// format.
Result<void> check_frame(std::span<const std::byte> bytes) {
  constexpr std::size_t kLeast = kHeaderBytes + kSumBytes;
  if (bytes.size() < kLeast || bytes.size() > Blockset::kMaxBytes) {
    return out_of_bounds("its length", bytes.size(), kLeast, Blockset::kMaxBytes);
  }
  Reader reader(bytes);
  if (reader.get_text(kMagic.size()) != kMagic) return invalid("it does not begin with kvbm-bks");
  if (const auto format = reader.get<std::uint32_t>(); format != Blockset::kFormat) {
    return out_of_bounds("its format", format, Blockset::kFormat, Blockset::kFormat);
  }
  if (const auto length = reader.get<std::uint32_t>(); length != bytes.size()) {
    return invalid("it says that it has " + std::to_string(length) + " bytes, it has " +
                       std::to_string(bytes.size()),
                   length, bytes.size());
  }
  std::uint64_t sum = 0;
  std::memcpy(&sum, bytes.last(kSumBytes).data(), kSumBytes);
  if (sum == xxh3(bytes.data(), bytes.size() - kSumBytes)) return {};
  return invalid("its checksum is not that of its bytes");
}

}  // namespace

Result<void> Blockset::validate() const {
  for (const auto& [name, text] : texts_of(*this)) {
    if (text->size() > kMaxTextBytes) {
      return invalid(std::string(name) + " has " + std::to_string(text->size()) +
                         " bytes, it must have at most " + std::to_string(kMaxTextBytes),
                     text->size(), kMaxTextBytes);
    }
    // They are shown to people and written to logs.
    const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 32 || c == 127; };
    if (std::ranges::any_of(*text, is_control)) {
      return invalid(std::string(name) + " has a control character");
    }
  }
  if (block_size < 1 || block_size > MAX_PAGE_SIZE) {
    return out_of_bounds("the block size", block_size, 1, MAX_PAGE_SIZE);
  }
  if (started_at_ns == 0) return invalid("its process has no time at which it began");
  if (nixl_metadata.size() > kMaxNixlBytes) {
    return out_of_bounds("the length of the NIXL metadata", nixl_metadata.size(), 0, kMaxNixlBytes);
  }
  if (tiers.size() > kMaxTiers) {
    return out_of_bounds("the number of tiers", tiers.size(), 0, kMaxTiers);
  }
  for (std::size_t i = 0; i < tiers.size(); ++i) {
    if (i > 0 && tiers[i].tier <= tiers[i - 1].tier) {
      return invalid("its tiers must differ, the fastest first");
    }
    if (auto valid = tiers[i].validate(); !valid) {
      Error error = std::move(valid).error();
      error.message = invalid(std::move(error.message)).message;
      return error;
    }
  }
  const std::size_t bytes = encoded_bytes(*this);
  if (bytes > kMaxBytes) return out_of_bounds("its length", bytes, 1, kMaxBytes);
  return {};
}

std::vector<std::byte> encode(const Blockset& set) {
  Writer writer;
  writer.bytes().reserve(encoded_bytes(set));
  writer.append(kMagic.data(), kMagic.size());
  writer.put(Blockset::kFormat);
  writer.put(static_cast<std::uint32_t>(encoded_bytes(set)));
  writer.put(set.worker_id);
  writer.put(set.incarnation);
  writer.put(set.started_at_ns);
  writer.put(set.key_fingerprint);
  writer.put(set.content_digest);
  writer.put(set.block_size);
  writer.put(static_cast<std::uint8_t>(set.tiers.size()));
  writer.put(static_cast<std::uint8_t>(set.process ? 1 : 0));
  for (const auto& [name, text] : texts_of(set)) {
    writer.put(static_cast<std::uint16_t>(text->size()));
  }
  writer.put(static_cast<std::uint32_t>(set.nixl_metadata.size()));
  writer.put(std::uint32_t{0});
  for (const auto& [name, text] : texts_of(set)) writer.append(text->data(), text->size());
  writer.append(set.nixl_metadata.data(), set.nixl_metadata.size());
  if (set.process) put(writer, *set.process);
  for (const TierBlocks& blocks : set.tiers) put(writer, blocks);
  writer.put(xxh3(writer.bytes().data(), writer.bytes().size()));
  return std::move(writer.bytes());
}

Result<Blockset> decode_blockset(std::span<const std::byte> bytes) {
  KVBM_CHECK_OK(check_frame(bytes));
  constexpr std::size_t kFrameBytes = 16;
  Reader reader(bytes.subspan(kFrameBytes, bytes.size() - kFrameBytes - kSumBytes));
  Blockset set;
  set.worker_id = reader.get<std::uint64_t>();
  set.incarnation = reader.get<std::uint64_t>();
  set.started_at_ns = reader.get<std::uint64_t>();
  set.key_fingerprint = reader.get<std::uint64_t>();
  set.content_digest = reader.get<std::uint64_t>();
  set.block_size = reader.get<std::uint32_t>();
  const std::size_t tiers = reader.get<std::uint8_t>();
  const auto has_process = reader.get<std::uint8_t>();
  std::array<std::uint16_t, 5> lengths;
  for (std::uint16_t& length : lengths) length = reader.get<std::uint16_t>();
  const std::size_t nixl_bytes = reader.get<std::uint32_t>();
  if (reader.get<std::uint32_t>() != 0) return invalid("its reserved bytes are not 0");
  if (has_process > 1) return out_of_bounds("its number of processes", has_process, 0, 1);
  if (tiers > kMaxTiers) return out_of_bounds("the number of tiers", tiers, 0, kMaxTiers);
  if (nixl_bytes > Blockset::kMaxNixlBytes) {
    return out_of_bounds("the length of the NIXL metadata", nixl_bytes, 0, Blockset::kMaxNixlBytes);
  }
  std::size_t next = 0;
  for (const auto& [name, text] : texts_of(set)) *text = reader.get_text(lengths[next++]);
  set.nixl_metadata.resize(nixl_bytes);
  reader.copy(set.nixl_metadata.data(), nixl_bytes);
  if (has_process == 1) set.process = get_process(reader);
  for (std::size_t i = 0; i < tiers && !reader.is_short(); ++i) {
    KVBM_TRY(set.tiers.emplace_back(), get_tier(reader));
  }
  if (reader.is_short()) return invalid("it is shorter than it says");
  if (!reader.whole()) {
    return invalid("it has " + std::to_string(reader.left()) + " bytes too many", reader.left());
  }
  KVBM_CHECK_OK(set.validate());
  return set;
}

}  // namespace kvbm::remote
