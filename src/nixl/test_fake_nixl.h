// For tests: a NIXL inside this process, whose peers the test stops and kills. It has the real
// one's faults: a released request still writes, and only an agent's end stops it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "nixl/nixl_api.h"

namespace kvbm::nixl {

// What NIXL's handles are here.
struct RegionListHandle {
  std::vector<std::pair<std::uintptr_t, std::size_t>> regions;
};
struct DescriptorListHandle {
  std::vector<std::pair<std::uintptr_t, std::size_t>> pieces;
};
struct ParamsHandle {
  std::map<std::string, std::string> values;
};
struct BackendHandle {
  AgentHandle* agent;
};
struct OptionsHandle {
  BackendHandle* backend = nullptr;
};
struct NotificationsHandle {
  std::size_t agents = 0;
};
struct PreparedListHandle {
  std::string peer;  // empty: local
  std::uint64_t loaded = 0;
  std::vector<std::pair<std::uintptr_t, std::size_t>> pieces;
};
struct AgentHandle {
  struct Loaded {
    std::uint64_t number = 0;  // which load it was
    std::uint64_t connection = 0;
  };
  std::string name;
  std::uint64_t connection = 0;
  std::vector<std::pair<std::uintptr_t, std::size_t>> regions;
  std::map<std::string, Loaded> peers;
  std::size_t messages = 0;
  std::size_t open_handles = 0;  // requests and prepared lists
};
struct RequestHandle {
  struct Copy {
    std::uintptr_t source;
    std::uintptr_t target;
    std::size_t bytes;
  };
  AgentHandle* agent = nullptr;
  std::string peer;
  std::uint64_t loaded = 0;
  std::vector<Copy> copies;
  bool posted = false;
  bool released = false;
  Status status = kBackend;  // what NIXL answers for one that was never posted
};

// There is one at a time. Threads: any.
class FakeNixl {
 public:
  FakeNixl() {
    if (current()) std::abort();
    current() = this;
  }
  ~FakeNixl() {
    current() = nullptr;
    // Whoever used it has given everything back.
    if (!agents_.empty() || handles_ != 0) std::abort();
  }
  FakeNixl(const FakeNixl&) = delete;
  FakeNixl& operator=(const FakeNixl&) = delete;

  const NixlApi& api() const noexcept { return api_; }

  // An agent that stands still: what is asked of it stays in progress. After resume() all of it is
  // done at once, also what was released meanwhile.
  void stop(const std::string& agent) {
    std::lock_guard lock(mutex_);
    stopped_.insert(agent);
  }
  void resume(const std::string& agent) {
    std::lock_guard lock(mutex_);
    stopped_.erase(agent);
    for (const auto& request : requests_) {
      if (request->peer == agent && request->status == kInProgress) finish(*request);
    }
  }
  // An agent whose process is gone.
  void kill(const std::string& agent) {
    std::lock_guard lock(mutex_);
    killed_.insert(agent);
    for (const auto& request : requests_) {
      if (request->peer == agent && request->status == kInProgress) request->status = kBackend;
    }
  }
  // A connection that broke, of an agent that is well: until it is loaded again.
  void cut(const std::string& agent) {
    std::lock_guard lock(mutex_);
    cut_.insert(agent);
    for (const auto& request : requests_) {
      if (request->peer == agent && request->status == kInProgress) request->status = kBackend;
    }
  }
  // The next calls of this function answer so, instead of doing anything.
  void fail(const std::string& function, Status status, std::size_t times = 1) {
    std::lock_guard lock(mutex_);
    failures_[function] = {status, times};
  }

  // Copies of the last request: neighbours count as one.
  std::size_t last_pieces() const {
    std::lock_guard lock(mutex_);
    return last_pieces_;
  }
  std::size_t polls() const {
    std::lock_guard lock(mutex_);
    return polls_;
  }
  std::size_t messages(const std::string& agent) const {
    std::lock_guard lock(mutex_);
    return agents_.at(agent)->messages;
  }
  std::size_t agents() const {
    std::lock_guard lock(mutex_);
    return agents_.size();
  }
  std::map<std::string, std::string> params() const {
    std::lock_guard lock(mutex_);
    return params_;
  }
  AgentConfig last_config() const {
    std::lock_guard lock(mutex_);
    return config_;
  }

