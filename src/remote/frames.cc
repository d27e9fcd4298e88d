#include "remote/frames.h"

#include <string>
#include <utility>

namespace kvbm::remote {
namespace {

using leader::FrameReader;
using leader::FrameWriter;
using leader::garbage;
using leader::get_part;
using leader::part_bytes;
using leader::put_part;

using Bytes = std::vector<std::byte>;

constexpr std::size_t kIntroductionBytes = 16;  // before the info
constexpr std::size_t kChoiceBytes = 16;        // before the indexes
constexpr std::size_t kFetchedBytes = 8;        // before the blocks

// --- reading -----------------------------------------------------------------------------------

// Each reads the fields of one body and leaves it to its caller to see that nothing is left.

Result<void> read(FrameReader& reader, Challenge& challenge) {
  reader.copy(challenge.nonce.data(), challenge.nonce.size());
  challenge.worker_id = reader.get<std::uint64_t>();
  return {};
}

Result<void> read(FrameReader& reader, Proof& proof) {
  reader.copy(proof.mac.data(), proof.mac.size());
  return {};
}

Result<void> read(FrameReader& reader, Introduction& introduction) {
  introduction.info.content_digest = reader.get<std::uint64_t>();
  const auto bytes = reader.get<std::uint32_t>();
  if (reader.get<std::uint32_t>() != 0) return garbage("an introduction has an unknown flag");
  KVBM_CHECK_OK(get_part(reader, introduction.info.rank));
  if (bytes > kMaxBlocksetBytes) return garbage("a blockset is too long", bytes, kMaxBlocksetBytes);
  if (bytes != reader.left()) {
    return garbage("an introduction's blockset is not as long as it says", bytes, reader.left());
  }
  introduction.blockset.resize(bytes);
  reader.copy(introduction.blockset.data(), bytes);
  return {};
}

Result<void> read(FrameReader& reader, BlockChoice& choice) {
  choice.plan = reader.get<std::uint64_t>();
  choice.patience = std::chrono::milliseconds(reader.get<std::uint32_t>());
  const auto count = reader.get<std::uint32_t>();
  if (choice.patience.count() < 1 || choice.patience > kMaxPatience) {
    return garbage("the patience of a request for blocks is not 1 ms to 60 s",
                   static_cast<std::uint64_t>(choice.patience.count()),
                   static_cast<std::uint64_t>(kMaxPatience.count()));
  }
  if (count == 0 || count > kMaxIndexes) {
    return garbage("a request for blocks has none, or too many", count, kMaxIndexes);
  }
  if (reader.left() != std::size_t{count} * 4) {
    return garbage("a request for blocks is not as long as its number of indexes says",
                   std::size_t{count} * 4, reader.left());
  }
  choice.indexes.resize(count);
  reader.copy(choice.indexes.data(), std::size_t{count} * 4);
  return {};
}

Result<void> read(FrameReader& reader, FetchRequest& fetch) { return read(reader, fetch.blocks); }
Result<void> read(FrameReader& reader, PullRequest& pull) { return read(reader, pull.blocks); }

Result<void> read(FrameReader& reader, ConfirmRequest& confirm) {
  confirm.plan = reader.get<std::uint64_t>();
  return {};
}

Result<void> read(FrameReader&, Ping&) { return {}; }
Result<void> read(FrameReader&, Pong&) { return {}; }
Result<void> read(FrameReader&, Goodbye&) { return {}; }

// A number that says which of two things follows. Errors: it is neither 0 nor 1, or what fills it
// up to 8 bytes is not 0.
Result<bool> read_flag(FrameReader& reader) {
  const auto flag = reader.get<std::uint64_t>();
  if (flag > 1) return garbage("a flag is not 0 or 1", flag, 1);
  return flag == 1;
}

Result<void> read(FrameReader& reader, Fetched& fetched) {
  const auto count = reader.get<std::uint64_t>();
  if (count == 0 || count > kMaxIndexes) {
    return garbage("a fetched has no blocks, or too many", count, kMaxIndexes);
  }
  for (std::uint64_t i = 0; i < count; ++i) {
    KVBM_TRY(const bool is_failure, read_flag(reader));
    if (is_failure) {
      Error error{};
      KVBM_CHECK_OK(get_part(reader, error));
      fetched.blocks.emplace_back(std::move(error));
      continue;
    }
    const auto block = reader.get<std::uint64_t>();
    if (block >= kNoBlock) return garbage("a fetched block has no number", block, kNoBlock - 1);
    fetched.blocks.emplace_back(FetchedBlock{.block = static_cast<BlockId>(block),
                                             .payload_sum = reader.get<std::uint64_t>()});
    if (reader.is_short()) return garbage("a fetched is shorter than its number of blocks says");
  }
  return {};
}

Result<void> read(FrameReader& reader, BlockHead& head) {
  head.payload_sum = reader.get<std::uint64_t>();
  head.bytes = reader.get<std::uint64_t>();
  if (head.bytes == 0) return garbage("a block without bytes");
  return {};
}

Result<void> read(FrameReader& reader, Confirmed& confirmed) {
  KVBM_TRY(confirmed.is_current, read_flag(reader));
  return {};
}

template <class Body, class Any>
Result<Any> decode(const Frame& frame) {
  FrameReader reader(frame.body);
  Body body;
  KVBM_CHECK_OK(read(reader, body));
  if (!reader.whole()) return garbage("a frame has not the length of its type");
  return Any(std::move(body));
}

template <class Any, class Decoded>
Result<Any> widened(Result<Decoded> decoded) {
  if (!decoded) return std::move(decoded).error();
  return std::visit(
      [](auto&& body) -> Result<Any> {
        if constexpr (std::is_constructible_v<Any, decltype(body)>) {
          return Any(std::forward<decltype(body)>(body));
        } else {
          return garbage("a frame that peers do not send");
        }
      },
      *std::move(decoded));
}

// --- writing -----------------------------------------------------------------------------------

Bytes encode(FrameType type, std::uint64_t request, const Challenge& challenge) {
  FrameWriter writer(type, request, challenge.nonce.size() + 8);
  writer.append(challenge.nonce.data(), challenge.nonce.size());
  writer.put(challenge.worker_id);
  return writer.finish();
}

Bytes encode(FrameType type, std::uint64_t request, const Proof& proof) {
  FrameWriter writer(type, request, proof.mac.size());
  writer.append(proof.mac.data(), proof.mac.size());
  return writer.finish();
}

Bytes encode(FrameType type, std::uint64_t request, const Introduction& introduction) {
  const auto& [info, blockset] = introduction;
  FrameWriter writer(type, request, kIntroductionBytes + part_bytes(info.rank) + blockset.size());
  writer.put(info.content_digest);
  writer.put(static_cast<std::uint32_t>(blockset.size()));
  writer.put(std::uint32_t{0});
  put_part(writer, info.rank);
  writer.append(blockset.data(), blockset.size());
  return writer.finish();
}

Bytes encode(FrameType type, std::uint64_t request, const BlockChoice& choice) {
  FrameWriter writer(type, request, kChoiceBytes + 4 * choice.indexes.size());
  writer.put(choice.plan);
  writer.put(static_cast<std::uint32_t>(choice.patience.count()));
  writer.put(static_cast<std::uint32_t>(choice.indexes.size()));
  writer.append(choice.indexes.data(), 4 * choice.indexes.size());
  return writer.finish();
}

// What consists of such numbers and nothing else.
template <class... Numbers>
Bytes encode_numbers(FrameType type, std::uint64_t request, Numbers... numbers) {
  FrameWriter writer(type, request, sizeof...(numbers) * 8);
  (writer.put(std::uint64_t{numbers}), ...);
  return writer.finish();
}

Bytes encode(std::uint64_t request, const Fetched& fetched) {
  std::size_t bytes = kFetchedBytes;
  for (const auto& block : fetched.blocks) bytes += 8 + (block ? 16 : part_bytes(block.error()));
  FrameWriter writer(FrameType::Fetched, request, bytes);
  writer.put(std::uint64_t{fetched.blocks.size()});
  for (const auto& block : fetched.blocks) {
    writer.put(std::uint64_t{block ? 0u : 1u});
    if (block) {
      writer.put(std::uint64_t{block->block});
      writer.put(block->payload_sum);
    } else {
      put_part(writer, block.error());
    }
  }
  return writer.finish();
}

struct RequestEncoder {
  std::uint64_t request;

