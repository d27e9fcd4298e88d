// NIXL by hand: what the agents are compared with.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "nixl/agent.h"
#include "nixl/nixl_api.h"
#include "nixl/owned.h"

namespace kvbm::bench {

// Functions that answer success and do nothing.
nixl::NixlApi null_nixl();

// An agent with one local and one remote list, which moves blocks between them by the least that
// NIXL asks for. Aborts if a call fails in the middle. Threads: one at a time.
class RawNixl {
 public:
  // Errors: NixlError. Requires: `api` and the areas outlive it.
  static Result<std::unique_ptr<RawNixl>> create(const nixl::NixlApi& api,
                                                 const nixl::AgentOptions& options,
                                                 std::span<std::byte> memory,
                                                 const nixl::BlockArea& local);
  ~RawNixl();
  RawNixl(const RawNixl&) = delete;
  RawNixl& operator=(const RawNixl&) = delete;

  Result<void> meet(const std::string& peer, std::span<const std::byte> metadata,
                    const nixl::BlockArea& remote);
  // Returns when they have been moved; looks again after `between`, or at once.
  void write(std::span<const std::int32_t> local, std::span<const std::int32_t> remote,
             std::chrono::microseconds between = {}) {
    nixl::RequestHandle* request = nullptr;
    require(api_.make_xfer_req(agent_, nixl::Operation::Write, local_, local.data(), local.size(),
                               remote_, remote.data(), remote.size(), &request, nullptr));
    nixl::Status status = api_.post_xfer_req(agent_, request, nullptr);
    while (status == nixl::kInProgress) {
      if (between.count() > 0) std::this_thread::sleep_for(between);
      status = api_.get_xfer_status(agent_, request);
    }
    require(status);
    require(api_.release_xfer_req(agent_, request));
    require(api_.destroy_xfer_req(request));
  }

 private:
  explicit RawNixl(const nixl::NixlApi& api) : api_(api) {}

  static void require(nixl::Status status) {
    if (status != nixl::kSuccess) std::abort();
  }
  Result<nixl::PreparedListHandle*> prepare(const std::string& peer, const nixl::BlockArea& area);

  const nixl::NixlApi& api_;
  nixl::AgentHandle* agent_ = nullptr;
  nixl::BackendHandle* backend_ = nullptr;
  nixl::PreparedListHandle* local_ = nullptr;
  nixl::PreparedListHandle* remote_ = nullptr;
};

}  // namespace kvbm::bench
