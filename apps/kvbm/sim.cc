#include "apps/kvbm/sim.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>

#include "apps/kvbm/sim_bounds.h"
#include "logical/pool/block_store.h"

namespace kvbm::app {
namespace {

// A bijection, so that different ids have different hashes.
SequenceHash hash_of(std::uint64_t id) {
  id = (id ^ (id >> 30)) * 0xbf58476d1ce4e5b9u;
  id = (id ^ (id >> 27)) * 0x94d049bb133111ebu;
  return SequenceHash(id ^ (id >> 31));
}

struct HashAsIs {
  std::size_t operator()(SequenceHash hash) const { return hash.value(); }
};

EvictionPolicy eviction_policy(SimPolicy policy) {
  switch (policy) {
    case SimPolicy::AgeIndex: return EvictionPolicy::AgeIndex;
    case SimPolicy::Fifo: return EvictionPolicy::Fifo;
    default: return EvictionPolicy::Lru;
  }
}

// Serves requests as an engine does, from a store of its own.
class StoreSimulator {
 public:
  StoreSimulator(BlockStore::Owner store, const SimTrace& trace)
      : store_(std::move(store)), trace_(trace) {}

  // Returns the blocks that hit.
  Result<std::size_t> serve(const SimTrace::Request& request);

 private:
  Result<void> allocate(std::size_t count);
  void complete(const SimTrace::Request& request, std::size_t first);

  BlockStore::Owner store_;
  const SimTrace& trace_;
  std::vector<BlockId> fresh_;  // blocks of the running request that it has computed
};

// As many as there can be. The error tells that number, and nothing has changed.
Result<void> StoreSimulator::allocate(std::size_t count) {
  fresh_.resize(count);
  const auto allocated = store_->allocate(fresh_);
  if (allocated) return {};
  if (allocated.error().code != ErrorCode::NotEnoughBlocksAvailable) return allocated.error();
  fresh_.resize(allocated.error().available);
  KVBM_CHECK_OK(store_->allocate(fresh_));
  return {};
}

void StoreSimulator::complete(const SimTrace::Request& request, std::size_t first) {
  const SequenceHash* hashes = trace_.hashes.data() + request.first_access;
  for (std::size_t i = 0; i < fresh_.size(); ++i) {
    const std::size_t position = first + i;
    const std::size_t before = position * kTraceBlockTokens;
    const std::size_t tokens = std::min(kTraceBlockTokens, request.input_length - before);
    store_->complete(fresh_[i],
                     {.sequence_hash = hashes[position],
                      .parent_hash = position == 0 ? SequenceHash() : hashes[position - 1],
                      .position = static_cast<std::uint32_t>(position),
                      .token_count = static_cast<std::uint32_t>(tokens)});
  }
}

Result<std::size_t> StoreSimulator::serve(const SimTrace::Request& request) {
  store_->advance(TimePoint(std::chrono::milliseconds(request.timestamp_ms)));
  const std::span chain(trace_.hashes.data() + request.first_access, request.blocks);
  const RunRef hit = store_->match_run(chain);
  if (hit.count < request.blocks) {
    KVBM_CHECK_OK(allocate(request.blocks - hit.count));
    complete(request, hit.count);
    KVBM_CHECK_OK(store_->register_blocks(fresh_));
    // The deepest last: it keeps the others pinned, so that all become evictable at once.
    if (hit.count > 0) store_->release(hit.deepest);
    store_->release(fresh_);
  } else if (hit.count > 0) {
    store_->release(hit.deepest);
  }
  return hit.count;
}

void count_hits(SimRow& row, const SimTrace::Request& request, std::size_t blocks) {
  row.block_hits += blocks;
  row.token_hits += std::min<std::uint64_t>(blocks * kTraceBlockTokens, request.input_length);
}

}  // namespace

SimTrace make_sim_trace(const Trace& trace) {
  SimTrace sim;
  sim.requests.reserve(trace.requests.size());
  std::size_t accesses = 0;
  for (const TraceRequest& request : trace.requests) accesses += request.hash_ids.size();
  sim.hashes.reserve(accesses);
  sim.numbers.reserve(accesses);

  std::unordered_map<SequenceHash, std::uint32_t, HashAsIs> numbers;
  for (const TraceRequest& request : trace.requests) {
    sim.requests.push_back({request.timestamp_ms, sim.hashes.size(),
                            static_cast<std::uint32_t>(request.hash_ids.size()),
                            request.input_length});
    sim.tokens += request.input_length;
    for (const std::uint64_t id : request.hash_ids) {
      const SequenceHash hash = hash_of(id);
      const auto fresh = static_cast<std::uint32_t>(numbers.size());
      sim.hashes.push_back(hash);
      sim.numbers.push_back(numbers.try_emplace(hash, fresh).first->second);
    }
  }
  sim.unique_blocks = numbers.size();
  return sim;
}

Result<SimRow> simulate(const SimTrace& trace, SimPolicy policy, std::size_t capacity) {
  if (capacity == 0 || capacity >= kNoBlock) {
    return Error{
        ErrorCode::InvalidConfig, 0, 0, 0,
        fmt::format("a capacity must be 1 .. {} blocks, but is {}", kNoBlock - 1, capacity)};
  }
  SimRow row{policy, capacity, 0, 0, trace.hashes.size(), trace.tokens};
  if (policy == SimPolicy::Min || policy == SimPolicy::MinForced) {
    const std::vector<std::size_t> hits = bound_hits(trace, policy, capacity);
    for (std::size_t i = 0; i < hits.size(); ++i) count_hits(row, trace.requests[i], hits[i]);
    return row;
  }

  // A cache that holds all blocks of the trace never evicts; a greater one would do the same.
  const std::size_t useful = std::clamp<std::size_t>(trace.unique_blocks, 1, capacity);
  KVBM_TRY(BlockStore::Owner store,
           BlockStore::create({.capacity = useful, .policy = eviction_policy(policy)}));
  StoreSimulator simulator(std::move(store), trace);
  for (const SimTrace::Request& request : trace.requests) {
    KVBM_TRY(const std::size_t hits, simulator.serve(request));
    count_hits(row, request, hits);
  }
  return row;
}

}  // namespace kvbm::app
