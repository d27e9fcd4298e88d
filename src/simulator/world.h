// The world of one schedule: tiers, their users, and what goes wrong.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "simulator/random.h"
#include "simulator/schedule.h"
#include "simulator/virtual_tiers.h"

namespace kvbm::simulator {

// Keeps events until somebody comes for them, and then the state that they describe.
class EventBook final : public EventSink {
 public:
  void put(std::span<const BlockEvent> events) noexcept override {
    waiting_.insert(waiting_.end(), events.begin(), events.end());
  }
  void consume();
  std::size_t waiting() const noexcept { return waiting_.size(); }
  // What the events so far say that the tier has.
  std::set<std::pair<NamespaceId, std::uint64_t>> names(Tier tier) const;
  void forget();  // a new process

 private:
  std::vector<BlockEvent> waiting_;
  std::map<std::pair<Tier, BlockId>, std::pair<NamespaceId, SequenceHash>> blocks_;
};

// What a schedule is like, drawn from its seed.
struct Scenario {
  VirtualConfig tiers;
  double copy_fault_rate = 0;   // of transfers
  double prefill_rate = 0;      // tokens per second; 0: nobody says
  std::size_t peer_blocks = 0;  // 0: there is no peer
  std::size_t conversations = 0;
  std::size_t shared_prefix = 0;  // blocks that all conversations begin with
  std::size_t longest = 0;        // blocks of a conversation
  std::size_t requests = 0;
  bool tends_disk = false;
};
Scenario draw_scenario(Random& random);

class World {
 public:
  World(std::uint64_t seed, Trace trace);
  ScheduleResult run();

 private:
  // One block of a conversation as somebody asked for it.
  struct Name {
    BlockIdentity identity;
    std::uint32_t generation;  // of its content: counts resets
  };
  struct HeldBlock {
    detail::ImmutableHold hold;
    Name name;
  };
  struct HeldBlocks {
    std::vector<HeldBlock> blocks;
    TimePoint until;
  };
  // An engine's own device block, where the device is external.
  struct ExternalBlock {
    std::optional<Name> name;  // what it should hold; none: nobody cares
    bool in_use = false;
  };
  struct Pending {  // a request that has not ended
    std::vector<Name> names;
    std::vector<BlockId> externals;
    std::vector<std::size_t> moved;  // positions of the names of its items
    std::size_t layers = 0;
    std::vector<BlockId> targets;   // device blocks, as far as the tiers hand them out
    std::set<std::size_t> not_yet;  // moved blocks of which a layer was told that was not there
    bool cancelled = false;
    bool is_governed = false;  // what is computed sooner may be left out
  };

  // world.cc: what happens.
  void act();
  void start_peer();
  void start_tiers();
  void prefill();
  void prefetch();
  void peer_acts();
  void offload_held();
  void abandon_plan();
  void cancel_some();
  void reset_some();
  void crash();
  void retain_some();
  void drop_held(bool all);
  void settle();
  bool pools_have_store() const;

  // world_requests.cc: users.
  std::vector<Name> names_of(std::size_t conversation, std::size_t length, NamespaceId space) const;
  std::optional<detail::Plan> find(const std::vector<Name>& names);
  void ask_peer(const std::vector<Name>& names, detail::Plan& plan);
  void onboard(detail::Plan plan, const std::vector<Name>& names);
  bool choose_target(detail::RequestItem& item, Pending& pending);
  void onboarded(detail::RequestId id, std::vector<detail::ImmutableHold> in_device,
                 std::vector<Result<detail::ImmutableHold>> moved);
  void compute(const std::vector<Name>& names, std::size_t first);
  void offload_external(const std::vector<Name>& names, std::vector<BlockId> ids);
  void start_and_forget(
      detail::RequestStarted request,
      std::function<void(const std::vector<Result<detail::ImmutableHold>>&)> ended);
  TimePoint some_deadline();
  std::optional<BlockId> free_external();

  // world_checks.cc: bytes and books.
  static void fill(const Layout& layout, BlockId id, const Name& name);
  bool is_right(Tier tier, BlockId id, const Name& name, std::size_t layers = ~std::size_t{0});
  void check_block(Tier tier, BlockId id, const Name& name, const char* where);
  void check_layers(Pending& pending);
  void check_externals();
  void check_end();
  void check_closed();
  void check_counters();
  void check_events();
  void found(std::string what);
  void count_everywhere(FaultKind kind);
  TransferFault make_fault(const detail::StartTransfer& transfer);
  void add_counts();
  void say(const char* format, ...) __attribute__((format(printf, 2, 3)));

  detail::TierPool& pool(Tier tier) { return *tiers_->pool(tier); }
  TimePoint now() const { return tiers_->now(); }

  const std::uint64_t seed_;
  const Trace trace_;
  Random random_;
  Scenario scenario_;
  std::shared_ptr<EventBook> events_ = std::make_shared<EventBook>();
  std::unique_ptr<VirtualTiers> tiers_;
  std::array<std::uint32_t, 2> generations_{};  // by namespace
  std::vector<HeldBlocks> held_;
  std::vector<ExternalBlock> externals_;
  std::map<std::uint64_t, Pending> pending_;  // by ticket
  std::map<std::uint64_t, detail::RequestId> requests_of_tickets_;
  std::uint64_t next_ticket_ = 1;
  std::uint64_t requests_this_life_ = 0;
  TimePoint disk_full_until_{};
  ScheduleResult result_;
};

}  // namespace kvbm::simulator
