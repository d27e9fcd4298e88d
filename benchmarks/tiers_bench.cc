#include "benchmarks/tiers_bench.h"

#include <time.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <iterator>
#include <random>
#include <thread>
#include <utility>

#include "benchmarks/governor_bench.h"
#include "benchmarks/tiers_fixture.h"
#include "benchmarks/tiers_latency.h"
#include "logical/pool/hold_ops.h"

namespace kvbm::bench {
namespace {

constexpr std::size_t kBlockBytes = std::size_t{2} << 20;
constexpr std::size_t kThreads = 2;

// Registers blocks without looking at their bytes.
void put_names(BlockStore& store, std::span<const TokenBlock> tokens) {
  auto free = detail::allocate(store, tokens.size()).value();
  std::vector<detail::CompleteHold> named;
  named.reserve(tokens.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    named.push_back(detail::complete(std::move(free[i]), detail::identity_of(tokens[i], 0)));
  }
  keep(detail::register_blocks(store, std::move(named)));
}

// --- lookups ---------------------------------------------------------------------------------

constexpr std::size_t kPlanBlocks = 1000;
constexpr std::size_t kMisses = 1'000'000;
constexpr std::size_t kStretch = 50;  // blocks in one tier, then the next tier goes on

// A prompt that lies in three tiers, stretch by stretch.
Result<Row> lookup_row(const Options& options) {
  KVBM_TRY(const auto tiered, Tiered::create({.block_bytes = 8192,
                                              .num_layers = 1,
                                              .device_blocks = kPlanBlocks,
                                              .host_blocks = kPlanBlocks,
                                              .disk_blocks = kPlanBlocks,
                                              .dir = options.dir}));
  ReferenceBlockManager& manager = tiered->manager();
  const std::vector<TokenBlock> prompt = make_prompt(1, kPlanBlocks);
  const std::vector<SequenceHash> hashes = hashes_of(prompt);
  detail::TierPool* const pools[] = {tiered->core().device.get(), tiered->core().host.get(),
                                     tiered->core().disk.get()};
  const auto pool_of = [&pools](std::size_t first) -> detail::TierPool& {
    return *pools[first / kStretch % std::size(pools)];
  };
  for (std::size_t first = 0; first < kPlanBlocks; first += kStretch) {
    put_names(pool_of(first).store(), std::span(prompt).subspan(first, kStretch));
  }
  // Miss ratio curves follow every name until they have seen many.
  std::mt19937_64 random(options.seed);
  std::vector<SequenceHash> misses;
  for (std::size_t i = 0; i < kMisses; ++i) misses.emplace_back(random());
  keep(manager.lookup(misses));
  if (manager.lookup(hashes).size() != kPlanBlocks) {
    return Error{ErrorCode::OperationFailed, 0, 0, 0, "the lookup does not find what is there"};
  }
  const auto match_stretches = [&](std::uint64_t blocks) {
    for (; blocks > 0; blocks -= kPlanBlocks) {
      std::vector<detail::RunHold> runs;
      for (std::size_t first = 0; first < kPlanBlocks; first += kStretch) {
        const Names names{std::span(hashes).subspan(first, kStretch), {}, 0};
        runs.push_back(detail::match_run(pool_of(first).store(), names));
      }
      keep(runs.data());
    }
  };
  constexpr std::uint64_t kPlans = 32;  // of one run
  return measure({.name = "lookup_plan",
                  .run =
                      [&](std::uint64_t blocks) {
                        for (; blocks > 0; blocks -= kPlanBlocks) keep(manager.lookup(hashes));
                      },
                  .operations = kPlans * kPlanBlocks},
                 {{.name = "matches in the pools that have the stretches",
                   .run = match_stretches,
                   .operations = kPlans * kPlanBlocks}},
                 "<= 40");
}

// --- blocks between device and host ----------------------------------------------------------

// The same copies with nothing around them.
Work bare_copies(const CopyPlan& plan, std::size_t threads, std::size_t blocks) {
  return {.name = threads == 1 ? "bare copies" : std::to_string(threads) + " threads of them",
          .run =
              [&plan, threads](std::uint64_t count) {
                std::atomic<BlockId> next = 0;
                const auto work = [&] {
                  for (BlockId i = next++; i < count; i = next++) {
                    keep(copy_block(plan, {i, i, std::nullopt}).value());
                  }
                };
                std::vector<std::jthread> others;
                for (std::size_t i = 1; i < threads; ++i) others.emplace_back(work);
                work();
              },
          .operations = blocks};
}

Row copies_row(Work measured, const CopyPlan& plan, std::string aim) {
  constexpr std::size_t kRounds = 31;
  std::vector<Work> probes;
  for (const std::size_t threads : {std::size_t{1}, kThreads}) {
    probes.push_back(bare_copies(plan, threads, measured.operations));
  }
  return as_rate(
      measure(std::move(measured), std::move(probes), std::move(aim), {.count = kRounds}),
      kBlockBytes);
}

Result<std::vector<Row>> memory_rows() {
  constexpr std::size_t kBlocks = 128;
  KVBM_TRY(const auto tiered, Tiered::create({.block_bytes = kBlockBytes,
                                              .device_blocks = kBlocks,
                                              .host_blocks = kBlocks,
                                              .threads = kThreads}));
  Tiered& tiers = *tiered;
  const std::vector<TokenBlock> prompt = make_prompt(1, kBlocks);
  const std::vector<SequenceHash> hashes = hashes_of(prompt);
  KVBM_CHECK_OK(put(*tiers.manager().device(), prompt));
  std::vector<Row> rows;
  const auto leave_device = [&tiers] {
    tiers.drop_answers();
    tiers.forget(Tier::Device);
  };
  rows.push_back(copies_row({.name = "offload_g1_g2",
                             .run = [&tiers](std::uint64_t) { tiers.offload(); },
                             .prepare =
                                 [&] {
                                   tiers.drop_answers();
                                   tiers.forget(Tier::Host);
                                   tiers.hold_for_offload(hashes);
                                 },
                             .operations = kBlocks},
                            tiers.plan(Edge::DeviceToHost), "ratio >= 0.95"));
  rows.push_back(copies_row({.name = "onboard_g2_g1",
                             .run = [&](std::uint64_t) { tiers.onboard(hashes); },
                             .prepare = leave_device,
                             .operations = kBlocks},
                            tiers.plan(Edge::HostToDevice), "ratio >= 0.95"));
  rows.push_back(copies_row({.name = "onboard_g2_g1_layerwise",
                             .run =
                                 [&](std::uint64_t) {
                                   tiers.onboard(hashes,
                                                 {.layers = std::make_shared<LayerProgress>()});
                                 },
                             .prepare = leave_device,
                             .operations = kBlocks},
                            tiers.plan(Edge::HostToDevice), "ratio >= 0.6"));
  KVBM_CHECK_OK(tiers.error.result());
  return rows;
}

// --- blocks to and from the disk -------------------------------------------------------------

constexpr std::size_t kDiskBlocks = 160;

// The executor of files alone, with a queue as deep as it takes.
Work bare_disk(std::string name, FileExecutor& executor, DiskBlocks& blocks, Way way) {
  return {.name = std::move(name),
          .run = [&executor, &blocks,
                  way](std::uint64_t count) { transfer(executor, blocks, way, count); },
          .operations = kDiskBlocks};
}

Result<std::vector<Row>> disk_rows(const Options& options) {
  KVBM_TRY(const auto tiered, Tiered::create({.block_bytes = kBlockBytes,
                                              .device_blocks = kDiskBlocks,
                                              .host_blocks = kDiskBlocks,
                                              .disk_blocks = kDiskBlocks,
                                              .dir = options.dir,
                                              .threads = kThreads}));
  Tiered& tiers = *tiered;
  detail::ManagerCore& core = tiers.core();
  const std::vector<TokenBlock> prompt = make_prompt(1, kDiskBlocks);
  const std::vector<SequenceHash> hashes = hashes_of(prompt);
  std::vector<detail::OffloadOffer> offers;
  for (const TokenBlock& block : prompt) {
    offers.push_back({{block.sequence_hash(), block.digest(), 0}, 0});
  }
  DiskBlocks blocks;
  blocks.memory = core.host->layout();
  blocks.disk = core.disk->layout();
  blocks.write = tiers.shared_plan(Edge::HostToDisk);
  blocks.read = tiers.shared_plan(Edge::DiskToHost);
  blocks.block_bytes = kBlockBytes;
  KVBM_TRY(const std::uint64_t sum, sum_block(*blocks.memory, 0));
  blocks.sums.assign(kDiskBlocks, sum);
  KVBM_TRY(const auto executor, make_executor(*blocks.disk->memory(0).file()));
  KVBM_CHECK_OK(put(*tiers.manager().host(), prompt));
  core.driver->drain(TimePoint::max());

  const Rounds rounds{.count = kDiskRounds};
  std::vector<Row> rows;
  rows.push_back(as_rate(
      measure({.name = "offload_g2_g3",
               .run =
                   [&](std::uint64_t) {
                     core.driver->offered(Tier::Host, offers);
                     core.driver->drain(TimePoint::max());
                   },
               .prepare = [&] { tiers.forget(Tier::Disk); },
               .operations = kDiskBlocks},
              {bare_disk("bare writes", *executor, blocks, Way::Write)}, "ratio >= 0.95", rounds),
      kBlockBytes));
  if (tiers.manager().lookup(hashes).size() != kDiskBlocks) {
    return Error{ErrorCode::OperationFailed, 0, 0, 0, "the disk has not got what it was given"};
  }
  rows.push_back(as_rate(
      measure({.name = "onboard_g3_g1",
               .run = [&](std::uint64_t) { tiers.onboard(hashes); },
               .prepare =
                   [&] {
                     tiers.drop_answers();
                     tiers.forget(Tier::Device);
                     tiers.forget(Tier::Host);
                   },
               .operations = kDiskBlocks},
              {bare_disk("bare reads", *executor, blocks, Way::Read)}, "ratio >= 0.95", rounds),
      kBlockBytes));
  KVBM_CHECK_OK(tiers.error.result());
  KVBM_CHECK_OK(blocks.error.result());
  return rows;
}

// --- the engine alone ------------------------------------------------------------------------

// Says that all was copied when it is asked to.
class NothingMoves final : public TransferExecutor {
 public:
  void submit(TransferRequest request, Done done) override {
    submitted_.push_back({std::move(request), std::move(done)});
  }
  void answer_all() {
    for (; !submitted_.empty(); submitted_.pop_front()) {
      auto& [request, done] = submitted_.front();
      TransferResult result;
      for (const BlockCopy& copy : request.blocks) {
        result.blocks.push_back(token(*request.plan, copy.target, copy.payload_sum.value_or(0)));
      }
      done(std::move(result));
    }
  }

