#include "logical/policy/ghosts.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <deque>
#include <random>

namespace kvbm {
namespace {

TEST(Ghosts, GivesBackWhatWasAddedOnce) {
  Ghosts ghosts(4);
  EXPECT_FALSE(ghosts.take(SequenceHash{7}).has_value());
  ghosts.add(SequenceHash{7}, {3, 123'456'789'012'345'678});
  EXPECT_EQ(ghosts.take(SequenceHash{7}), (Ghost{3, 123'456'789'012'345'678}));
  EXPECT_FALSE(ghosts.take(SequenceHash{7}).has_value());
  ghosts.check_invariants();
}

TEST(Ghosts, ForgetsTheOldestWhenFull) {
  Ghosts ghosts(3);
  for (std::uint64_t i = 1; i <= 4; ++i) ghosts.add(SequenceHash{i}, {0, std::int64_t(i)});
  EXPECT_EQ(ghosts.size(), 3u);
  EXPECT_FALSE(ghosts.take(SequenceHash{1}).has_value());
  EXPECT_EQ(ghosts.take(SequenceHash{2}), (Ghost{0, 2}));
  EXPECT_EQ(ghosts.take(SequenceHash{4}), (Ghost{0, 4}));
}

TEST(Ghosts, AnEvictionReplacesAnEarlierOneOfTheSameHash) {
  Ghosts ghosts(3);
  ghosts.add(SequenceHash{1}, {0, 10});
  ghosts.add(SequenceHash{1}, {1, 20});
  EXPECT_EQ(ghosts.size(), 1u);
  EXPECT_EQ(ghosts.take(SequenceHash{1}), (Ghost{1, 20}));
}

// Against a list that is searched from end to end. Few hashes, so that they collide and come back.
TEST(Ghosts, AgreesWithANaiveListOverRandomCalls) {
  const char* text = std::getenv("KVBM_SEED");
  const unsigned seed = text != nullptr ? unsigned(std::strtoul(text, nullptr, 10)) : 1;
  SCOPED_TRACE(testing::Message() << "KVBM_SEED=" << seed);
  std::mt19937 random(seed);
  constexpr std::size_t kCapacity = 13;
  Ghosts ghosts(kCapacity);
  struct Entry {
    std::uint64_t hash;
    Ghost ghost;
    bool live;
  };
  std::deque<Entry> naive;  // the newest kCapacity evictions, oldest first
  const auto find = [&](std::uint64_t hash) {
    auto it = naive.begin();
    while (it != naive.end() && !(it->live && it->hash == hash)) ++it;
    return it;
  };
  for (int step = 0; step < 20'000; ++step) {
    const std::uint64_t hash = random() % 30;
    const auto known = find(hash);
    if (random() % 2 == 0) {
      if (known != naive.end()) known->live = false;
      const Ghost ghost{std::uint8_t(random() % 4), step};
      naive.push_back({hash, ghost, true});
      if (naive.size() > kCapacity) naive.pop_front();
      ghosts.add(SequenceHash{hash}, ghost);
    } else {
      const auto taken = ghosts.take(SequenceHash{hash});
      ASSERT_EQ(taken.has_value(), known != naive.end()) << "step " << step;
      if (!taken) continue;
      ASSERT_EQ(*taken, known->ghost) << "step " << step;
      known->live = false;
    }
    if (step % 100 == 0) ghosts.check_invariants();
  }
}

}  // namespace
}  // namespace kvbm
