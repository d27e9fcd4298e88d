// A store is used while its restored blocks become evictable. check_invariants() is the judge.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>
#include <thread>

#include "tiers/restored_holds.h"

namespace kvbm {
namespace {

constexpr std::uint32_t kLength = 40;
constexpr std::uint32_t kChains = 200;
constexpr std::size_t kBlocks = kLength * kChains;
constexpr std::size_t kSpare = 16;

SequenceHash name(std::uint64_t chain, std::uint32_t position) {
  return SequenceHash((chain << 32) + position + 1);
}

std::vector<SequenceHash> names(std::uint64_t chain, std::uint32_t length) {
  std::vector<SequenceHash> hashes;
  for (std::uint32_t i = 0; i < length; ++i) hashes.push_back(name(chain, i));
  return hashes;
}

NamespaceId namespace_of(std::uint64_t chain) { return static_cast<NamespaceId>(chain % 3); }

std::uint64_t seed_of_run() {
  const char* const given = std::getenv("KVBM_SEED");
  const std::uint64_t seed = given ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  std::fprintf(stderr, "KVBM_SEED=%llu\n", static_cast<unsigned long long>(seed));
  return seed;
}

// Holds the thread that gives back until all others are at work.
class Gate final : public RaceHook {
 public:
  explicit Gate(int threads) : awaited_(threads) {}
  void arrive() noexcept { awaited_.fetch_sub(1); }
  void at(RaceWindow window) noexcept override {
    while (window == RaceWindow::LastRelease && awaited_.load() > 0) std::this_thread::yield();
  }

 private:
  std::atomic<int> awaited_;
};

// Chains in random places; put one block of each after the other.
std::vector<RestoredHold> restore_chains(BlockStore& store, std::mt19937_64& random) {
  std::vector<BlockId> places(store.capacity());
  std::iota(places.begin(), places.end(), BlockId{0});
  std::shuffle(places.begin(), places.end(), random);
  std::vector<RestoredBlock> blocks;
  std::vector<RestoredHold> holds;
  for (std::uint32_t chain = 0; chain < kChains; ++chain) {
    for (std::uint32_t i = 0; i < kLength; ++i) {
      const BlockId* const place = &places[chain * kLength + i];
      blocks.push_back({.id = *place,
                        .parent_guess = i > 0 ? place[-1] : kNoBlock,
                        .priority = chain % 5 == 0 ? 1 : DEFAULT_PRIORITY,
                        .identity = {name(chain, i), i > 0 ? name(chain, i - 1) : SequenceHash(), i,
                                     16, 0, namespace_of(chain)}});
      holds.push_back({i * kChains + chain, *place});
    }
  }
  store.restore(blocks);
  EXPECT_TRUE(store.finish_restore().empty());
  return holds;
}

// A chain's next block is put behind what is there of it.
void extend(BlockStore& store, std::uint64_t chain) {
  const std::vector<SequenceHash> hashes = names(chain, kLength + 4);
  const RunRef run = store.match_run({hashes, {}, namespace_of(chain)});
  std::array<BlockId, 1> id{kNoBlock};
  if (run.count < hashes.size()) id[0] = store.allocate_one();
  if (id[0] != kNoBlock) {
    store.complete(id[0],
                   {hashes[run.count], run.count > 0 ? hashes[run.count - 1] : SequenceHash(),
                    run.count, 16, 0, namespace_of(chain)});
    EXPECT_TRUE(store.register_blocks(id).has_value());
    store.release(id[0]);
  }
  if (run.count > 0) store.release(run.deepest);
}

void use(BlockStore& store, std::mt19937_64& random) {
  const std::uint64_t chain = random() % kChains;
  switch (random() % 8) {
    case 0: {
      std::array<BlockId, 16> ids;
      if (store.allocate(ids)) store.release(ids);
      break;
    }
    case 1: extend(store, chain); break;
    case 2:
      if (random() % 64 == 0) store.reset(NamespaceId{1});
      break;
    default: {
      const auto hashes = names(chain, 1 + static_cast<std::uint32_t>(random() % kLength));
      const RunRef run = store.match_run({hashes, {}, namespace_of(chain)});
      if (run.count == 0) break;
      std::vector<BlockId> ids(run.count);
      store.run_ids(run.deepest, ids);
      for (std::size_t i = 0; i < ids.size(); ++i) {
        ASSERT_EQ(store.identity(ids[i]).sequence_hash, hashes[i]);
      }
      if (random() % 64 == 0) store.detach(run.deepest);
      store.release(run.deepest);
    }
  }
}

void run_round(std::mt19937_64& random, EvictionPolicy policy, bool stops) {
  constexpr int kThreads = 3;
  Gate gate(kThreads);
  const auto store =
      BlockStore::create(
          {.capacity = kBlocks + kSpare, .start_empty = true, .policy = policy, .race_hook = &gate})
          .value();
  RestoredHolds holds(*store, restore_chains(*store, random));
  std::atomic<bool> is_over{false};
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, own = std::mt19937_64(random())]() mutable {
        gate.arrive();
        while (!is_over) use(*store, own);
      });
    }
    if (stops) holds.stop();
    holds.wait();
    is_over = true;
  }
  EXPECT_EQ(store->available_blocks(), kBlocks + kSpare);
  store->check_invariants();
}

TEST(RestoredHoldsStressTest, AStoreIsUsedWhileItsBlocksBecomeEvictable) {
  std::mt19937_64 random(seed_of_run());
  for (int round = 0; round < 8; ++round) {
    run_round(random, round % 4 == 3 ? EvictionPolicy::Fifo : EvictionPolicy::Lru, round % 4 == 2);
  }
}

}  // namespace
}  // namespace kvbm