 private:
  static FakeNixl*& current() {
    static FakeNixl* world = nullptr;
    return world;
  }
  struct Call {
    std::unique_lock<std::mutex> lock{current()->mutex_};
    FakeNixl* operator->() const { return current(); }
  };
  // The status to answer instead, or kSuccess.
  Status failure(const std::string& function) {
    const auto found = failures_.find(function);
    if (found == failures_.end() || found->second.second == 0) return kSuccess;
    --found->second.second;
    return found->second.first;
  }
  static void finish(RequestHandle& request) {
    for (const RequestHandle::Copy& copy : request.copies) {
      std::memcpy(reinterpret_cast<void*>(copy.target), reinterpret_cast<void*>(copy.source),
                  copy.bytes);
    }
    request.status = kSuccess;
  }
  bool gone(const std::string& agent) const {
    return killed_.contains(agent) || cut_.contains(agent) || !agents_.contains(agent);
  }
  template <class Handle>
  static Status create(Handle** made) {
    Call world;
    *made = new Handle;
    ++world->handles_;
    return kSuccess;
  }
  template <class Handle>
  static Status destroy(Handle* handle) {
    Call world;
    delete handle;
    --world->handles_;
    return kSuccess;
  }
  static bool covers(const std::vector<std::pair<std::uintptr_t, std::size_t>>& regions,
                     const std::pair<std::uintptr_t, std::size_t>& piece) {
    return std::any_of(regions.begin(), regions.end(), [&](const auto& region) {
      return piece.first >= region.first &&
             piece.first + piece.second <= region.first + region.second;
    });
  }

