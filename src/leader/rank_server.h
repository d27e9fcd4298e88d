// Answers leaders for one rank, on a unix socket.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "kvbm/result.h"
#include "leader/frame_socket.h"
#include "leader/plan_service.h"
#include "leader/socket_path.h"
#include "platform/os/descriptor.h"

namespace kvbm::leader {

struct RankServerConfig {
  std::string socket;
  std::size_t max_clients = 16;  // at least 1; who comes then is told so
};

// One thread, which asks the service. Whoever sends what is no request gets one Failure and is
// disconnected; who does not read its answers is not read until it does. The plans of a leader that
// is gone are left to their leases: it may have handed them over.
class RankServer {
 public:
  // Listens when it returns; a dead process's socket is replaced. The service must outlive it.
  // Errors: those of Listener::open(); InvalidConfig for no clients; OperationFailed with errno if
  // the system gives no thread or descriptor.
  static Result<std::unique_ptr<RankServer>> start(PlanService& service, RankServerConfig config);
  ~RankServer() { stop(); }

  // Disconnects all and removes the socket. Waits for the call of the service that is running, and
  // for nothing else. Idempotent, thread-safe.
  void stop();

 private:
  RankServer(PlanService& service, RankServerConfig config, Listener listener, Descriptor wake);
  void run();
  bool accept_client();
  Result<void> serve(FrameSocket& client);
  Result<void> answer_waiting(FrameSocket& client);
  Result<void> answer(FrameSocket& client, const Frame& frame);

  PlanService& service_;
  const RankServerConfig config_;
  std::unique_ptr<Listener> listener_;  // of the thread, then of stop()
  std::vector<FrameSocket> clients_;    // of the thread
  Descriptor wake_;                     // an eventfd
  std::atomic<bool> stopping_{false};
  Mutex stopping_mutex_;  // for who joins the thread
  std::jthread thread_;
};

}  // namespace kvbm::leader
