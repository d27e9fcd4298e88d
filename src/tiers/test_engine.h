// A tier engine over three small tiers, with a clock and an executor that the test turns by hand.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "tiers/test_tiers.h"

namespace kvbm::detail {

// Blocks that a peer, which the test plays, keeps.
struct TestPeerBlocks final : RemoteBlocks {
  std::vector<ImmutableHold> blocks;
};

class TierEngineTest : public testing::Test {
 protected:
  explicit TierEngineTest(EngineOptions options = {.blocks_per_transfer = 1})
      : options_(std::move(options)) {}

  void build(std::size_t device, std::size_t host, std::size_t disk) {
    device_ = make_test_pool(Tier::Device, device);
    host_ = make_test_pool(Tier::Host, host);
    disk_ = make_test_pool(Tier::Disk, disk);
    engine_ =
        std::make_unique<TierEngine>(TierPools{device_.get(), host_.get(), disk_.get()}, options_);
    for (TierPool* pool : {device_.get(), host_.get()}) {
      pool->set_listener([this](Tier tier, std::vector<OffloadOffer> offers) {
        step(BlocksOffered{tier, std::move(offers)});
      });
    }
  }

  void step(Event event) {
    std::vector<Event> events;
    events.push_back(std::move(event));
    for (Command& command : engine_->step(now_, std::move(events))) {
      if (auto* start = std::get_if<StartTransfer>(&command)) {
        started_.push_back(std::move(*start));
      } else if (auto* layers = std::get_if<LayersArrived>(&command)) {
        layers_[layers->id] = layers->layers;
      } else {
        auto& finish = std::get<FinishRequest>(command);
        EXPECT_FALSE(answers_.count(finish.id)) << "a request ends once";
        answers_.emplace(finish.id, std::move(finish.blocks));
      }
    }
    engine_->check_invariants();
  }

  TierPool& pool(Tier tier) {
    return tier == Tier::Device ? *device_ : tier == Tier::Host ? *host_ : *disk_;
  }

  static std::pair<Tier, Tier> ends(Edge edge) {
    switch (edge) {
      case Edge::DeviceToHost: return {Tier::Device, Tier::Host};
      case Edge::HostToDisk: return {Tier::Host, Tier::Disk};
      case Edge::DiskToHost: return {Tier::Disk, Tier::Host};
      case Edge::HostToDevice: return {Tier::Host, Tier::Device};
      case Edge::PeerToHost: return {Tier::Host, Tier::Host};  // the peer is played by the test
    }
    return {};
  }

  // Ends the oldest transfer, with a real copy unless an error is given.
  void end_transfer(std::optional<ErrorCode> error = std::nullopt) { end_nth(0, error); }

  void end_nth(std::size_t n, std::optional<ErrorCode> error = std::nullopt) {
    ASSERT_LT(n, started_.size());
    StartTransfer transfer = std::move(started_[n]);
    started_.erase(started_.begin() + static_cast<std::ptrdiff_t>(n));
    const auto [from, to] = ends(transfer.edge);
    const LayerRange layers = transfer.layer ? LayerRange{*transfer.layer, 1} : LayerRange{};
    TierPool& source = transfer.edge == Edge::PeerToHost ? *peer_ : pool(from);
    const TransferRequest request{
        .plan = CopyPlan::create(source.layout(), pool(to).layout(), layers).value(),
        .blocks = {},
        .step = transfer.step};
    TransferResult result;
    for (BlockCopy copy : transfer.blocks) {
      if (transfer.remote) {
        EXPECT_FALSE(copy.payload_sum) << "the owner tells the sum";
        const auto& blocks = static_cast<const TestPeerBlocks&>(*transfer.remote).blocks;
        const ImmutableHold& block = blocks.at(copy.source);
        copy.payload_sum = peer_->payload_sum(block);
        copy.source = block.id();
      }
      if (error) {
        result.blocks.push_back(Error{*error, 0, 0, 0, {}});
      } else {
        result.blocks.push_back(ManualExecutor::run(request, copy));
      }
    }
    step(TransferEnded{transfer.id, std::move(result)});
  }

  void end_all_transfers() {
    while (!started_.empty()) end_transfer();
  }

