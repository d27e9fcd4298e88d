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

Result<Request> decode_lookup(Bytes body) {
  FrameReader reader(body);
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

Result<Reply> decode_plan(Bytes body) {
  FrameReader reader(body);
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

// A reply that is a part and nothing else.
template <class T>
Result<Reply> decode_part(Bytes body) {
  FrameReader reader(body);
  T part{};
  KVBM_CHECK_OK(get_part(reader, part));
  if (!reader.whole()) return garbage("a reply is longer than it says");
  return Reply(std::move(part));
}

template <class T>
std::vector<std::byte> encode_part(FrameType type, std::uint64_t request, const T& part) {
  FrameWriter writer(type, request, part_bytes(part));
  put_part(writer, part);
  return writer.finish();
}

std::string_view name_in(const std::string& name) {
  return std::string_view(name).substr(0, kMaxNameBytes);
}
std::string_view message_in(const Error& error) {
  return std::string_view(error.message).substr(0, kMaxMessageBytes);
}

std::vector<std::byte> encode(std::uint64_t request, const RankInfo& info) {
  return encode_part(FrameType::Info, request, info);
}

std::vector<std::byte> encode(std::uint64_t request, const PlanAnswer& answer) {
  FrameWriter writer(FrameType::Plan, request, 12 + 4 * kTierCount);
  writer.put(answer.plan);
  writer.put(answer.blocks);
  for (const std::uint32_t count : answer.by_tier) writer.put(count);
  return writer.finish();
}

std::vector<std::byte> encode(std::uint64_t request, const Error& error) {
  return encode_part(FrameType::Failure, request, error);
}

}  // namespace

std::size_t part_bytes(const RankInfo& info) {
  return 32 + name_in(info.model).size() + name_in(info.hash_profile).size();
}

void put_part(FrameWriter& writer, const RankInfo& info) {
  const auto model = name_in(info.model);
  const auto profile = name_in(info.hash_profile);
  writer.put(info.worker_id);
  writer.put(info.epoch);
  writer.put(info.key_fingerprint);
  writer.put(info.block_size);
  writer.put(static_cast<std::uint16_t>(model.size()));
  writer.put(static_cast<std::uint16_t>(profile.size()));
  writer.append(model.data(), model.size());
  writer.append(profile.data(), profile.size());
}

Result<void> get_part(FrameReader& reader, RankInfo& info) {
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
  if (reader.is_short()) return garbage("an info is shorter than it says");
  if (info.block_size == 0 || info.block_size > MAX_PAGE_SIZE) {
    return garbage("an info's block size is not 1 to 1024 tokens", info.block_size, MAX_PAGE_SIZE);
  }
  return {};
}

std::size_t part_bytes(const Error& error) { return 24 + message_in(error).size(); }

void put_part(FrameWriter& writer, const Error& error) {
  const auto message = message_in(error);
  writer.put(error.requested);
  writer.put(error.available);
  writer.put(error.native);
  writer.put(static_cast<std::uint16_t>(error.code));
  writer.put(static_cast<std::uint16_t>(message.size()));
  writer.append(message.data(), message.size());
}

Result<void> get_part(FrameReader& reader, Error& error) {
  error.requested = reader.get<std::uint64_t>();
  error.available = reader.get<std::uint64_t>();
  error.native = reader.get<std::int32_t>();
  error.code = static_cast<ErrorCode>(reader.get<std::uint16_t>());
  const auto size = reader.get<std::uint16_t>();
  if (size > kMaxMessageBytes) {
    return garbage("a failure's message is too long", size, kMaxMessageBytes);
  }
  error.message = reader.get_text(size);
  if (reader.is_short()) return garbage("a failure is shorter than it says");
  if (std::string_view(to_string(error.code)) == "unknown") {
    return garbage("a failure has a code that is not known",
                   static_cast<std::uint64_t>(error.code));
  }
  return {};
}

Result<Request> decode_request(const Frame& frame) {
  FrameReader reader(frame.body);
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
    default: return garbage("a frame that leaders do not send");
  }
  if (!reader.whole()) return garbage("a request has not the length of its type");
  return request;
}

Result<Reply> decode_reply(const Frame& frame) {
  switch (frame.type) {
    case FrameType::Info: return decode_part<RankInfo>(frame.body);
    case FrameType::Plan: return decode_plan(frame.body);
    case FrameType::Failure: return decode_part<Error>(frame.body);
    default: return garbage("a frame that ranks do not send");
  }
}

std::vector<std::byte> encode_hello(std::uint64_t request) {
  return FrameWriter(FrameType::Hello, request, 0).finish();
}

std::vector<std::byte> encode_lookup(std::uint64_t request, std::chrono::milliseconds lease,
                                     NamespaceId name_space, std::span<const SequenceHash> hashes,
                                     std::span<const std::uint64_t> digests) {
  FrameWriter writer(FrameType::Lookup, request,
                     kLookupBytes + 8 * (hashes.size() + digests.size()));
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
  FrameWriter writer(FrameType::Trim, request, 12);
  writer.put(trim.plan);
  writer.put(trim.blocks);
  return writer.finish();
}

std::vector<std::byte> encode_release(std::uint64_t request, std::uint64_t plan) {
  FrameWriter writer(FrameType::Release, request, 8);
  writer.put(plan);
  return writer.finish();
}

std::vector<std::byte> encode_reply(std::uint64_t request, const Reply& reply) {
  return std::visit([request](const auto& value) { return encode(request, value); }, reply);
}

}  // namespace kvbm::leader
