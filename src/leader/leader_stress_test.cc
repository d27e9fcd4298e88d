// Leaders of ranks that are what they should be, and come and go.
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>

#include "leader/test_leader.h"

namespace kvbm::leader {
namespace {

// --- plans -----------------------------------------------------------------------------------

class ServedLeaderTest : public testing::Test, protected LeaderWorld {
 protected:
  ServedLeaderTest() { listener_.reset(); }
};

TEST_F(ServedLeaderTest, TheShortestPrefixWinsAndOthersAreTrimmed) {
  serve_all({4, 6, 3, 3});
  Leader leader = Leader::create(config(4)).value();
  const auto plan = leader.lookup(prefix(6), {}, 2).value();
  EXPECT_EQ(plan.blocks(), 3u);
  EXPECT_EQ(plan.plan_ids(), (std::vector<std::uint64_t>{1001, 2001, 3001, 4001}));
  for (std::size_t i = 0; i < 4; ++i) {
    const auto plans = services_[i]->plans();
    ASSERT_EQ(plans.size(), 1u);
    EXPECT_EQ(plans.at(plan.ranks()[i].plan).hashes, prefix(3));
    EXPECT_EQ(plans.at(plan.ranks()[i].plan).name_space, 2);
    EXPECT_EQ(plan.ranks()[i].by_tier, (std::array<std::uint32_t, kTierCount>{0, 2, 1}));
    EXPECT_EQ(plan.ranks()[i].epoch, i + 1);
    EXPECT_EQ(plan.ranks()[i].worker_id, 7u);
  }
  EXPECT_EQ(leader.stats().trims, 2u);
  EXPECT_EQ(leader.stats().hits, 1u);
  leader.check_invariants();
}

TEST_F(ServedLeaderTest, ARankWithNothingMakesAMissAndNoPlanStays) {
  serve_all({4, 0, 3});
  Leader leader = Leader::create(config(3)).value();
  EXPECT_TRUE(misses(leader));
  for (const std::size_t i : {0u, 2u}) services_[i]->wait_for_plans(0);
  EXPECT_EQ(leader.stats().empty, 1u);
}

TEST_F(ServedLeaderTest, PlansAreReleasedUnlessTheyAreKept) {
  serve_all({4, 4});
  Leader leader = Leader::create(config(2)).value();
  {
    const auto dropped = leader.lookup(prefix(4)).value();
    EXPECT_EQ(dropped.blocks(), 4u);
  }
  for (const auto& service : {&services_[0], &services_[1]}) (*service)->wait_for_plans(0);

  auto released = leader.lookup(prefix(4)).value();
  released.release();
  EXPECT_EQ(released.blocks(), 0u);
  EXPECT_TRUE(released.ranks().empty());
  services_[0]->wait_for_plans(0);

  std::vector<std::uint64_t> kept_ids;
  {
    auto kept = leader.lookup(prefix(4)).value();
    kept.keep();
    kept_ids = kept.plan_ids();
  }
  // Behind it in the same connection.
  {
    const auto dropped = leader.lookup(prefix(4)).value();
  }
  services_[0]->wait_for_releases(3);
  EXPECT_EQ(services_[0]->plans().size(), 1u);
  EXPECT_TRUE(services_[0]->plans().contains(kept_ids[0]));
  services_[0]->advance(milliseconds(30'000));
  EXPECT_EQ(services_[0]->plans().size(), 0u) << "a plan that is not used expires";
}

TEST_F(ServedLeaderTest, APlanMovesAndOutlivesItsLeader) {
  serve_all({4});
  std::optional<Leader> leader(Leader::create(config(1)).value());
  auto first = leader->lookup(prefix(4)).value();
  auto second = leader->lookup(prefix(2)).value();
  const auto id = second.plan_ids();
  first = std::move(second);
  EXPECT_EQ(first.plan_ids(), id);
  services_[0]->wait_for_releases(1);
  EXPECT_EQ(services_[0]->plans().size(), 1u);
  const LeaderPlan third = std::move(first);
  EXPECT_EQ(first.blocks(), 0u);
  EXPECT_EQ(third.blocks(), 2u);
  leader.reset();
  EXPECT_EQ(services_[0]->plans().size(), 1u) << "its lease decides";
}

TEST_F(ServedLeaderTest, TokenBlocksAreAskedForWithTheirDigests) {
  serve_all({4});
  Leader leader = Leader::create(config(1)).value();
  const std::vector<Token> tokens(16, 5);
  std::vector<TokenBlock> blocks;
  blocks.push_back(TokenBlock::create_external(tokens, SequenceHash(1), nullptr, 11).value());
  blocks.push_back(TokenBlock::create_external(tokens, SequenceHash(2), &blocks[0], 12).value());
  EXPECT_EQ(leader.lookup(blocks).value().blocks(), 2u);
  EXPECT_EQ(services_[0]->last_digests(), (std::vector<std::uint64_t>{11, 12}));
  const auto plain = TokenBlock::create_external(tokens, SequenceHash(1)).value();
  EXPECT_EQ(leader.lookup(std::span(&plain, 1)).value().blocks(), 1u);
  EXPECT_TRUE(services_[0]->last_digests().empty());
}

TEST_F(ServedLeaderTest, TheLongestLookupsArrive) {
  serve_all({4, 4});
  Leader leader = Leader::create(config(2)).value();
  const std::vector<SequenceHash> hashes = prefix(524'289);
  const std::vector<std::uint64_t> digests(524'289, 1);
  EXPECT_EQ(leader.lookup(std::span(hashes).first(524'288)).value().blocks(), 4u);
  EXPECT_EQ(leader.lookup(std::span(hashes).first(524'286), std::span(digests).first(524'286))
                .value()
                .blocks(),
            4u);
}

TEST_F(ServedLeaderTest, ALookupThatCannotBeAskedIsAnError) {
  serve_all({4});
  Leader leader = Leader::create(config(1)).value();
  const std::vector<SequenceHash> hashes = prefix(524'289);
  const std::vector<std::uint64_t> digests(524'289, 1);
  const auto too_long = leader.lookup(hashes);
  EXPECT_EQ(too_long.error().code, ErrorCode::InvalidConfig);
  EXPECT_EQ(too_long.error().requested, 524'289u);
  EXPECT_EQ(too_long.error().available, 524'288u);
  const auto with_digests =
      leader.lookup(std::span(hashes).first(524'287), std::span(digests).first(524'287));
  EXPECT_EQ(with_digests.error().available, 524'286u);
  EXPECT_EQ(leader.lookup(prefix(3), std::span(digests).first(2)).error().code,
            ErrorCode::InvalidConfig);
  EXPECT_EQ(leader.lookup(std::span<const SequenceHash>()).value().blocks(), 0u);
  EXPECT_EQ(leader.stats().lookups, 0u);
}

// --- ranks that come and go ------------------------------------------------------------------

TEST_F(ServedLeaderTest, RanksThatAreDownMakeMissesUntilTheyAreThere) {
  serve_all({4});
  services_[1] = std::make_unique<TestService>(3, 2);
  Leader leader = Leader::create(config(2)).value();
  EXPECT_EQ(leader.health()[0].state, RankState::Ready);
  EXPECT_EQ(leader.health()[1].state, RankState::Down);
  EXPECT_NE(leader.health()[1].reason.find("cannot connect to " + path(1)), std::string::npos)
      << leader.health()[1].reason;
  EXPECT_TRUE(misses(leader));
  EXPECT_EQ(leader.stats().unavailable, 1u);
  EXPECT_EQ(services_[0]->lookups(), 0u) << "nobody is asked in vain";
  serve(1);
  states_.wait_for(1, RankState::Ready);
  EXPECT_EQ(leader.lookup(prefix(6)).value().blocks(), 3u);
  EXPECT_EQ(leader.health()[1].info, services_[1]->info());
  EXPECT_EQ(leader.stats().connections, 2u);
}

TEST_F(ServedLeaderTest, ARankThatRestartsIsConnectedAgainAndKeepsItsPlans) {
  serve_all({4, 4});
  Leader leader = Leader::create(config(2)).value();
  auto old_plan = leader.lookup(prefix(4)).value();
  servers_[1].reset();
  states_.wait_for(1, RankState::Down);
  EXPECT_TRUE(misses(leader));
  // Another process, which has given the same id to another plan.
  services_[1] = std::make_unique<TestService>(4, 2);
  services_[1]->mutable_info().epoch = 99;
  serve(1);
  states_.wait_for(1, RankState::Ready);
  const auto new_plan = leader.lookup(prefix(4)).value();
  ASSERT_EQ(new_plan.plan_ids()[1], old_plan.plan_ids()[1]);
  old_plan.release();
  services_[0]->wait_for_releases(1);
  {
    const auto behind = leader.lookup(prefix(4)).value();
  }
  services_[1]->wait_for_releases(1);
  EXPECT_TRUE(services_[1]->plans().contains(new_plan.plan_ids()[1]));
}

TEST_F(ServedLeaderTest, RanksThatDisagreeAreRefused) {
  const auto change = [](int what, RankInfo& info) {
    if (what == 0) info.model = "another";
    if (what == 1) info.block_size = 32;
    if (what == 2) info.hash_profile = "vllm";
    if (what == 3) info.key_fingerprint = 10;
  };
  const char* const about[] = {"the model: ", "the block size in tokens: ", "the hash profile: ",
                               "the fingerprint of the digest key: "};
  for (int what = 0; what < 4; ++what) {
    servers_ = {};
    serve_all({4, 4});
    servers_[1].reset();
    change(what, services_[1]->mutable_info());
    serve(1);
    const auto leader = Leader::create(config(2));
    ASSERT_FALSE(leader.has_value());
    EXPECT_EQ(leader.error().code, ErrorCode::InvalidConfig);
    const std::string& message = leader.error().message;
    EXPECT_NE(message.find("rank 0 (" + path(0) + ")"), std::string::npos) << message;
    EXPECT_NE(message.find("rank 1 (" + path(1) + ")"), std::string::npos) << message;
    EXPECT_NE(message.find(std::string("disagree about ") + about[what]), std::string::npos)
        << message;
  }
}

TEST_F(ServedLeaderTest, ARankThatComesLaterAndDisagreesIsRefusedUntilItAgrees) {
  serve_all({4});
  Leader leader = Leader::create(config(2)).value();
  services_[1] = std::make_unique<TestService>(4, 2);
  services_[1]->mutable_info().model = "another";
  serve(1);
  const std::string reason = states_.wait_for(1, RankState::Refused);
  EXPECT_EQ(reason, "rank 1 (" + path(1) + ") and rank 0 (" + path(0) +
                        ") disagree about the model: 'another' and 'a model'");
  EXPECT_TRUE(misses(leader));
  servers_[1].reset();
  services_[1] = std::make_unique<TestService>(4, 3);
  serve(1);
  states_.wait_for(1, RankState::Ready);
  EXPECT_EQ(leader.lookup(prefix(6)).value().blocks(), 4u);
}

TEST_F(ServedLeaderTest, AllRanksMayBecomeAnotherModelTogether) {
  serve_all({4, 4});
  Leader leader = Leader::create(config(2)).value();
  servers_ = {};
  for (const std::size_t rank : {0u, 1u}) {
    states_.wait_for(rank, RankState::Down);
    services_[rank] = std::make_unique<TestService>(5, rank + 10);
    services_[rank]->mutable_info().model = "another";
  }
  for (const std::size_t rank : {0u, 1u}) serve(rank);
  for (const std::size_t rank : {0u, 1u}) states_.wait_for(rank, RankState::Ready);
  EXPECT_EQ(leader.lookup(prefix(6)).value().blocks(), 5u);
}

TEST_F(ServedLeaderTest, ARankThatAnswersWithAnErrorMakesAMissAndStays) {
  serve_all({4, 4});
  Leader leader = Leader::create(config(2)).value();
  services_[1]->set_fails(true, false);
  EXPECT_TRUE(misses(leader));
  EXPECT_EQ(leader.stats().failures, 1u);
  EXPECT_EQ(leader.health()[1].state, RankState::Ready);
  EXPECT_NE(leader.health()[1].last_error.find("the rank is out of sorts"), std::string::npos);
  services_[0]->wait_for_releases(1);
  EXPECT_TRUE(services_[0]->plans().empty());
  services_[1]->set_fails(false, false);
  EXPECT_EQ(leader.lookup(prefix(6)).value().blocks(), 4u);
}

TEST_F(ServedLeaderTest, APlanThatExpiresBeforeItIsTrimmedMakesAMiss) {
  serve_all({2, 4, 4});
  services_[1]->set_fails(false, true);
  Leader leader = Leader::create(config(3)).value();
  EXPECT_TRUE(misses(leader));
  EXPECT_EQ(leader.stats().failures, 1u);
  for (const auto& service : services_) {
    if (service) service->wait_for_plans(0);
  }
}

// --- configuration ---------------------------------------------------------------------------

TEST_F(ServedLeaderTest, RefusesBadConfigurations) {
  const auto message = [&](const std::function<void(LeaderConfig&)>& change) {
    LeaderConfig bad = config(2);
    change(bad);
    const auto leader = Leader::create(bad);
    EXPECT_FALSE(leader.has_value());
    return leader ? "" : leader.error().to_string();
  };
  EXPECT_EQ(message([](auto& c) { c.sockets.clear(); }),
            "InvalidConfig: a leader needs 1 to 1024 sockets (requested 0, available 1024)");
  EXPECT_EQ(message([](auto& c) { c.sockets[1] = c.sockets[0]; }),
            "InvalidConfig: two ranks have the socket " + path(0));
  EXPECT_NE(message([](auto& c) { c.sockets[1] = std::string(200, 'x'); }).find("is too long"),
            std::string::npos);
  EXPECT_EQ(message([](auto& c) { c.lookup_timeout = milliseconds(0); }),
            "InvalidConfig: lookup_timeout is 0 ms; it must be 1 to 60000 ms");
  EXPECT_EQ(message([](auto& c) { c.lease = milliseconds(3'600'001); }),
            "InvalidConfig: lease is 3600001 ms; it must be 1 to 3600000 ms");
  EXPECT_EQ(message([](auto& c) { c.first_reconnect = milliseconds(2); }),
            "InvalidConfig: longest_reconnect is shorter than first_reconnect (requested 1, "
            "available 2)");
}

// --- all at once -----------------------------------------------------------------------------

TEST_F(ServedLeaderTest, NoAnswerIsEverThatOfAnotherQuestion) {
  constexpr int kThreads = 3;
  constexpr int kLookups = 300;
  const auto seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  serve_all({40, 40});
  Leader leader = Leader::create(config(2)).value();
  std::atomic<int> running{kThreads};
  std::atomic<int> hits{0};
  std::vector<std::jthread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(seed + static_cast<unsigned>(t));
      for (int i = 0; i < kLookups; ++i) {
        const auto hashes = prefix(1 + random() % 30);
        const auto plan = leader.lookup(hashes, {}, static_cast<NamespaceId>(t)).value();
        leader.check_invariants();
        if (plan.blocks() == 0) continue;  // a rank was down
        ++hits;
        EXPECT_EQ(plan.blocks(), hashes.size());
        // Rank 0 never restarts, so its plan must be there, and be that of this question.
        const auto plans = services_[0]->plans();
        const auto found = plans.find(plan.ranks()[0].plan);
        ASSERT_NE(found, plans.end());
        EXPECT_EQ(found->second.hashes, hashes);
        EXPECT_EQ(found->second.name_space, t);
      }
      --running;
    });
  }
  while (running > 0) {
    servers_[1].reset();
    serve(1);
    states_.wait_for(1, RankState::Ready);
  }
  threads.clear();
  const LeaderStats stats = leader.stats();
  EXPECT_EQ(stats.lookups, std::uint64_t{kThreads * kLookups});
  EXPECT_EQ(stats.hits, static_cast<std::uint64_t>(hits.load()));
  EXPECT_EQ(stats.lookups,
            stats.hits + stats.empty + stats.unavailable + stats.timeouts + stats.failures);
  services_[0]->wait_for_plans(0);
}

}  // namespace
}  // namespace kvbm::leader
