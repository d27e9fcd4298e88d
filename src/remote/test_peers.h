// For tests: peers that are served here, or that the test plays.
#pragma once

#include <poll.h>

#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "remote/handshake.h"
#include "remote/peer_server.h"
#include "remote/peers.h"
#include "remote/test_sharing.h"

namespace kvbm::remote {

// The states that peers told of.
class PeerStates {
 public:
  std::function<void(const PeerHealth&)> listener() {
    return [this](const PeerHealth& health) {
      MutexLock lock(mutex_);
      told_.push_back(health);
      changed_.notify_all();
    };
  }
  // Waits until the peer had the state in or after this generation; returns its health then.
  PeerHealth wait_for(std::size_t peer, PeerState state, std::uint64_t generation = 0) {
    MutexLock lock(mutex_);
    for (;;) {
      for (const PeerHealth& health : told_) {
        if (health.peer == peer && health.state == state && health.generation >= generation) {
          return health;
        }
      }
      changed_.wait(mutex_);
    }
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::vector<PeerHealth> told_;
};

// A peer whose every byte the test decides.
class PlayedPeer {
 public:
  PlayedPeer()
      : listener_(
            TcpListener::open(resolve("127.0.0.1:0", within(kLong)).value().front()).value()) {}

  std::string address() const { return listener_.address().to_string(); }
  // The next that connects, before its handshake.
  FrameStream accept() {
    for (;;) {
      wait_for(listener_.descriptor(), POLLIN, within(kLong)).value();
      auto accepted = listener_.accept().value();
      if (accepted) return FrameStream(*std::move(accepted));
    }
  }
  // The same, after it.
  FrameStream accept(LocalWorker& as) {
    FrameStream reader = accept();
    const std::string none;
    answer_greeting(reader, {.worker = as, .secret = none}, within(kLong)).value();
    return reader;
  }
  // The next request of this kind and its number; answers pings and forgets others.
  template <class Request>
  static std::pair<std::uint64_t, Request> receive(FrameStream& reader) {
    for (;;) {
      const auto frame = reader.receive(within(kLong)).value();
      auto request = decode_peer_request(frame).value();
      if (auto* const wanted = std::get_if<Request>(&request)) return {frame.request, *wanted};
      if (std::holds_alternative<Ping>(request)) send(reader, frame.request, Pong());
    }
  }
  static void send(FrameStream& reader, std::uint64_t request, const PeerReply& reply) {
    if (!reader.send(encode_peer_reply(request, reply), within(kLong))) return;
  }

 private:
  TcpListener listener_;
};

// A fixture inherits it.
class PeersWorld {
 protected:
  PeersConfig config(std::vector<std::string> addresses) {
    PeersConfig config{.addresses = std::move(addresses)};
    config.times.first_retry = config.times.longest_retry = milliseconds(1);
    config.on_change = states_.listener();
    return config;
  }
  static Peer::Time in(milliseconds time) { return std::chrono::steady_clock::now() + time; }
  static std::future<PeerPlan> ask(Peers& peers, std::size_t blocks = 6,
                                   milliseconds timeout = kLong) {
    auto promise = std::make_shared<std::promise<PeerPlan>>();
    auto plan = promise->get_future();
    peers.lookup(leader::prefix(blocks), {}, 0, milliseconds(30'000), in(timeout),
                 [promise](PeerPlan found) { promise->set_value(std::move(found)); });
    return plan;
  }
  std::unique_ptr<Peers> connect(PeersConfig config) {
    const std::size_t count = config.addresses.size();
    auto peers = Peers::create(self_, std::move(config)).value();
    for (std::size_t i = 0; i < count; ++i) states_.wait_for(i, PeerState::Up);
    return peers;
  }

  PeerStates states_;
  TestWorker self_{test_info(8)};
};

}  // namespace kvbm::remote
