#include "leader/protocol.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace kvbm::leader {
namespace {

using Bytes = std::span<const std::byte>;

Error garbage(std::string what, std::uint64_t requested = 0, std::uint64_t available = 0) {
  return Error{ErrorCode::OperationFailed, 0, requested, available, std::move(what)};
}

// Writes a frame of a known length, the header first.
class Writer {
 public:
  Writer(FrameType type, std::uint64_t request, std::size_t body_bytes)
      : bytes_(kHeaderBytes + body_bytes) {
    put(kProtocolVersion);
    put(static_cast<std::uint8_t>(type));
    put(std::uint16_t{0});
    put(static_cast<std::uint32_t>(body_bytes));
    put(request);
  }
  template <class T>
  void put(T value) {
    append(&value, sizeof value);
  }
  // Requires: the frame has room for it.
  void append(const void* data, std::size_t size) {
    if (size == 0) return;
    std::memcpy(&bytes_[written_], data, size);
    written_ += size;
  }
  std::vector<std::byte> finish() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
  std::size_t written_ = 0;
};

// Reads fields one after the other. Past the end they are 0 and whole() is false.
class Reader {
 public:
  explicit Reader(Bytes bytes) : bytes_(bytes) {}

  template <class T>
  T get() {
    T value{};
    copy(&value, sizeof value);
    return value;
  }
  std::string get_text(std::size_t size) {
    std::string text(std::min(size, bytes_.size()), '\0');
    copy(text.data(), size);
    return text;
  }
  void copy(void* to, std::size_t size) {
    if (size > bytes_.size()) {
      is_short_ = true;
      bytes_ = {};
    } else if (size > 0) {
      std::memcpy(to, bytes_.data(), size);
      bytes_ = bytes_.subspan(size);
    }
  }
  std::size_t left() const noexcept { return bytes_.size(); }
  // Whether all that was read was there, and nothing is left.
  bool whole() const noexcept { return !is_short_ && bytes_.empty(); }

