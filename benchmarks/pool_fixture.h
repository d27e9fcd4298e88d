// Pools of millions of blocks without bytes, full of chains, for the benches.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "kvbm/metrics.h"
#include "kvbm/pool.h"

namespace kvbm::bench {

using Pool = BlockPool<DeviceStorage, locality::Logical>;

// Names of chains of equal length, and a random order in which to visit them.
class Chains {
 public:
  Chains(std::size_t count, std::size_t length, std::uint64_t seed);

  std::size_t count() const { return order_.size(); }
  std::size_t length() const { return length_; }
  std::span<const SequenceHash> chain(std::size_t i) const {
    return std::span(hashes_).subspan(i * length_, length_);
  }
  // The next chain of the random order, round and round.
  std::size_t next() const {
    if (++at_ >= order_.size()) at_ = 0;
    return order_[at_];
  }

 private:
  std::size_t length_;
  std::vector<SequenceHash> hashes_;
  std::vector<std::uint32_t> order_;
  mutable std::size_t at_ = 0;
};

// How the free blocks lie before the first chain is put into them.
enum class Slots : std::uint8_t { InOrder, Shuffled };

// A pool with metrics on, whose blocks have no bytes in this process.
Result<Pool> make_bench_pool(std::size_t blocks, std::shared_ptr<Registry> metrics);

// Gives all blocks out and takes them back in random order.
void shuffle_slots(const Pool& pool, std::uint64_t seed);

// Allocates and names the blocks of a chain.
std::vector<Pool::Complete> name_chain(const Pool& pool, std::span<const SequenceHash> chain);

// Registers every chain and drops it: all are evictable.
void fill(const Pool& pool, const Chains& chains);

}  // namespace kvbm::bench
