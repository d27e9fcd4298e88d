#include "benchmarks/tiers_latency.h"

#include <sys/prctl.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "base/relax.h"
#include "benchmarks/tiers_fixture.h"

namespace kvbm::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kBlockBytes = std::size_t{256} << 10;
constexpr std::size_t kBlocks = 512;  // to onboard; and as many to offload
constexpr std::size_t kThreads = 2;

// Prompts of one block each.
std::vector<TokenBlock> make_prompts() {
  std::vector<TokenBlock> prompts;
  for (std::uint64_t i = 0; i < kBlocks; ++i) prompts.push_back(make_prompt(i, 1).front());
  return prompts;
}

// --- alone -----------------------------------------------------------------------------------

// A thread that copies a block when it is told to. It looks for the next one for so long before it
// sleeps, and so does who waits for the copy.
class BareWorker {
 public:
  BareWorker(const CopyPlan& plan, std::chrono::nanoseconds look_for)
      : plan_(plan), look_for_(look_for), thread_([this] { work(); }) {}
  ~BareWorker() { ask(kStop); }
  BareWorker(const BareWorker&) = delete;
  BareWorker& operator=(const BareWorker&) = delete;

  void copy(BlockId id) {
    ask(id);
    if (look([this] { return asked_.load() == kNothing; })) return;
    std::unique_lock lock(mutex_);
    ended_.wait(lock, [this] { return asked_.load() == kNothing; });
  }

 private:
  static constexpr BlockId kNothing = kNoBlock;
  static constexpr BlockId kStop = kNoBlock - 1;

  template <class Happened>
  bool look(Happened happened) {
    return look_for_.count() > 0 && relax_until(happened, Clock::now() + look_for_);
  }
  void ask(BlockId id) {
    {
      const std::lock_guard lock(mutex_);
      asked_.store(id);
    }
    wake_.notify_one();
  }
  void work() {
    for (;;) {
      look([this] { return asked_.load() != kNothing; });
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return asked_.load() != kNothing; });
      const BlockId id = asked_.load();
      if (id == kStop) return;
      lock.unlock();
      keep(copy_block(plan_, {id, id, std::nullopt}).value());
      lock.lock();
      asked_.store(kNothing);
      lock.unlock();
      ended_.notify_one();
    }
  }

  const CopyPlan& plan_;
  const std::chrono::nanoseconds look_for_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable ended_;
  std::atomic<BlockId> asked_{kNothing};
  std::jthread thread_;
};

enum class Until : std::uint8_t { Polled, Waited };

Result<std::vector<Row>> alone_rows() {
  constexpr std::size_t kOnboards = 256;  // of one run
  constexpr std::chrono::microseconds kLookFor{50};
  KVBM_TRY(const auto tiered, Tiered::create({.block_bytes = kBlockBytes,
                                              .device_blocks = kBlocks,
                                              .host_blocks = kBlocks,
                                              .threads = kThreads}));
  Tiered& tiers = *tiered;
  ReferenceBlockManager& manager = tiers.manager();
  const std::vector<TokenBlock> prompts = make_prompts();
  const std::vector<SequenceHash> hashes = hashes_of(prompts);
  KVBM_CHECK_OK(put(*manager.host(), prompts));
  const auto onboard = [&](const char* name, Until until) {
    const auto run = [&, until](std::uint64_t count) {
      for (const SequenceHash& hash : std::span(hashes).first(count)) {
        auto running = manager.onboard(manager.lookup(std::span(&hash, 1))).value();
        while (until == Until::Polled && !running.done()) relax();
        tiers.note(std::move(running).get());
      }
    };
    return Work{.name = name,
                .run = run,
                .prepare = [&tiers] { tiers.forget(Tier::Device); },
                .operations = kOnboards};
  };
  const CopyPlan& plan = tiers.plan(Edge::HostToDevice);
  const auto bare = [&](std::uint64_t count) {
    for (BlockId i = 0; i < count; ++i) keep(copy_block(plan, {i, i, std::nullopt}).value());
  };
  BareWorker sleeper(plan, std::chrono::nanoseconds(0));
  BareWorker looker(plan, kLookFor);
  const auto bare_wake = [&](const char* name, BareWorker& worker) {
    return Work{.name = name,
                .run =
                    [&worker](std::uint64_t count) {
                      for (BlockId i = 0; i < count; ++i) worker.copy(i);
                    },
                .operations = kOnboards};
  };
  Row polled = measure(onboard("onboard_latency_polled", Until::Polled),
                       {{.name = "the bare copy", .run = bare, .operations = kOnboards}});
  Row over{.name = "onboard_latency_polled_us",
           .value = polled.value - *polled.limit(),
           .unit = "ns",
           .n = polled.n,
           .aim = "<= 5"};
  Row waited = measure(onboard("onboard_latency_waited", Until::Waited),
                       {bare_wake("a copy between two wakes", sleeper),
                        bare_wake("the same, both looking for 50 us first", looker)},
                       "ratio >= 0.77");
  KVBM_CHECK_OK(tiers.error.result());
  std::vector<Row> rows{std::move(polled), std::move(over), std::move(waited)};
  for (Row& row : rows) give_unit(row, "us", 1e3);
  return rows;
}

