// For tests: one end of a connection whose every byte the test decides, and a folder for sockets.
#pragma once

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "leader/frame_socket.h"
#include "leader/protocol.h"
#include "leader/socket_path.h"

namespace kvbm::leader {

class TestFolder {
 public:
  TestFolder() {
    std::string name = "/tmp/kvbm-leader-XXXXXX";
    if (::mkdtemp(name.data())) path_ = name;
  }
  ~TestFolder() { std::filesystem::remove_all(path_); }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// Waits as long as it takes. Not thread-safe.
class TestPeer {
 public:
  explicit TestPeer(Descriptor socket) : socket_(std::move(socket)) {}
  static TestPeer connect(const std::string& path) { return TestPeer(connect_to(path).value()); }
  // The next that connects.
  static TestPeer accept(const Listener& listener) {
    wait(listener.descriptor(), POLLIN);
    return TestPeer(Descriptor(
        ::accept4(listener.descriptor(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)));
  }
  // The same, and answers its greeting.
  static TestPeer accept(const Listener& listener, const RankInfo& info) {
    TestPeer peer = accept(listener);
    peer.send(encode_reply(peer.read()->request, info));
    return peer;
  }

  void send(std::span<const std::byte> bytes) {
    if (!socket_.send(bytes)) return;
    while (socket_.unsent() > 0) {
      wait(socket_.descriptor(), POLLOUT);
      if (!socket_.flush()) return;
    }
  }
  // Valid until the next call; nothing if the other end has closed.
  std::optional<Frame> read() {
    for (;;) {
      auto frame = socket_.next().value();
      if (frame) return frame;
      wait(socket_.descriptor(), POLLIN);
      if (!socket_.receive()) return std::nullopt;
    }
  }
  // Requires: the next frame is a reply, a request.
  Reply read_reply() { return decode_reply(read().value()).value(); }
  Request read_request() { return decode_request(read().value()).value(); }
  FrameSocket& socket() { return socket_; }

 private:
  static void wait(int descriptor, short events) {
    pollfd polled{.fd = descriptor, .events = events, .revents = 0};
    while (::poll(&polled, 1, -1) < 0) {
    }
  }
  FrameSocket socket_;
};

}  // namespace kvbm::leader
