#include "benchmarks/pool_fixture.h"

#include <algorithm>
#include <numeric>

namespace kvbm::bench {
namespace {

constexpr std::size_t kPageSize = 16;

}  // namespace

Chains::Chains(std::size_t count, std::size_t length, std::uint64_t seed)
    : length_(length), order_(count) {
  std::mt19937_64 random(seed);
  hashes_.reserve(count * length);
  for (std::size_t i = 0; i < count * length; ++i) hashes_.emplace_back(random());
  std::iota(order_.begin(), order_.end(), 0u);
  std::shuffle(order_.begin(), order_.end(), random);
}

Result<Pool> make_bench_pool(std::size_t blocks, std::shared_ptr<Registry> metrics) {
  const LayoutConfig config{.num_blocks = blocks,
                            .num_layers = 1,
                            .outer_dim = 1,
                            .page_size = kPageSize,
                            .inner_dim = 1};
  KVBM_TRY(auto made, make_logical_blocks<DeviceStorage>(config));
  return Pool::create({.blocks = std::move(made), .metrics_registry = std::move(metrics)});
}

void shuffle_slots(const Pool& pool, std::uint64_t seed) {
  auto blocks = pool.allocate_blocks_blocking(pool.available_blocks()).value();
  std::mt19937_64 random(seed);
  for (std::size_t i = blocks.size(); i > 1; --i) std::swap(blocks[i - 1], blocks[random() % i]);
  Pool::return_blocks(std::move(blocks));
}

std::vector<Pool::Complete> name_chain(const Pool& pool, std::span<const SequenceHash> chain) {
  static constexpr Token kTokens[kPageSize] = {};
  auto blocks = pool.allocate_blocks_blocking(chain.size()).value();
  std::vector<Pool::Complete> named;
  named.reserve(chain.size());
  std::optional<TokenBlock> parent;
  for (std::size_t i = 0; i < chain.size(); ++i) {
    auto tokens =
        TokenBlock::create_external(kTokens, chain[i], parent ? &*parent : nullptr).value();
    named.push_back(std::move(blocks[i]).complete(tokens).value());
    parent = std::move(tokens);
  }
  return named;
}

void fill(const Pool& pool, const Chains& chains) {
  for (std::size_t i = 0; i < chains.count(); ++i) {
    auto registered = pool.register_blocks_blocking(name_chain(pool, chains.chain(i))).value();
    Pool::return_blocks(std::move(registered));
  }
}

}  // namespace kvbm::bench
