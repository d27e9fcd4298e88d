// Another worker, as its peers see it: blocks that come and go, that it keeps for those who ask as
// long as their leases last, and not longer.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "logical/pool/block_store.h"
#include "physical/transfer/transfer.h"
#include "simulator/random.h"

namespace kvbm::simulator {

class VirtualPeer;

// Blocks that the peer keeps, or kept.
class VirtualLease final : public RemoteBlocks {
 public:
  VirtualLease(std::weak_ptr<VirtualPeer> peer, std::uint64_t id)
      : peer_(std::move(peer)), id_(id) {}
  ~VirtualLease() override;

  struct Block {
    BlockId id;
    std::uint64_t payload_sum;  // when it was asked for
  };
  std::vector<Block> blocks;

 private:
  std::weak_ptr<VirtualPeer> peer_;
  std::uint64_t id_;
};

// Not thread-safe.
class VirtualPeer : public std::enable_shared_from_this<VirtualPeer> {
 public:
  // Errors: those of the layout.
  static Result<std::shared_ptr<VirtualPeer>> create(const LayoutConfig& shape);

  // Takes in a block that `fill` writes the bytes of, in place of one that nobody keeps; nothing if
  // it has the block, or every block is kept.
  void store(const BlockIdentity& identity, Random& random,
             const std::function<void(const Layout&, BlockId)>& fill);
  // The longest prefix that it has, kept until then; null if that is nothing.
  std::shared_ptr<VirtualLease> lookup(std::span<const BlockIdentity> names, TimePoint expires);
  // Leases that are over end.
  void expire(TimePoint now);
  void forget(std::optional<NamespaceId> name_space);
  // It dies and comes back: with no block, no lease, and other bytes in its memory.
  void restart();

  const std::shared_ptr<const Layout>& layout() const noexcept { return layout_; }
  std::size_t leases() const noexcept { return leases_.size(); }

 private:
  friend class VirtualLease;
  struct Slot {
    std::optional<BlockIdentity> identity;
    std::size_t leases = 0;
  };
  struct Leased {
    std::vector<BlockId> blocks;
    TimePoint expires;
  };
  explicit VirtualPeer(std::shared_ptr<const Layout> layout);
  std::optional<BlockId> find(const BlockIdentity& name) const;
  void end(std::uint64_t lease);

  std::shared_ptr<const Layout> layout_;
  std::vector<Slot> slots_;
  std::map<std::uint64_t, Leased> leases_;
  std::uint64_t next_lease_ = 1;
};

}  // namespace kvbm::simulator
