#include "simulator/virtual_peer.h"

#include <algorithm>
#include <utility>

#include "kvbm/storage.h"

namespace kvbm::simulator {

VirtualLease::~VirtualLease() {
  if (const auto peer = peer_.lock()) peer->end(id_);
}

VirtualPeer::VirtualPeer(std::shared_ptr<const Layout> layout)
    : layout_(std::move(layout)), slots_(layout_->config().num_blocks) {}

Result<std::shared_ptr<VirtualPeer>> VirtualPeer::create(const LayoutConfig& shape) {
  KVBM_TRY(const std::size_t bytes, shape.storage_bytes(LayoutType::FullyContiguous));
  KVBM_TRY(auto storage, SystemAllocator().allocate(bytes));
  KVBM_TRY(auto layout, Layout::create(LayoutType::FullyContiguous, shape, {storage.memory()}));
  return std::shared_ptr<VirtualPeer>(new VirtualPeer(std::move(layout)));
}

std::optional<BlockId> VirtualPeer::find(const BlockIdentity& name) const {
  for (BlockId id = 0; id < slots_.size(); ++id) {
    const auto& identity = slots_[id].identity;
    if (identity && identity->sequence_hash == name.sequence_hash &&
        identity->digest == name.digest && identity->name_space == name.name_space) {
      return id;
    }
  }
  return std::nullopt;
}

void VirtualPeer::store(const BlockIdentity& identity, Random& random,
                        const std::function<void(const Layout&, BlockId)>& fill) {
  if (find(identity)) return;
  std::vector<BlockId> free;
  for (BlockId id = 0; id < slots_.size(); ++id) {
    if (slots_[id].leases == 0) free.push_back(id);
  }
  if (free.empty()) return;
  const BlockId id = free[random.below(free.size())];
  slots_[id].identity = identity;
  fill(*layout_, id);
}

std::shared_ptr<VirtualLease> VirtualPeer::lookup(std::span<const BlockIdentity> names,
                                                  TimePoint expires) {
  Leased leased{{}, expires};
  for (const BlockIdentity& name : names) {
    const auto id = find(name);
    if (!id) break;
    leased.blocks.push_back(*id);
  }
  if (leased.blocks.empty()) return nullptr;
  const std::uint64_t number = next_lease_++;
  auto lease = std::make_shared<VirtualLease>(weak_from_this(), number);
  for (const BlockId id : leased.blocks) {
    ++slots_[id].leases;
    lease->blocks.push_back({id, sum_block(*layout_, id).value()});
  }
  leases_.emplace(number, std::move(leased));
  return lease;
}

void VirtualPeer::end(std::uint64_t lease) {
  const auto ended = leases_.extract(lease);
  if (!ended) return;
  for (const BlockId id : ended.mapped().blocks) --slots_[id].leases;
}

void VirtualPeer::expire(TimePoint now) {
  std::vector<std::uint64_t> over;
  for (const auto& [number, leased] : leases_) {
    if (leased.expires <= now) over.push_back(number);
  }
  for (const std::uint64_t number : over) end(number);
}

void VirtualPeer::forget(std::optional<NamespaceId> name_space) {
  for (Slot& slot : slots_) {
    if (slot.identity && (!name_space || slot.identity->name_space == *name_space)) {
      slot.identity.reset();
    }
  }
}

void VirtualPeer::restart() {
  leases_.clear();
  for (BlockId id = 0; id < slots_.size(); ++id) {
    slots_[id] = {};
    zero_block(*layout_, id);
  }
}

}  // namespace kvbm::simulator