  // Puts a chain into host and disk, and into no other tier.
  void store_chain(std::uint64_t conversation, std::uint32_t length) {
    for (std::uint32_t i = 0; i < length; ++i) put_test_block(*host_, conversation, i);
    end_all_transfers();
    EXPECT_EQ(resident(*disk_, conversation, length), length);
  }

  std::size_t resident(TierPool& pool, std::uint64_t conversation, std::uint32_t length) {
    const auto chain = test_chain(conversation, length);
    return static_cast<std::size_t>(
        std::count_if(chain.begin(), chain.end(),
                      [&](SequenceHash hash) { return pool.store().contains(hash); }));
  }

  // Items for the first `length` blocks of a chain from one tier, without targets.
  std::vector<RequestItem> items_of(std::uint64_t conversation, std::uint32_t length, Tier from) {
    auto sources = match(pool(from).store(), test_chain(conversation, length));
    EXPECT_EQ(sources.size(), length);
    std::vector<RequestItem> items;
    for (ImmutableHold& source : sources) {
      items.push_back({.source = std::move(source), .at = from, .tokens = 4});
    }
    return items;
  }

  // Items for blocks [first, end) of a chain, as the peer has them.
  std::vector<RequestItem> peer_items(std::uint64_t conversation, std::uint32_t first,
                                      std::uint32_t end) {
    if (!peer_) peer_ = make_test_pool(Tier::Host, 16);
    auto remote = std::make_shared<TestPeerBlocks>();
    std::vector<RequestItem> items;
    for (std::uint32_t i = first; i < end; ++i) {
      const SequenceHash hash = test_hash(conversation, i);
      auto there = match(peer_->store(), std::span(&hash, 1));
      remote->blocks.push_back(there.empty() ? put_test_block(*peer_, conversation, i)
                                             : std::move(there.front()));
      BlockIdentity identity = test_identity(conversation, i);
      identity.epoch = host_->store().epoch(identity.name_space);
      items.push_back({.at = Tier::Remote,
                       .remote = remote,
                       .remote_block = i - first,
                       .identity = identity,
                       .tokens = 4});
    }
    return items;
  }

  // Gives items new blocks of the device pool to go to.
  std::vector<RequestItem> to_device(std::vector<RequestItem> items) {
    auto targets = allocate(device_->store(), items.size()).value();
    for (std::size_t i = 0; i < items.size(); ++i) items[i].target = std::move(targets[i]);
    return items;
  }

  RequestId start(RequestStarted request) {
    request.id = next_request_++;
    if (request.deadline == TimePoint{}) request.deadline = now_ + std::chrono::seconds(10);
    const RequestId id = request.id;
    step(std::move(request));
    return id;
  }

  // Asks for the first `length` blocks of a chain from one tier.
  RequestId onboard(std::uint64_t conversation, std::uint32_t length, Tier from,
                    RequestStarted request = {}) {
    request.items = to_device(items_of(conversation, length, from));
    return start(std::move(request));
  }

  // The error of each block of an answer; none for those that are there.
  std::vector<std::optional<ErrorCode>> errors(RequestId id) {
    std::vector<std::optional<ErrorCode>> errors;
    for (const auto& block : answers_.at(id)) {
      errors.push_back(block ? std::nullopt : std::optional(block.error().code));
    }
    return errors;
  }

  std::uint64_t reached(Transition transition) {
    return engine_->reached()[static_cast<std::size_t>(transition)];
  }

  void drop_from_host() {
    const auto all = allocate(host_->store(), host_->store().total_blocks()).value();
  }

  const EdgeStats& edge(Edge edge) {
    return engine_->stats().edges[static_cast<std::size_t>(edge)];
  }
  std::size_t held(TierPool& pool) {
    return pool.store().total_blocks() - pool.store().available_blocks();
  }

  const EngineOptions options_;
  std::shared_ptr<TierPool> device_, host_, disk_;
  std::shared_ptr<TierPool> peer_;  // the host tier of another worker
  std::unique_ptr<TierEngine> engine_;
  TimePoint now_{std::chrono::seconds(1000)};
  RequestId next_request_ = 1;
  std::vector<StartTransfer> started_;
  std::map<RequestId, std::vector<Result<ImmutableHold>>> answers_;
  std::map<RequestId, std::size_t> layers_;
};

}  // namespace kvbm::detail
