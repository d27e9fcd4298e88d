#include "kvbm/offload.h"

#include <gtest/gtest.h>

namespace kvbm {
namespace {

TEST(OffloadNamesTest, EveryModeIsFoundUnderItsName) {
  EXPECT_STREQ(to_string(OffloadMode::WriteThrough), "write-through");
  EXPECT_STREQ(to_string(OffloadMode::OnEviction), "on-eviction");
  EXPECT_STREQ(to_string(OffloadMode::Selective), "selective");
  for (const OffloadMode mode :
       {OffloadMode::WriteThrough, OffloadMode::OnEviction, OffloadMode::Selective}) {
    EXPECT_EQ(offload_mode(to_string(mode)), mode);
  }
  for (const char* other : {"", "write_through", "Selective", "selective "}) {
    EXPECT_FALSE(offload_mode(other).has_value()) << other;
  }
}

TEST(OffloadNamesTest, EveryRuleIsFoundUnderItsName) {
  EXPECT_STREQ(to_string(AdmissionRule::All), "all");
  EXPECT_STREQ(to_string(AdmissionRule::SecondUse), "second-use");
  EXPECT_STREQ(to_string(AdmissionRule::WorthMore), "worth-more");
  for (const AdmissionRule rule :
       {AdmissionRule::All, AdmissionRule::SecondUse, AdmissionRule::WorthMore}) {
    EXPECT_EQ(admission_rule(to_string(rule)), rule);
  }
  for (const char* other : {"", "ALL", "second"}) {
    EXPECT_FALSE(admission_rule(other).has_value()) << other;
  }
}

}  // namespace
}  // namespace kvbm
