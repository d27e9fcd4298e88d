// The frames that leaders and ranks exchange: docs/leader_protocol.md. Every byte that comes in is
// checked; what is decoded, encodes to the same bytes. Threads: any.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <variant>
#include <vector>

#include "kvbm/leader.h"
#include "kvbm/result.h"
#include "kvbm/types.h"
#include "leader/frame.h"
#include "leader/plan_service.h"

namespace kvbm::leader {

inline constexpr std::size_t kLookupBytes = 16;  // before the hashes
inline constexpr std::size_t kMaxHashes = 524'288;
inline constexpr std::size_t kMaxHashesWithDigests = (kMaxBodyBytes - kLookupBytes) / 16;
inline constexpr std::size_t kMaxNameBytes = 256;
inline constexpr std::size_t kMaxMessageBytes = 1024;  // longer ones are cut
inline constexpr std::chrono::milliseconds kMaxLease{3'600'000};

struct HelloRequest {};
struct LookupRequest {
  std::chrono::milliseconds lease{0};
  NamespaceId name_space = 0;
  std::vector<SequenceHash> hashes = {};
  std::vector<std::uint64_t> digests = {};  // none, or one per hash
};
struct TrimRequest {
  std::uint64_t plan = 0;
  std::uint32_t blocks = 0;
};
struct ReleaseRequest {
  std::uint64_t plan = 0;
};
using Request = std::variant<HelloRequest, LookupRequest, TrimRequest, ReleaseRequest>;
using Reply = std::variant<RankInfo, PlanAnswer, Error>;

// Errors: OperationFailed for a frame of the other direction, or one that is not what its type
// says.
Result<Request> decode_request(const Frame& frame);
Result<Reply> decode_reply(const Frame& frame);

// Whole frames. Requires: within the bounds above; longer names and messages are cut.
std::vector<std::byte> encode_hello(std::uint64_t request);
std::vector<std::byte> encode_lookup(std::uint64_t request, std::chrono::milliseconds lease,
                                     NamespaceId name_space, std::span<const SequenceHash> hashes,
                                     std::span<const std::uint64_t> digests);
std::vector<std::byte> encode_trim(std::uint64_t request, const TrimRequest& trim);
std::vector<std::byte> encode_release(std::uint64_t request, std::uint64_t plan);
std::vector<std::byte> encode_reply(std::uint64_t request, const Reply& reply);

// What an info and a failure consist of, which other frames have as parts. Longer names and
// messages are cut. Reading one leaves what comes behind it. Errors: OperationFailed for one that
// is not what it says.
std::size_t part_bytes(const RankInfo& info);
std::size_t part_bytes(const Error& error);
void put_part(FrameWriter& writer, const RankInfo& info);
void put_part(FrameWriter& writer, const Error& error);
Result<void> get_part(FrameReader& reader, RankInfo& info);
Result<void> get_part(FrameReader& reader, Error& error);

}  // namespace kvbm::leader
