#include "worker.h"

#include <algorithm>
#include <cstring>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "base/xxh3.h"
#include "need_nixl.h"

namespace kvbm::nixl {

std::string Address::to_line() const {
  std::ostringstream line;
  line << area.address << ' ' << area.blocks << ' ' << std::hex;
  for (const std::byte byte : metadata) {
    line << "0123456789abcdef"[static_cast<int>(byte) >> 4]
         << "0123456789abcdef"[static_cast<int>(byte) & 15];
  }
  return line.str();
}

Address Address::parse(const std::string& line) {
  std::istringstream in(line);
  Address address;
  std::string hex;
  in >> address.area.address >> address.area.blocks >> hex;
  address.area.stride_bytes = address.area.block_bytes = kBlockBytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    address.metadata.push_back(std::byte(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return address;
}

const Library& library() {
  static const Library loaded = [] {
    auto library = load_library(kLibrary);
    if (!library) throw std::runtime_error(library.error().to_string());
    return *library;
  }();
  return loaded;
}

Worker::Worker(const std::string& name, std::uint32_t blocks, char fill,
               std::chrono::milliseconds overdue_limit)
    : memory_(blocks * kBlockBytes, std::byte(fill)) {
  AgentOptions options;
  options.name = name;
  options.overdue_limit = overdue_limit;
  agent_ = Agent::create(library().api, options).value();
  agent_->register_memory(memory_).value();
  local_ = agent_->prepare_local(area()).value();
  for (std::uint32_t i = 0; i < blocks; ++i) all_.push_back({.local = i, .remote = i});
}

BlockArea Worker::area() const {
  return {.address = reinterpret_cast<std::uintptr_t>(memory_.data()),
          .stride_bytes = kBlockBytes,
          .block_bytes = kBlockBytes,
          .blocks = static_cast<std::uint32_t>(memory_.size() / kBlockBytes)};
}

Address Worker::address() const { return {agent_->metadata().value(), area()}; }

void Worker::meet(const std::string& name, std::uint64_t incarnation, std::uint64_t generation,
                  const Address& peer) {
  peer_ = agent_->load_peer({name, incarnation, generation}, peer.metadata).value();
  remote_ = agent_->prepare_remote(peer_, peer.area).value();
}

TransferId Worker::start(Operation operation, std::chrono::milliseconds timeout) {
  const auto now = std::chrono::steady_clock::now();
  return agent_
      ->start({.operation = operation,
               .local = local_,
               .remote = remote_,
               .blocks = all_,
               .deadline = now + timeout},
              now)
      .value();
}

AgentEvent Worker::wait_for(AgentEvent::Kind kind) {
  for (;;) {
    const auto found = std::find_if(events_.begin(), events_.end(),
                                    [&](const AgentEvent& event) { return event.kind == kind; });
    if (found != events_.end()) {
      AgentEvent event = std::move(*found);
      events_.erase(found);
      return event;
    }
    agent_->poll(std::chrono::steady_clock::now(), events_);
    std::this_thread::yield();
  }
}

std::size_t bytes_other_than(const std::vector<std::byte>& memory, char fill) {
  return memory.size() -
         static_cast<std::size_t>(std::count(memory.begin(), memory.end(), std::byte(fill)));
}

void Worker::fill(char fill) { std::fill(memory_.begin(), memory_.end(), std::byte(fill)); }

void Worker::fill_with_pattern(std::uint64_t seed) {
  for (std::size_t at = 0; at < memory_.size(); at += sizeof seed) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    std::memcpy(memory_.data() + at, &seed, sizeof seed);
  }
}

std::uint64_t Worker::sum() const { return xxh3(memory_.data(), memory_.size()); }

}  // namespace kvbm::nixl
