#include "benchmarks/nixl_raw.h"

#include <cstring>

namespace kvbm::bench {
namespace {

// Something to point at.
template <class Handle>
nixl::Status give(Handle** made) {
  static int something = 0;
  *made = reinterpret_cast<Handle*>(&something);
  return nixl::kSuccess;
}

}  // namespace

nixl::NixlApi null_nixl() {
  using namespace nixl;
  return {
      .is_stub = [] { return false; },
      .create_configured_agent = [](const char*, const AgentConfig*,
                                    AgentHandle** made) { return give(made); },
      .destroy_agent = [](AgentHandle*) { return kSuccess; },
      .create_params = give<ParamsHandle>,
      .params_add = [](ParamsHandle*, const char*, const char*) { return kSuccess; },
      .destroy_params = [](ParamsHandle*) { return kSuccess; },
      .create_backend = [](AgentHandle*, const char*, ParamsHandle*,
                           BackendHandle** made) { return give(made); },
      .destroy_backend = [](BackendHandle*) { return kSuccess; },
      .create_opt_args = give<OptionsHandle>,
      .opt_args_add_backend = [](OptionsHandle*, BackendHandle*) { return kSuccess; },
      .destroy_opt_args = [](OptionsHandle*) { return kSuccess; },
      .create_reg_dlist = [](MemoryType, RegionListHandle** made) { return give(made); },
      .reg_dlist_add_desc = [](RegionListHandle*, std::uintptr_t, std::size_t, std::uint64_t,
                               const void*, std::size_t) { return kSuccess; },
      .destroy_reg_dlist = [](RegionListHandle*) { return kSuccess; },
      .register_mem = [](AgentHandle*, RegionListHandle*, OptionsHandle*) { return kSuccess; },
      .get_local_md =
          [](AgentHandle*, void** data, std::size_t* bytes) {
            *data = std::malloc(*bytes = 1);
            return kSuccess;
          },
      .load_remote_md =
          [](AgentHandle*, const void*, std::size_t, char** name) {
            *name = ::strdup("there");
            return kSuccess;
          },
      .invalidate_remote_md = [](AgentHandle*, const char*) { return kSuccess; },
      .create_xfer_dlist = [](MemoryType, DescriptorListHandle** made) { return give(made); },
      .xfer_dlist_add_desc = [](DescriptorListHandle*, std::uintptr_t, std::size_t,
                                std::uint64_t) { return kSuccess; },
      .destroy_xfer_dlist = [](DescriptorListHandle*) { return kSuccess; },
      .prep_xfer_dlist = [](AgentHandle*, const char*, DescriptorListHandle*,
                            PreparedListHandle** made, OptionsHandle*) { return give(made); },
      .release_xfer_dlist_handle = [](AgentHandle*, PreparedListHandle*) { return kSuccess; },
      .make_xfer_req = [](AgentHandle*, Operation, PreparedListHandle*, const std::int32_t*,
                          std::size_t, PreparedListHandle*, const std::int32_t*, std::size_t,
                          RequestHandle** made, OptionsHandle*) { return give(made); },
      .post_xfer_req = [](AgentHandle*, RequestHandle*, OptionsHandle*) { return kInProgress; },
      .get_xfer_status = [](AgentHandle*, RequestHandle*) { return kSuccess; },
      .release_xfer_req = [](AgentHandle*, RequestHandle*) { return kSuccess; },
      .destroy_xfer_req = [](RequestHandle*) { return kSuccess; },
      .gen_notif = [](AgentHandle*, const char*, const void*, std::size_t,
                      OptionsHandle*) { return kSuccess; },
      .create_notif_map = give<NotificationsHandle>,
      .get_notifs = [](AgentHandle*, NotificationsHandle*, OptionsHandle*) { return kSuccess; },
      .notif_map_size =
          [](NotificationsHandle*, std::size_t* agents) {
            *agents = 0;
            return kSuccess;
          },
      .destroy_notif_map = [](NotificationsHandle*) { return kSuccess; },
  };
}

Result<std::unique_ptr<RawNixl>> RawNixl::create(const nixl::NixlApi& api,
                                                 const nixl::AgentOptions& options,
                                                 std::span<std::byte> memory,
                                                 const nixl::BlockArea& local) {
  using namespace nixl;
  std::unique_ptr<RawNixl> raw(new RawNixl(api));
  AgentConfig config;
  config.progress_interval_us = static_cast<std::uint64_t>(options.progress_interval.count());
  KVBM_NIXL(api, create_configured_agent, options.name.c_str(), &config, &raw->agent_);
  KVBM_TRY(Params params, Params::make(api, "create_params", &NixlApi::create_params));
  for (const auto& [key, value] : options.ucx) {
    KVBM_NIXL(api, params_add, params.get(), key.c_str(), value.c_str());
  }
  KVBM_NIXL(api, create_backend, raw->agent_, "UCX", params.get(), &raw->backend_);
  KVBM_TRY(RegionList list,
           RegionList::make(api, "create_reg_dlist", &NixlApi::create_reg_dlist, MemoryType::Dram));
  KVBM_NIXL(api, reg_dlist_add_desc, list.get(), reinterpret_cast<std::uintptr_t>(memory.data()),
            memory.size(), 0, "", 0);
  KVBM_NIXL(api, register_mem, raw->agent_, list.get(), nullptr);
  KVBM_TRY(raw->local_, raw->prepare("", local));
  return raw;
}

RawNixl::~RawNixl() {
  for (nixl::PreparedListHandle* list : {local_, remote_}) {
    if (list) api_.release_xfer_dlist_handle(agent_, list);
  }
  if (backend_) api_.destroy_backend(backend_);
  if (agent_) api_.destroy_agent(agent_);
}

Result<void> RawNixl::meet(const std::string& peer, std::span<const std::byte> metadata,
                           const nixl::BlockArea& remote) {
  char* name = nullptr;
  KVBM_NIXL(api_, load_remote_md, agent_, metadata.data(), metadata.size(), &name);
  std::free(name);
  KVBM_TRY(remote_, prepare(peer, remote));
  return {};
}

Result<nixl::PreparedListHandle*> RawNixl::prepare(const std::string& peer,
                                                   const nixl::BlockArea& area) {
  using namespace nixl;
  KVBM_TRY(DescriptorList list,
           DescriptorList::make(api_, "create_xfer_dlist", &NixlApi::create_xfer_dlist,
                                MemoryType::Dram));
  for (std::uint32_t i = 0; i < area.blocks; ++i) {
    KVBM_NIXL(api_, xfer_dlist_add_desc, list.get(), area.address + i * area.stride_bytes,
              area.block_bytes, 0);
  }
  PreparedListHandle* prepared = nullptr;
  KVBM_NIXL(api_, prep_xfer_dlist, agent_, peer.c_str(), list.get(), &prepared, nullptr);
  return prepared;
}

}  // namespace kvbm::bench
