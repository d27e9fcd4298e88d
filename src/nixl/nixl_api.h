// The functions of NIXL that are used here, found at run time: no header and no library of NIXL is
// needed to build or to run. Names and meanings: NIXL's C API, libnixl_capi.so, of version 1.5.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "kvbm/result.h"

namespace kvbm::nixl {

using Status = std::int32_t;  // nixl_capi_status_t

inline constexpr Status kSuccess = 0;
inline constexpr Status kInProgress = 1;
inline constexpr Status kBackend = -2;  // whatever failed outside this process, and much inside
inline constexpr Status kNotFound = -6;

enum class Operation : std::int32_t { Read = 0, Write = 1 };
enum class MemoryType : std::int32_t { Dram = 0 };

// What NIXL keeps behind pointers.
struct AgentHandle;
struct ParamsHandle;
struct BackendHandle;
struct OptionsHandle;
struct RegionListHandle;      // memory to be registered
struct DescriptorListHandle;  // pieces of registered memory
struct PreparedListHandle;    // the same, looked up and ready for transfers by index
struct RequestHandle;
struct NotificationsHandle;

// nixl_capi_agent_config_t. NIXL is not told its size, so what later versions append reads as 0.
struct AgentConfig {
  static constexpr std::int32_t kSharedLock = 2;  // transfers of several threads do not wait

  bool progress_thread = true;
  bool listen_thread = false;
  std::int32_t listen_port = 0;
  std::int32_t lock = kSharedLock;
  std::uint32_t unused = 0;
  std::uint64_t progress_interval_us = 0;
  std::uint64_t listen_interval_us = 100'000;
  bool telemetry = false;
  std::array<std::byte, 256 - 33> appended{};
};
static_assert(sizeof(AgentConfig) == 256 && offsetof(AgentConfig, progress_interval_us) == 16 &&
              offsetof(AgentConfig, telemetry) == 32);

// Members are named as in NIXL, without its prefix nixl_capi_. Never null. Threads: those of an
// agent as its lock says; handles that are no agents, one thread at a time.
struct NixlApi {
  bool (*is_stub)() = nullptr;

  Status (*create_configured_agent)(const char* name, const AgentConfig*, AgentHandle**) = nullptr;
  // Requires: its requests and prepared lists are released.
  Status (*destroy_agent)(AgentHandle*) = nullptr;
  Status (*create_params)(ParamsHandle**) = nullptr;
  Status (*params_add)(ParamsHandle*, const char* key, const char* value) = nullptr;
  Status (*destroy_params)(ParamsHandle*) = nullptr;
  Status (*create_backend)(AgentHandle*, const char* plugin, ParamsHandle*,
                           BackendHandle**) = nullptr;
  Status (*destroy_backend)(BackendHandle*) = nullptr;  // the handle, not the backend
  Status (*create_opt_args)(OptionsHandle**) = nullptr;
  Status (*opt_args_add_backend)(OptionsHandle*, BackendHandle*) = nullptr;
  Status (*destroy_opt_args)(OptionsHandle*) = nullptr;

  Status (*create_reg_dlist)(MemoryType, RegionListHandle**) = nullptr;
  Status (*reg_dlist_add_desc)(RegionListHandle*, std::uintptr_t address, std::size_t bytes,
                               std::uint64_t device, const void* meta,
                               std::size_t meta_bytes) = nullptr;
  Status (*destroy_reg_dlist)(RegionListHandle*) = nullptr;
  Status (*register_mem)(AgentHandle*, RegionListHandle*, OptionsHandle*) = nullptr;

  // The answers of these two are the caller's to free().
  Status (*get_local_md)(AgentHandle*, void** data, std::size_t* bytes) = nullptr;
  Status (*load_remote_md)(AgentHandle*, const void* data, std::size_t bytes,
                           char** name) = nullptr;
  Status (*invalidate_remote_md)(AgentHandle*, const char* peer) = nullptr;

  Status (*create_xfer_dlist)(MemoryType, DescriptorListHandle**) = nullptr;
  Status (*xfer_dlist_add_desc)(DescriptorListHandle*, std::uintptr_t address, std::size_t bytes,
                                std::uint64_t device) = nullptr;
  Status (*destroy_xfer_dlist)(DescriptorListHandle*) = nullptr;
  // `peer`: empty for memory of the agent's own.
  Status (*prep_xfer_dlist)(AgentHandle*, const char* peer, DescriptorListHandle*,
                            PreparedListHandle**, OptionsHandle*) = nullptr;
  Status (*release_xfer_dlist_handle)(AgentHandle*, PreparedListHandle*) = nullptr;

  // Neighbours in both lists become one piece.
  Status (*make_xfer_req)(AgentHandle*, Operation, PreparedListHandle* local,
                          const std::int32_t* local_indices, std::size_t local_count,
                          PreparedListHandle* remote, const std::int32_t* remote_indices,
                          std::size_t remote_count, RequestHandle**, OptionsHandle*) = nullptr;
  Status (*post_xfer_req)(AgentHandle*, RequestHandle*, OptionsHandle*) = nullptr;
  Status (*get_xfer_status)(AgentHandle*, RequestHandle*) = nullptr;
  // Of a request in progress: its bytes may arrive for as long as the agent lives.
  Status (*release_xfer_req)(AgentHandle*, RequestHandle*) = nullptr;
  Status (*destroy_xfer_req)(RequestHandle*) = nullptr;

  Status (*gen_notif)(AgentHandle*, const char* peer, const void* data, std::size_t bytes,
                      OptionsHandle*) = nullptr;
  Status (*create_notif_map)(NotificationsHandle**) = nullptr;
  Status (*get_notifs)(AgentHandle*, NotificationsHandle*, OptionsHandle*) = nullptr;
  Status (*notif_map_size)(NotificationsHandle*, std::size_t* agents) = nullptr;
  Status (*destroy_notif_map)(NotificationsHandle*) = nullptr;
};

// NIXL in this process.
struct Library {
  NixlApi api;
  std::string path;     // of the file that was loaded
  std::string version;  // such as "1.5.1", told by its wheel; else what its functions tell
};

// Sets, where they are not set, the environment variables without which NIXL and UCX misbehave (see
// docs/decisions/0022-nixl-at-run-time.md), then loads NIXL, which stays loaded for ever. Looked
// for, in this order: `path` if not empty; the environment variable KVBM_NIXL_LIBRARY; beside this
// program and this library, at most three folders above them, a .venv/nixl or an installed wheel;
// wherever the system looks for libnixl_capi.so. The first of these that is there is the one.
// Errors: NixlError with native code 0; the message names the file, and the library, package or
// function that is missing, or the other UCX that is in this process already: two of them hang.
// Cost: about 30 ms. Threads: any, but nobody may read or set the environment meanwhile.
Result<Library> load_library(const std::string& path = {});

// What a failed call of NIXL becomes: NixlError.
Error failed(Status status, const std::string& call);

// Evaluates a call of NIXL; returns its error from the enclosing function.
#define KVBM_NIXL(api, function, ...)                                        \
  if (const ::kvbm::nixl::Status kvbm_status_ = (api).function(__VA_ARGS__); \
      kvbm_status_ != ::kvbm::nixl::kSuccess) {                              \
    return ::kvbm::nixl::failed(kvbm_status_, #function);                    \
  }

}  // namespace kvbm::nixl
