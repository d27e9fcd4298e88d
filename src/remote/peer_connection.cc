#include "remote/peer_connection.h"

#include <string>

namespace kvbm::remote {
namespace {

Error unusable() {
  return Error{ErrorCode::OperationFailed, 0, 0, 0, "the connection has failed before"};
}

}  // namespace

PeerConnection::~PeerConnection() {
  if (is_usable()) session_->give_back(std::move(stream_));
}

PeerConnection& PeerConnection::operator=(PeerConnection&& other) noexcept {
  std::swap(session_, other.session_);
  std::swap(stream_, other.stream_);
  std::swap(request_, other.request_);
  std::swap(is_usable_, other.is_usable_);
  return *this;
}

// Unusable from here on, until the answer is there.
Result<void> PeerConnection::send(const PeerRequest& request, Time deadline) {
  if (!is_usable_) return unusable();
  is_usable_ = false;
  request_ = stream_.next_request();
  return stream_.send(encode_peer_request(request_, request), until(deadline));
}

Result<PeerReply> PeerConnection::receive_reply(Time deadline) {
  KVBM_TRY(const Frame frame, stream_.receive(until(deadline)));
  KVBM_TRY(PeerReply reply, decode_peer_reply(frame));
  if (std::holds_alternative<Goodbye>(reply)) return leader::garbage("the peer said goodbye");
  if (frame.request == request_) return reply;
  if (auto* const error = std::get_if<Error>(&reply)) return std::move(*error);
  return leader::garbage("the peer answers what was not asked");
}

template <class Reply>
Result<Reply> PeerConnection::ask(const PeerRequest& request, Time deadline) {
  KVBM_CHECK_OK(send(request, deadline));
  KVBM_TRY(PeerReply reply, receive_reply(deadline));
  if (auto* const error = std::get_if<Error>(&reply)) return std::move(*error);
  auto* const wanted = std::get_if<Reply>(&reply);
  if (!wanted) return leader::garbage("the peer answers what was not asked");
  return std::move(*wanted);
}

Result<std::vector<Result<FetchedBlock>>> PeerConnection::fetch(const BlockChoice& blocks,
                                                                Time deadline) {
  KVBM_TRY(Fetched fetched, ask<Fetched>(FetchRequest{blocks}, deadline));
  if (fetched.blocks.size() != blocks.indexes.size()) {
    return leader::garbage("the peer fetched another number of blocks", blocks.indexes.size(),
                           fetched.blocks.size());
  }
  is_usable_ = true;
  return std::move(fetched.blocks);
}

Result<bool> PeerConnection::confirm(std::uint64_t plan, Time deadline) {
  KVBM_TRY(const Confirmed confirmed, ask<Confirmed>(ConfirmRequest{.plan = plan}, deadline));
  is_usable_ = true;
  return confirmed.is_current;
}

Result<std::vector<Result<void>>> PeerConnection::pull(const BlockChoice& blocks,
                                                       std::uint64_t block_bytes, Time deadline,
                                                       const Receive& receive) {
  KVBM_CHECK_OK(send(PullRequest{blocks}, deadline));
  std::vector<Result<void>> received;
  while (received.size() < blocks.indexes.size()) {
    received.push_back(receive_block(received.size(), block_bytes, deadline, receive));
    if (is_usable_) continue;
    // The blocks before are whole; those behind cannot come any more.
    const Error why = received.back().error();
    while (received.size() < blocks.indexes.size()) received.emplace_back(why);
  }
  return received;
}

// One block; is_usable_ says whether the next one can come.
Result<void> PeerConnection::receive_block(std::size_t position, std::uint64_t block_bytes,
                                           Time deadline, const Receive& receive) {
  is_usable_ = false;
  KVBM_TRY(PeerReply reply, receive_reply(deadline));
  if (auto* const error = std::get_if<Error>(&reply)) {
    is_usable_ = true;
    return std::move(*error);
  }
  const auto* const head = std::get_if<BlockHead>(&reply);
  if (!head) return leader::garbage("the peer answers what was not asked");
  if (head->bytes != block_bytes) {
    return leader::garbage("the peer's block has another length", block_bytes, head->bytes);
  }
  const auto received = receive(position, stream_.socket(), head->payload_sum);
  is_usable_ = received || received.error().code == ErrorCode::ChecksumMismatch;
  return received;
}

}  // namespace kvbm::remote