  static Status create_agent(const char* name, const AgentConfig* config, AgentHandle** made) {
    Call world;
    if (const Status status = world->failure("create_configured_agent")) return status;
    if (world->agents_.contains(name)) return kBackend;
    world->config_ = *config;
    auto agent = std::make_unique<AgentHandle>();
    agent->name = name;
    agent->connection = ++world->connections_;
    *made = agent.get();
    world->agents_[name] = std::move(agent);
    world->killed_.erase(name);
    return kSuccess;
  }
  static Status destroy_agent(AgentHandle* agent) {
    Call world;
    if (agent->open_handles != 0) std::abort();  // the real one crashes or leaks
    if (const Status status = world->failure("destroy_agent")) {
      world->undead_.push_back(std::move(world->agents_.at(agent->name)));
      world->agents_.erase(agent->name);
      return status;
    }
    std::erase_if(world->requests_, [&](const auto& request) { return request->agent == agent; });
    const std::string name = agent->name;
    world->agents_.erase(name);
    for (const auto& request : world->requests_) {
      if (request->peer == name && request->status == kInProgress) request->status = kBackend;
    }
    return kSuccess;
  }
  static Status params_add(ParamsHandle* params, const char* key, const char* value) {
    params->values[key] = value;
    return kSuccess;
  }
  static Status create_backend(AgentHandle* agent, const char* plugin, ParamsHandle* params,
                               BackendHandle** made) {
    Call world;
    if (const Status status = world->failure("create_backend")) return status;
    if (std::string(plugin) != "UCX") return kBackend;
    world->params_ = params->values;
    *made = new BackendHandle{agent};
    ++world->handles_;
    return kSuccess;
  }
  static Status add_backend(OptionsHandle* options, BackendHandle* backend) {
    options->backend = backend;
    return kSuccess;
  }
  static Status add_region(RegionListHandle* list, std::uintptr_t address, std::size_t bytes,
                           std::uint64_t, const void*, std::size_t) {
    list->regions.emplace_back(address, bytes);
    return kSuccess;
  }
  static Status register_mem(AgentHandle* agent, RegionListHandle* list, OptionsHandle*) {
    Call world;
    if (const Status status = world->failure("register_mem")) return status;
    agent->regions.insert(agent->regions.end(), list->regions.begin(), list->regions.end());
    return kSuccess;
  }
  // Metadata here: the connection's number, then the name.
  static Status local_metadata(AgentHandle* agent, void** data, std::size_t* bytes) {
    Call world;
    *bytes = sizeof agent->connection + agent->name.size();
    *data = std::malloc(*bytes);
    std::memcpy(*data, &agent->connection, sizeof agent->connection);
    std::memcpy(static_cast<char*>(*data) + sizeof agent->connection, agent->name.data(),
                agent->name.size());
    return kSuccess;
  }
  static Status load(AgentHandle* agent, const void* data, std::size_t bytes, char** name) {
    Call world;
    std::uint64_t connection = 0;
    if (bytes <= sizeof connection) return kBackend;
    std::memcpy(&connection, data, sizeof connection);
    const std::string peer(static_cast<const char*>(data) + sizeof connection,
                           bytes - sizeof connection);
    if (peer == agent->name) return -1;
    const auto known = agent->peers.find(peer);
    if (known != agent->peers.end() && known->second.connection != connection) return kBackend;
    if (known == agent->peers.end()) agent->peers[peer] = {++world->loads_, connection};
    world->cut_.erase(peer);
    *name = static_cast<char*>(std::malloc(peer.size() + 1));
    std::memcpy(*name, peer.c_str(), peer.size() + 1);
    return kSuccess;
  }
  static Status invalidate(AgentHandle* agent, const char* peer) {
    Call world;
    return agent->peers.erase(peer) == 1 ? kSuccess : kNotFound;
  }
  static Status add_piece(DescriptorListHandle* list, std::uintptr_t address, std::size_t bytes,
                          std::uint64_t) {
    list->pieces.emplace_back(address, bytes);
    return kSuccess;
  }
  static Status prepare(AgentHandle* agent, const char* peer, DescriptorListHandle* list,
                        PreparedListHandle** made, OptionsHandle*) {
    Call world;
    const std::string name = peer;
    std::uint64_t loaded = 0;
    const AgentHandle* owner = agent;
    if (!name.empty()) {
      const auto known = agent->peers.find(name);
      if (known == agent->peers.end() || !world->agents_.contains(name)) return kNotFound;
      loaded = known->second.number;
      owner = world->agents_.at(name).get();
    }
    for (const auto& piece : list->pieces) {
      if (!covers(owner->regions, piece)) return kBackend;
    }
    *made = new PreparedListHandle{name, loaded, list->pieces};
    ++agent->open_handles;
    return kSuccess;
  }
  static Status release_list(AgentHandle* agent, PreparedListHandle* list) {
    Call world;
    --agent->open_handles;
    delete list;
    return kSuccess;
  }
  static Status make(AgentHandle* agent, Operation operation, PreparedListHandle* local,
                     const std::int32_t* local_indices, std::size_t local_count,
                     PreparedListHandle* remote, const std::int32_t* remote_indices,
                     std::size_t remote_count, RequestHandle** made, OptionsHandle*) {
    Call world;
    if (local_count != remote_count) return -1;
    const auto known = agent->peers.find(remote->peer);
    if (known == agent->peers.end() || known->second.number != remote->loaded) return kNotFound;
    auto request = std::make_unique<RequestHandle>();
    request->agent = agent;
    request->peer = remote->peer;
    request->loaded = remote->loaded;
    for (std::size_t i = 0; i < local_count; ++i) {
      const auto& [here, bytes] = local->pieces.at(static_cast<std::size_t>(local_indices[i]));
      const auto& [there, their_bytes] =
          remote->pieces.at(static_cast<std::size_t>(remote_indices[i]));
      if (bytes != their_bytes) return -1;
      const bool reads = operation == Operation::Read;
      const RequestHandle::Copy copy{reads ? there : here, reads ? here : there, bytes};
      auto& copies = request->copies;
      if (!copies.empty() && copies.back().source + copies.back().bytes == copy.source &&
          copies.back().target + copies.back().bytes == copy.target) {
        copies.back().bytes += bytes;
      } else {
        copies.push_back(copy);
      }
    }
    world->last_pieces_ = request->copies.size();
    ++agent->open_handles;
    *made = request.get();
    world->requests_.push_back(std::move(request));
    return kSuccess;
  }
  static Status post(AgentHandle* agent, RequestHandle* request, OptionsHandle*) {
    Call world;
    if (!current_load(agent, *request)) return kNotFound;
    if (const Status status = world->failure("post_xfer_req")) return request->status = status;
    if (world->gone(request->peer)) return request->status = kBackend;
    request->posted = true;
    request->status = kInProgress;
    if (!world->stopped_.contains(request->peer)) finish(*request);
    return request->status;
  }
  static bool current_load(AgentHandle* agent, const RequestHandle& request) {
    const auto known = agent->peers.find(request.peer);
    return known != agent->peers.end() && known->second.number == request.loaded;
  }
  static Status status(AgentHandle* agent, RequestHandle* request) {
    Call world;
    if (request->released) std::abort();  // as the real one does, though less politely
    ++world->polls_;
    if (const Status status = world->failure("get_xfer_status")) return status;
    if (!current_load(agent, *request)) return kNotFound;
    return request->status;
  }
  static Status release(AgentHandle* agent, RequestHandle* request) {
    Call world;
    request->released = true;  // it may run on
    --agent->open_handles;
    return kSuccess;
  }
  static Status destroy_request(RequestHandle* request) {
    Call world;
    if (!request->released) return -3;
    if (request->status == kInProgress) return kSuccess;  // kept: it may yet write
    std::erase_if(world->requests_, [&](const auto& owned) { return owned.get() == request; });
    return kSuccess;
  }
  static Status notify(AgentHandle* agent, const char* peer, const void*, std::size_t,
                       OptionsHandle*) {
    Call world;
    if (!agent->peers.contains(peer)) return kNotFound;
    if (world->gone(peer)) return kBackend;
    ++world->agents_.at(peer)->messages;
    return kSuccess;
  }
  static Status take_messages(AgentHandle* agent, NotificationsHandle* messages, OptionsHandle*) {
    Call world;
    messages->agents += std::exchange(agent->messages, 0) > 0 ? 1 : 0;
    return kSuccess;
  }
  static Status count_messages(NotificationsHandle* messages, std::size_t* agents) {
    *agents = messages->agents;
    return kSuccess;
  }

