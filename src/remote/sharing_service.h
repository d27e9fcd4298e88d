// What a worker's manager gives the connections to its peers, and the server that they ask.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stop_token>
#include <vector>

#include "kvbm/peers.h"
#include "kvbm/result.h"
#include "kvbm/types.h"
#include "leader/plan_service.h"

namespace kvbm::remote {

using leader::PlanAnswer;

// This worker, as both ends of a handshake need it. Called on threads of connections, several at
// once; must not block.
class LocalWorker {
 public:
  virtual ~LocalWorker() = default;
  // The same as long as the process lives.
  virtual WorkerInfo info() = 0;
  // Describes the worker's memory; at most 1 MiB.
  virtual std::vector<std::byte> blockset() = 0;
  // A peer that agrees in all that info() says and has proved the secret; called again for each of
  // its connections. Errors: any; the peer is refused with it.
  virtual Result<void> accept(const WorkerInfo& peer, std::span<const std::byte> blockset) = 0;
};

// A block that lies in host memory.
struct SharedBlock {
  BlockId block = 0;  // in the host pool
  std::uint64_t payload_sum = 0;
  std::span<const std::byte> bytes = {};       // all of the block
  std::shared_ptr<const void> hold = nullptr;  // keeps the bytes where and as they are
};

// Called on the server's threads, several at once. Plans of a peer that is gone are left to their
// leases. Only fetch() may block; what blocks longer blocks the server's stop(), and its peer.
class SharingService : public LocalWorker {
 public:
  // As those of leader::PlanService.
  virtual Result<PlanAnswer> lookup(std::span<const SequenceHash> hashes,
                                    std::span<const std::uint64_t> digests, NamespaceId name_space,
                                    std::chrono::milliseconds lease) = 0;
  virtual Result<PlanAnswer> trim(std::uint64_t plan, std::uint32_t blocks) = 0;
  virtual void release(std::uint64_t plan) = 0;

  // Brings blocks of a plan into host memory and returns when all are there or have failed, at the
  // deadline or when it is stopped at the latest; one answer per index, in order. The plan keeps
  // there what was fetched until it ends: the peer may read it meanwhile. Errors, per block:
  // PlanExpired; InvalidBlockIndex {index, blocks of the plan}; TimedOut; Cancelled; those of the
  // transfer.
  virtual std::vector<Result<SharedBlock>> fetch(std::uint64_t plan,
                                                 std::span<const std::uint32_t> indexes,
                                                 std::chrono::steady_clock::time_point deadline,
                                                 std::stop_token stop) = 0;

  // Whether the plan still lasts, and its namespace was not reset since it was made.
  virtual bool is_current(std::uint64_t plan) = 0;
};

}  // namespace kvbm::remote
