#include "kvbm/leader.h"

#include <algorithm>
#include <set>
#include <utility>

#include "leader/leader_core.h"
#include "leader/protocol.h"
#include "leader/socket_path.h"

namespace kvbm {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t kMaxRanks = 1024;
constexpr milliseconds kMaxTimeout{60'000};
constexpr milliseconds kMaxPause{3'600'000};

Result<void> check_time(milliseconds time, milliseconds longest, const char* option) {
  if (time.count() >= 1 && time <= longest) return {};
  return Error{ErrorCode::InvalidConfig, 0, 0, 0,
               std::string(option) + " is " + std::to_string(time.count()) +
                   " ms; it must be 1 to " + std::to_string(longest.count()) + " ms"};
}

Result<void> check(const LeaderConfig& config) {
  if (config.sockets.empty() || config.sockets.size() > kMaxRanks) {
    return Error{ErrorCode::InvalidConfig, 0, config.sockets.size(), kMaxRanks,
                 "a leader needs 1 to 1024 sockets"};
  }
  std::set<std::string> seen;
  for (const std::string& socket : config.sockets) {
    KVBM_CHECK_OK(leader::check_socket_path(socket));
    if (!seen.insert(socket).second) {
      return Error{ErrorCode::InvalidConfig, 0, 0, 0, "two ranks have the socket " + socket};
    }
  }
  KVBM_CHECK_OK(check_time(config.lookup_timeout, kMaxTimeout, "lookup_timeout"));
  KVBM_CHECK_OK(check_time(config.lease, leader::kMaxLease, "lease"));
  KVBM_CHECK_OK(check_time(config.first_reconnect, kMaxPause, "first_reconnect"));
  KVBM_CHECK_OK(check_time(config.longest_reconnect, kMaxPause, "longest_reconnect"));
  if (config.longest_reconnect < config.first_reconnect) {
    return Error{ErrorCode::InvalidConfig, 0,
                 static_cast<std::uint64_t>(config.longest_reconnect.count()),
                 static_cast<std::uint64_t>(config.first_reconnect.count()),
                 "longest_reconnect is shorter than first_reconnect"};
  }
  return {};
}

}  // namespace

const char* to_string(RankState state) noexcept {
  switch (state) {
    case RankState::Connecting: return "connecting";
    case RankState::Ready: return "ready";
    case RankState::Stalled: return "stalled";
    case RankState::Down: return "down";
    case RankState::Refused: return "refused";
  }
  return "unknown";
}

// --- plans -----------------------------------------------------------------------------------

LeaderPlan::LeaderPlan(std::weak_ptr<detail::LeaderCore> core, std::vector<RankPlan> ranks,
                       std::size_t blocks) noexcept
    : core_(std::move(core)), ranks_(std::move(ranks)), blocks_(blocks) {}

LeaderPlan::LeaderPlan(LeaderPlan&& other) noexcept
    : core_(std::move(other.core_)),
      ranks_(std::exchange(other.ranks_, {})),
      blocks_(std::exchange(other.blocks_, 0)) {}

LeaderPlan& LeaderPlan::operator=(LeaderPlan&& other) noexcept {
  if (this == &other) return *this;
  release();
  core_ = std::move(other.core_);
  ranks_ = std::exchange(other.ranks_, {});
  blocks_ = std::exchange(other.blocks_, 0);
  return *this;
}

std::vector<std::uint64_t> LeaderPlan::plan_ids() const {
  std::vector<std::uint64_t> ids;
  for (const RankPlan& rank : ranks_) ids.push_back(rank.plan);
  return ids;
}

void LeaderPlan::release() noexcept {
  if (const auto core = core_.lock()) core->release(ranks_);
  core_.reset();
  ranks_.clear();
  blocks_ = 0;
}

// --- the leader ------------------------------------------------------------------------------

Leader::Leader(std::shared_ptr<detail::LeaderCore> core) noexcept : core_(std::move(core)) {}

// Plans may hold the core for a moment longer.
Leader::~Leader() {
  if (core_) core_->stop();
}

Leader::Leader(Leader&&) noexcept = default;

Leader& Leader::operator=(Leader&& other) noexcept {
  std::swap(core_, other.core_);
  return *this;
}

Result<Leader> Leader::create(LeaderConfig config) {
  KVBM_CHECK_OK(check(config));
  KVBM_TRY(auto core, detail::LeaderCore::create(std::move(config)));
  return Leader(std::move(core));
}

Result<LeaderPlan> Leader::lookup(std::span<const SequenceHash> hashes,
                                  std::span<const std::uint64_t> digests, NamespaceId name_space) {
  if (!digests.empty() && digests.size() != hashes.size()) {
    return Error{ErrorCode::InvalidConfig, 0, digests.size(), hashes.size(),
                 "a lookup needs a digest for each hash, or none at all"};
  }
  const std::size_t most = digests.empty() ? leader::kMaxHashes : leader::kMaxHashesWithDigests;
  if (hashes.size() > most) {
    return Error{ErrorCode::InvalidConfig, 0, hashes.size(), most,
                 "a lookup has more hashes than fit into a message"};
  }
  if (hashes.empty()) return LeaderPlan();
  std::vector<RankPlan> plans = core_->lookup(hashes, digests, name_space);
  if (plans.empty()) return LeaderPlan();
  std::size_t blocks = 0;
  for (const std::uint32_t count : plans.front().by_tier) blocks += count;
  return LeaderPlan(core_, std::move(plans), blocks);
}

Result<LeaderPlan> Leader::lookup(std::span<const TokenBlock> blocks, NamespaceId name_space) {
  std::vector<SequenceHash> hashes;
  std::vector<std::uint64_t> digests;
  hashes.reserve(blocks.size());
  digests.reserve(blocks.size());
  for (const TokenBlock& block : blocks) {
    hashes.push_back(block.sequence_hash());
    digests.push_back(block.digest());
  }
  // Without a key there are none, and they need not be sent.
  if (std::ranges::all_of(digests, [](std::uint64_t digest) { return digest == 0; })) {
    digests.clear();
  }
  return lookup(hashes, digests, name_space);
}

std::vector<RankHealth> Leader::health() const { return core_->health(); }
LeaderStats Leader::stats() const { return core_->stats(); }
void Leader::check_invariants() const { core_->check_invariants(); }

}  // namespace kvbm
