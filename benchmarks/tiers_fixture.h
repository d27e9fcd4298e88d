// Whole managers with bytes in their tiers, for the benches.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "benchmarks/bench.h"
#include "benchmarks/disk_blocks.h"
#include "kvbm/manager.h"
#include "manager/manager_core.h"

namespace kvbm::bench {

struct TieredOptions {
  std::size_t block_bytes = std::size_t{2} << 20;
  std::size_t num_layers = 32;
  std::size_t device_blocks = 0;
  std::size_t host_blocks = 0;
  std::size_t disk_blocks = 0;  // 0: no disk tier
  std::string dir = {};         // of the disk tier
  std::size_t threads = 2;      // that move bytes
  detail::WrapExecutor wrap = {};
};

// A manager whose device is host memory, layers apart. All blocks hold the same bytes from the
// start, so that probes may write any of them. Blocks of the device go down only when they are
// named, those of the host when they are offered.
class Tiered {
 public:
  // Errors: those of KvBlockManager::create().
  static Result<std::unique_ptr<Tiered>> create(const TieredOptions& options);

  ReferenceBlockManager& manager() noexcept { return manager_; }
  detail::ManagerCore& core() noexcept { return detail::ManagerAccess::core(manager_); }
  const CopyPlan& plan(Edge edge) const { return *plans_[static_cast<std::size_t>(edge)]; }
  const std::shared_ptr<const CopyPlan>& shared_plan(Edge edge) const {
    return plans_[static_cast<std::size_t>(edge)];
  }
  void forget(Tier tier, std::optional<NamespaceId> name_space = std::nullopt) {
    error.note(detail::reset(core(), tier, name_space));
  }

  // Brings the named blocks to the device; the answer is kept until the next call.
  void onboard(std::span<const SequenceHash> hashes, const OnboardOptions& options = {});
  // Holds what the device has of these names until the next offload().
  void hold_for_offload(std::span<const SequenceHash> hashes, NamespaceId name_space = 0);
  // Copies what is held to the host tier; the answer is kept until the next call.
  void offload();
  void drop_answers() {
    onboarded_.blocks.clear();
    offloaded_.blocks.clear();
  }

  // Notes what is wrong with an answer to a request for blocks that are somewhere.
  void note(const OnboardResult<>& answer, std::size_t blocks = 1);

  FirstError error;  // of the calls above

 private:
  explicit Tiered(ReferenceBlockManager manager) : manager_(std::move(manager)) {}
  Result<void> prepare();

  ReferenceBlockManager manager_;
  std::array<std::shared_ptr<const CopyPlan>, kEdgeCount> plans_;
  std::vector<ImmutableBlock<DeviceStorage>> to_offload_;
  OnboardResult<> onboarded_;
  OffloadResult<> offloaded_;
};

// A prompt of so many blocks, by a number of its own.
std::vector<TokenBlock> make_prompt(std::uint64_t number, std::size_t blocks);
std::vector<SequenceHash> hashes_of(std::span<const TokenBlock> tokens);

// Registers blocks of these names and drops them.
template <class Pool>
Result<void> put(const Pool& pool, std::span<const TokenBlock> tokens, NamespaceId name_space = 0) {
  KVBM_TRY(auto blocks, pool.allocate_blocks_blocking(tokens.size()));
  std::vector<typename Pool::Complete> named;
  named.reserve(tokens.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    KVBM_TRY(auto complete, std::move(blocks[i]).complete(tokens[i], name_space));
    named.push_back(std::move(complete));
  }
  KVBM_CHECK_OK(pool.register_blocks_blocking(std::move(named)));
  return {};
}

}  // namespace kvbm::bench
