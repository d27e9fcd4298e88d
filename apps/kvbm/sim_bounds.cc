#include "apps/kvbm/sim_bounds.h"

#include <algorithm>
#include <cstdint>
#include <queue>

namespace kvbm::app {
namespace {

constexpr std::size_t kNever = ~std::size_t{0};

// For each access, the request that uses its block next; kNever if none does.
std::vector<std::size_t> next_requests(const SimTrace& trace) {
  std::vector<std::size_t> next(trace.numbers.size());
  std::vector<std::size_t> upcoming(trace.unique_blocks, kNever);
  for (std::size_t r = trace.requests.size(); r-- > 0;) {
    const SimTrace::Request& request = trace.requests[r];
    for (std::size_t i = 0; i < request.blocks; ++i) {
      const std::size_t access = request.first_access + i;
      next[access] = upcoming[trace.numbers[access]];
      upcoming[trace.numbers[access]] = r;
    }
  }
  return next;
}

// The blocks that are kept, as counts by the request that uses them next. A count says it all: the
// blocks that request r uses next are ancestors of one another, and a block is never used later
// than its descendants. So the blocks to give up first, those of the latest request and of them the
// deepest, never leave a descendant behind, and what is left for a request is a prefix of it.
class KeptBlocks {
 public:
  explicit KeptBlocks(std::size_t requests) : counts_(requests, 0) {}

  void add(std::size_t next_request) {
    if (counts_[next_request]++ == 0) latest_.push(next_request);
    ++size_;
  }
  void shrink_to(std::size_t size) {
    while (size_ > size) {
      const std::size_t request = latest_.top();
      const std::size_t dropped = std::min(counts_[request], size_ - size);
      counts_[request] -= dropped;
      size_ -= dropped;
      if (counts_[request] == 0) latest_.pop();
    }
  }
  // Takes out what is there for the request whose turn it is. It stays in the heap, where it is
  // less than all others and no longer met.
  std::size_t take(std::size_t request) {
    const std::size_t count = counts_[request];
    counts_[request] = 0;
    size_ -= count;
    return count;
  }

 private:
  std::vector<std::size_t> counts_;
  std::size_t size_ = 0;
  std::priority_queue<std::size_t> latest_;  // every request with a count above 0
};

}  // namespace

std::vector<std::size_t> bound_hits(const SimTrace& trace, SimPolicy policy, std::size_t capacity) {
  const std::vector<std::size_t> next = next_requests(trace);
  KeptBlocks kept(trace.requests.size());
  std::vector<std::size_t> hits;
  hits.reserve(trace.requests.size());
  for (std::size_t r = 0; r < trace.requests.size(); ++r) {
    const SimTrace::Request& request = trace.requests[r];
    hits.push_back(kept.take(r));
    std::size_t taken_in = request.blocks;
    if (policy == SimPolicy::MinForced) {
      taken_in = std::min(taken_in, capacity);
      kept.shrink_to(capacity - taken_in);
    }
    for (std::size_t i = 0; i < taken_in; ++i) {
      const std::size_t next_request = next[request.first_access + i];
      if (next_request != kNever) kept.add(next_request);
    }
    kept.shrink_to(capacity);
  }
  return hits;
}

}  // namespace kvbm::app
