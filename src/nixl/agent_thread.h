// The one thread that an agent belongs to.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "nixl/agent.h"

namespace kvbm::nixl {

// Runs an agent: what is asked of it in the order in which it was asked, and its polls, at growing
// distances while transfers run. Without transfers it sleeps. Threads: any.
class AgentThread {
 public:
  using Task = std::function<void(Agent&)>;
  // Called on the agent's thread with what a poll has found. Must not block; may use the agent, and
  // post().
  using Listener = std::function<void(Agent&, std::span<const AgentEvent>)>;

  // Makes an agent on a thread of its own. Errors: those of Agent::create().
  static Result<std::unique_ptr<AgentThread>> start(const NixlApi& api, AgentOptions options,
                                                    Listener listener);
  // Runs the tasks that were posted before, then destroys the agent, which ends all transfers
  // without events. Requires: not called on the agent's thread.
  ~AgentThread();
  AgentThread(const AgentThread&) = delete;
  AgentThread& operator=(const AgentThread&) = delete;

  // Runs `task` on the agent's thread, soon. Cost: a lock and, if the thread sleeps, a wake.
  void post(Task task) KVBM_EXCLUDES(mutex_);

 private:
  explicit AgentThread(Listener listener) : listener_(std::move(listener)) {}

  void run(Agent& agent) KVBM_EXCLUDES(mutex_);
  // The tasks that were posted, once there are some or it is time to poll.
  std::vector<Task> wait_until(Agent::Time time) KVBM_EXCLUDES(mutex_);

  const Listener listener_;
  Mutex mutex_;
  CondVar changed_;
  std::vector<Task> tasks_ KVBM_GUARDED_BY(mutex_);
  bool stopping_ KVBM_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace kvbm::nixl
