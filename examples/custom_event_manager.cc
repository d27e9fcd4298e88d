// Hears what happens to blocks: a router keeps such an index of what each worker has cached.
#include <kvbm/kvbm.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <mutex>
#include <numeric>
#include <set>

namespace {

constexpr std::size_t kBlockTokens = 16;

// Runs on a thread of the library, never on one of yours, so it needs a lock of its own. Overriding
// on_event() tells the tier; overriding the four single calls is enough where that does not matter.
class CacheIndex final : public kvbm::EventManager {
 public:
  void on_event(const kvbm::BlockEvent& event) override {
    const std::lock_guard lock(mutex_);
    const std::pair entry{event.tier, event.sequence_hash.value()};
    if (event.kind == kvbm::BlockEvent::Kind::Registered) present_.insert(entry);
    if (event.kind == kvbm::BlockEvent::Kind::Evicted) present_.erase(entry);
    ++events_;
  }
  // The four calls that on_event() replaces.
  void block_allocated(kvbm::BlockId) override {}
  void block_registered(kvbm::BlockId, kvbm::SequenceHash) override {}
  void block_matched(kvbm::BlockId, kvbm::SequenceHash) override {}
  void block_evicted(kvbm::BlockId) override {}

  std::size_t count(kvbm::Tier tier) const {
    const std::lock_guard lock(mutex_);
    return static_cast<std::size_t>(
        std::ranges::count_if(present_, [tier](const auto& entry) { return entry.first == tier; }));
  }
  std::size_t events() const {
    const std::lock_guard lock(mutex_);
    return events_;
  }

 private:
  mutable std::mutex mutex_;
  std::set<std::pair<kvbm::Tier, std::uint64_t>> present_;
  std::size_t events_ = 0;
};

void compute(kvbm::ReferenceBlockManager& manager, kvbm::Token first) {
  std::vector<kvbm::Token> prompt(6 * kBlockTokens);
  std::iota(prompt.begin(), prompt.end(), first);
  const auto tokens = kvbm::TokenBlockSequence::create(prompt, kBlockTokens).value();
  auto blocks = manager.device()->allocate_blocks_blocking(tokens.blocks().size()).value();
  std::vector<kvbm::CompleteBlock<kvbm::DeviceStorage>> full;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    full.push_back(std::move(blocks[i]).complete(tokens.blocks()[i]).value());
  }
  manager.device()->register_blocks_blocking(std::move(full)).value();
  manager.drain(std::chrono::seconds(10));  // until the host tier has them, too
}

}  // namespace

int main() {
  const auto index = std::make_shared<CacheIndex>();
  {
    kvbm::KvBlockManagerConfig config;
    config.model = {.num_layers = 2, .outer_dim = 2, .page_size = kBlockTokens, .inner_dim = 64};
    config.device_layout = {.num_blocks = 8,
                            .allocator = std::make_shared<kvbm::HostBackedDeviceAllocator>()};
    config.host_layout = {.num_blocks = 64, .allocator = std::make_shared<kvbm::PinnedAllocator>()};
    config.event_manager = index;
    auto manager = kvbm::ReferenceBlockManager::create(config).value();
    for (const kvbm::Token first : {0u, 1000u, 2000u}) compute(manager, first);
  }  // events wait in a queue; closing the manager delivers the last ones

  // 18 blocks were registered; the device has room for 8, the host for all.
  std::printf("%zu events: %zu blocks in device memory, %zu in host memory\n", index->events(),
              index->count(kvbm::Tier::Device), index->count(kvbm::Tier::Host));
  return index->count(kvbm::Tier::Device) == 8 && index->count(kvbm::Tier::Host) == 18 ? 0 : 1;
}
