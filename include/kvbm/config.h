// What a KvBlockManager is made from. Every struct is a plain aggregate; the builders are the
// reference's way to fill them.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "kvbm/events.h"
#include "kvbm/layout.h"
#include "kvbm/metrics.h"
#include "kvbm/offload.h"
#include "kvbm/pool.h"
#include "kvbm/storage.h"
#include "kvbm/store.h"
#include "kvbm/tokens.h"
#include "kvbm/types.h"

namespace kvbm {

// Threads that the library's transfers run on, shared by several managers. post() must run each
// task exactly once, may run several at a time, and must not run it inside post(). Tasks may block
// on disk I/O.
class Executor {
 public:
  virtual ~Executor() = default;
  virtual void post(std::function<void()> task) = 0;
};

// What the manager's NIXL agent is called, in front of a random number. The manager makes the agent
// itself, also under the caller's name: to stop transfers that are late it must be able to destroy
// it and make another one.
struct NixlAgent {
  std::string name;  // 1 to 128 bytes
};

// Whether the manager has a NIXL agent: not (the default), one that is called after the worker, or
// one that the caller names. NIXL is found at run time; a manager that wants it and cannot load it
// is not created, and the error says what is missing. Loading it sets environment variables of NIXL
// and UCX that are not set, so no other thread may use the environment meanwhile.
struct NixlOptions {
  enum class Kind : std::uint8_t { Disabled, Enabled, Agent };
  Kind kind = Kind::Disabled;
  std::optional<NixlAgent> agent = std::nullopt;
  // The path of libnixl_capi.so. Empty: the environment variable KVBM_NIXL_LIBRARY names it, or it
  // is a wheel's beside this program or this library, or wherever the system looks for libraries.
  std::string library = {};
};

// Blocks that workers share over TCP: docs/peer_protocol.md. Needs a host tier, since what is
// shared lies there. All workers that share must have the same model, hash profile, block size and
// digest key; others are refused.
struct SharingConfig {
  // "host:port" at which this worker answers peers; port 0: the system chooses one. Empty: nowhere;
  // it can load from peers all the same.
  std::string listen = {};
  // "host:port" of the workers whose blocks may be loaded here; at most 1024, all different.
  std::vector<std::string> peers = {};
  // Known to all of them. Without one only addresses within this machine may be used.
  std::string secret = {};

