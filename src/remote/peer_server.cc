#include "remote/peer_server.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cstdio>
#include <cstdlib>
#include <system_error>
#include <utility>
#include <variant>

#include "remote/handshake.h"

namespace kvbm::remote {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kResolveTimeout{5'000};
// How long nobody is accepted after the system gave no descriptor.
constexpr milliseconds kPause{100};
// How long the last word to a client may take, and how long is waited until it has read it: a close
// with bytes that were not read would take it back.
constexpr milliseconds kLastWordTimeout{1'000};
constexpr std::size_t kMaxDroppedBytes = 64 * 1024;
constexpr std::size_t kMaxTold = 16;

Until by_itself(milliseconds time, const StopSignal* stop = nullptr) {
  return {.deadline = std::chrono::steady_clock::now() + time, .stop = stop};
}

// Whether it arrives is the other end's affair.
void say(const Descriptor& client, const PeerReply& word) {
  if (!send_all(client, encode_peer_reply(0, word), by_itself(kLastWordTimeout))) return;
  ::shutdown(client.number(), SHUT_WR);
}

// Reads what the client still sends, until it closes.
void drop_the_rest(const Descriptor& client, const Until& until) {
  std::array<std::byte, 4096> dropped;
  for (std::size_t bytes = 0; bytes < kMaxDroppedBytes;) {
    if (!wait_for(client.number(), POLLIN, until)) return;
    const ssize_t received = ::recv(client.number(), dropped.data(), dropped.size(), 0);
    if (received <= 0) return;
    bytes += static_cast<std::size_t>(received);
  }
}

Result<void> check(const PeerServerConfig& config) {
  const auto too_small = [](const char* option) {
    return Error{ErrorCode::InvalidConfig, 0, 0, 1, std::string(option) + " must be at least 1"};
  };
  if (config.max_connections == 0) return too_small("max_connections");
  if (config.handshake_timeout.count() < 1) return too_small("handshake_timeout");
  if (config.answer_timeout.count() < 1) return too_small("answer_timeout");
  if (config.idle_timeout.count() < 1) return too_small("idle_timeout");
  return {};
}

Result<TcpListener> listen_at(const PeerServerConfig& config) {
  KVBM_TRY(const auto addresses, resolve(config.listen, by_itself(kResolveTimeout)));
  Result<TcpListener> listener = Error{ErrorCode::OperationFailed, 0, 0, 0, ""};
  for (const SocketAddress& address : addresses) {
    if (config.secret.empty() && !address.is_loopback()) {
      return Error{ErrorCode::InvalidConfig, 0, 0, 0,
                   "other machines can reach " + address.to_string() +
                       ": listen at a loopback address, or give all workers a shared secret"};
    }
    listener = TcpListener::open(address);
    if (listener) break;
  }
  return listener;
}

template <class T>
PeerReply reply_of(Result<T> answer) {
  return answer ? PeerReply(*std::move(answer)) : PeerReply(std::move(answer).error());
}

}  // namespace

PeerServer::PeerServer(SharingService& service, PeerServerConfig config, TcpListener listener,
                       StopSignal stop)
    : service_(service),
      config_(std::move(config)),
      address_(listener.address().to_string()),
      stop_(std::move(stop)),
      listener_(std::move(listener)) {}

Result<std::unique_ptr<PeerServer>> PeerServer::start(SharingService& service,
                                                      PeerServerConfig config) {
  KVBM_CHECK_OK(check(config));
  KVBM_TRY(StopSignal stop, StopSignal::create());
  KVBM_TRY(TcpListener listener, listen_at(config));
  std::unique_ptr<PeerServer> server(
      new PeerServer(service, std::move(config), std::move(listener), std::move(stop)));
  try {
    server->thread_ = std::jthread([raw = server.get()] { raw->run(); });
  } catch (const std::system_error& error) {
    return Error{ErrorCode::OperationFailed, error.code().value(), 1, 0,
                 "the system gives no more threads"};
  }
  return server;
}

void PeerServer::stop() {
  stop_.stop();
  stop_calls_.request_stop();
  MutexLock lock(stopping_mutex_);
  if (thread_.joinable()) thread_.join();
  clients_.clear();  // joins
  told_.clear();
  listener_.reset();
}

Until PeerServer::within(milliseconds time) const { return by_itself(time, &stop_); }

// --- accepting -----------------------------------------------------------------------------------

void PeerServer::run() {
  for (;;) {
    std::array<pollfd, 2> polled = {
        {{.fd = stop_.descriptor(), .events = POLLIN, .revents = 0},
         {.fd = listener_->descriptor(), .events = POLLIN, .revents = 0}}};
    const milliseconds patience = told_.empty() ? milliseconds(-1) : kLastWordTimeout;
    const int ready = ::poll(polled.data(), polled.size(), static_cast<int>(patience.count()));
    if (polled[0].revents != 0) return;
    if (ready == 0) told_.clear();
    if (ready > 0) accept_client();
  }
}

void PeerServer::accept_client() {
  auto accepted = listener_->accept();
  if (!accepted) {
    // There is one that cannot be accepted; its connection stays readable.
    (void)wait_for(stop_.descriptor(), POLLIN, by_itself(kPause));
    return;
  }
  if (!*accepted) return;
  reap();
  if (clients_.size() >= config_.max_connections) {
    return refuse(**std::move(accepted),
                  Error{ErrorCode::QueueFull, 0, config_.max_connections + 1,
                        config_.max_connections, "the worker has too many connections"});
  }
  Client& client = clients_.emplace_back();
  try {
    // Shared, so that it is still there if there is no thread to take it.
    const auto socket = std::make_shared<Descriptor>(**std::move(accepted));
    client.thread = std::jthread([this, &client, socket] {
      {
        MutexLock lock(mutex_);
        ++stats_.connections;
      }
      serve(std::move(*socket));
      {
        MutexLock lock(mutex_);
        --stats_.connections;
      }
      client.has_ended = true;
    });
  } catch (const std::system_error&) {
    clients_.pop_back();
  }
}

void PeerServer::refuse(Descriptor socket, const Error& error) {
  count_refusal(error);
  say(socket, error);
  if (told_.size() == kMaxTold) told_.pop_front();
  told_.push_back(std::move(socket));
}

void PeerServer::reap() {
  clients_.remove_if([](const Client& client) { return client.has_ended.load(); });
}

// --- a connection --------------------------------------------------------------------------------

void PeerServer::serve(Descriptor socket) {
  FrameStream client(std::move(socket));
  auto served = greet(client);
  if (!served) {
    count_refusal(served.error());
  } else {
    served = answer_requests(client);
  }
  if (served || !client.can_send()) return;
  const Error& why = served.error();
  say(client.socket(), stop_.is_stopped() ? PeerReply(Goodbye()) : PeerReply(why));
  drop_the_rest(client.socket(), within(kLastWordTimeout));
}

Result<void> PeerServer::greet(FrameStream& client) {
  const LocalEnd self{.worker = service_, .secret = config_.secret};
  KVBM_CHECK_OK(answer_greeting(client, self, within(config_.handshake_timeout)));
  MutexLock lock(mutex_);
  ++stats_.greeted;
  return {};
}

// Until the client says goodbye. Errors: the connection is to be ended.
Result<void> PeerServer::answer_requests(FrameStream& client) {
  for (bool goes_on = true; goes_on;) {
    KVBM_CHECK_OK(wait_for(client.socket().number(), POLLIN, within(config_.idle_timeout)));
    KVBM_TRY(const Frame frame, client.receive(within(config_.answer_timeout)));
    KVBM_TRY(goes_on, answer(client, frame));
  }
  return {};
}

// False after a goodbye.
Result<bool> PeerServer::answer(FrameStream& client, const Frame& frame) {
  KVBM_TRY(const PeerRequest request, decode_peer_request(frame));
  const auto send = [&](const PeerReply& reply) -> Result<bool> {
    KVBM_CHECK_OK(
        client.send(encode_peer_reply(frame.request, reply), within(config_.answer_timeout)));
    return true;
  };
  if (const auto* const lookup = std::get_if<LookupRequest>(&request)) {
    {
      MutexLock lock(mutex_);
      ++stats_.lookups;
    }
    return send(reply_of(
        service_.lookup(lookup->hashes, lookup->digests, lookup->name_space, lookup->lease)));
  }
  if (const auto* const trim = std::get_if<TrimRequest>(&request)) {
    return send(reply_of(service_.trim(trim->plan, trim->blocks)));
  }
  if (const auto* const release = std::get_if<ReleaseRequest>(&request)) {
    service_.release(release->plan);
    return true;
  }
  if (const auto* const fetch = std::get_if<FetchRequest>(&request)) {
    KVBM_CHECK_OK(answer_blocks(client, frame.request, *fetch));
    return true;
  }
  if (const auto* const pull = std::get_if<PullRequest>(&request)) {
    KVBM_CHECK_OK(answer_blocks(client, frame.request, *pull));
    return true;
  }
  if (const auto* const confirm = std::get_if<ConfirmRequest>(&request)) {
    return send(Confirmed{.is_current = service_.is_current(confirm->plan)});
  }
  if (std::holds_alternative<Ping>(request)) return send(Pong());
  if (std::holds_alternative<Goodbye>(request)) return false;
  return leader::garbage("a step of a handshake after its end");
}

std::vector<Result<SharedBlock>> PeerServer::fetch(const BlockChoice& blocks) {
  const auto deadline = std::chrono::steady_clock::now() + blocks.patience;
  auto fetched = service_.fetch(blocks.plan, blocks.indexes, deadline, stop_calls_.get_token());
  assert(fetched.size() == blocks.indexes.size());
  return fetched;
}

Result<void> PeerServer::answer_blocks(FrameStream& client, std::uint64_t request,
                                       const FetchRequest& fetch_request) {
  Fetched answer;
  std::uint64_t count = 0;
  for (auto& block : fetch(fetch_request.blocks)) {
    if (!block) {
      answer.blocks.emplace_back(std::move(block).error());
      continue;
    }
    answer.blocks.emplace_back(
        FetchedBlock{.block = block->block, .payload_sum = block->payload_sum});
    ++count;
  }
  {
    MutexLock lock(mutex_);
    stats_.fetched_blocks += count;
  }
  return client.send(encode_peer_reply(request, answer), within(config_.answer_timeout));
}

Result<void> PeerServer::answer_blocks(FrameStream& client, std::uint64_t request,
                                       const PullRequest& pull) {
  auto blocks = fetch(pull.blocks);
  const Until until = within(config_.answer_timeout);
  for (auto& block : blocks) {
    if (!block) {
      KVBM_CHECK_OK(client.send(encode_peer_reply(request, block.error()), until));
      continue;
    }
    // Taken over, so that the block is given back as soon as it is sent.
    const SharedBlock sent = std::move(*block);
    const auto head = encode_peer_reply(
        request, BlockHead{.payload_sum = sent.payload_sum, .bytes = sent.bytes.size()});
    KVBM_CHECK_OK(client.send(head, sent.bytes, until));
    MutexLock lock(mutex_);
    ++stats_.sent_blocks;
    stats_.sent_bytes += sent.bytes.size();
  }
  return {};
}

// --- what is known -------------------------------------------------------------------------------

void PeerServer::count_refusal(const Error& error) {
  MutexLock lock(mutex_);
  ++stats_.refused;
  stats_.last_refusal = error.to_string();
}

PeerServerStats PeerServer::stats() const {
  MutexLock lock(mutex_);
  return stats_;
}

void PeerServer::check_invariants() const {
  const PeerServerStats now = stats();
  if (now.connections > config_.max_connections) {
    std::fprintf(stderr, "kvbm: peer server invariant broken: too many connections\n");
    std::abort();
  }
}

}  // namespace kvbm::remote
