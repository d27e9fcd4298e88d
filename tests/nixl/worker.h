// A worker of these tests: an agent of the real NIXL and memory for blocks.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "nixl/agent.h"
#include "nixl/nixl_api.h"

namespace kvbm::nixl {

constexpr std::size_t kBlockBytes = std::size_t{1} << 20;

// The metadata and the memory of a worker, as one line of text.
struct Address {
  std::vector<std::byte> metadata;
  BlockArea area;

  std::string to_line() const;
  static Address parse(const std::string& line);
};

// NIXL as scripts/bootstrap has installed it. Throws with the reason if it does not load.
const Library& library();

// How many bytes are not this.
std::size_t bytes_other_than(const std::vector<std::byte>& memory, char fill);

class Worker {
 public:
  Worker(const std::string& name, std::uint32_t blocks, char fill,
         std::chrono::milliseconds overdue_limit = std::chrono::minutes(10));

  Address address() const;
  // Requires: a worker that lives at that address.
  void meet(const std::string& name, std::uint64_t incarnation, std::uint64_t generation,
            const Address& peer);
  // All blocks, in both directions.
  TransferId start(Operation operation, std::chrono::milliseconds timeout);
  // The next event of this kind; polls until there is one. Those of other kinds are kept.
  AgentEvent wait_for(AgentEvent::Kind kind);

  Agent& agent() noexcept { return *agent_; }
  std::vector<std::byte>& memory() noexcept { return memory_; }
  BlockArea area() const;
  PeerId peer() const noexcept { return peer_; }
  RemoteListId remote() const noexcept { return remote_; }

  void fill(char fill);
  // Different in every word, and from worker to worker.
  void fill_with_pattern(std::uint64_t seed);
  std::uint64_t sum() const;

 private:
  std::vector<std::byte> memory_;
  std::unique_ptr<Agent> agent_;
  LocalListId local_{};
  RemoteListId remote_{};
  PeerId peer_{};
  std::vector<BlockPair> all_;
  std::vector<AgentEvent> events_;
};

}  // namespace kvbm::nixl
