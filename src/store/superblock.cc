#include "store/superblock.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <limits>
#include <numeric>

#include "base/xxh3.h"

namespace kvbm::store {
namespace {

constexpr std::uint64_t kMagic = 0x65726f74736d766b;  // "kvmstore"
constexpr std::size_t kMaxLayoutBytes = 1000;
constexpr std::uint32_t kKeepsTokens = 1;

template <std::size_t kMax>
struct Text {
  std::uint16_t bytes;
  std::array<char, kMax> text;

  void set(const std::string& from) {
    bytes = static_cast<std::uint16_t>(std::min(from.size(), kMax));
    std::memcpy(text.data(), from.data(), bytes);
  }
  bool is_possible() const { return bytes <= kMax; }
  std::string get() const { return {text.data(), bytes}; }
};

// The superblock as it lies on disk, little-endian.
struct Packed {
  std::uint64_t magic;
  std::uint32_t version;
  std::uint32_t flags;
  std::uint64_t store_id;
  std::uint64_t sequence;
  std::uint64_t created;
  std::uint64_t owner;
  std::uint64_t layout_digest;
  std::uint64_t key_fingerprint;
  std::uint32_t num_slots;
  std::uint32_t page_size;
  StoreCounters counters;
  std::array<std::uint32_t, 256> epochs;
  std::uint32_t num_regions;
  std::array<std::uint32_t, kMaxRegions> region_bytes;
  Text<kMaxModelBytes> model;
  Text<kMaxProfileBytes> hash_profile;
  Text<kMaxLayoutBytes> layout;
};
static_assert(std::is_trivially_copyable_v<Packed>);
constexpr std::size_t kSumOffset = kSuperblockBytes - sizeof(std::uint64_t);
static_assert(sizeof(Packed) <= kSumOffset);

Error unusable(std::string why) {
  return Error{ErrorCode::OperationFailed, 0, 0, 0, std::move(why)};
}

std::string hex(std::uint64_t value) {
  char text[19];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

std::string quoted(const std::string& text) { return "'" + text + "'"; }

}  // namespace

std::uint64_t StoreShape::block_bytes() const noexcept {
  return std::accumulate(region_bytes.begin(), region_bytes.end(), std::uint64_t{0});
}

std::uint64_t StoreShape::extent_bytes() const noexcept {
  return (block_bytes() + kExtentUnit - 1) / kExtentUnit * kExtentUnit;
}

Result<void> StoreShape::validate() const {
  const struct {
    const char* name;
    std::uint64_t value;
    std::uint64_t min;
    std::uint64_t max;
  } fields[] = {{"the model's name in bytes", model.size(), 0, kMaxModelBytes},
                {"the hash profile's name in bytes", hash_profile.size(), 0, kMaxProfileBytes},
                {"the number of regions", region_bytes.size(), 1, kMaxRegions},
                {"page_size", page_size, 1, MAX_PAGE_SIZE},
                {"the number of slots", num_slots, 1, 0xFFFFFEFF}};
  for (const auto& field : fields) {
    if (field.value >= field.min && field.value <= field.max) continue;
    return Error{ErrorCode::InvalidConfig, 0, field.value, field.max,
                 std::string("a store cannot keep this: ") + field.name + " is " +
                     std::to_string(field.value) + "; it must be " + std::to_string(field.min) +
                     " .. " + std::to_string(field.max)};
  }
  for (const std::uint32_t bytes : region_bytes) {
    if (bytes == 0) return Error{ErrorCode::InvalidConfig, 0, 0, 0, "a region has no bytes"};
  }
  std::uint64_t payload = 0;
  if (__builtin_mul_overflow(extent_bytes(), std::uint64_t{num_slots}, &payload) ||
      payload > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
    return Error{ErrorCode::InvalidConfig, 0, num_slots, 0, "no file can be so large"};
  }
  return {};
}

double StoreCounters::bytes_written() const noexcept {
  return static_cast<double>(payload_bytes_written) + static_cast<double>(index_bytes_written);
}

double StoreCounters::write_amplification(std::uint64_t block_bytes) const noexcept {
  if (blocks_written == 0) return 0;
  return bytes_written() / (static_cast<double>(blocks_written) * static_cast<double>(block_bytes));
}

double StoreCounters::bytes_written_per_day(double seconds) const noexcept {
  constexpr double kSecondsPerDay = 86400;
  return bytes_written() * kSecondsPerDay / std::max(seconds, 1.0);
}

std::optional<double> StoreCounters::days_of_life_left(std::uint64_t rated_bytes,
                                                       double seconds) const noexcept {
  if (rated_bytes == 0 || blocks_written == 0) return std::nullopt;
  const double left = static_cast<double>(rated_bytes) - bytes_written();
  return std::max(left, 0.0) / bytes_written_per_day(seconds);
}

std::array<std::byte, kSuperblockBytes> encode(const Superblock& superblock) {
  Packed packed{};
  const StoreShape& shape = superblock.shape;
  packed.magic = kMagic;
  packed.version = kFormatVersion;
  packed.flags = shape.keeps_tokens ? kKeepsTokens : 0;
  packed.store_id = superblock.store_id;
  packed.sequence = superblock.sequence;
  packed.created = superblock.created;
  packed.owner = superblock.owner;
  packed.layout_digest = shape.layout_digest;
  packed.key_fingerprint = shape.key_fingerprint;
  packed.num_slots = shape.num_slots;
  packed.page_size = shape.page_size;
  packed.counters = superblock.counters;
  packed.epochs = superblock.epochs;
  packed.num_regions = static_cast<std::uint32_t>(shape.region_bytes.size());
  std::copy(shape.region_bytes.begin(), shape.region_bytes.end(), packed.region_bytes.begin());
  packed.model.set(shape.model);
  packed.hash_profile.set(shape.hash_profile);
  packed.layout.set(shape.layout);

  std::array<std::byte, kSuperblockBytes> bytes{};
  std::memcpy(bytes.data(), &packed, sizeof packed);
  const std::uint64_t sum = xxh3(bytes.data(), kSumOffset);
  std::memcpy(bytes.data() + kSumOffset, &sum, sizeof sum);
  return bytes;
}

Result<Superblock> decode(std::span<const std::byte, kSuperblockBytes> bytes) {
  Packed packed;
  std::memcpy(&packed, bytes.data(), sizeof packed);
  if (packed.magic != kMagic) return unusable("this is no manifest of a store");
  // Before the sum, whose place another version may have moved.
  if (packed.version != kFormatVersion) {
    return unusable("the store's format has version " + std::to_string(packed.version) +
                    ", this program knows version " + std::to_string(kFormatVersion));
  }
  std::uint64_t sum = 0;
  std::memcpy(&sum, bytes.data() + kSumOffset, sizeof sum);
  if (sum != xxh3(bytes.data(), kSumOffset)) return unusable("the superblock is damaged");
  if (packed.num_regions > kMaxRegions || packed.store_id == 0 || !packed.model.is_possible() ||
      !packed.hash_profile.is_possible() || !packed.layout.is_possible()) {
    return unusable("the superblock says what cannot be");
  }

  Superblock superblock{
      .shape = {.model = packed.model.get(),
                .layout = packed.layout.get(),
                .layout_digest = packed.layout_digest,
                .region_bytes = {packed.region_bytes.begin(),
                                 packed.region_bytes.begin() + packed.num_regions},
                .page_size = packed.page_size,
                .hash_profile = packed.hash_profile.get(),
                .key_fingerprint = packed.key_fingerprint,
                .num_slots = packed.num_slots,
                .keeps_tokens = (packed.flags & kKeepsTokens) != 0},
      .store_id = packed.store_id,
      .sequence = packed.sequence,
      .created = packed.created,
      .owner = packed.owner,
      .epochs = packed.epochs,
      .counters = packed.counters};
  if (!superblock.shape.validate()) return unusable("the superblock says what cannot be");
  return superblock;
}

Result<void> check_same(const StoreShape& stored, const StoreShape& wanted, const char* who) {
  const auto count = [](std::uint64_t value) { return std::to_string(value); };
  const struct {
    const char* what;
    std::string stored;
    std::string wanted;
  } fields[] = {
      {"model", quoted(stored.model), quoted(wanted.model)},
      {"layout", stored.layout + " (" + hex(stored.layout_digest) + ")",
       wanted.layout.substr(0, kMaxLayoutBytes) + " (" + hex(wanted.layout_digest) + ")"},
      {"block size in bytes", count(stored.block_bytes()), count(wanted.block_bytes())},
      {"page size in tokens", count(stored.page_size), count(wanted.page_size)},
      {"hash profile", quoted(stored.hash_profile), quoted(wanted.hash_profile)},
      {"digest key's fingerprint", hex(stored.key_fingerprint), hex(wanted.key_fingerprint)},
      {"keeping of tokens", stored.keeps_tokens ? "on" : "off", wanted.keeps_tokens ? "on" : "off"},
  };
  for (const auto& field : fields) {
    if (field.stored == field.wanted) continue;
    return Error{ErrorCode::InvalidConfig, 0, 0, 0,
                 std::string("the store was made for another ") + field.what + ": it has " +
                     field.stored + ", " + who + " " + field.wanted};
  }
  return {};
}

}  // namespace kvbm::store