  bool is_set() const noexcept { return !listen.empty() || !peers.empty(); }
};

// How the bytes of logical blocks are spread over the processes of an engine.
enum class BlockParallelismStrategy : std::uint8_t {
  LeaderWorkerSharded,  // every rank has its part of every block; the leader has identities only
};

struct KvManagerRuntimeConfig {
  WorkerID worker_id = 0;
  // Stopping it closes the manager: requests end with Cancelled, running copies are waited for,
  // later calls answer ProgressEngineShutdown.
  std::stop_token cancellation_token = {};
  NixlOptions nixl = {};
  std::shared_ptr<Executor> async_runtime = nullptr;     // null: threads of the manager's own
  std::shared_ptr<Registry> metrics_registry = nullptr;  // null: no metrics
  // Threads that move bytes where async_runtime is null. More than the cores helps only slow disks.
  std::size_t transfer_threads = 4;
  // Blocks that may wait for offloading on each path; beyond that the least wanted are dropped.
  std::size_t offload_queue_blocks = 65536;
  // Tokens per second that the engine computes of a prompt. Blocks that it would compute sooner
  // than they are loaded are not loaded. 0: unknown, load everything.
  std::uint64_t prefill_tokens_per_second = 0;
  // Copies end, for the manager, in the order in which they began, so that two runs of the same
  // calls find the same blocks. For replays and tests: one slow copy holds up the answers to all
  // others. Not with a prefill rate, here or of a request: what is loaded then depends on time.
  bool deterministic = false;
  // The path of a unix socket at which the manager answers leaders; empty: nowhere. See leader.h.
  std::string leader_socket = {};
  SharingConfig sharing = {};
  // The key of the token blocks that name blocks here. A store keeps its fingerprint, so that names
  // of another key find nothing in it.
  DigestKey digest_key = {};
  // Takes a line for people whenever something changes that an operator should know, on any thread.
  // Empty: they go to standard error.
  std::function<void(const std::string&)> log = {};
};

// Shape of the model's KV cache; limits as in layout.h.
struct KvManagerModelConfig {
  std::size_t num_layers = DEFAULT_NUM_LAYERS;
  std::size_t outer_dim = DEFAULT_OUTER_DIM;
  std::size_t page_size = DEFAULT_PAGE_SIZE;  // tokens per block
  std::size_t inner_dim = DEFAULT_INNER_DIM;  // elements per token
  DType dtype = DType::FP16;
  // Which weights compute the blocks, in any words, at most 256 bytes: a store serves only blocks
  // of its own model. Shapes alone do not tell two models apart.
  std::string name = {};
  // How sequence hashes are made, at most 64 bytes; for a store, likewise.
  std::string hash_profile = "kvbm";
};

// One tier. Exactly one of storage, allocator, tensors, store and logical must be set, also where
// the tier is external. Blocks outside the device tier are always FullyContiguous.
template <Storage S>
struct KvManagerLayoutConfig {
  std::size_t num_blocks;       // required, 1 .. 2^32 - 2
  std::vector<S> storage = {};  // the caller's memory: one, or one per layer
  std::shared_ptr<StorageAllocator<S>> allocator = nullptr;
  // An engine's own KV cache, used where it lies; device tier only. The tensors decide what a block
  // is: num_blocks, the model's layers and page_size must be theirs, layout_type and the model's
  // other fields are not used.
  std::optional<KvTensors> tensors = std::nullopt;
  // The engine hands out the blocks of the device tier itself: there is no pool, device() is null,
  // and blocks are named by their ids to onboard() and offload(). Device tier only.
  bool external = false;
  // A directory whose blocks survive the manager; disk tier only.
  std::optional<DiskStoreConfig> store = std::nullopt;
  std::optional<BlockParallelismStrategy> logical = std::nullopt;  // no bytes in this process
  LayoutType layout_type = LayoutType::FullyContiguous;
  BlockRegistrationDuplicationSetting duplicates = BlockRegistrationDuplicationSetting::Disabled;
  EvictionPolicy eviction = EvictionPolicy::Lru;
  OffloadPolicy offload = {};  // to the tier below
};

struct KvBlockManagerConfig {
  KvManagerRuntimeConfig runtime = {};
  KvManagerModelConfig model = {};
  std::optional<KvManagerLayoutConfig<DeviceStorage>> device_layout = std::nullopt;
  std::optional<KvManagerLayoutConfig<PinnedStorage>> host_layout = std::nullopt;
  std::optional<KvManagerLayoutConfig<DiskStorage>> disk_layout = std::nullopt;
  std::shared_ptr<EventManager> event_manager = nullptr;

