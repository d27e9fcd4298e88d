#include "benchmarks/copy_bench.h"

#include <memory>
#include <random>
#include <thread>
#include <utility>

#include "benchmarks/copy_probes.h"
#include "kvbm/storage.h"
#include "physical/layout/layout.h"
#include "physical/transfer/copy_block.h"

namespace kvbm::bench {
namespace {

constexpr std::size_t kBlockBytes = std::size_t{2} << 20;
constexpr std::size_t kBlocks = 256;  // 512 MiB on either side: beyond every cache
constexpr std::size_t kBlocksPerRun = 16;
constexpr std::size_t kRounds = 101;
constexpr std::size_t kPageTokens = 16;

// Blocks whose layers lie apart, and blocks of the same content that are one extent each.
class Sides {
 public:
  // Errors: AllocationFailed.
  static Result<Sides> create() {
    Sides sides;
    KVBM_TRY(const auto layers, PinnedAllocator().allocate(kBlocks * kBlockBytes));
    KVBM_TRY(const auto extents, PinnedAllocator().allocate(kBlocks * kBlockBytes));
    sides.layers_ = layers.memory();
    sides.extents_ = extents.memory();
    std::fill_n(sides.layers_->data(), sides.layers_->bytes(), std::byte{1});
    std::fill_n(sides.extents_->data(), sides.extents_->bytes(), std::byte{2});
    return sides;
  }

  // From layers to extents, in regions of this size.
  Result<std::shared_ptr<const CopyPlan>> gather(std::size_t region_bytes) const {
    const std::size_t layers = kBlockBytes / region_bytes;
    KvTensors tensors;
    for (std::size_t layer = 0; layer < layers; ++layer) {
      tensors.tensors.push_back({.axes = "BNC",
                                 .shape = {kBlocks, kPageTokens, region_bytes / kPageTokens / 2},
                                 .address = layers_->address() + layer * kBlocks * region_bytes,
                                 .storage = {StorageType::Kind::System, 0},
                                 .layer = layer});
    }
    KVBM_TRY(auto source, Layout::from_tensors(tensors));
    const LayoutConfig shape{.num_blocks = kBlocks,
                             .num_layers = layers,
                             .outer_dim = 1,
                             .page_size = kPageTokens,
                             .inner_dim = region_bytes / kPageTokens / 2,
                             .alignment = 4096};
    KVBM_TRY(auto target, Layout::contiguous(source->content(), shape, extents_));
    return CopyPlan::create(std::move(source), std::move(target));
  }

 private:
  std::shared_ptr<detail::Memory> layers_;
  std::shared_ptr<detail::Memory> extents_;
};

// Copies random blocks. copy(plan, source block, target block, runs); `runs` is scratch.
template <class Copy>
void copy_random(const CopyPlan& plan, std::mt19937_64& random, std::uint64_t blocks, Copy copy) {
  std::vector<CopyRun> runs;
  for (; blocks > 0; --blocks) {
    copy(plan,
         BlockCopy{static_cast<BlockId>(random() % kBlocks),
                   static_cast<BlockId>(random() % kBlocks), std::nullopt},
         runs);
  }
}

void make_runs(const CopyPlan& plan, const BlockCopy& copy, std::vector<CopyRun>& runs) {
  runs.clear();
  for (const CopyPiece& piece : plan.pieces()) {
    runs.push_back({reinterpret_cast<std::byte*>(piece.target_of(copy.target)),
                    reinterpret_cast<const std::byte*>(piece.source_of(copy.source)), piece.bytes});
  }
}

// Each work copies blocks of its own choice: what the one before it copied is still in the caches.
class Seeds {
 public:
  explicit Seeds(std::uint64_t seed) : random_(seed) {}
  std::mt19937_64 next() { return std::mt19937_64(random_()); }

