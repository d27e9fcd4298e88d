// Threads against one store. check_invariants() at the end is the judge: sizes and counters can
// agree while a list is torn.
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>

#include "logical/pool/hold_ops.h"

namespace kvbm {
namespace {

using detail::CompleteHold;
using detail::ImmutableHold;
using detail::RunHold;

#ifdef NDEBUG
constexpr int kRounds = 200'000;
#else
constexpr int kRounds = 50'000;
#endif

SequenceHash name(std::uint64_t conversation, std::uint32_t position) {
  return SequenceHash((conversation << 32) + position + 1);
}

std::vector<SequenceHash> chain(std::uint64_t conversation, std::uint32_t length) {
  std::vector<SequenceHash> hashes;
  for (std::uint32_t i = 0; i < length; ++i) hashes.push_back(name(conversation, i));
  return hashes;
}

// Registers what the store does not have of a chain; returns fewer blocks when there is no room.
std::vector<ImmutableHold> put_chain(BlockStore& store, std::uint64_t conversation,
                                     std::uint32_t length) {
  std::vector<ImmutableHold> holds;
  for (std::uint32_t i = 0; i < length; ++i) {
    auto block = detail::allocate(store, 1);
    if (!block) break;
    std::vector<CompleteHold> completes;
    completes.push_back(detail::complete(
        std::move(block->front()),
        {name(conversation, i), i == 0 ? SequenceHash() : name(conversation, i - 1), i, 16}));
    holds.push_back(
        std::move(detail::register_blocks(store, std::move(completes)).value().front()));
  }
  return holds;
}

template <class Body>
void run_threads(int count, const Body& body) {
  std::vector<std::jthread> threads;
  for (int t = 0; t < count; ++t) threads.emplace_back([&body, t] { body(t); });
}

// Four threads match and drop one prefix, so every drop may be the last one. Killed mutant:
// decrementing before taking the lock.
TEST(BlockStoreStressTest, MatchAndLastDropNeverTearTheEvictableList) {
  const auto store = BlockStore::create({.capacity = 64}).value();
  put_chain(*store, 1, 64);
  const auto hashes = chain(1, 64);
  run_threads(4, [&](int t) {
    for (int i = 0; i < kRounds / 10; ++i) {
      if ((i + t) % 2 == 0) {
        ASSERT_EQ(detail::match_run(*store, hashes).count(), 64u);
      } else {
        ASSERT_EQ(detail::match(*store, hashes).size(), 64u);
      }
    }
  });
  EXPECT_EQ(store->available_blocks(), 64u);
  store->check_invariants();
}

TEST(BlockStoreStressTest, MatchesEvictionsRegistrationsAndDetachmentsTogether) {
  const auto store = BlockStore::create({.capacity = 48}).value();
  run_threads(4, [&](int t) {
    std::mt19937 random(static_cast<unsigned>(t));
    for (int i = 0; i < kRounds / 10; ++i) {
      const std::uint64_t conversation = random() % 6;
      const std::uint32_t length = 1 + random() % 8;
      switch (random() % 4) {
        case 0: put_chain(*store, conversation, length); break;
        case 1: {
          const RunHold run = detail::match_run(*store, chain(conversation, length));
          // Held blocks keep their names, whatever happens around them.
          const std::vector<BlockId> ids = detail::ids(run);
          for (std::uint32_t at = 0; at < ids.size(); ++at) {
            ASSERT_EQ(store->identity(ids[at]).sequence_hash, name(conversation, at));
          }
          break;
        }
        case 2: {
          auto blocks = detail::match(*store, chain(conversation, length));
          if (!blocks.empty() && random() % 16 == 0) store->detach(blocks.back().id());
          break;
        }
        default: detail::allocate(*store, random() % 12).has_value(); break;
      }
    }
  });
  EXPECT_EQ(store->available_blocks(), 48u);
  store->check_invariants();
}

// The race of a last drop with the destruction of the store; ASan and TSan are the judges.
TEST(BlockStoreStressTest, LastDropsRaceWithTheEndOfTheStore) {
  for (int round = 0; round < kRounds / 50; ++round) {
    auto store = BlockStore::create({.capacity = 8}).value();
    auto holds = put_chain(*store, 1, 8);
    std::atomic<int> ready{0};
    const auto arrive = [&] {
      ready.fetch_add(1);
      while (ready.load() < 3) std::this_thread::yield();
    };
    std::jthread first([&, mine = std::vector<ImmutableHold>(
                               std::make_move_iterator(holds.begin()),
                               std::make_move_iterator(holds.begin() + 4))]() mutable {
      arrive();
      mine.clear();
    });
    std::jthread second(
        [&, mine = std::vector<ImmutableHold>(std::make_move_iterator(holds.begin() + 4),
                                              std::make_move_iterator(holds.end()))]() mutable {
          arrive();
          mine.clear();
        });
    arrive();
    store.reset();
  }
}

}  // namespace
}  // namespace kvbm