// --- beside offloading -----------------------------------------------------------------------

constexpr NamespaceId kOnboarded = 0;
constexpr NamespaceId kOffloaded = 1;
constexpr std::size_t kBatch = 64;  // blocks
static_assert(kBlocks % kBatch == 0);

// Offloads batch after batch, as an engine gives its blocks away.
class Load {
 public:
  explicit Load(Tiered& tiers, std::span<const SequenceHash> hashes)
      : thread_([&tiers, hashes](const std::stop_token& stop) {
          for (std::size_t next = 0; !stop.stop_requested(); next = (next + kBatch) % kBlocks) {
            tiers.drop_answers();
            tiers.forget(Tier::Host, kOffloaded);
            tiers.hold_for_offload(hashes.subspan(next, kBatch), kOffloaded);
            tiers.offload();
          }
        }) {}

 private:
  std::jthread thread_;
};

// Seconds of each of so many onboardings that come at an even pace.
std::vector<double> onboard_at_pace(Tiered& tiers, std::span<const SequenceHash> hashes,
                                    std::size_t count) {
  constexpr std::chrono::microseconds kPace{500};
  constexpr std::size_t kBetweenForgetting = 32;
  ReferenceBlockManager& manager = tiers.manager();
  std::vector<double> seconds;
  auto due = Clock::now();
  for (std::size_t i = 0; i < count; ++i) {
    if (i % kBetweenForgetting == 0) tiers.forget(Tier::Device, kOnboarded);
    due = std::max(due + kPace, Clock::now());
    std::this_thread::sleep_until(due);
    const auto begin = Clock::now();
    auto running = manager.onboard(manager.lookup(hashes.subspan(i % hashes.size(), 1))).value();
    const auto answer = std::move(running).get();
    seconds.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
    tiers.note(answer);
  }
  return seconds;
}

Result<std::vector<Row>> mixed_rows() {
  constexpr std::size_t kOnboards = 1000;
  constexpr std::size_t kRounds = 9;
  ::prctl(PR_SET_TIMERSLACK, 1);  // or sleeps end 50 us late
  KVBM_TRY(const auto tiered, Tiered::create({.block_bytes = kBlockBytes,
                                              .device_blocks = kBlocks + kBlocks / 4,
                                              .host_blocks = 2 * kBlocks,
                                              .threads = kThreads}));
  Tiered& tiers = *tiered;
  const std::vector<TokenBlock> prompts = make_prompts();
  const std::vector<SequenceHash> hashes = hashes_of(prompts);
  KVBM_CHECK_OK(put(*tiers.manager().host(), prompts));
  KVBM_CHECK_OK(put(*tiers.manager().device(), prompts, kOffloaded));
  // Only what the load has brought down, and what was onboarded, may be evicted.
  const auto stays_in_host = tiers.manager().host()->match_sequence_hashes_blocking(hashes).value();
  const auto stays_in_device =
      tiers.manager().device()->match_sequence_hashes_blocking(hashes, kOffloaded).value();
  std::vector<double> idle;
  std::vector<double> loaded;
  std::vector<double> ratios;
  for (std::size_t round = 0; round < kRounds; ++round) {
    idle.push_back(quantile(onboard_at_pace(tiers, hashes, kOnboards), 0.99));
    const Load load(tiers, hashes);
    loaded.push_back(quantile(onboard_at_pace(tiers, hashes, kOnboards), 0.99));
    ratios.push_back(loaded.back() / idle.back());
  }
  KVBM_CHECK_OK(tiers.error.result());
  const auto row = [](const char* name, std::vector<double> values, const char* unit,
                      const char* aim) {
    return Row{.name = name,
               .value = median(std::move(values)),
               .unit = unit,
               .n = kOnboards * kRounds,
               .aim = aim};
  };
  std::vector<Row> rows{row("onboard_p99_idle", std::move(idle), "s", ""),
                        row("onboard_p99_offloading", std::move(loaded), "s", "")};
  for (Row& each : rows) give_unit(each, "us", 1e-6);
  rows.push_back(row("mixed_p99_ratio", std::move(ratios), "x", "<= 1.5"));
  return rows;
}

}  // namespace

Result<std::vector<Row>> tiers_latency_rows() {
  KVBM_TRY(auto rows, alone_rows());
  KVBM_TRY(auto mixed, mixed_rows());
  for (Row& row : mixed) rows.push_back(std::move(row));
  return rows;
}

}  // namespace kvbm::bench