 private:
  std::mt19937_64 random_;
};

// Operations are blocks; each thread copies its share.
template <class Copy>
Work blocks_work(std::string name, const CopyPlan& plan, std::size_t threads, Seeds& seeds,
                 Copy copy) {
  std::vector<std::mt19937_64> randoms;
  for (std::size_t i = 0; i < threads; ++i) randoms.push_back(seeds.next());
  return {std::move(name),
          [&plan, copy, randoms = std::move(randoms)](std::uint64_t blocks) mutable {
            const std::uint64_t each = blocks / randoms.size();
            std::vector<std::jthread> others;
            for (std::size_t i = 1; i < randoms.size(); ++i) {
              others.emplace_back([&, i] { copy_random(plan, randoms[i], each, copy); });
            }
            copy_random(plan, randoms.front(), each, copy);
          },
          {},
          kBlocksPerRun * threads};
}

Work runs_work(std::string name, const CopyPlan& plan, std::size_t threads, Seeds& seeds,
               void (*copy_all)(std::span<const CopyRun>)) {
  return blocks_work(
      std::move(name), plan, threads, seeds,
      [copy_all](const CopyPlan& of, const BlockCopy& copy, std::vector<CopyRun>& runs) {
        make_runs(of, copy, runs);
        copy_all(runs);
      });
}

void copy_all_runs(std::span<const CopyRun> runs) { copy_runs(runs, Store::Streaming); }

Row gather_row(const char* name, const char* aim, const CopyPlan& plan, std::size_t threads,
               Seeds& seeds) {
  std::vector<Work> probes;
  for (const CopyProbe& probe : copy_probes()) {
    probes.push_back(runs_work(probe.name, plan, threads, seeds, probe.copy));
  }
  return as_rate(measure(runs_work(name, plan, threads, seeds, copy_all_runs), std::move(probes),
                         aim, {.count = kRounds}),
                 kBlockBytes);
}

Row checksum_row(const CopyPlan& plan, Seeds& seeds) {
  return as_rate(
      measure(blocks_work("copy_checksum_2m", plan, 1, seeds,
                          [](const CopyPlan& of, const BlockCopy& copy, std::vector<CopyRun>&) {
                            keep(copy_block(of, copy).value());
                          }),
              {runs_work("the same without sums", plan, 1, seeds, copy_all_runs)}, "ratio >= 0.95",
              {.count = kRounds}),
      kBlockBytes);
}

// What a copy costs before its first byte moves, per run: checking the blocks and working out the
// addresses of all runs from a plan that was made before.
Row plan_row(const CopyPlan& plan, Seeds& seeds) {
  const std::size_t runs_per_block = plan.pieces().size();
  auto random = std::make_shared<std::mt19937_64>(seeds.next());
  auto runs = std::make_shared<std::vector<CopyRun>>();
  return measure({"plan_submit",
                  [&plan, random, runs, runs_per_block](std::uint64_t operations) {
                    for (std::uint64_t done = 0; done < operations; done += runs_per_block) {
                      const BlockCopy copy{static_cast<BlockId>((*random)() % kBlocks),
                                           static_cast<BlockId>((*random)() % kBlocks),
                                           std::nullopt};
                      if (plan.check(copy)) make_runs(plan, copy, *runs);
                      keep(runs->data());
                    }
                  }},
                 {}, "<= 50");
}

}  // namespace

Result<Report> copy_bench(const Options& options) {
  KVBM_TRY(const Sides sides, Sides::create());
  KVBM_TRY(const auto whole, sides.gather(kBlockBytes));
  KVBM_TRY(const auto regions_256k, sides.gather(std::size_t{256} << 10));
  KVBM_TRY(const auto regions_64k, sides.gather(std::size_t{64} << 10));
  KVBM_TRY(const auto regions_16k, sides.gather(std::size_t{16} << 10));
  KVBM_TRY(const auto runs_1024, sides.gather(kBlockBytes / 1024));

  Seeds seeds(options.seed);
  Report report{.rows = {}, .seed = options.seed};
  const char* const aim = "ratio >= 0.95";
  report.rows.push_back(gather_row("gather_2m_contig", aim, *whole, 1, seeds));
  report.rows.push_back(gather_row("gather_256k", aim, *regions_256k, 1, seeds));
  report.rows.push_back(gather_row("gather_64k", aim, *regions_64k, 1, seeds));
  report.rows.push_back(gather_row("gather_16k", aim, *regions_16k, 1, seeds));
  report.rows.push_back(gather_row("gather_2m_2threads", "ratio >= 0.90", *whole, 2, seeds));
  report.rows.push_back(checksum_row(*regions_64k, seeds));
  report.rows.push_back(plan_row(*runs_1024, seeds));
  return report;
}

}  // namespace kvbm::bench
