// Answers peers over TCP: who they are, what this worker has, and the bytes of blocks.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "kvbm/result.h"
#include "platform/os/tcp.h"
#include "remote/frame_stream.h"
#include "remote/sharing_service.h"

namespace kvbm::remote {

struct PeerServerConfig {
  // "host:port"; port 0: the system chooses one. Any address that other machines can reach needs a
  // secret.
  std::string listen = "127.0.0.1:0";
  std::string secret = {};           // shared by all workers; empty: none
  std::size_t max_connections = 64;  // at least 1; who comes then is told so
  // Each at least 1 ms. How long a handshake may take; the rest of a request after its first byte,
  // and the sending of an answer; how long a connection may be silent.
  std::chrono::milliseconds handshake_timeout{5'000};
  std::chrono::milliseconds answer_timeout{30'000};
  std::chrono::milliseconds idle_timeout{300'000};
};

// Counted since the start, but for connections.
struct PeerServerStats {
  std::size_t connections = 0;  // open now
  std::uint64_t greeted = 0;    // connections whose handshake succeeded
  std::uint64_t refused = 0;    // connections that were one too many, or whose handshake failed
  std::string last_refusal = {};
  std::uint64_t lookups = 0;
  std::uint64_t fetched_blocks = 0;  // for peers that read them themselves
  std::uint64_t sent_blocks = 0;
  std::uint64_t sent_bytes = 0;  // of blocks
};

// One thread that accepts, and one per connection, which answers one request after the other. A
// peer that is slow or silent holds its own thread up, until a deadline. One that sends what is no
// request gets a failure and is disconnected. Plans of one that is gone are left to their leases.
class PeerServer {
 public:
  // Listens when it returns. The service must outlive it. Errors: InvalidConfig naming the option;
  // those of resolve() and TcpListener::open(); OperationFailed with errno if the system gives no
  // thread or descriptor.
  static Result<std::unique_ptr<PeerServer>> start(SharingService& service,
                                                   PeerServerConfig config);
  ~PeerServer() { stop(); }

  // "host:port" with the real port.
  const std::string& address() const noexcept { return address_; }
  PeerServerStats stats() const;

  // Says goodbye to all and disconnects them. Waits for the calls of the service that are running,
  // whose fetches are told to stop, and for nothing else. Idempotent, thread-safe.
  void stop();
  // For tests: aborts with a message if the state contradicts itself.
  void check_invariants() const;

 private:
  struct Client {
    std::jthread thread = {};
    std::atomic<bool> has_ended{false};
  };

  PeerServer(SharingService& service, PeerServerConfig config, TcpListener listener,
             StopSignal stop);
  void run();
  void accept_client();
  void refuse(Descriptor socket, const Error& error);
  void reap();
  void serve(Descriptor socket);
  Result<void> greet(FrameStream& client);
  Result<void> answer_requests(FrameStream& client);
  Result<bool> answer(FrameStream& client, const Frame& frame);
  Result<void> answer_blocks(FrameStream& client, std::uint64_t request, const FetchRequest& fetch);
  Result<void> answer_blocks(FrameStream& client, std::uint64_t request, const PullRequest& pull);
  std::vector<Result<SharedBlock>> fetch(const BlockChoice& blocks);
  Until within(std::chrono::milliseconds time) const;
  void count_refusal(const Error& error);

  SharingService& service_;
  const PeerServerConfig config_;
  const std::string address_;
  const StopSignal stop_;
  std::stop_source stop_calls_;  // of the service

  mutable Mutex mutex_;
  PeerServerStats stats_ KVBM_GUARDED_BY(mutex_);

  // Of the accepting thread, then of stop().
  std::optional<TcpListener> listener_;
  std::list<Client> clients_;
  std::deque<Descriptor> told_;  // who was one too many, until they have read it

  Mutex stopping_mutex_;  // for who joins the threads
  std::jthread thread_;
};

}  // namespace kvbm::remote
