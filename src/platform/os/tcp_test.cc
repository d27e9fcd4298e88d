#include "platform/os/tcp.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>

#include <atomic>
#include <cerrno>
#include <future>
#include <thread>

namespace kvbm {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;
using Bytes = std::vector<std::byte>;

Until within(milliseconds time, const StopSignal* stop = nullptr) {
  return {.deadline = Clock::now() + time, .stop = stop};
}
const milliseconds kLong{60'000};  // for what must come by itself
const milliseconds kShort{20};     // for what never comes

SocketAddress address_of(const std::string& text) {
  return resolve(text, within(kLong)).value().front();
}

struct Pair {
  Descriptor a;
  Descriptor b;
};
Pair connected(const std::string& at = "127.0.0.1:0") {
  auto listener = TcpListener::open(address_of(at)).value();
  Pair pair;
  pair.a = connect_tcp(listener.address(), within(kLong)).value();
  wait_for(listener.descriptor(), POLLIN, within(kLong)).value();
  pair.b = std::move(*listener.accept().value());
  return pair;
}

TEST(Tcp, HostsAndPortsAreParsed) {
  EXPECT_EQ(parse_host_port("a.b:80").value().host, "a.b");
  EXPECT_EQ(parse_host_port("a.b:80").value().port, 80);
  EXPECT_EQ(parse_host_port("[::1]:65535").value().host, "::1");
  EXPECT_EQ(parse_host_port("[::1]:65535").value().port, 65535);
  for (const char* wrong : {"", "a", "a:", ":1", "[]:1", "a:65536", "a:-1", "a:1x", "::1:1"}) {
    const auto parsed = parse_host_port(wrong);
    ASSERT_FALSE(parsed.has_value()) << wrong;
    EXPECT_EQ(parsed.error().code, ErrorCode::InvalidConfig);
    EXPECT_NE(parsed.error().message.find("'" + std::string(wrong) + "'"), std::string::npos);
  }
}

TEST(Tcp, LoopbackIsToldFromOtherAddresses) {
  for (const char* here : {"127.0.0.1:1", "127.9.8.7:1", "[::1]:1", "[::ffff:127.0.0.1]:1"}) {
    EXPECT_TRUE(address_of(here).is_loopback()) << here;
  }
  for (const char* there :
       {"0.0.0.0:1", "128.0.0.1:1", "[::]:1", "[::2]:1", "[::ffff:10.0.0.1]:1", "[fe80::1]:1"}) {
    EXPECT_FALSE(address_of(there).is_loopback()) << there;
  }
  EXPECT_EQ(address_of("127.0.0.1:80").to_string(), "127.0.0.1:80");
  EXPECT_EQ(address_of("[::1]:80").to_string(), "[::1]:80");
}

TEST(Tcp, NamesAreLookedUp) {
  EXPECT_TRUE(address_of("localhost:80").is_loopback());
  const auto none = resolve("no-such-host.invalid:1", within(kLong));
  ASSERT_FALSE(none.has_value());
  EXPECT_NE(none.error().message.find("no-such-host.invalid"), std::string::npos);
}

TEST(Tcp, BytesArriveOverBothFamilies) {
  for (const char* at : {"127.0.0.1:0", "[::1]:0"}) {
    const Pair pair = connected(at);
    const Bytes first(3, std::byte{1});
    const Bytes second(2, std::byte{2});
    send_all(pair.a, first, second, within(kLong)).value();
    Bytes got(4);
    receive_exact(pair.b, got, within(kLong)).value();
    EXPECT_EQ(got, (Bytes{std::byte{1}, std::byte{1}, std::byte{1}, std::byte{2}}));
    // Nothing was read that came after them.
    receive_exact(pair.b, std::span(got).first(1), within(kLong)).value();
    EXPECT_EQ(got[0], std::byte{2});
    EXPECT_TRUE(remote_address(pair.a).value().is_loopback());
  }
}

TEST(Tcp, MoreThanTheSocketTakesArrivesWhole) {
  const Pair pair = connected();
  Bytes sent(32u << 20);
  for (std::size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<std::byte>(i * 7 >> 8);
  const std::span<const std::byte> all(sent);
  auto sending = std::async(std::launch::async, [&] {
    return send_all(pair.a, all.first(1000), all.subspan(1000), within(kLong)).has_value();
  });
  Bytes got(sent.size());
  receive_exact(pair.b, got, within(kLong)).value();
  EXPECT_TRUE(sending.get());
  EXPECT_EQ(got, sent);
}

TEST(Tcp, BothEndsHaveNoDelayAndAreWatched) {
  const Pair pair = connected();
  for (const Descriptor* end : {&pair.a, &pair.b}) {
    for (const auto& [level, name] : {std::pair<int, int>(IPPROTO_TCP, TCP_NODELAY),
                                      std::pair<int, int>(SOL_SOCKET, SO_KEEPALIVE),
                                      std::pair<int, int>(IPPROTO_TCP, TCP_USER_TIMEOUT)}) {
      int value = 0;
      socklen_t size = sizeof value;
      ASSERT_EQ(::getsockopt(end->number(), level, name, &value, &size), 0);
      EXPECT_NE(value, 0);
    }
  }
}

TEST(Tcp, WhatNeverComesTimesOut) {
  const Pair pair = connected();
  Bytes byte(1);
  const auto received = receive_exact(pair.a, byte, within(kShort));
  ASSERT_FALSE(received.has_value());
  EXPECT_EQ(received.error().code, ErrorCode::TimedOut);
  // Nobody reads.
  const Bytes much(64u << 20);
  const auto sent = send_all(pair.a, much, within(kShort));
  ASSERT_FALSE(sent.has_value());
  EXPECT_EQ(sent.error().code, ErrorCode::TimedOut);
}

TEST(Tcp, WhoSendsByteByByteDoesNotPutTheDeadlineOff) {
  const Pair pair = connected();
  std::atomic<bool> ended{false};
  const std::jthread trickle([&] {
    const Bytes byte(1);
    while (!ended && send_all(pair.b, byte, within(kLong))) {
    }
  });
  Bytes much(64u << 20);
  const auto received = receive_exact(pair.a, much, within(kShort));
  ended = true;
  ASSERT_FALSE(received.has_value());
  EXPECT_EQ(received.error().code, ErrorCode::TimedOut);
}

TEST(Tcp, ADeadlineThatHasPassedCountsThoughSomethingHasCome) {
  const Pair pair = connected();
  send_all(pair.b, Bytes(1), within(kLong)).value();
  wait_for(pair.a.number(), POLLIN, within(kLong)).value();
  const auto waited = wait_for(pair.a.number(), POLLIN, within(milliseconds(-1)));
  ASSERT_FALSE(waited.has_value());
  EXPECT_EQ(waited.error().code, ErrorCode::TimedOut);
}

TEST(Tcp, AStopEndsWhoWaits) {
  const Pair pair = connected();
  const StopSignal stop = StopSignal::create().value();
  EXPECT_FALSE(stop.is_stopped());
  auto waiting = std::async(std::launch::async, [&] {
    Bytes byte(1);
    return receive_exact(pair.a, byte, within(kLong, &stop)).error().code;
  });
  stop.stop();
  EXPECT_EQ(waiting.get(), ErrorCode::Cancelled);
  EXPECT_TRUE(stop.is_stopped());
  // For good.
  EXPECT_EQ(wait_for(pair.a.number(), POLLIN, within(kLong, &stop)).error().code,
            ErrorCode::Cancelled);
}

TEST(Tcp, AClosedEndIsAnErrorThatSaysHowMuchCame) {
  Pair pair = connected();
  send_all(pair.b, Bytes(3), within(kLong)).value();
  pair.b = Descriptor();
  Bytes got(5);
  const auto received = receive_exact(pair.a, got, within(kLong));
  ASSERT_FALSE(received.has_value());
  EXPECT_EQ(received.error().requested, 5u);
  EXPECT_EQ(received.error().available, 3u);
  // No SIGPIPE.
  for (;;) {
    const auto sent = send_all(pair.a, got, within(kLong));
    if (sent) continue;
    EXPECT_TRUE(sent.error().native == EPIPE || sent.error().native == ECONNRESET);
    break;
  }
}

TEST(Tcp, WhereNobodyListensIsRefused) {
  std::optional<TcpListener> listener = TcpListener::open(address_of("127.0.0.1:0")).value();
  const SocketAddress there = listener->address();
  EXPECT_EQ(TcpListener::open(there).error().native, EADDRINUSE);
  listener.reset();
  const auto connecting = connect_tcp(there, within(kLong));
  ASSERT_FALSE(connecting.has_value());
  EXPECT_EQ(connecting.error().native, ECONNREFUSED);
  EXPECT_NE(connecting.error().message.find(there.to_string()), std::string::npos);
}

TEST(Tcp, AListenerThatIsFullDoesNotHoldAConnectUp) {
  // Nobody accepts: with a full queue the system leaves further ones without an answer.
  const auto listener = TcpListener::open(address_of("127.0.0.1:0")).value();
  std::vector<Descriptor> queued;
  for (;;) {
    auto next = connect_tcp(listener.address(), within(kShort));
    if (!next) {
      EXPECT_EQ(next.error().code, ErrorCode::TimedOut);
      break;
    }
    queued.push_back(std::move(*next));
    ASSERT_LT(queued.size(), 10'000u);
  }
}

TEST(Tcp, NobodyWaitingIsNoError) {
  auto listener = TcpListener::open(address_of("127.0.0.1:0")).value();
  EXPECT_FALSE(listener.accept().value().has_value());
}

}  // namespace
}  // namespace kvbm