 private:
  Bytes bytes_;
  bool is_short_ = false;
};

bool is_known(FrameType type) noexcept {
  switch (type) {
    case FrameType::Hello:
    case FrameType::Lookup:
    case FrameType::Trim:
    case FrameType::Release:
    case FrameType::Info:
    case FrameType::Plan:
    case FrameType::Failure: return true;
  }
  return false;
}

Result<Request> decode_lookup(Bytes body) {
  Reader reader(body);
  LookupRequest lookup;
  lookup.lease = std::chrono::milliseconds(reader.get<std::uint32_t>());
  const auto count = reader.get<std::uint32_t>();
  lookup.name_space = reader.get<NamespaceId>();
  const auto has_digests = reader.get<std::uint8_t>();
  const auto zero = reader.get<std::uint16_t>();
  if (reader.get<std::uint32_t>() != 0 || zero != 0 || has_digests > 1) {
    return garbage("a lookup has a flag that is not known");
  }
  if (lookup.lease.count() < 1 || lookup.lease > kMaxLease) {
    return garbage("a lookup's lease is not 1 ms to 1 h",
                   static_cast<std::uint64_t>(lookup.lease.count()),
                   static_cast<std::uint64_t>(kMaxLease.count()));
  }
  if (count == 0 || count > kMaxHashes) {
    return garbage("a lookup has no hashes, or too many", count, kMaxHashes);
  }
  const std::size_t bytes = std::size_t{count} * (has_digests == 1 ? 16 : 8);
  if (reader.left() != bytes) {
    return garbage("a lookup is not as long as its number of hashes says", bytes, reader.left());
  }
  lookup.hashes.resize(count);
  static_assert(sizeof(SequenceHash) == sizeof(std::uint64_t));
  for (SequenceHash& hash : lookup.hashes) hash = SequenceHash(reader.get<std::uint64_t>());
  if (has_digests == 1) {
    lookup.digests.resize(count);
    reader.copy(lookup.digests.data(), std::size_t{count} * 8);
  }
  return Request(std::move(lookup));
}

Result<Reply> decode_info(Bytes body) {
  Reader reader(body);
  RankInfo info;
  info.worker_id = reader.get<std::uint64_t>();
  info.epoch = reader.get<std::uint64_t>();
  info.key_fingerprint = reader.get<std::uint64_t>();
  info.block_size = reader.get<std::uint32_t>();
  const auto model = reader.get<std::uint16_t>();
  const auto profile = reader.get<std::uint16_t>();
  if (model > kMaxNameBytes || profile > kMaxNameBytes) {
    return garbage("a name in an info is too long", std::max(model, profile), kMaxNameBytes);
  }
  info.model = reader.get_text(model);
  info.hash_profile = reader.get_text(profile);
  if (!reader.whole()) return garbage("an info is not as long as it says");
  if (info.block_size == 0 || info.block_size > MAX_PAGE_SIZE) {
    return garbage("an info's block size is not 1 to 1024 tokens", info.block_size, MAX_PAGE_SIZE);
  }
  return Reply(std::move(info));
}

Result<Reply> decode_plan(Bytes body) {
  Reader reader(body);
  PlanAnswer answer;
  answer.plan = reader.get<std::uint64_t>();
  answer.blocks = reader.get<std::uint32_t>();
  std::uint64_t sum = 0;
  for (std::uint32_t& count : answer.by_tier) {
    count = reader.get<std::uint32_t>();
    sum += count;
  }
  if (!reader.whole()) return garbage("a plan has not the length of one");
  if (sum != answer.blocks) {
    return garbage("a plan's tiers do not add up to its blocks", sum, answer.blocks);
  }
  if ((answer.plan == 0) != (answer.blocks == 0)) {
    return garbage("a plan without blocks has an id, or one with blocks has none");
  }
  return Reply(answer);
}

Result<Reply> decode_failure(Bytes body) {
  Reader reader(body);
  Error error{};
  error.requested = reader.get<std::uint64_t>();
  error.available = reader.get<std::uint64_t>();
  error.native = reader.get<std::int32_t>();
  error.code = static_cast<ErrorCode>(reader.get<std::uint16_t>());
  const auto size = reader.get<std::uint16_t>();
  if (size > kMaxMessageBytes) {
    return garbage("a failure's message is too long", size, kMaxMessageBytes);
  }
  error.message = reader.get_text(size);
  if (!reader.whole()) return garbage("a failure is not as long as it says");
  if (std::string_view(to_string(error.code)) == "unknown") {
    return garbage("a failure has a code that is not known",
                   static_cast<std::uint64_t>(error.code));
  }
  return Reply(std::move(error));
}

std::vector<std::byte> encode(std::uint64_t request, const RankInfo& info) {
  const auto model = std::string_view(info.model).substr(0, kMaxNameBytes);
  const auto profile = std::string_view(info.hash_profile).substr(0, kMaxNameBytes);
  Writer writer(FrameType::Info, request, 32 + model.size() + profile.size());
  writer.put(info.worker_id);
  writer.put(info.epoch);
  writer.put(info.key_fingerprint);
  writer.put(info.block_size);
  writer.put(static_cast<std::uint16_t>(model.size()));
  writer.put(static_cast<std::uint16_t>(profile.size()));
  writer.append(model.data(), model.size());
  writer.append(profile.data(), profile.size());
  return writer.finish();
}

std::vector<std::byte> encode(std::uint64_t request, const PlanAnswer& answer) {
  Writer writer(FrameType::Plan, request, 12 + 4 * kTierCount);
  writer.put(answer.plan);
  writer.put(answer.blocks);
  for (const std::uint32_t count : answer.by_tier) writer.put(count);
  return writer.finish();
}

std::vector<std::byte> encode(std::uint64_t request, const Error& error) {
  const auto message = std::string_view(error.message).substr(0, kMaxMessageBytes);
  Writer writer(FrameType::Failure, request, 24 + message.size());
  writer.put(error.requested);
  writer.put(error.available);
  writer.put(error.native);
  writer.put(static_cast<std::uint16_t>(error.code));
  writer.put(static_cast<std::uint16_t>(message.size()));
  writer.append(message.data(), message.size());
  return writer.finish();
}

}  // namespace

