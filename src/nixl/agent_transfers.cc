// The transfers of an agent.
//
// Invariants: a request is released after NIXL has told its end (kSuccess or kBackend), or just
// before its agent is destroyed, and is never asked about again. Peers are dropped only when none
// of their transfers runs. end() is the one place that says that a transfer is over.
#include <algorithm>

#include "nixl/agent.h"

namespace kvbm::nixl {
namespace {

// Waits of a poller: a part of the time that the newest transfer has taken, so that a poll comes
// late by that part at most, within these bounds.
constexpr int kPartOfElapsed = 16;
constexpr std::chrono::microseconds kShortestWait{10};
constexpr std::chrono::microseconds kLongestWait{250};
// For those that nobody waits for.
constexpr std::chrono::milliseconds kOverdueWait{20};

}  // namespace

TransferId Agent::id_of(std::uint32_t slot) const {
  return TransferId{(std::uint64_t{transfers_[slot].generation} << 32) | slot};
}

std::uint32_t Agent::take_slot() {
  std::uint32_t slot = 0;
  if (free_.empty()) {
    slot = static_cast<std::uint32_t>(transfers_.size());
    transfers_.emplace_back();
  } else {
    slot = free_.back();
    free_.pop_back();
  }
  active_.push_back(slot);
  ++unfinished_;
  return slot;
}

const Agent::List* Agent::find_remote(RemoteListId id) const {
  for (const List& list : remote_lists_) {
    if (list.id == id) return &list;
  }
  return nullptr;
}

Result<RequestHandle*> Agent::make_request(const TransferRequest& request, const List& local,
                                           const List& remote) {
  std::span<const BlockPair> blocks = request.blocks;
  const auto before = [](const BlockPair& a, const BlockPair& b) { return a.local < b.local; };
  if (!std::is_sorted(blocks.begin(), blocks.end(), before)) {
    sorted_.assign(blocks.begin(), blocks.end());
    std::sort(sorted_.begin(), sorted_.end(), before);
    blocks = sorted_;
  }
  local_indices_.resize(blocks.size());
  remote_indices_.resize(blocks.size());
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    for (const auto& [index, area] :
         {std::pair{blocks[i].local, &local.area}, std::pair{blocks[i].remote, &remote.area}}) {
      if (index >= area->blocks) {
        return Error{ErrorCode::InvalidBlockIndex, 0, index, area->blocks, {}};
      }
    }
    local_indices_[i] = static_cast<std::int32_t>(blocks[i].local);
    remote_indices_[i] = static_cast<std::int32_t>(blocks[i].remote);
  }
  RequestHandle* made = nullptr;
  KVBM_NIXL(api_, make_xfer_req, agent_, request.operation, local.handle, local_indices_.data(),
            blocks.size(), remote.handle, remote_indices_.data(), blocks.size(), &made, nullptr);
  return made;
}

Result<TransferId> Agent::start(const TransferRequest& request, Time now) {
  KVBM_CHECK_OK(check_there());
  const auto local_index = static_cast<std::size_t>(request.local);
  const List* const local =
      local_index < local_lists_.size() ? &local_lists_[local_index] : nullptr;
  const List* const remote = find_remote(request.remote);
  Peer* const peer = remote ? find_peer(remote->peer) : nullptr;
  if (!local || !peer || !peer->open) {
    return Error{ErrorCode::HandleNotFound, 0, 0, 0,
                 "a prepared list of this transfer is not there, or its peer is lost"};
  }
  if (request.blocks.empty() || local->area.block_bytes != remote->area.block_bytes) {
    return Error{ErrorCode::InvalidConfig, 0, remote->area.block_bytes, local->area.block_bytes,
                 "a transfer needs blocks, of one size here and at the peer"};
  }
  KVBM_TRY(RequestHandle* const made, make_request(request, *local, *remote));

  const std::uint32_t slot = take_slot();
  Transfer& transfer = transfers_[slot];
  transfer.request = made;
  transfer.peer = peer->id;
  transfer.deadline = request.deadline;
  transfer.limit = {};
  transfer.error.reset();
  ++peer->unfinished;
  newest_ = now;
  Status status = api_.post_xfer_req(agent_, made, nullptr);
  if (status < 0) {
    transfer.error = failed(status, "post_xfer_req");
    suspect(transfer.peer);
    // A part of it may be under way.
    status = api_.get_xfer_status(agent_, made);
  }
  transfer.state = status == kInProgress ? State::Running : State::Over;
  return id_of(slot);
}

