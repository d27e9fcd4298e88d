// The frames that peers exchange over TCP: docs/peer_protocol.md. They are the leader's frames with
// more types. Every byte that comes in is checked; what is decoded, encodes to the same bytes.
// Threads: any.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <variant>
#include <vector>

#include "kvbm/result.h"
#include "leader/protocol.h"
#include "remote/blockset.h"
#include "remote/sharing_service.h"

namespace kvbm::remote {

using leader::Frame;
using leader::FrameType;
using leader::LookupRequest;
using leader::ReleaseRequest;
using leader::TrimRequest;

inline constexpr std::size_t kMaxBlocksetBytes = Blockset::kMaxBytes;
inline constexpr std::size_t kMaxIndexes = 1024;  // blocks of one fetch or pull
inline constexpr std::chrono::milliseconds kMaxPatience{60'000};
// Of what comes before the other end has proved itself.
inline constexpr std::size_t kMaxUnprovenBodyBytes = 2048;

using Nonce = std::array<std::byte, 32>;
using Mac = std::array<std::byte, 32>;

// The three steps of a handshake; the answer to each has the same body.
struct Challenge {
  Nonce nonce{};
  WorkerID worker_id = 0;
};
struct Proof {
  Mac mac{};
};
struct Introduction {
  WorkerInfo info = {};
  std::vector<std::byte> blockset = {};
};

// Which blocks of a plan, and how long the owner may take until they are in its host memory.
struct BlockChoice {
  std::uint64_t plan = 0;
  std::chrono::milliseconds patience{0};    // 1 .. 60,000
  std::vector<std::uint32_t> indexes = {};  // 1 .. 1024 of them
};
struct FetchRequest {
  BlockChoice blocks;
};
struct PullRequest {
  BlockChoice blocks;
};
struct ConfirmRequest {
  std::uint64_t plan = 0;
};
struct Ping {};
// The sender goes and is not to be asked any more. Either end may send it; it has no answer, and
// its request id is 0.
struct Goodbye {};

struct FetchedBlock {
  BlockId block = 0;  // in the owner's host pool
  std::uint64_t payload_sum = 0;
};
struct Fetched {
  std::vector<Result<FetchedBlock>> blocks = {};  // one per index
};
// One answer of a pull; `bytes` bytes of the block follow the frame.
struct BlockHead {
  std::uint64_t payload_sum = 0;
  std::uint64_t bytes = 0;  // at least 1
};
struct Confirmed {
  bool is_current = false;
};
struct Pong {};

using PeerRequest =
    std::variant<Challenge, Proof, Introduction, LookupRequest, TrimRequest, ReleaseRequest,
                 FetchRequest, PullRequest, ConfirmRequest, Ping, Goodbye>;
using PeerReply = std::variant<Challenge, Proof, Introduction, PlanAnswer, Error, Fetched,
                               BlockHead, Confirmed, Pong, Goodbye>;

// Errors: OperationFailed for a frame of the other direction, or one that is not what its type
// says.
Result<PeerRequest> decode_peer_request(const Frame& frame);
Result<PeerReply> decode_peer_reply(const Frame& frame);

// Whole frames. Requires: within the bounds above.
std::vector<std::byte> encode_peer_request(std::uint64_t request, const PeerRequest& body);
std::vector<std::byte> encode_peer_reply(std::uint64_t request, const PeerReply& body);

}  // namespace kvbm::remote
