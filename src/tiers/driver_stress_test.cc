// What it means that a driver is drained.
#include <gtest/gtest.h>

#include <future>

#include "physical/transfer/thread_executor.h"
#include "tiers/driver.h"
#include "tiers/test_tiers.h"

namespace kvbm::detail {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Outcomes = std::vector<Result<ImmutableHold>>;

TimePoint in(std::chrono::nanoseconds time) { return std::chrono::steady_clock::now() + time; }

class TierDriverTest : public testing::Test {
 protected:
  // Copies a block from the device to the host tier.
  void offload(std::function<void(Outcomes)> finished) {
    std::vector<RequestItem> items;
    items.push_back({.source = put_test_block(*device_, 1, next_++), .at = Tier::Device});
    driver_->start(
        {.kind = RequestKind::Offload, .items = std::move(items), .deadline = in(seconds(60))},
        {.finished = std::move(finished)});
  }

  const std::shared_ptr<TierPool> device_ = make_test_pool(Tier::Device, 8);
  const std::shared_ptr<TierPool> host_ = make_test_pool(Tier::Host, 8);
  const std::shared_ptr<TierDriver> driver_ =
      TierDriver::create({device_.get(), host_.get(), nullptr}, {},
                         ThreadExecutor::create(2).value())
          .value();
  std::uint32_t next_ = 0;
};

TEST_F(TierDriverTest, IsDrainedWhenEverybodyHasBeenTold) {
  std::promise<void> told, may_end;
  offload([&](Outcomes) {
    told.set_value();
    may_end.get_future().wait();
  });
  told.get_future().wait();
  EXPECT_FALSE(driver_->drain(in(milliseconds(10))));
  may_end.set_value();
  EXPECT_TRUE(driver_->drain(in(seconds(60))));
  EXPECT_EQ(host_->store().available_blocks(), host_->store().total_blocks());
}

TEST_F(TierDriverTest, WhoIsToldCanDrainIt) {
  std::promise<bool> drained;
  offload([&](Outcomes) {
    // Also in the answer to what is asked in the middle of an answer.
    driver_->start({.items = {}, .deadline = in(seconds(60))}, {.finished = [&](Outcomes) {
                     drained.set_value(driver_->drain(in(seconds(60))));
                   }});
  });
  EXPECT_TRUE(drained.get_future().get());
}

TEST_F(TierDriverTest, TwoWhoAreToldCanCloseIt) {
  std::promise<void> first, second;
  offload([&](Outcomes) {
    first.set_value();
    second.get_future().wait();
    driver_->close();
  });
  first.get_future().wait();
  offload([&](Outcomes) {
    second.set_value();
    driver_->close();
  });
  EXPECT_TRUE(driver_->drain(in(seconds(60))));
  EXPECT_TRUE(driver_->closed());
}

}  // namespace
}  // namespace kvbm::detail
