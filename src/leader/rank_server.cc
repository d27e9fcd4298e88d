#include "leader/rank_server.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <cerrno>
#include <system_error>
#include <utility>
#include <variant>

namespace kvbm::leader {
namespace {

// How long nobody is accepted after the system gave no descriptor.
constexpr int kPauseMilliseconds = 100;

// A failure that is sent as the last word; whether it arrives is the other end's affair.
void say_goodbye(FrameSocket& client, const Error& error) {
  if (!client.send(encode_reply(0, error))) return;
}

Reply reply_of(Result<PlanAnswer> answer) {
  return answer ? Reply(*answer) : Reply(std::move(answer).error());
}

}  // namespace

RankServer::RankServer(PlanService& service, RankServerConfig config, Listener listener,
                       Descriptor wake)
    : service_(service),
      config_(std::move(config)),
      listener_(std::make_unique<Listener>(std::move(listener))),
      wake_(std::move(wake)) {}

Result<std::unique_ptr<RankServer>> RankServer::start(PlanService& service,
                                                      RankServerConfig config) {
  if (config.max_clients == 0) {
    return Error{ErrorCode::InvalidConfig, 0, 0, 1, "max_clients must be at least 1"};
  }
  Descriptor wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (wake.number() < 0) {
    return Error{ErrorCode::OperationFailed, errno, 1, 0, "the system gives no more descriptors"};
  }
  KVBM_TRY(Listener listener, Listener::open(config.socket));
  std::unique_ptr<RankServer> server(
      new RankServer(service, std::move(config), std::move(listener), std::move(wake)));
  try {
    server->thread_ = std::jthread([raw = server.get()] { raw->run(); });
  } catch (const std::system_error& error) {
    return Error{ErrorCode::OperationFailed, error.code().value(), 1, 0,
                 "the system gives no more threads"};
  }
  return server;
}

void RankServer::stop() {
  stopping_ = true;
  ::eventfd_write(wake_.number(), 1);
  MutexLock lock(stopping_mutex_);
  if (thread_.joinable()) thread_.join();
  clients_.clear();
  listener_.reset();
}

void RankServer::run() {
  bool accepts = true;
  std::vector<pollfd> polled;
  while (!stopping_) {
    polled.assign({{.fd = wake_.number(), .events = POLLIN, .revents = 0},
                   {.fd = accepts ? listener_->descriptor() : -1, .events = POLLIN, .revents = 0}});
    for (const FrameSocket& client : clients_) {
      const short events = client.unsent() > 0 ? POLLOUT : POLLIN;
      polled.push_back({.fd = client.descriptor(), .events = events, .revents = 0});
    }
    if (::poll(polled.data(), polled.size(), accepts ? -1 : kPauseMilliseconds) < 0) continue;
    // Those that are polled, from the last on, so that the others keep their places.
    for (std::size_t i = clients_.size(); i-- > 0 && !stopping_;) {
      if (polled[i + 2].revents != 0 && !serve(clients_[i])) {
        clients_.erase(clients_.begin() + static_cast<std::ptrdiff_t>(i));
      }
    }
    accepts = (polled[1].revents & POLLIN) == 0 || accept_client();
  }
}

// False if the system has no descriptor for it.
bool RankServer::accept_client() {
  Descriptor accepted(
      ::accept4(listener_->descriptor(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (accepted.number() < 0) {
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR || errno == ECONNABORTED;
  }
  FrameSocket client(std::move(accepted));
  if (clients_.size() < config_.max_clients) {
    clients_.push_back(std::move(client));
  } else {
    say_goodbye(client, Error{ErrorCode::OperationFailed, 0, config_.max_clients + 1,
                              config_.max_clients, "the rank has too many clients"});
  }
  return true;
}

// Errors: the client is to be disconnected.
Result<void> RankServer::serve(FrameSocket& client) {
  KVBM_CHECK_OK(client.flush());
  KVBM_CHECK_OK(answer_waiting(client));
  if (client.unsent() > 0) return {};
  KVBM_CHECK_OK(client.receive());
  return answer_waiting(client);
}

// The requests that have come in, as long as the client takes its answers.
Result<void> RankServer::answer_waiting(FrameSocket& client) {
  while (client.unsent() == 0 && !stopping_) {
    auto frame = client.next();
    if (frame && !*frame) break;
    const Result<void> answered = frame ? answer(client, **frame) : std::move(frame).error();
    if (answered) continue;
    say_goodbye(client, answered.error());
    return answered;
  }
  return {};
}

Result<void> RankServer::answer(FrameSocket& client, const Frame& frame) {
  KVBM_TRY(const Request request, decode_request(frame));
  if (const auto* const release = std::get_if<ReleaseRequest>(&request)) {
    service_.release(release->plan);
    return {};
  }
  Reply reply = RankInfo();
  if (const auto* const lookup = std::get_if<LookupRequest>(&request)) {
    reply = reply_of(
        service_.lookup(lookup->hashes, lookup->digests, lookup->name_space, lookup->lease));
  } else if (const auto* const trim = std::get_if<TrimRequest>(&request)) {
    reply = reply_of(service_.trim(trim->plan, trim->blocks));
  } else {
    reply = service_.info();
  }
  return client.send(encode_reply(frame.request, reply));
}

}  // namespace kvbm::leader
