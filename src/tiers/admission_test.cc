#include "tiers/admission.h"

#include <gtest/gtest.h>

#include "tiers/test_tiers.h"

namespace kvbm::detail {
namespace {

using namespace std::chrono_literals;
using Verdict = Admission::Verdict;

class AdmissionTest : public testing::Test {
 protected:
  Admission make(const AdmissionConfig& config) const { return {config, host_->store()}; }
  Verdict admit(Admission& admission, std::uint64_t hash, std::uint32_t priority = DEFAULT_PRIORITY,
                std::uint64_t bytes = 100) const {
    return admission.admit(SequenceHash(hash), priority, bytes, now_);
  }

  const std::shared_ptr<TierPool> host_ = make_test_pool(Tier::Host, 2);
  TimePoint now_{1000s};
};

TEST_F(AdmissionTest, WithoutARuleEveryBlockIsAdmitted) {
  Admission all = make({});
  for (std::uint64_t hash = 1; hash < 100; ++hash) EXPECT_EQ(admit(all, hash), Verdict::Admitted);
}

TEST_F(AdmissionTest, AnUnimportantBlockIsRefused) {
  Admission important = make({.min_priority = 40});
  EXPECT_EQ(admit(important, 1, 39), Verdict::Refused);
  EXPECT_EQ(admit(important, 1, 40), Verdict::Admitted);
}

TEST_F(AdmissionTest, TheSecondUseCounts) {
  Admission twice = make({.rule = AdmissionRule::SecondUse});
  EXPECT_EQ(admit(twice, 1), Verdict::Refused) << "never seen";
  twice.used(SequenceHash(1));
  EXPECT_EQ(admit(twice, 1), Verdict::Refused);
  EXPECT_EQ(admit(twice, 1), Verdict::Refused) << "to ask is no use";
  twice.used(SequenceHash(1));
  EXPECT_EQ(admit(twice, 1), Verdict::Admitted);
  for (int i = 0; i < 10; ++i) twice.used(SequenceHash(1));
  EXPECT_EQ(admit(twice, 1), Verdict::Admitted) << "and every later one";
  twice.used(SequenceHash(2));
  EXPECT_EQ(admit(twice, 2), Verdict::Refused);
}

TEST_F(AdmissionTest, UsesAreForgottenAfterSoManyOtherBlocks) {
  Admission twice = make({.rule = AdmissionRule::SecondUse});
  twice.used(SequenceHash(1));
  twice.used(SequenceHash(1));
  for (std::uint64_t hash = 2; hash <= 1024; ++hash) twice.used(SequenceHash(hash));
  EXPECT_EQ(admit(twice, 1), Verdict::Admitted) << "1024 are remembered at least";
  for (std::uint64_t hash = 2000; hash < 3024; ++hash) twice.used(SequenceHash(hash));
  EXPECT_EQ(admit(twice, 1), Verdict::Refused);
}

TEST_F(AdmissionTest, UnderLruEveryBlockIsWorthAVictim) {
  Admission worth = make({.rule = AdmissionRule::WorthMore});
  EXPECT_EQ(admit(worth, 1), Verdict::Admitted) << "there is room";
  put_test_block(*host_, 1, 0);
  put_test_block(*host_, 2, 0);
  EXPECT_EQ(admit(worth, 1), Verdict::Admitted);
}

TEST_F(AdmissionTest, ASecondsWorthOfBytesMayBeCopiedAtOnce) {
  Admission slow = make({.bytes_per_second = 250});
  EXPECT_EQ(admit(slow, 1), Verdict::Admitted);
  EXPECT_EQ(admit(slow, 2), Verdict::Admitted);
  EXPECT_EQ(admit(slow, 3), Verdict::OverBudget) << "50 bytes are left";
  now_ += 199ms;
  EXPECT_EQ(admit(slow, 3), Verdict::OverBudget);
  now_ += 2ms;
  EXPECT_EQ(admit(slow, 3), Verdict::Admitted);
  now_ += 1h;
  EXPECT_EQ(admit(slow, 4), Verdict::Admitted);
  EXPECT_EQ(admit(slow, 5), Verdict::Admitted);
  EXPECT_EQ(admit(slow, 6), Verdict::OverBudget) << "no more is saved than a second's worth";
}

TEST_F(AdmissionTest, ABlockLargerThanTheBudgetPassesWhenThatIsFull) {
  Admission slow = make({.bytes_per_second = 50});
  EXPECT_EQ(admit(slow, 1), Verdict::Admitted);
  now_ += 1900ms;
  EXPECT_EQ(admit(slow, 2), Verdict::OverBudget) << "what it took too much is paid first";
  now_ += 100ms;
  EXPECT_EQ(admit(slow, 2), Verdict::Admitted);
}

TEST_F(AdmissionTest, ARefusedBlockCostsNothing) {
  Admission slow =
      make({.rule = AdmissionRule::SecondUse, .min_priority = 10, .bytes_per_second = 100});
  EXPECT_EQ(admit(slow, 1, 9), Verdict::Refused);
  EXPECT_EQ(admit(slow, 1, 10), Verdict::Refused);
  slow.used(SequenceHash(1));
  slow.used(SequenceHash(1));
  EXPECT_EQ(admit(slow, 1, 10), Verdict::Admitted);
}

}  // namespace
}  // namespace kvbm::detail
