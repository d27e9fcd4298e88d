// For what our agent never does: an agent of the real NIXL by its bare functions.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "nixl/nixl_api.h"
#include "worker.h"

namespace kvbm::nixl {

// An agent and one piece of memory, moved as a whole. Failures are the test's.
class RawAgent {
 public:
  explicit RawAgent(const char* name, std::size_t bytes = kBlockBytes)
      : memory(bytes, std::byte{'r'}) {
    AgentConfig config;
    config.progress_interval_us = 10'000;
    EXPECT_EQ(api.create_configured_agent(name, &config, &handle), kSuccess);
    EXPECT_EQ(api.create_params(&params_), kSuccess);
    EXPECT_EQ(api.create_backend(handle, "UCX", params_, &backend_), kSuccess);
    RegionListHandle* regions = nullptr;
    EXPECT_EQ(api.create_reg_dlist(MemoryType::Dram, &regions), kSuccess);
    EXPECT_EQ(api.reg_dlist_add_desc(regions, address(), bytes, 0, "", 0), kSuccess);
    EXPECT_EQ(api.register_mem(handle, regions, nullptr), kSuccess);
    api.destroy_reg_dlist(regions);
    local_ = prepare("", address());
  }
  // What runs and was released is stopped by this.
  ~RawAgent() {
    for (PreparedListHandle* list : lists_) api.release_xfer_dlist_handle(handle, list);
    api.destroy_backend(backend_);
    api.destroy_params(params_);
    EXPECT_EQ(api.destroy_agent(handle), kSuccess);
  }
  RawAgent(const RawAgent&) = delete;
  RawAgent& operator=(const RawAgent&) = delete;

  std::uintptr_t address() const { return reinterpret_cast<std::uintptr_t>(memory.data()); }
  std::vector<std::byte> metadata() const {
    void* data = nullptr;
    std::size_t bytes = 0;
    EXPECT_EQ(api.get_local_md(handle, &data, &bytes), kSuccess);
    const auto* begin = static_cast<const std::byte*>(data);
    std::vector<std::byte> copy(begin, begin + bytes);
    std::free(data);
    return copy;
  }
  Status load(const std::vector<std::byte>& metadata) {
    char* name = nullptr;
    const Status status = api.load_remote_md(handle, metadata.data(), metadata.size(), &name);
    std::free(name);
    return status;
  }
  // As many bytes as the memory has.
  PreparedListHandle* prepare(const char* of, std::uintptr_t at) {
    DescriptorListHandle* list = nullptr;
    EXPECT_EQ(api.create_xfer_dlist(MemoryType::Dram, &list), kSuccess);
    EXPECT_EQ(api.xfer_dlist_add_desc(list, at, memory.size(), 0), kSuccess);
    PreparedListHandle* prepared = nullptr;
    EXPECT_EQ(api.prep_xfer_dlist(handle, of, list, &prepared, nullptr), kSuccess);
    api.destroy_xfer_dlist(list);
    lists_.push_back(prepared);
    return prepared;
  }
  Status make(Operation operation, PreparedListHandle* remote, RequestHandle** request) {
    constexpr std::int32_t kFirst = 0;
    return api.make_xfer_req(handle, operation, local_, &kFirst, 1, remote, &kFirst, 1, request,
                             nullptr);
  }
  // The same, without keeping what was made.
  Status try_to_make(PreparedListHandle* remote) {
    RequestHandle* request = nullptr;
    const Status status = make(Operation::Read, remote, &request);
    if (status == kSuccess) {
      api.release_xfer_req(handle, request);
      api.destroy_xfer_req(request);
    }
    return status;
  }

  const NixlApi& api = library().api;
  AgentHandle* handle = nullptr;
  std::vector<std::byte> memory;

 private:
  ParamsHandle* params_ = nullptr;
  BackendHandle* backend_ = nullptr;
  PreparedListHandle* local_ = nullptr;
  std::vector<PreparedListHandle*> lists_;
};

}  // namespace kvbm::nixl
