#include "leader/socket_path.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "leader/test_peer.h"

namespace kvbm::leader {
namespace {

class SocketPathTest : public testing::Test {
 protected:
  // What a process leaves that is killed.
  void leave_dead_socket(const std::string& path) {
    const Descriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    ASSERT_EQ(::bind(socket.number(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    ASSERT_EQ(::listen(socket.number(), 1), 0);
  }
  const TestFolder folder_;
  const std::string path_ = folder_ / "rank0";
};

TEST_F(SocketPathTest, OnlyTheOwnerMayUseASocketAndItGoesWithItsListener) {
  {
    const auto listener = Listener::open(path_);
    ASSERT_TRUE(listener.has_value()) << listener.error().to_string();
    struct stat made{};
    ASSERT_EQ(::stat(path_.c_str(), &made), 0);
    EXPECT_EQ(made.st_mode & 0777, 0600u);
    EXPECT_TRUE(connect_to(path_).has_value());
  }
  EXPECT_FALSE(std::filesystem::exists(path_));
  EXPECT_EQ(connect_to(path_).error().native, ENOENT);
}

TEST_F(SocketPathTest, ADeadSocketIsReplaced) {
  leave_dead_socket(path_);
  EXPECT_EQ(connect_to(path_).error().native, ECONNREFUSED);
  const auto listener = Listener::open(path_);
  ASSERT_TRUE(listener.has_value()) << listener.error().to_string();
  EXPECT_TRUE(connect_to(path_).has_value());
}

TEST_F(SocketPathTest, ALivingSocketIsRefusedAndStays) {
  const auto first = Listener::open(path_);
  const auto second = Listener::open(path_);
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().message, "another process serves " + path_);
  EXPECT_TRUE(connect_to(path_).has_value());
}

TEST_F(SocketPathTest, ALivingSocketWithAFullQueueIsRefusedToo) {
  const auto first = Listener::open(path_);
  std::vector<Descriptor> waiting;
  for (;;) {
    auto connected = connect_to(path_);
    if (!connected) {
      EXPECT_EQ(connected.error().native, EAGAIN);
      break;
    }
    waiting.push_back(std::move(*connected));
  }
  EXPECT_EQ(Listener::open(path_).error().message, "another process serves " + path_);
}

TEST_F(SocketPathTest, WhatIsNoSocketStays) {
  std::ofstream(path_) << "precious";
  const auto listener = Listener::open(path_);
  ASSERT_FALSE(listener.has_value());
  EXPECT_EQ(listener.error().message,
            path_ + " is not a socket; give the server a path of its own");
  EXPECT_EQ(std::filesystem::file_size(path_), 8u);
}

TEST_F(SocketPathTest, TheFileOfAnotherListenerStays) {
  std::optional<Listener> first(Listener::open(path_).value());
  std::filesystem::remove(path_);
  const auto second = Listener::open(path_);
  ASSERT_TRUE(second.has_value());
  first.reset();
  EXPECT_TRUE(connect_to(path_).has_value());
}

TEST_F(SocketPathTest, PathsHaveALength) {
  const std::string longest = folder_ / std::string(107 - (folder_ / "").size(), 'x');
  ASSERT_EQ(longest.size(), 107u);
  EXPECT_TRUE(Listener::open(longest).has_value());
  const auto longer = Listener::open(longest + "x");
  ASSERT_FALSE(longer.has_value());
  EXPECT_EQ(longer.error().code, ErrorCode::InvalidConfig);
  EXPECT_EQ(longer.error().requested, 108u);
  EXPECT_EQ(longer.error().available, 107u);
  EXPECT_EQ(longer.error().message, "the path of a socket is too long: " + longest + "x");
  EXPECT_EQ(connect_to("").error().code, ErrorCode::InvalidConfig);
  EXPECT_EQ(connect_to(std::string("a\0b", 3)).error().code, ErrorCode::InvalidConfig);
}

TEST_F(SocketPathTest, AMissingFolderIsNamed) {
  const auto listener = Listener::open(folder_ / "missing/rank0");
  ASSERT_FALSE(listener.has_value());
  EXPECT_EQ(listener.error().message, "cannot open directory " + (folder_ / "missing"));
  EXPECT_EQ(listener.error().native, ENOENT);
}

}  // namespace
}  // namespace kvbm::leader
