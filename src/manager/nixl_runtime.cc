#include "manager/nixl_runtime.h"

#include <utility>

#include "base/random_bits.h"

namespace kvbm::detail {
namespace {

// No two agents may share a name, not even one after the other, so every one has a random part.
std::string agent_name(const NixlOptions& options, WorkerID worker) {
  const std::string stem = options.kind == NixlOptions::Kind::Agent
                               ? options.agent->name
                               : "kvbm-" + std::to_string(worker);
  return stem + "-" + std::to_string(random_bits());
}

Error of_nixl(Error error) {
  error.message = "runtime.nixl: " + error.message;
  return error;
}

}  // namespace

Result<std::unique_ptr<NixlRuntime>> NixlRuntime::create(const NixlOptions& options,
                                                         WorkerID worker, Listener listener) {
  auto library = nixl::load_library(options.library);
  if (!library) return of_nixl(std::move(library).error());
  std::unique_ptr<NixlRuntime> runtime(new NixlRuntime(*std::move(library)));
  nixl::AgentOptions agent;
  agent.name = agent_name(options, worker);
  auto started =
      nixl::AgentThread::start(runtime->library_.api, std::move(agent), std::move(listener));
  if (!started) return of_nixl(std::move(started).error());
  runtime->agent_ = *std::move(started);
  return runtime;
}

}  // namespace kvbm::detail
