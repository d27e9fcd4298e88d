#include "nixl/agent_thread.h"

#include <future>
#include <utility>

namespace kvbm::nixl {

Result<std::unique_ptr<AgentThread>> AgentThread::start(const NixlApi& api, AgentOptions options,
                                                        Listener listener) {
  std::unique_ptr<AgentThread> made(new AgentThread(std::move(listener)));
  std::promise<Result<void>> created;
  auto result = created.get_future();
  made->thread_ = std::thread([&api, options = std::move(options), created = std::move(created),
                               thread = made.get()]() mutable {
    auto agent = Agent::create(api, std::move(options));
    created.set_value(agent ? Result<void>() : Result<void>(std::move(agent).error()));
    if (agent) thread->run(**agent);
  });
  KVBM_CHECK_OK(result.get());
  return made;
}

AgentThread::~AgentThread() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void AgentThread::post(Task task) {
  {
    MutexLock lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  changed_.notify_one();
}

std::vector<AgentThread::Task> AgentThread::wait_until(Agent::Time time) {
  MutexLock lock(mutex_);
  while (tasks_.empty() && !stopping_) {
    if (time == Agent::Time::max()) {
      changed_.wait(mutex_);
    } else if (changed_.wait_until(mutex_, time) == std::cv_status::timeout) {
      break;
    }
  }
  return std::exchange(tasks_, {});
}

void AgentThread::run(Agent& agent) {
  std::vector<AgentEvent> events;
  for (;;) {
    const std::vector<Task> tasks = wait_until(agent.next_poll(std::chrono::steady_clock::now()));
    for (const Task& task : tasks) task(agent);
    if (tasks.empty()) {
      MutexLock lock(mutex_);
      if (stopping_ && tasks_.empty()) return;
    }
    agent.poll(std::chrono::steady_clock::now(), events);
    if (!events.empty()) listener_(agent, std::exchange(events, {}));
  }
}

}  // namespace kvbm::nixl
