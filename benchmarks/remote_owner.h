// Another process that owns blocks, for the benches that pull them.
#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "kvbm/storage.h"
#include "physical/layout/layout.h"
#include "platform/os/process_memory.h"
#include "platform/os/tcp.h"
#include "remote/tier_blocks.h"

namespace kvbm::bench {

// Of memory on either side: more than caches hold.
inline constexpr std::size_t kRemoteBytes = std::size_t{512} << 20;
inline constexpr std::size_t kRemoteBlockBytes[] = {std::size_t{2} << 20, std::size_t{256} << 10};
inline constexpr std::size_t kRemoteSizes = std::size(kRemoteBlockBytes);
inline constexpr std::size_t kBlocksPerPull = 16;  // as the tier engine does

// What an owner is asked for over a connection: as many blocks as there are ids.
struct OwnerRequest {
  std::uint32_t size = 0;   // index of kRemoteBlockBytes
  std::uint32_t plain = 0;  // 1: with bare send()
  std::uint32_t count = 0;
  BlockId ids[kBlocksPerPull] = {};
};

// A block is 32 layers of K and V in one extent.
LayoutConfig remote_layout_config(std::size_t block_bytes);

// A child with kRemoteBytes of blocks in pinned memory, cut into blocks of each size. It serves
// connections with a thread each and is idle otherwise. Killed with this object, and with us.
class RemoteOwner {
 public:
  // Forks, so that it must be called before there are threads. Errors: those of PinnedAllocator and
  // Layout::create(); OperationFailed with errno.
  static Result<std::unique_ptr<RemoteOwner>> start();
  ~RemoteOwner();

  const ProcessIdentity& identity() const noexcept { return shared_->identity; }
  const remote::TierBlocks& blocks(std::size_t size) const noexcept { return blocks_[size]; }
  // Payload sums, block by block.
  std::span<const std::uint64_t> sums(std::size_t size) const noexcept;
  // Over loopback. Errors: those of connect_tcp().
  Result<Descriptor> connect() const;

 private:
  static constexpr std::size_t kMostBlocks = kRemoteBytes / kRemoteBlockBytes[kRemoteSizes - 1];
  // What both processes see.
  struct Shared {
    ProcessIdentity identity;
    std::uint64_t sums[kRemoteSizes][kMostBlocks];
  };

  RemoteOwner() = default;
  Result<void> lay_out();
  Result<void> listen();
  Result<void> fork_owner();
  [[noreturn]] void run_owner(const Descriptor& ready);
  void serve(const Descriptor& socket) const;

  std::shared_ptr<detail::Memory> memory_;  // the child alone has pages there
  std::vector<std::shared_ptr<const Layout>> layouts_;
  std::vector<remote::TierBlocks> blocks_;
  std::optional<TcpListener> listener_;
  Shared* shared_ = nullptr;
  pid_t pid_ = -1;
};

}  // namespace kvbm::bench
