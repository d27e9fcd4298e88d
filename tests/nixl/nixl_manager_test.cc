// Managers that have an agent of the real NIXL.
#include <gtest/gtest.h>

#include <algorithm>
#include <future>

#include "manager/test_manager.h"
#include "need_nixl.h"

namespace kvbm::detail {
namespace {

class NixlManagerTest : public testing::Test {
 protected:
  void SetUp() override {
    KVBM_NEED_NIXL();
    config_.runtime.worker_id = 7;
    config_.runtime.nixl = {.kind = NixlOptions::Kind::Enabled, .library = nixl::kLibrary};
  }
  static std::string agent_of(ReferenceBlockManager& manager) {
    std::promise<std::string> name;
    auto told = name.get_future();
    ManagerAccess::core(manager).nixl->agent().post(
        [&](nixl::Agent& agent) { name.set_value(agent.name()); });
    return told.get();
  }

  KvBlockManagerConfig config_ = test_config();
};

TEST_F(NixlManagerTest, SaysWhichNixlItHas) {
  const auto manager = ReferenceBlockManager::create(config_).value();
  const auto& paths = manager.transfer_paths();
  EXPECT_NE(std::find(paths.begin(), paths.end(), std::string("nixl: 1.5.1, ") + nixl::kLibrary),
            paths.end());
}

TEST_F(NixlManagerTest, AgentsOfAWorkerNeverHaveTheSameName) {
  auto one = ReferenceBlockManager::create(config_).value();
  auto two = ReferenceBlockManager::create(config_).value();
  EXPECT_TRUE(agent_of(one).starts_with("kvbm-7-")) << agent_of(one);
  EXPECT_NE(agent_of(one), agent_of(two));
}

TEST_F(NixlManagerTest, TheCallerMayNameTheAgent) {
  config_.runtime.nixl.kind = NixlOptions::Kind::Agent;
  config_.runtime.nixl.agent = NixlAgent{"mine"};
  auto manager = ReferenceBlockManager::create(config_).value();
  EXPECT_TRUE(agent_of(manager).starts_with("mine-")) << agent_of(manager);
}

TEST_F(NixlManagerTest, ALibraryThatIsNoNixlIsRefusedAndNothingIsLeft) {
  config_.runtime.nixl.library = "libc.so.6";
  const auto refused = ReferenceBlockManager::create(config_);
  EXPECT_EQ(refused.error().code, ErrorCode::NixlError);
  EXPECT_NE(refused.error().message.find("nixl_capi_is_stub"), std::string::npos);
}

}  // namespace
}  // namespace kvbm::detail
