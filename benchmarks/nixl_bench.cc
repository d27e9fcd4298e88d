#include "benchmarks/nixl_bench.h"

#include <algorithm>
#include <future>
#include <memory>
#include <numeric>
#include <random>
#include <utility>

#include "benchmarks/nixl_raw.h"
#include "nixl/agent_thread.h"

namespace kvbm::bench {
namespace {

using nixl::Agent;
using nixl::AgentEvent;
using nixl::AgentOptions;
using nixl::AgentThread;
using nixl::BlockArea;
using nixl::BlockPair;

constexpr const char* kPeer = "there";
constexpr std::chrono::minutes kPatience{1};

BlockArea area_of(std::span<std::byte> memory, std::size_t block_bytes) {
  return {.address = reinterpret_cast<std::uintptr_t>(memory.data()),
          .stride_bytes = block_bytes,
          .block_bytes = block_bytes,
          .blocks = static_cast<std::uint32_t>(memory.size() / block_bytes)};
}

AgentOptions named(const char* name, const std::vector<std::pair<std::string, std::string>>& ucx) {
  AgentOptions options;
  options.name = name;
  options.ucx = ucx;
  return options;
}

// The same pairs for both sides of the comparison.
struct Pairs {
  std::vector<BlockPair> pairs;
  std::vector<std::int32_t> local;
  std::vector<std::int32_t> remote;

  void add(std::uint32_t here, std::uint32_t there) {
    pairs.push_back({.local = here, .remote = there});
    local.push_back(static_cast<std::int32_t>(here));
    remote.push_back(static_cast<std::int32_t>(there));
  }
};

// --- over functions that do nothing
// ----------------------------------------------------------------

class Overhead {
 public:
  static constexpr std::uint32_t kBlocks = 4096;
  static constexpr std::size_t kMany = 256;

  Result<void> set_up() {
    KVBM_TRY(agent_, Agent::create(api_, named("here", {})));
    KVBM_CHECK_OK(agent_->register_memory(memory_));
    KVBM_TRY(const auto peer, agent_->load_peer({kPeer, 1, 1}, memory_));
    KVBM_TRY(local_, agent_->prepare_local(area_of(memory_, 1)));
    KVBM_TRY(remote_, agent_->prepare_remote(peer, area_of(memory_, 1)));
    KVBM_TRY(raw_, RawNixl::create(api_, named("raw", {}), memory_, area_of(memory_, 1)));
    return raw_->meet(kPeer, memory_, area_of(memory_, 1));
  }
  Work ours(const Pairs& pairs) {
    return {.name = "agent", .run = [this, &pairs](std::uint64_t operations) {
              for (; operations > 0; --operations) move(pairs);
            }};
  }
  Work by_hand(const Pairs& pairs) {
    return {.name = "by hand", .run = [this, &pairs](std::uint64_t operations) {
              for (; operations > 0; --operations) raw_->write(pairs.local, pairs.remote);
            }};
  }

 private:
  void move(const Pairs& pairs) {
    const auto now = std::chrono::steady_clock::now();
    const auto begun = agent_->start({.operation = nixl::Operation::Write,
                                      .local = local_,
                                      .remote = remote_,
                                      .blocks = pairs.pairs,
                                      .deadline = now + kPatience},
                                     now);
    if (!begun) std::abort();
    events_.clear();
    agent_->poll(std::chrono::steady_clock::now(), events_);
    if (events_.size() != 1) std::abort();
  }

  const nixl::NixlApi api_ = null_nixl();
  std::vector<std::byte> memory_ = std::vector<std::byte>(kBlocks);
  std::unique_ptr<Agent> agent_;
  std::unique_ptr<RawNixl> raw_;
  nixl::LocalListId local_{};
  nixl::RemoteListId remote_{};
  std::vector<AgentEvent> events_;
};

// --- over TCP
// --------------------------------------------------------------------------------------

constexpr std::size_t kBlockBytes = std::size_t{2} << 20;
constexpr std::uint32_t kBlocks = 32;

// An agent that begins the next write when one has ended, as a worker does that was asked for more.
class Owner {
 public:
  Result<void> set_up(const nixl::NixlApi& api, const AgentOptions& options,
                      std::span<std::byte> memory, std::vector<std::byte> metadata,
                      const BlockArea& target) {
    KVBM_TRY(agent_, AgentThread::start(api, options, [this](Agent& agent, auto events) {
               for (const AgentEvent& event : events) {
                 if (event.kind == AgentEvent::Kind::Ended) go_on(agent, event.result);
               }
             }));
    std::promise<Result<void>> done;
    agent_->post([&](Agent& agent) { done.set_value(prepare(agent, memory, metadata, target)); });
    return done.get_future().get();
  }
  // So many times, one after the other.
  void write(const Pairs& pairs, std::uint64_t times) {
    auto all = std::make_shared<std::promise<Result<void>>>();
    auto ended = all->get_future();
    agent_->post([this, &pairs, times, all = std::move(all)](Agent& agent) {
      pairs_ = &pairs;
      left_ = times;
      ended_ = all;
      go_on(agent, {});
    });
    ended.get().value();
  }

