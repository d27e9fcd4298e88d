// A manager's NIXL: the library and one agent.
#pragma once

#include <memory>
#include <string>

#include "kvbm/config.h"
#include "nixl/agent_thread.h"

namespace kvbm::detail {

// Thread-safe.
class NixlRuntime {
 public:
  // What happens to the transfers of the agent; see nixl::AgentThread::Listener.
  using Listener = nixl::AgentThread::Listener;

  // Loads NIXL and makes an agent with a name of its own. Requires: NIXL is asked for.
  // Errors: NixlError; the message names runtime.nixl and what is missing.
  static Result<std::unique_ptr<NixlRuntime>> create(const NixlOptions& options, WorkerID worker,
                                                     Listener listener);

  nixl::AgentThread& agent() noexcept { return *agent_; }
  const nixl::Library& library() const noexcept { return library_; }
  // For people: version and file.
  std::string description() const { return "nixl: " + library_.version + ", " + library_.path; }

 private:
  explicit NixlRuntime(nixl::Library library) : library_(std::move(library)) {}

  const nixl::Library library_;
  std::unique_ptr<nixl::AgentThread> agent_;
};

}  // namespace kvbm::detail
