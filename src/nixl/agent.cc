#include "nixl/agent.h"

#include <algorithm>
#include <cstdlib>
#include <limits>

namespace kvbm::nixl {
namespace {

constexpr const char* kUcx = "UCX";
// Without it NIXL never tells that a peer has died.
constexpr std::pair<const char*, const char*> kTellDeaths = {"ucx_error_handling_mode", "peer"};

Error invalid(std::string message) {
  return Error{ErrorCode::InvalidConfig, 0, 0, 0, std::move(message)};
}

Result<void> check(const BlockArea& area) {
  const auto fits = [](std::uint64_t value) {
    return value <= std::uint64_t{std::numeric_limits<std::int32_t>::max()};
  };
  if (area.block_bytes == 0 || area.blocks == 0 || !fits(area.blocks)) {
    return invalid("an area of " + std::to_string(area.blocks) + " blocks of " +
                   std::to_string(area.block_bytes) + " bytes: there must be 1 to 2^31 - 1");
  }
  if (area.stride_bytes < area.block_bytes) {
    return invalid("blocks of " + std::to_string(area.block_bytes) +
                   " bytes overlap at a stride of " + std::to_string(area.stride_bytes));
  }
  std::uint64_t bytes = 0;
  std::uint64_t end = 0;
  if (__builtin_mul_overflow(std::uint64_t{area.stride_bytes}, area.blocks, &bytes) ||
      __builtin_add_overflow(area.address, bytes, &end)) {
    return invalid("an area that ends beyond the last address");
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<Agent>> Agent::create(const NixlApi& api, AgentOptions options) {
  if (options.name.empty()) return invalid("a NIXL agent needs a name");
  std::unique_ptr<Agent> agent(new Agent(api, std::move(options)));
  KVBM_CHECK_OK(agent->build());
  return agent;
}

Agent::~Agent() { destroy(); }

Result<void> Agent::build() {
  std::string name = options_.name;
  if (builds_ > 0) name += "-" + std::to_string(builds_);
  ++builds_;
  AgentConfig config;
  config.progress_interval_us = static_cast<std::uint64_t>(options_.progress_interval.count());
  KVBM_NIXL(api_, create_configured_agent, name.c_str(), &config, &agent_);
  name_ = std::move(name);
  const auto set_up = [this]() -> Result<void> {
    KVBM_TRY(Params params, Params::make(api_, "create_params", &NixlApi::create_params));
    for (const auto& [key, value] : options_.ucx) {
      KVBM_NIXL(api_, params_add, params.get(), key.c_str(), value.c_str());
    }
    KVBM_NIXL(api_, params_add, params.get(), kTellDeaths.first, kTellDeaths.second);
    KVBM_TRY(backend_, Backend::make(api_, "create_backend of UCX", &NixlApi::create_backend,
                                     agent_, kUcx, params.get()));
    KVBM_TRY(ucx_only_, CallOptions::make(api_, "create_opt_args", &NixlApi::create_opt_args));
    KVBM_NIXL(api_, opt_args_add_backend, ucx_only_->get(), backend_->get());
    for (const std::span<std::byte> memory : memory_) KVBM_CHECK_OK(tell_of(memory));
    for (List& list : local_lists_) {
      KVBM_TRY(list.handle, prepare("", list.area));
    }
    return {};
  };
  auto done = set_up();
  if (!done) destroy();
  return done;
}

bool Agent::destroy() {
  if (!agent_) return true;
  for (const std::uint32_t slot : active_) {
    RequestHandle*& request = transfers_[slot].request;
    if (!request) continue;
    api_.release_xfer_req(agent_, request);
    api_.destroy_xfer_req(request);
    request = nullptr;
  }
  for (std::vector<List>* lists : {&local_lists_, &remote_lists_}) {
    for (List& list : *lists) {
      if (list.handle) api_.release_xfer_dlist_handle(agent_, list.handle);
      list.handle = nullptr;
    }
  }
  ucx_only_.reset();
  backend_.reset();
  return api_.destroy_agent(std::exchange(agent_, nullptr)) == kSuccess;
}

Result<void> Agent::check_there() const {
  if (agent_) return {};
  return Error{ErrorCode::NixlError, 0, 0, 0,
               "the NIXL agent " + name_ + " is gone and could not be made again"};
}

Result<void> Agent::register_memory(std::span<std::byte> memory) {
  KVBM_CHECK_OK(check_there());
  if (memory.empty()) return invalid("no memory to register with NIXL");
  KVBM_CHECK_OK(tell_of(memory));
  memory_.push_back(memory);
  return {};
}

Result<void> Agent::tell_of(std::span<std::byte> memory) {
  KVBM_TRY(RegionList list, RegionList::make(api_, "create_reg_dlist", &NixlApi::create_reg_dlist,
                                             MemoryType::Dram));
  KVBM_NIXL(api_, reg_dlist_add_desc, list.get(), reinterpret_cast<std::uintptr_t>(memory.data()),
            memory.size(), 0, "", 0);
  KVBM_NIXL(api_, register_mem, agent_, list.get(), ucx_only_->get());
  return {};
}

Result<std::vector<std::byte>> Agent::metadata() const {
  KVBM_CHECK_OK(check_there());
  void* data = nullptr;
  std::size_t bytes = 0;
  KVBM_NIXL(api_, get_local_md, agent_, &data, &bytes);
  const auto* begin = static_cast<const std::byte*>(data);
  std::vector<std::byte> copy(begin, begin + bytes);
  std::free(data);
  return copy;
}

// What peers send to find out whether we live is of no other use, and would be kept for ever.
void Agent::discard_notifications() {
  auto messages = Notifications::make(api_, "create_notif_map", &NixlApi::create_notif_map);
  if (messages) api_.get_notifs(agent_, messages->get(), nullptr);
}

Result<PeerId> Agent::load_peer(PeerKey key, std::span<const std::byte> metadata) {
  KVBM_CHECK_OK(check_there());
  KVBM_CHECK_OK(make_room_for(key));
  discard_notifications();
  char* loaded = nullptr;
  KVBM_NIXL(api_, load_remote_md, agent_, metadata.data(), metadata.size(), &loaded);
  const std::string name = loaded ? loaded : "";
  std::free(loaded);
  if (name != key.agent) {
    const bool known = std::any_of(peers_.begin(), peers_.end(),
                                   [&](const Peer& peer) { return peer.key.agent == name; });
    if (!known) api_.invalidate_remote_md(agent_, name.c_str());
    return invalid("NIXL metadata of agent " + name + " where that of " + key.agent +
                   " was expected");
  }
  peers_.push_back({.id = PeerId{++last_peer_}, .key = std::move(key)});
  return peers_.back().id;
}

// Forgets an earlier generation of the same agent.
Result<void> Agent::make_room_for(const PeerKey& key) {
  for (std::size_t i = 0; i < peers_.size(); ++i) {
    const Peer& peer = peers_[i];
    if (peer.key.agent != key.agent) continue;
    if (peer.key.incarnation == key.incarnation && key.generation <= peer.key.generation) {
      return invalid("peer " + key.agent + " is known as of generation " +
                     std::to_string(peer.key.generation) + ", not before " +
                     std::to_string(key.generation));
    }
    if (peer.unfinished > 0) {
      return Error{ErrorCode::QueueFull, 0, peer.unfinished, 0,
                   "transfers of an earlier generation of peer " + key.agent + " have not ended"};
    }
    drop_peer(i);
    return {};
  }
  return {};
}

void Agent::forget_peer(PeerId id) {
  if (Peer* peer = find_peer(id)) {
    peer->open = false;
    has_closed_peers_ = true;
    drop_closed_peers();
  }
}

Agent::Peer* Agent::find_peer(PeerId id) {
  for (Peer& peer : peers_) {
    if (peer.id == id) return &peer;
  }
  return nullptr;
}

// Requires: none of its transfers runs, since NIXL would not tell their end any more, while their
// bytes might still arrive.
void Agent::drop_peer(std::size_t index) {
  const Peer& peer = peers_[index];
  std::erase_if(remote_lists_, [&](const List& list) {
    if (list.peer != peer.id) return false;
    api_.release_xfer_dlist_handle(agent_, list.handle);
    return true;
  });
  api_.invalidate_remote_md(agent_, peer.key.agent.c_str());
  peers_.erase(peers_.begin() + static_cast<std::ptrdiff_t>(index));
}

void Agent::drop_closed_peers() {
  has_closed_peers_ = false;
  for (std::size_t i = peers_.size(); i-- > 0;) {
    if (peers_[i].open) continue;
    if (peers_[i].unfinished == 0) {
      drop_peer(i);
    } else {
      has_closed_peers_ = true;
    }
  }
}

void Agent::suspect(PeerId id) {
  Peer* const peer = find_peer(id);
  if (!peer || !peer->open) return;
  constexpr char kMessage[] = "kvbm";
  const Status status =
      api_.gen_notif(agent_, peer->key.agent.c_str(), kMessage, sizeof kMessage - 1, nullptr);
  if (status == kSuccess) return;
  peer->open = false;
  has_closed_peers_ = true;
  events_.push_back({.kind = AgentEvent::Kind::PeerLost,
                     .peer = id,
                     .result = failed(status, "gen_notif to peer " + peer->key.agent)});
}

Result<PreparedListHandle*> Agent::prepare(const char* peer, const BlockArea& area) {
  KVBM_TRY(DescriptorList list,
           DescriptorList::make(api_, "create_xfer_dlist", &NixlApi::create_xfer_dlist,
                                MemoryType::Dram));
  for (std::uint32_t i = 0; i < area.blocks; ++i) {
    KVBM_NIXL(api_, xfer_dlist_add_desc, list.get(), area.address + i * area.stride_bytes,
              area.block_bytes, 0);
  }
  PreparedListHandle* handle = nullptr;
  KVBM_NIXL(api_, prep_xfer_dlist, agent_, peer, list.get(), &handle, ucx_only_->get());
  return handle;
}

Result<LocalListId> Agent::prepare_local(const BlockArea& area) {
  KVBM_CHECK_OK(check_there());
  KVBM_CHECK_OK(check(area));
  KVBM_TRY(PreparedListHandle* const handle, prepare("", area));
  local_lists_.push_back({.area = area, .handle = handle});
  return LocalListId(static_cast<std::uint32_t>(local_lists_.size() - 1));
}

Result<RemoteListId> Agent::prepare_remote(PeerId id, const BlockArea& area) {
  KVBM_CHECK_OK(check_there());
  KVBM_CHECK_OK(check(area));
  const Peer* const peer = find_peer(id);
  if (!peer || !peer->open) {
    return Error{ErrorCode::HandleNotFound, 0, 0, 0, "that NIXL peer is not known, or is lost"};
  }
  KVBM_TRY(PreparedListHandle* const handle, prepare(peer->key.agent.c_str(), area));
  remote_lists_.push_back(
      {.area = area, .handle = handle, .id = RemoteListId{++last_remote_list_}, .peer = id});
  return remote_lists_.back().id;
}

Result<void> Agent::rebuild(Time now) {
  const bool stopped = destroy();
  for (const std::uint32_t slot : std::vector(active_)) {
    Transfer& transfer = transfers_[slot];
    if (transfer.limit == Time::max()) continue;  // of an agent that could not be destroyed
    if (stopped && transfer.state == State::Running) {
      transfer.error = Error{ErrorCode::NixlError, 0, 0, 0, "the NIXL agent was rebuilt"};
    }
    if (stopped || transfer.state == State::Over) {
      end(slot);
    } else {
      // Bytes may still arrive, so these blocks are lost: nothing is left that could end it.
      make_overdue(slot, State::Untracked, failed(kBackend, "destroy_agent"), now);
      transfer.limit = Time::max();
    }
  }
  peers_.clear();
  remote_lists_.clear();
  has_closed_peers_ = false;
  KVBM_CHECK_OK(build());
  events_.push_back({.kind = AgentEvent::Kind::Rebuilt});
  return {};
}

void Agent::check_invariants() const {
  std::size_t counted = 0;
  std::size_t late = 0;
  for (const Transfer& transfer : transfers_) {
    counted += transfer.state != State::Free ? 1 : 0;
    late += transfer.state == State::Overdue || transfer.state == State::Untracked ? 1 : 0;
  }
  std::size_t of_peers = 0;
  for (const Peer& peer : peers_) of_peers += peer.unfinished;
  if (counted != unfinished_ || counted != active_.size() || late != overdue_ ||
      of_peers > counted || active_.size() + free_.size() != transfers_.size()) {
    std::abort();
  }
}

}  // namespace kvbm::nixl
