// A manager that answers a leader: what the leader found is onboarded here by its id.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "leader/test_peer.h"
#include "manager/test_manager.h"

namespace kvbm::detail {
namespace {

using leader::TestFolder;
using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;

class LeaderSocketTest : public testing::Test {
 protected:
  std::string path(std::size_t rank = 0) const { return folder_ / ("rank" + std::to_string(rank)); }
  ReferenceBlockManager manager(std::size_t rank = 0,
                                KvBlockManagerConfig config = test_config()) const {
    config.runtime.worker_id = 70 + rank;
    config.runtime.leader_socket = path(rank);
    return ReferenceBlockManager::create(config).value();
  }
  Leader lead(std::size_t ranks = 1, milliseconds lease = milliseconds(60'000)) const {
    LeaderConfig config{.sockets = {}, .lookup_timeout = milliseconds(60'000), .lease = lease};
    for (std::size_t rank = 0; rank < ranks; ++rank) config.sockets.push_back(path(rank));
    return Leader::create(config).value();
  }
  static std::size_t onboard(ReferenceBlockManager& manager, PlanId plan) {
    const auto loaded = manager.onboard(manager.take_plan(plan).value()).value().get();
    for (const auto& block : loaded.blocks) EXPECT_TRUE(block && is_right(*block));
    return loaded.valid_prefix();
  }
  // What create() says of a socket at this path.
  static Error refusal(const std::string& path) {
    KvBlockManagerConfig config = test_config();
    config.runtime.leader_socket = path;
    const auto made = ReferenceBlockManager::create(config);
    return made ? Error() : made.error();
  }

  const TestFolder folder_;
};

TEST_F(LeaderSocketTest, APlanOfTheLeaderIsTakenUpAndOnboarded) {
  auto rank = manager();
  const auto tokens = test_prompt(0, 4);
  compute_and_drain(rank, tokens.blocks());
  clear(*rank.device());
  compute_and_drain(rank, tokens.blocks().first(1));

  Leader leader = lead();
  auto plan = leader.lookup(test_prompt(0, 6).blocks()).value();
  ASSERT_EQ(plan.blocks(), 4u);
  EXPECT_EQ(plan.ranks()[0].worker_id, 70u);
  EXPECT_THAT(plan.ranks()[0].by_tier, ElementsAre(1, 3, 0));
  const PlanId id = plan.plan_ids()[0];
  plan.keep();
  EXPECT_EQ(onboard(rank, id), 4u);
  EXPECT_EQ(rank.take_plan(id).error().code, ErrorCode::PlanExpired) << "it was used";
}

TEST_F(LeaderSocketTest, ALeaderLearnsWhatTheManagerIs) {
  KvBlockManagerConfig config = test_config();
  const std::vector<std::byte> secret(32, std::byte{7});
  config.runtime.digest_key = DigestKey::create(secret).value();
  config.model.hash_profile = "another";
  auto rank = manager(0, config);
  const RankInfo info = lead().health()[0].info;
  EXPECT_EQ(info.worker_id, 70u);
  EXPECT_EQ(info.key_fingerprint, config.runtime.digest_key.fingerprint());
  EXPECT_EQ(info.block_size, kTestPage);
  EXPECT_EQ(info.model, "a model");
  EXPECT_EQ(info.hash_profile, "another");
  rank.close();
  auto next = manager(0, config);
  EXPECT_NE(lead().health()[0].info.epoch, info.epoch);
}

TEST_F(LeaderSocketTest, TheShortestPrefixWinsAndTheRestIsGivenBack) {
  auto longer = manager(0, test_config(8, 0, 0));
  auto shorter = manager(1, test_config(8, 0, 0));
  compute(longer, test_prompt(0, 6).blocks());
  compute(shorter, test_prompt(0, 2).blocks());
  Leader leader = lead(2);
  {
    const auto plan = leader.lookup(test_prompt(0, 6).blocks()).value();
    ASSERT_EQ(plan.blocks(), 2u);
    EXPECT_EQ(longer.device()->available_blocks(), 6u);
    EXPECT_EQ(shorter.device()->available_blocks(), 6u);
    EXPECT_EQ(longer.take_plan(plan.plan_ids()[0]).value().size(), 2u);
  }
  while (longer.device()->available_blocks() < 8 || shorter.device()->available_blocks() < 8) {
    std::this_thread::yield();  // the release is on its way
  }
}

TEST_F(LeaderSocketTest, NamespacesAndDigestsAreThoseOfTheBlocks) {
  auto rank = manager();
  const auto keyed = [](int byte) {
    const std::vector<std::byte> secret(32, std::byte(byte));
    return test_prompt(0, 3, {.key = DigestKey::create(secret).value()});
  };
  compute(rank, keyed(1).blocks(), 5);
  Leader leader = lead();
  EXPECT_EQ(leader.lookup(keyed(1).blocks(), 5).value().blocks(), 3u);
  EXPECT_EQ(leader.lookup(keyed(1).blocks(), 4).value().blocks(), 0u);
  EXPECT_EQ(leader.lookup(keyed(2).blocks(), 5).value().blocks(), 0u);
  EXPECT_EQ(leader.stats().empty, 2u);
}

TEST_F(LeaderSocketTest, WhatWasResetIsAMissAndAPlanOfItStaysValid) {
  auto rank = manager();
  compute_and_drain(rank, test_prompt(0, 3).blocks());
  Leader leader = lead();
  const auto before = leader.lookup(test_prompt(0, 3).blocks()).value();
  ASSERT_EQ(before.blocks(), 3u);
  rank.reset().value();
  EXPECT_EQ(leader.lookup(test_prompt(0, 3).blocks()).value().blocks(), 0u);
  EXPECT_EQ(onboard(rank, before.plan_ids()[0]), 3u);
}

TEST_F(LeaderSocketTest, APlanWhoseLeaseIsOverIsExpiredAndItsBlocksAreFree) {
  auto rank = manager(0, test_config(4, 0, 0));
  compute(rank, test_prompt(0, 4).blocks());
  Leader leader = lead(1, milliseconds(1));
  const auto plan = leader.lookup(test_prompt(0, 4).blocks()).value();
  while (rank.device()->available_blocks() < 4) std::this_thread::yield();
  if (plan.blocks() == 0) return;  // it was over before the answer came
  const auto taken = rank.take_plan(plan.plan_ids()[0]);
  ASSERT_FALSE(taken.has_value());
  EXPECT_EQ(taken.error().code, ErrorCode::PlanExpired);
  EXPECT_EQ(taken.error().requested, plan.plan_ids()[0]);
}

TEST_F(LeaderSocketTest, ATrimOfWhatIsNoPlanIsRefused) {
  auto rank = manager();
  compute(rank, test_prompt(0, 3).blocks());
  TierDriver& driver = *ManagerAccess::core(rank).driver;
  TierPlanService service(driver, {});
  const auto answer =
      service.lookup(test_prompt(0, 3).sequence_hashes(), {}, 0, milliseconds(60'000));
  ASSERT_EQ(answer.value().blocks, 3u);
  const std::uint64_t plan = answer->plan;
  const leader::PlanAnswer two{.plan = plan, .blocks = 2, .by_tier = {2, 0, 0}};
  EXPECT_EQ(service.trim(plan, 2).value(), two);
  EXPECT_EQ(service.trim(plan, 3).value(), two) << "it grows no more";
  service.release(plan);
  service.release(plan);
  EXPECT_EQ(driver.plans()->size(), 0u);
  EXPECT_EQ(service.trim(plan, 1).error().code, ErrorCode::HandleNotFound);
  const auto none = service.lookup(test_prompt(9, 1).sequence_hashes(), {}, 0, milliseconds(1));
  EXPECT_EQ(none.value(), leader::PlanAnswer());
}

TEST_F(LeaderSocketTest, ClosingEndsTheAnswersAndRemovesTheSocket) {
  auto rank = manager();
  compute(rank, test_prompt(0, 3).blocks());
  Leader leader = lead();
  const auto plan = leader.lookup(test_prompt(0, 3).blocks()).value();
  ASSERT_EQ(plan.blocks(), 3u);
  rank.close();
  EXPECT_FALSE(std::filesystem::exists(path()));
  EXPECT_EQ(leader.lookup(test_prompt(0, 3).blocks()).value().blocks(), 0u);
  EXPECT_EQ(rank.take_plan(plan.plan_ids()[0]).error().code, ErrorCode::PlanExpired);
  rank.close();
}

TEST_F(LeaderSocketTest, ASocketThatCannotBeIsOneErrorThatNamesIt) {
  auto rank = manager();
  const Error used = refusal(path());
  EXPECT_EQ(used.code, ErrorCode::OperationFailed);
  EXPECT_THAT(used.message, HasSubstr("runtime.leader_socket " + path() + ": another process"));
  compute(rank, test_prompt(0, 1).blocks());
  EXPECT_EQ(lead().lookup(test_prompt(0, 1).blocks()).value().blocks(), 1u) << "undisturbed";

  const std::string missing = folder_ / "missing/rank";
  EXPECT_EQ(refusal(missing).code, ErrorCode::OperationFailed);
  EXPECT_THAT(refusal(missing).to_string(), HasSubstr(missing));
  EXPECT_THAT(refusal(missing).to_string(), HasSubstr("No such file or directory"));

  const std::string file = folder_ / "file";
  std::ofstream(file) << "mine";
  EXPECT_THAT(refusal(file).message, HasSubstr(file + " is not a socket"));
  EXPECT_TRUE(std::filesystem::exists(file));

  const std::string too_long = folder_ / std::string(200, 'x');
  EXPECT_EQ(refusal(too_long).code, ErrorCode::InvalidConfig);
  EXPECT_THAT(refusal(too_long).message, HasSubstr(too_long + "; it may have 107 bytes"));
}

TEST_F(LeaderSocketTest, TheBuilderTakesThePath) {
  EXPECT_EQ(KvManagerRuntimeConfigBuilder().leader_socket("/a").build().leader_socket, "/a");
  EXPECT_EQ(KvBlockManagerConfig().runtime.leader_socket, "");
}

}  // namespace
}  // namespace kvbm::detail