Result<std::optional<Frame>> next_frame(Bytes bytes) {
  if (bytes.empty()) return std::optional<Frame>();
  Reader reader(bytes.first(std::min(bytes.size(), kHeaderBytes)));
  // The version is looked at as soon as it is there: what follows may be anything.
  if (const auto version = reader.get<std::uint8_t>(); version != kProtocolVersion) {
    return garbage("protocol version " + std::to_string(version) + " is not known, only " +
                   std::to_string(kProtocolVersion));
  }
  if (bytes.size() < kHeaderBytes) return std::optional<Frame>();
  const auto type = static_cast<FrameType>(reader.get<std::uint8_t>());
  if (!is_known(type)) {
    return garbage("frame type " + std::to_string(static_cast<unsigned>(type)) + " is not known");
  }
  if (reader.get<std::uint16_t>() != 0) return garbage("a frame's reserved bytes are not 0");
  const std::size_t body = reader.get<std::uint32_t>();
  if (body > kMaxBodyBytes) return garbage("a frame is too long", body, kMaxBodyBytes);
  const auto request = reader.get<std::uint64_t>();
  if (bytes.size() - kHeaderBytes < body) return std::optional<Frame>();
  return std::optional(
      Frame{.type = type, .request = request, .body = bytes.subspan(kHeaderBytes, body)});
}

Result<Request> decode_request(const Frame& frame) {
  Reader reader(frame.body);
  Request request;
  switch (frame.type) {
    case FrameType::Hello: break;
    case FrameType::Lookup: return decode_lookup(frame.body);
    case FrameType::Trim: {
      const auto plan = reader.get<std::uint64_t>();
      const auto blocks = reader.get<std::uint32_t>();
      request = TrimRequest{.plan = plan, .blocks = blocks};
      if (blocks == 0) return garbage("a trim to no blocks; a release is meant");
      break;
    }
    case FrameType::Release: request = ReleaseRequest{.plan = reader.get<std::uint64_t>()}; break;
    case FrameType::Info:
    case FrameType::Plan:
    case FrameType::Failure: return garbage("a frame that only ranks send");
  }
  if (!reader.whole()) return garbage("a request has not the length of its type");
  return request;
}

Result<Reply> decode_reply(const Frame& frame) {
  switch (frame.type) {
    case FrameType::Info: return decode_info(frame.body);
    case FrameType::Plan: return decode_plan(frame.body);
    case FrameType::Failure: return decode_failure(frame.body);
    case FrameType::Hello:
    case FrameType::Lookup:
    case FrameType::Trim:
    case FrameType::Release: break;
  }
  return garbage("a frame that only leaders send");
}

std::vector<std::byte> encode_hello(std::uint64_t request) {
  return Writer(FrameType::Hello, request, 0).finish();
}

std::vector<std::byte> encode_lookup(std::uint64_t request, std::chrono::milliseconds lease,
                                     NamespaceId name_space, std::span<const SequenceHash> hashes,
                                     std::span<const std::uint64_t> digests) {
  Writer writer(FrameType::Lookup, request, kLookupBytes + 8 * (hashes.size() + digests.size()));
  writer.put(static_cast<std::uint32_t>(lease.count()));
  writer.put(static_cast<std::uint32_t>(hashes.size()));
  writer.put(name_space);
  writer.put(static_cast<std::uint8_t>(digests.empty() ? 0 : 1));
  writer.put(std::uint16_t{0});
  writer.put(std::uint32_t{0});
  static_assert(std::is_trivially_copyable_v<SequenceHash>);
  writer.append(hashes.data(), hashes.size_bytes());
  writer.append(digests.data(), digests.size_bytes());
  return writer.finish();
}

std::vector<std::byte> encode_trim(std::uint64_t request, const TrimRequest& trim) {
  Writer writer(FrameType::Trim, request, 12);
  writer.put(trim.plan);
  writer.put(trim.blocks);
  return writer.finish();
}

std::vector<std::byte> encode_release(std::uint64_t request, std::uint64_t plan) {
  Writer writer(FrameType::Release, request, 8);
  writer.put(plan);
  return writer.finish();
}

std::vector<std::byte> encode_reply(std::uint64_t request, const Reply& reply) {
  return std::visit([request](const auto& value) { return encode(request, value); }, reply);
}

}  // namespace kvbm::leader