  const NixlApi api_{
      .is_stub = [] { return false; },
      .create_configured_agent = create_agent,
      .destroy_agent = destroy_agent,
      .create_params = create<ParamsHandle>,
      .params_add = params_add,
      .destroy_params = destroy<ParamsHandle>,
      .create_backend = create_backend,
      .destroy_backend = destroy<BackendHandle>,
      .create_opt_args = create<OptionsHandle>,
      .opt_args_add_backend = add_backend,
      .destroy_opt_args = destroy<OptionsHandle>,
      .create_reg_dlist = [](MemoryType, RegionListHandle** made) { return create(made); },
      .reg_dlist_add_desc = add_region,
      .destroy_reg_dlist = destroy<RegionListHandle>,
      .register_mem = register_mem,
      .get_local_md = local_metadata,
      .load_remote_md = load,
      .invalidate_remote_md = invalidate,
      .create_xfer_dlist = [](MemoryType, DescriptorListHandle** made) { return create(made); },
      .xfer_dlist_add_desc = add_piece,
      .destroy_xfer_dlist = destroy<DescriptorListHandle>,
      .prep_xfer_dlist = prepare,
      .release_xfer_dlist_handle = release_list,
      .make_xfer_req = make,
      .post_xfer_req = post,
      .get_xfer_status = status,
      .release_xfer_req = release,
      .destroy_xfer_req = destroy_request,
      .gen_notif = notify,
      .create_notif_map = create<NotificationsHandle>,
      .get_notifs = take_messages,
      .notif_map_size = count_messages,
      .destroy_notif_map = destroy<NotificationsHandle>,
  };
  mutable std::mutex mutex_;
  std::map<std::string, std::unique_ptr<AgentHandle>> agents_;
  std::vector<std::unique_ptr<AgentHandle>> undead_;  // those that could not be destroyed
  std::vector<std::unique_ptr<RequestHandle>> requests_;
  std::set<std::string> stopped_;
  std::set<std::string> killed_;
  std::set<std::string> cut_;
  std::map<std::string, std::pair<Status, std::size_t>> failures_;
  std::map<std::string, std::string> params_;
  AgentConfig config_;
  std::size_t handles_ = 0;
  std::uint64_t connections_ = 0;
  std::uint64_t loads_ = 0;
  std::size_t last_pieces_ = 0;
  std::size_t polls_ = 0;
};

}  // namespace kvbm::nixl
