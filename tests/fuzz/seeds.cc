#include "tests/fuzz/seeds.h"

#include "leader/protocol.h"
#include "remote/frames.h"
#include "remote/test_blocksets.h"
#include "store/export_file.h"
#include "store/test_export.h"
#include "store/token_entry.h"
#include "tests/fuzz/small_store.h"

namespace kvbm::fuzz {
namespace {

using Bytes = std::vector<std::byte>;
using Seeds = std::vector<std::pair<std::string, Bytes>>;

void append(Bytes& bytes, std::span<const std::byte> more) {
  bytes.insert(bytes.end(), more.begin(), more.end());
}

Bytes manifest(const store::Superblock& first, const store::Superblock& second, int mode) {
  Bytes bytes = {std::byte(mode)};
  append(bytes, encode(first));
  append(bytes, encode(second));
  return bytes;
}

Seeds manifest_seeds() {
  store::Superblock large = small_superblock(3);
  large.shape.region_bytes.assign(store::kMaxRegions, 4096);
  large.shape.num_slots = 0xFFFFFEFF;
  Bytes torn = manifest(small_superblock(1), small_superblock(2), 0);
  std::fill(torn.begin() + 9000, torn.end(), std::byte{0});
  return {{"whole", manifest(small_superblock(1), small_superblock(2), 0)},
          {"whole_sealed", manifest(small_superblock(1), small_superblock(2), 1)},
          {"large_sealed", manifest(large, small_superblock(2), 1)},
          {"torn", torn},
          {"zeros", Bytes(1 + store::kManifestBytes)}};
}

// Slot by slot what a store has of a chain of three blocks, one of them twice, and an old one.
Bytes records(int mode) {
  const store::StoreShape shape = small_shape();
  Bytes bytes = {std::byte(mode)};
  struct Put {
    store::TestBlock block;
    std::uint32_t epoch;
    std::uint64_t sequence;
  };
  const Put puts[] = {{{.hash = 1}, 0, 1},
                      {{.hash = 2, .parent = 1, .position = 1}, 0, 2},
                      {{.hash = 3, .parent = 2, .position = 2}, 0, 3},
                      {{.hash = 1}, 0, 4},
                      {{.hash = 4, .name_space = 1}, 0, 5},
                      {{.hash = 5, .name_space = 1}, 1, 6}};
  store::Slot slot = 0;
  for (const Put& put : puts) {
    store::SlotRecord record = put.block.record(shape, slot, put.epoch);
    record.put_sequence = put.sequence;
    append(bytes, encode(record, slot, small_superblock(1).store_id));
    append(bytes, encode_tokens(record, put.block.tokens(shape)));
    append(bytes, put.block.bytes(shape));
    ++slot;
  }
  return bytes;
}

Bytes export_file(int mode, bool with_tokens) {
  const store::StoreShape shape = small_shape();
  Bytes file;
  auto writer = store::ExportWriter::create({.shape = shape,
                                             .store_id = small_superblock(1).store_id,
                                             .num_blocks = 3,
                                             .exported = 1'000'000'000},
                                            store::sink_to(file))
                    .value();
  for (std::uint32_t i = 0; i < 3; ++i) {
    const store::TestBlock block{.hash = i + 1, .parent = i, .position = i};
    const Bytes payload = block.bytes(shape);
    store::PayloadSum sum(shape.region_bytes);
    sum.add(payload);
    writer
        .add({.sequence_hash = SequenceHash(block.hash),
              .parent_hash = SequenceHash(block.parent),
              .digest = 0,
              .payload_sum = sum.finish(),
              .position = block.position,
              .token_count = 2,
              .name_space = 0,
              .priority = 35,
              .tokens = with_tokens ? block.tokens(shape) : std::vector<Token>()},
             payload)
        .value();
  }
  writer.finish().value();
  // Where the checksums are made right, the header is, too, and the input is what follows.
  if (mode == 1) file.erase(file.begin(), file.begin() + store::kExportHeaderBytes);
  file.insert(file.begin(), std::byte(mode));
  return file;
}

// The frames behind each other.
Bytes frames(int mode, const std::vector<Bytes>& all) {
  Bytes bytes = {std::byte(mode)};
  for (const Bytes& frame : all) append(bytes, frame);
  return bytes;
}

Seeds frame_seeds() {
  const std::vector<SequenceHash> hashes = {SequenceHash(1), SequenceHash(2)};
  const std::vector<std::uint64_t> digests = {3, 4};
  constexpr std::chrono::milliseconds kLease{30'000};
  const Bytes lookup = leader::encode_lookup(2, kLease, 5, hashes, digests);
  const Bytes info = leader::encode_reply(
      1, RankInfo{.block_size = 16, .model = "a model", .hash_profile = "kvbm"});
  const Bytes plan =
      leader::encode_reply(2, leader::PlanAnswer{.plan = 9, .blocks = 2, .by_tier = {0, 1, 1}});
  const Bytes failure =
      leader::encode_reply(3, Error{ErrorCode::HandleNotFound, 0, 9, 0, "no such plan"});
  return {{"requests", frames(0, {leader::encode_hello(1), lookup,
                                  leader::encode_trim(3, {.plan = 9, .blocks = 1}),
                                  leader::encode_release(4, 9)})},
          {"replies", frames(1, {info, plan, failure})},
          {"lookup", frames(2, {leader::encode_lookup(2, kLease, 5, hashes, {})})},
          {"info", frames(3, {info})},
          {"failure", frames(3, {failure})}};
}

Seeds peer_frame_seeds() {
  const remote::Introduction introduction{
      .info = {.rank = {.block_size = 16, .model = "a model", .hash_profile = "kvbm"},
               .content_digest = 9},
      .blockset = Bytes(8, std::byte{1})};
  const remote::BlockChoice blocks{
      .plan = 9, .patience = std::chrono::milliseconds(100), .indexes = {0, 1, 2}};
  remote::Fetched fetched;
  fetched.blocks.emplace_back(remote::FetchedBlock{.block = 1, .payload_sum = 2});
  fetched.blocks.emplace_back(Error{ErrorCode::PlanExpired, 0, 9, 0, "no such plan"});
  const auto ask = [](const remote::PeerRequest& body) {
    return remote::encode_peer_request(1, body);
  };
  const auto answer = [](const remote::PeerReply& body) {
    return remote::encode_peer_reply(1, body);
  };
  const Bytes lookup = ask(remote::LookupRequest{
      .lease = std::chrono::milliseconds(30'000), .hashes = {SequenceHash(1)}, .digests = {2}});
  return {
      {"handshake", frames(0, {ask(remote::Challenge()), ask(remote::Proof()), ask(introduction)})},
      {"requests",
       frames(0, {lookup, ask(remote::FetchRequest{blocks}), ask(remote::PullRequest{blocks}),
                  ask(remote::ConfirmRequest{.plan = 9}), ask(remote::Ping()),
                  ask(remote::Goodbye())})},
      {"handshake_answers",
       frames(1, {answer(remote::Challenge()), answer(remote::Proof()), answer(introduction)})},
      {"replies",
       frames(1, {answer(fetched), answer(remote::BlockHead{.bytes = 1}),
                  answer(remote::Confirmed{.is_current = true}), answer(remote::Pong())})},
      {"introduction", frames(2, {ask(introduction)})},
      {"fetch", frames(2, {ask(remote::FetchRequest{blocks})})},
      {"fetched", frames(3, {answer(fetched)})}};
}

Seeds blockset_seeds() {
  const auto seed = [](int mode, const remote::Blockset& set) {
    Bytes bytes = {std::byte(mode)};
    append(bytes, encode(set));
    return bytes;
  };
  const remote::Blockset least{.started_at_ns = 1, .block_size = 1};
  return {{"whole", seed(0, remote::test_blockset())},
          {"sealed", seed(1, remote::test_blockset())},
          {"least", seed(1, least)}};
}

}  // namespace

Seeds seeds(const std::string& target) {
  if (target == "manifest") return manifest_seeds();
  if (target == "frames") return frame_seeds();
  if (target == "peer_frames") return peer_frame_seeds();
  if (target == "blockset") return blockset_seeds();
  if (target == "records") {
    return {{"plain", records(0)},
            {"sealed", records(1)},
            {"sealed_blocks", records(3)},
            {"empty", {std::byte{0}}}};
  }
  const Bytes whole = export_file(0, true);
  return {{"plain", whole},
          {"without_tokens", export_file(0, false)},
          {"cut", {whole.begin(), whole.end() - 100}},
          {"sealed", export_file(1, true)},
          {"sealed_without_tokens", export_file(1, false)}};
}

}  // namespace kvbm::fuzz