 private:
  std::deque<std::pair<TransferRequest, Done>> submitted_;
};

std::uint64_t process_cpu_ns() {
  timespec time{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(time.tv_nsec);
}

// Waits for nobody, since nobody else works.
template <class Answer>
auto answer_of(Result<Completion<Answer>> running, NothingMoves& executor) {
  executor.answer_all();
  return std::move(running.value()).get();
}

Result<Row> cpu_row() {
  constexpr std::size_t kBlocks = 256;
  NothingMoves* executor = nullptr;
  KVBM_TRY(const auto tiered,
           Tiered::create({.block_bytes = kBlockBytes,
                           .device_blocks = kBlocks,
                           .host_blocks = kBlocks,
                           .wrap = [&executor](std::unique_ptr<TransferExecutor>) {
                             auto made = std::make_unique<NothingMoves>();
                             executor = made.get();
                             return made;
                           }}));
  ReferenceBlockManager& manager = tiered->manager();
  const std::vector<TokenBlock> prompt = make_prompt(1, kBlocks);
  const std::vector<SequenceHash> hashes = hashes_of(prompt);
  KVBM_CHECK_OK(put(*manager.device(), prompt));
  const auto down_and_up = [&](std::uint64_t) {
    tiered->forget(Tier::Host);
    auto blocks = manager.device()->match_sequence_hashes_blocking(hashes).value();
    keep(answer_of(manager.offload(std::move(blocks)), *executor));
    tiered->forget(Tier::Device);
    keep(answer_of(manager.onboard(manager.lookup(hashes)), *executor));
  };
  const auto in_pools = [&](std::uint64_t) {
    for (const auto& pool : {tiered->core().host, tiered->core().device}) {
      tiered->forget(pool->tier());
      put_names(pool->store(), prompt);
      keep(detail::match(pool->store(), {hashes, {}, 0}));
    }
  };
  Row row =
      measure({.name = "engine_cpu_per_block_us", .run = down_and_up, .operations = 2 * kBlocks},
              {{.name = "the pools' part", .run = in_pools, .operations = 2 * kBlocks}}, "<= 2",
              {.now = process_cpu_ns});
  give_unit(row, "us", 1e3);
  return row;
}

}  // namespace

Result<Report> tiers_bench(const Options& options) {
  Report report;
  KVBM_TRY(auto lookup, lookup_row(options));
  report.rows.push_back(std::move(lookup));
  for (const auto& part : {memory_rows(), disk_rows(options)}) {
    KVBM_CHECK_OK(part);
    std::ranges::copy(*part, std::back_inserter(report.rows));
  }
  KVBM_TRY(auto cpu, cpu_row());
  report.rows.push_back(std::move(cpu));
  KVBM_TRY(auto latency, tiers_latency_rows());
  std::ranges::move(latency, std::back_inserter(report.rows));
  report.rows.push_back({.name = "governor_worst_ratio",
                         .value = governor_worst_ratio(static_cast<std::uint32_t>(options.seed)),
                         .unit = "x",
                         .n = 1,
                         .aim = "<= 1.05"});
  return report;
}

}  // namespace kvbm::bench
