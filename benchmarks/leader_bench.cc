#include "benchmarks/leader_bench.h"

#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "kvbm/leader.h"
#include "leader/frame_socket.h"
#include "leader/protocol.h"
#include "leader/rank_server.h"

namespace kvbm::bench {
namespace {

constexpr std::size_t kHashes = 1000;

// Has all that it is asked for, at once: what is measured is the way there and back.
class WillingService final : public leader::PlanService {
 public:
  Result<leader::PlanAnswer> lookup(std::span<const SequenceHash> hashes,
                                    std::span<const std::uint64_t>, NamespaceId,
                                    std::chrono::milliseconds) override {
    const auto blocks = static_cast<std::uint32_t>(hashes.size());
    return leader::PlanAnswer{.plan = ++last_plan_, .blocks = blocks, .by_tier = {blocks, 0, 0}};
  }
  Result<leader::PlanAnswer> trim(std::uint64_t plan, std::uint32_t blocks) override {
    return leader::PlanAnswer{.plan = plan, .blocks = blocks, .by_tier = {blocks, 0, 0}};
  }
  void release(std::uint64_t) override {}
  RankInfo info() override { return {.block_size = 16, .model = "none", .hash_profile = "kvbm"}; }

 private:
  std::uint64_t last_plan_ = 0;
};

// The same number of threads, which read as many bytes and write as many back, without any frames:
// what the kernel's sockets and wakes cost.
class BareRanks {
 public:
  static constexpr std::size_t kQuestionBytes =
      leader::kHeaderBytes + leader::kLookupBytes + 8 * kHashes;
  static constexpr std::size_t kAnswerBytes = leader::kHeaderBytes + 24;

  explicit BareRanks(std::size_t ranks) {
    for (std::size_t i = 0; i < ranks; ++i) {
      int ends[2] = {-1, -1};
      if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) std::abort();
      ours_.emplace_back(ends[0]);
      threads_.emplace_back([theirs = Descriptor(ends[1])] { answer_all(theirs); });
    }
  }
  ~BareRanks() {
    for (const auto& socket : ours_) ::shutdown(socket.number(), SHUT_RDWR);
  }
  void ask_all() {
    for (const auto& socket : ours_) {
      if (::send(socket.number(), question_.data(), question_.size(), MSG_NOSIGNAL) < 0) {
        std::abort();
      }
    }
    std::array<std::byte, kAnswerBytes> answer;
    for (const auto& socket : ours_) read_whole(socket, answer);
  }

 private:
  static bool read_whole(const Descriptor& socket, std::span<std::byte> bytes) {
    return ::recv(socket.number(), bytes.data(), bytes.size(), MSG_WAITALL) ==
           static_cast<ssize_t>(bytes.size());
  }
  static void answer_all(const Descriptor& socket) {
    std::vector<std::byte> question(kQuestionBytes);
    const std::array<std::byte, kAnswerBytes> answer{};
    while (read_whole(socket, question)) {
      if (::send(socket.number(), answer.data(), answer.size(), MSG_NOSIGNAL) < 0) return;
    }
  }
  std::vector<std::byte> question_ = std::vector<std::byte>(kQuestionBytes);
  std::vector<Descriptor> ours_;
  std::vector<std::jthread> threads_;
};

Result<Row> lookup_row(const std::string& folder, std::size_t ranks) {
  std::vector<SequenceHash> hashes;
  for (std::size_t i = 1; i <= kHashes; ++i) hashes.emplace_back(i);
  std::vector<WillingService> services(ranks);
  std::vector<std::unique_ptr<leader::RankServer>> servers;
  LeaderConfig config;
  config.lookup_timeout = std::chrono::milliseconds(10'000);
  for (std::size_t i = 0; i < ranks; ++i) {
    config.sockets.push_back(folder + "/rank" + std::to_string(i));
    KVBM_TRY(servers.emplace_back(),
             leader::RankServer::start(services[i], {.socket = config.sockets[i]}));
  }
  KVBM_TRY(Leader asked, Leader::create(config));
  BareRanks bare(ranks);
  std::uint64_t misses = 0;
  const auto look_up = [&](std::uint64_t operations) {
    for (; operations > 0; --operations) {
      auto plan = asked.lookup(hashes);
      misses += plan && plan->blocks() == kHashes ? 0 : 1;
      // A scheduler hands its plans over; a release would be measured as well.
      if (plan) plan->keep();
    }
  };
  Row row = measure(Work{.name = "lookup_1000_" + std::to_string(ranks) + "_ranks", .run = look_up},
                    {Work{.name = "bare sockets and threads",
                          .run =
                              [&](std::uint64_t operations) {
                                for (; operations > 0; --operations) bare.ask_all();
                              }}},
                    "", {.min_ns = 10'000'000});
  if (misses > 0) {
    return Error{ErrorCode::OperationFailed, 0, misses, 0, "lookups missed what the ranks have"};
  }
  give_unit(row, "us", 1e3);
  return row;
}

}  // namespace

Result<Report> leader_bench(const Options&) {
  std::string folder = "/tmp/kvbm-bench-XXXXXX";
  if (!::mkdtemp(folder.data())) {
    return Error{ErrorCode::OperationFailed, errno, 0, 0, "cannot make a folder in /tmp"};
  }
  Report report;
  Result<void> done;
  for (const std::size_t ranks : {1u, 2u, 4u}) {
    auto row = lookup_row(folder, ranks);
    if (!row) {
      done = std::move(row).error();
      break;
    }
    report.rows.push_back(std::move(*row));
  }
  std::filesystem::remove_all(folder);
  KVBM_CHECK_OK(done);
  return report;
}

}  // namespace kvbm::bench