  Bytes operator()(const Challenge& body) const {
    return encode(FrameType::Challenge, request, body);
  }
  Bytes operator()(const Proof& body) const { return encode(FrameType::Proof, request, body); }
  Bytes operator()(const Introduction& body) const {
    return encode(FrameType::Introduction, request, body);
  }
  Bytes operator()(const LookupRequest& body) const {
    return leader::encode_lookup(request, body.lease, body.name_space, body.hashes, body.digests);
  }
  Bytes operator()(const TrimRequest& body) const { return leader::encode_trim(request, body); }
  Bytes operator()(const ReleaseRequest& body) const {
    return leader::encode_release(request, body.plan);
  }
  Bytes operator()(const FetchRequest& body) const {
    return encode(FrameType::Fetch, request, body.blocks);
  }
  Bytes operator()(const PullRequest& body) const {
    return encode(FrameType::Pull, request, body.blocks);
  }
  Bytes operator()(const ConfirmRequest& body) const {
    return encode_numbers(FrameType::Confirm, request, body.plan);
  }
  Bytes operator()(const Ping&) const { return encode_numbers(FrameType::Ping, request); }
  Bytes operator()(const Goodbye&) const { return encode_numbers(FrameType::Goodbye, request); }
};

struct ReplyEncoder {
  std::uint64_t request;