  // Every problem of the configuration, one sentence each, naming the field, its value and what is
  // allowed; empty if there is none.
  std::vector<std::string> problems() const;
};

// --- builders --------------------------------------------------------------------------------

class KvManagerRuntimeConfigBuilder {
 public:
  KvManagerRuntimeConfigBuilder& worker_id(WorkerID id) {
    config_.worker_id = id;
    return *this;
  }
  KvManagerRuntimeConfigBuilder& cancellation_token(std::stop_token token) {
    config_.cancellation_token = std::move(token);
    return *this;
  }
  KvManagerRuntimeConfigBuilder& enable_nixl() {
    config_.nixl.kind = NixlOptions::Kind::Enabled;
    config_.nixl.agent.reset();
    return *this;
  }
  KvManagerRuntimeConfigBuilder& use_nixl_agent(NixlAgent agent) {
    config_.nixl.kind = NixlOptions::Kind::Agent;
    config_.nixl.agent = std::move(agent);
    return *this;
  }
  KvManagerRuntimeConfigBuilder& nixl_library(std::string path) {
    config_.nixl.library = std::move(path);
    return *this;
  }
  KvManagerRuntimeConfigBuilder& disable_nixl() {
    config_.nixl = {};
    return *this;
  }
  KvManagerRuntimeConfigBuilder& async_runtime(std::shared_ptr<Executor> runtime) {
    config_.async_runtime = std::move(runtime);
    return *this;
  }
  KvManagerRuntimeConfigBuilder& digest_key(DigestKey key) {
    config_.digest_key = std::move(key);
    return *this;
  }
  KvManagerRuntimeConfigBuilder& sharing(SharingConfig sharing) {
    config_.sharing = std::move(sharing);
    return *this;
  }
  KvManagerRuntimeConfigBuilder& leader_socket(std::string path) {
    config_.leader_socket = std::move(path);
    return *this;
  }
  KvManagerRuntimeConfigBuilder& log(std::function<void(const std::string&)> log) {
    config_.log = std::move(log);
    return *this;
  }
  KvManagerRuntimeConfigBuilder& transfer_threads(std::size_t threads) {
    config_.transfer_threads = threads;
    return *this;
  }
  KvManagerRuntimeConfigBuilder& offload_queue_blocks(std::size_t blocks) {
    config_.offload_queue_blocks = blocks;
    return *this;
  }
  KvManagerRuntimeConfigBuilder& prefill_tokens_per_second(std::uint64_t rate) {
    config_.prefill_tokens_per_second = rate;
    return *this;
  }
  KvManagerRuntimeConfigBuilder& deterministic(bool deterministic = true) {
    config_.deterministic = deterministic;
    return *this;
  }
  KvManagerRuntimeConfigBuilder& metrics_registry(std::shared_ptr<Registry> registry) {
    config_.metrics_registry = std::move(registry);
    return *this;
  }
  KvManagerRuntimeConfig build() const { return config_; }

 private:
  KvManagerRuntimeConfig config_;
};

class KvManagerModelConfigBuilder {
 public:
  KvManagerModelConfigBuilder& num_layers(std::size_t layers) {
    config_.num_layers = layers;
    return *this;
  }
  KvManagerModelConfigBuilder& outer_dim(std::size_t dim) {
    config_.outer_dim = dim;
    return *this;
  }
  KvManagerModelConfigBuilder& page_size(std::size_t tokens) {
    config_.page_size = tokens;
    return *this;
  }
  KvManagerModelConfigBuilder& inner_dim(std::size_t elements) {
    config_.inner_dim = elements;
    return *this;
  }
  KvManagerModelConfigBuilder& dtype(DType type) {
    config_.dtype = type;
    return *this;
  }
  KvManagerModelConfigBuilder& name(std::string name) {
    config_.name = std::move(name);
    return *this;
  }
  KvManagerModelConfigBuilder& hash_profile(std::string profile) {
    config_.hash_profile = std::move(profile);
    return *this;
  }
  KvManagerModelConfig build() const { return config_; }

 private:
  KvManagerModelConfig config_;
};

class KvBlockManagerConfigBuilder {
 public:
  KvBlockManagerConfigBuilder& runtime(KvManagerRuntimeConfig runtime) {
    config_.runtime = std::move(runtime);
    return *this;
  }
  KvBlockManagerConfigBuilder& model(KvManagerModelConfig model) {
    config_.model = std::move(model);
    return *this;
  }
  KvBlockManagerConfigBuilder& device_layout(KvManagerLayoutConfig<DeviceStorage> layout) {
    config_.device_layout = std::move(layout);
    return *this;
  }
  KvBlockManagerConfigBuilder& host_layout(KvManagerLayoutConfig<PinnedStorage> layout) {
    config_.host_layout = std::move(layout);
    return *this;
  }
  KvBlockManagerConfigBuilder& disk_layout(KvManagerLayoutConfig<DiskStorage> layout) {
    config_.disk_layout = std::move(layout);
    return *this;
  }
  KvBlockManagerConfigBuilder& event_manager(std::shared_ptr<EventManager> manager) {
    config_.event_manager = std::move(manager);
    return *this;
  }
  // Errors: InvalidConfig with every problem in its message.
  Result<KvBlockManagerConfig> build() const;

 private:
  KvBlockManagerConfig config_;
};

}  // namespace kvbm
