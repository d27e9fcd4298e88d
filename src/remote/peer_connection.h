// A connection to a peer over which blocks come.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "kvbm/result.h"
#include "remote/frame_stream.h"
#include "remote/peer_session.h"

namespace kvbm::remote {

// Used by one thread at a time. Its calls wait for the peer, until the deadline or until the peer
// is lost; after an error of a call the connection is of no use, and further ones fail. Goes back
// to its session with its owner. Errors of every call: TimedOut; Cancelled if the peer is lost or
// greeted again; OperationFailed.
class PeerConnection {
 public:
  using Time = std::chrono::steady_clock::time_point;
  // Must read exactly the bytes of block `position` of the choice from the socket, which does not
  // block, and nothing more; may shut it down if it fails. Errors: ChecksumMismatch if all were
  // read and are wrong; after any other the connection is of no use.
  using Receive = std::function<Result<void>(std::size_t position, const Descriptor& socket,
                                             std::uint64_t payload_sum)>;

  PeerConnection(std::shared_ptr<PeerSession> session, FrameStream stream)
      : session_(std::move(session)), stream_(std::move(stream)) {}
  ~PeerConnection();
  PeerConnection(PeerConnection&&) noexcept = default;
  PeerConnection& operator=(PeerConnection&& other) noexcept;

  // Which blocks are in the peer's host memory now and stay there as long as the plan lasts; one
  // answer per index.
  Result<std::vector<Result<FetchedBlock>>> fetch(const BlockChoice& blocks, Time deadline);
  // Has the peer send the blocks, each of `block_bytes` bytes; one answer per index. `receive` is
  // called in order for those that come. When it returns, nothing is received any more.
  Result<std::vector<Result<void>>> pull(const BlockChoice& blocks, std::uint64_t block_bytes,
                                         Time deadline, const Receive& receive);
  // Whether the plan still lasts and its namespace was not reset at the peer.
  Result<bool> confirm(std::uint64_t plan, Time deadline);

  bool is_usable() const noexcept { return session_ != nullptr && is_usable_; }
  const PeerSession& session() const noexcept { return *session_; }

 private:
  Until until(Time deadline) const noexcept { return {deadline, &session_->over()}; }
  Result<void> send(const PeerRequest& request, Time deadline);
  Result<PeerReply> receive_reply(Time deadline);
  template <class Reply>
  Result<Reply> ask(const PeerRequest& request, Time deadline);
  Result<void> receive_block(std::size_t position, std::uint64_t block_bytes, Time deadline,
                             const Receive& receive);

  std::shared_ptr<PeerSession> session_;  // none once moved from
  FrameStream stream_;
  std::uint64_t request_ = 0;  // the last one
  bool is_usable_ = true;
};

}  // namespace kvbm::remote