  Bytes operator()(const Challenge& body) const {
    return encode(FrameType::ChallengeAnswer, request, body);
  }
  Bytes operator()(const Proof& body) const {
    return encode(FrameType::ProofAnswer, request, body);
  }
  Bytes operator()(const Introduction& body) const {
    return encode(FrameType::IntroductionAnswer, request, body);
  }
  Bytes operator()(const PlanAnswer& body) const { return leader::encode_reply(request, body); }
  Bytes operator()(const Error& body) const { return leader::encode_reply(request, body); }
  Bytes operator()(const Fetched& body) const { return encode(request, body); }
  Bytes operator()(const BlockHead& body) const {
    return encode_numbers(FrameType::Block, request, body.payload_sum, body.bytes);
  }
  Bytes operator()(const Confirmed& body) const {
    return encode_numbers(FrameType::Confirmed, request, body.is_current ? 1u : 0u);
  }
  Bytes operator()(const Pong&) const { return encode_numbers(FrameType::Pong, request); }
  Bytes operator()(const Goodbye&) const { return encode_numbers(FrameType::Goodbye, request); }
};

}  // namespace

Result<PeerRequest> decode_peer_request(const Frame& frame) {
  switch (frame.type) {
    case FrameType::Challenge: return decode<Challenge, PeerRequest>(frame);
    case FrameType::Proof: return decode<Proof, PeerRequest>(frame);
    case FrameType::Introduction: return decode<Introduction, PeerRequest>(frame);
    case FrameType::Fetch: return decode<FetchRequest, PeerRequest>(frame);
    case FrameType::Pull: return decode<PullRequest, PeerRequest>(frame);
    case FrameType::Confirm: return decode<ConfirmRequest, PeerRequest>(frame);
    case FrameType::Ping: return decode<Ping, PeerRequest>(frame);
    case FrameType::Goodbye: return decode<Goodbye, PeerRequest>(frame);
    default: return widened<PeerRequest>(leader::decode_request(frame));
  }
}

Result<PeerReply> decode_peer_reply(const Frame& frame) {
  switch (frame.type) {
    case FrameType::ChallengeAnswer: return decode<Challenge, PeerReply>(frame);
    case FrameType::ProofAnswer: return decode<Proof, PeerReply>(frame);
    case FrameType::IntroductionAnswer: return decode<Introduction, PeerReply>(frame);
    case FrameType::Fetched: return decode<Fetched, PeerReply>(frame);
    case FrameType::Block: return decode<BlockHead, PeerReply>(frame);
    case FrameType::Confirmed: return decode<Confirmed, PeerReply>(frame);
    case FrameType::Pong: return decode<Pong, PeerReply>(frame);
    case FrameType::Goodbye: return decode<Goodbye, PeerReply>(frame);
    default: return widened<PeerReply>(leader::decode_reply(frame));
  }
}

std::vector<std::byte> encode_peer_request(std::uint64_t request, const PeerRequest& body) {
  return std::visit(RequestEncoder{request}, body);
}

std::vector<std::byte> encode_peer_reply(std::uint64_t request, const PeerReply& body) {
  return std::visit(ReplyEncoder{request}, body);
}

}  // namespace kvbm::remote