void Agent::make_overdue(std::uint32_t slot, State state, Error error, Time now) {
  Transfer& transfer = transfers_[slot];
  const bool told = transfer.state != State::Running;
  transfer.state = state;
  if (told) return;
  ++overdue_;
  transfer.limit = now + options_.overdue_limit;
  transfer.error = error;
  events_.push_back({.kind = AgentEvent::Kind::Overdue,
                     .transfer = id_of(slot),
                     .peer = transfer.peer,
                     .result = std::move(error)});
}

void Agent::cancel(TransferId id, Time now) {
  const auto slot = static_cast<std::uint32_t>(id);
  if (slot >= transfers_.size() || id_of(slot) != id) return;
  if (transfers_[slot].state != State::Running) return;
  make_overdue(slot, State::Overdue, Error{ErrorCode::Cancelled, 0, 0, 0, {}}, now);
}

void Agent::look_at(std::uint32_t slot, Time now) {
  Transfer& transfer = transfers_[slot];
  if (transfer.state == State::Running || transfer.state == State::Overdue) {
    const Status status = api_.get_xfer_status(agent_, transfer.request);
    if (status == kInProgress) {
      if (transfer.state == State::Running && transfer.deadline <= now) {
        make_overdue(slot, State::Overdue, Error{ErrorCode::TimedOut, 0, 0, 0, {}}, now);
      }
      return;
    }
    if (status != kSuccess && status != kBackend) {
      make_overdue(slot, State::Untracked, failed(status, "get_xfer_status"), now);
      return;
    }
    if (status == kBackend) {
      if (!transfer.error) transfer.error = failed(status, "get_xfer_status");
      suspect(transfer.peer);
    }
    end(slot);
  } else if (transfer.state == State::Over) {
    end(slot);
  }
}

void Agent::end(std::uint32_t slot) {
  Transfer& transfer = transfers_[slot];
  events_.push_back(
      {.kind = AgentEvent::Kind::Ended,
       .transfer = id_of(slot),
       .peer = transfer.peer,
       .result = transfer.error ? Result<void>(std::move(*transfer.error)) : Result<void>()});
  if (transfer.request) {
    api_.release_xfer_req(agent_, transfer.request);
    api_.destroy_xfer_req(transfer.request);
    transfer.request = nullptr;
  }
  if (transfer.state == State::Overdue || transfer.state == State::Untracked) --overdue_;
  transfer.state = State::Free;
  ++transfer.generation;
  --unfinished_;
  if (Peer* peer = find_peer(transfer.peer)) --peer->unfinished;
  active_.erase(std::find(active_.begin(), active_.end(), slot));
  free_.push_back(slot);
}

void Agent::poll(Time now, std::vector<AgentEvent>& events) {
  bool past_limit = false;
  // From the back, for end() takes its slot out.
  for (std::size_t i = active_.size(); i-- > 0;) {
    const std::uint32_t slot = active_[i];
    look_at(slot, now);
    const State state = transfers_[slot].state;
    past_limit |=
        (state == State::Overdue || state == State::Untracked) && transfers_[slot].limit <= now;
  }
  if (has_closed_peers_) drop_closed_peers();
  if (past_limit) {
    if (auto rebuilt = rebuild(now); !rebuilt) {
      events_.push_back({.kind = AgentEvent::Kind::Rebuilt, .result = std::move(rebuilt).error()});
    }
  }
  events.insert(events.end(), std::move_iterator(events_.begin()),
                std::move_iterator(events_.end()));
  events_.clear();
}

Agent::Time Agent::next_poll(Time now) const {
  if (!events_.empty()) return now;
  if (unfinished_ > overdue_) {
    const auto wait =
        std::chrono::duration_cast<std::chrono::microseconds>(now - newest_) / kPartOfElapsed;
    return now + std::clamp(wait, kShortestWait, kLongestWait);
  }
  return overdue_ > 0 ? now + kOverdueWait : Time::max();
}

}  // namespace kvbm::nixl