 private:
  Result<void> prepare(Agent& agent, std::span<std::byte> memory,
                       const std::vector<std::byte>& metadata, const BlockArea& target) {
    KVBM_CHECK_OK(agent.register_memory(memory));
    KVBM_TRY(local_, agent.prepare_local(area_of(memory, kBlockBytes)));
    KVBM_TRY(const auto peer, agent.load_peer({kPeer, 1, 1}, metadata));
    KVBM_TRY(remote_, agent.prepare_remote(peer, target));
    return {};
  }

  void go_on(Agent& agent, const Result<void>& last) {
    if (!last || left_ == 0) return ended_->set_value(last);
    --left_;
    const auto now = std::chrono::steady_clock::now();
    const auto begun = agent.start({.operation = nixl::Operation::Write,
                                    .local = local_,
                                    .remote = remote_,
                                    .blocks = pairs_->pairs,
                                    .deadline = now + kPatience},
                                   now);
    if (!begun) ended_->set_value(begun.error());
  }

  // Of the writes at hand; the agent's thread has them.
  const Pairs* pairs_ = nullptr;
  std::uint64_t left_ = 0;
  std::shared_ptr<std::promise<Result<void>>> ended_;
  nixl::LocalListId local_{};
  nixl::RemoteListId remote_{};
  std::unique_ptr<AgentThread> agent_;
};

}  // namespace

Result<std::vector<Row>> over_raw_nixl_rows() {
  Overhead overhead;
  KVBM_CHECK_OK(overhead.set_up());
  Pairs one;
  one.add(1, 2);
  Pairs many;
  std::vector<std::uint32_t> blocks(Overhead::kBlocks);
  std::iota(blocks.begin(), blocks.end(), 0u);
  std::mt19937 random(1);
  std::shuffle(blocks.begin(), blocks.end(), random);
  for (std::size_t i = 0; i < Overhead::kMany; ++i)
    many.add(blocks[i], blocks[i + Overhead::kMany]);

  const std::vector<Timing> timings = interleave(std::vector{
      overhead.ours(one), overhead.by_hand(one), overhead.ours(many), overhead.by_hand(many)});
  const double of_one = timings[0].ns - timings[1].ns;
  const double of_many = timings[2].ns - timings[3].ns;
  return std::vector{Row{.name = "over_raw_nixl_us",
                         .value = of_one / 1e3,
                         .unit = "us",
                         .n = timings[0].operations,
                         .aim = "<= 2"},
                     Row{.name = "over_raw_nixl_per_descriptor",
                         .value = (of_many - of_one) / static_cast<double>(Overhead::kMany - 1),
                         .n = timings[2].operations * Overhead::kMany,
                         .aim = "<= 100"}};
}

Result<Row> pull_nixl_tcp_row() {
  KVBM_TRY(const nixl::Library library, nixl::load_library());
  const std::vector<std::pair<std::string, std::string>> tcp = {
      {"engine_config", "TLS=tcp,NET_DEVICES=lo"}};
  std::vector<std::byte> source(kBlocks * kBlockBytes, std::byte{1});
  std::vector<std::byte> target(kBlocks * kBlockBytes, std::byte{2});
  const BlockArea target_area = area_of(target, kBlockBytes);

  KVBM_TRY(const auto reader, Agent::create(library.api, named(kPeer, tcp)));
  KVBM_CHECK_OK(reader->register_memory(target));
  KVBM_TRY(const auto metadata, reader->metadata());
  Owner owner;
  KVBM_CHECK_OK(owner.set_up(library.api, named("owner", tcp), source, metadata, target_area));
  KVBM_TRY(const auto raw,
           RawNixl::create(library.api, named("raw", tcp), source, area_of(source, kBlockBytes)));
  KVBM_CHECK_OK(raw->meet(kPeer, metadata, target_area));

  Pairs pairs;  // half of the blocks, none beside another
  for (std::uint32_t i = 0; i < kBlocks; i += 2) pairs.add(i, kBlocks - 1 - i);
  const auto by_hand = [&](std::chrono::microseconds between) {
    return [&, between](std::uint64_t operations) {
      for (; operations > 0; --operations) raw->write(pairs.local, pairs.remote, between);
    };
  };
  Row row = measure({.name = "pull_nixl_tcp_2m",
                     .run = [&](std::uint64_t operations) { owner.write(pairs, operations); },
                     .operations = 4},
                    {{.name = "by hand, asking all the time", .run = by_hand({}), .operations = 4},
                     {.name = "by hand, asking every 100 us",
                      .run = by_hand(std::chrono::microseconds(100)),
                      .operations = 4}},
                    "ratio >= 0.85", {.count = 25});
  for (const BlockPair& pair : pairs.pairs) {
    if (target[pair.remote * kBlockBytes] != source[pair.local * kBlockBytes]) {
      return Error{ErrorCode::OperationFailed, 0, pair.remote, 0, "a block did not arrive"};
    }
  }
  return as_rate(std::move(row), pairs.pairs.size() * kBlockBytes);
}

Result<Report> nixl_bench(const Options&) {
  Report report;
  KVBM_TRY(report.rows, over_raw_nixl_rows());
  auto row = pull_nixl_tcp_row();
  if (row) {
    report.rows.push_back(std::move(*row));
  } else if (row.error().code != ErrorCode::NixlError || row.error().native != 0) {
    return std::move(row).error();
  }
  return report;
}

}  // namespace kvbm::bench
