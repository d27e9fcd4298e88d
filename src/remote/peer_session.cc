#include "remote/peer_session.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <cerrno>

namespace kvbm::remote {
namespace {

constexpr std::size_t kMaxReleases = 4096;
constexpr std::size_t kMaxIdle = 8;

// Whether nothing has come: an end that has closed can be read, too.
bool is_quiet(const FrameStream& connection) {
  pollfd polled{.fd = connection.socket().number(), .events = POLLIN, .revents = 0};
  return ::poll(&polled, 1, 0) == 0;
}

}  // namespace

Result<std::shared_ptr<const WakeUp>> WakeUp::create() {
  Descriptor event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (event.number() < 0) {
    return Error{ErrorCode::OperationFailed, errno, 1, 0, "the system gives no more descriptors"};
  }
  return std::shared_ptr<const WakeUp>(new WakeUp(std::move(event)));
}

void WakeUp::wake() const noexcept { ::eventfd_write(event_.number(), 1); }

void WakeUp::clear() const noexcept {
  eventfd_t count = 0;
  ::eventfd_read(event_.number(), &count);
}

void PeerSession::release(std::uint64_t plan) noexcept {
  {
    MutexLock lock(mutex_);
    if (is_over_ || releases_.size() >= kMaxReleases) return;
    releases_.push_back(plan);
    if (releases_.size() > 1) return;  // it is awake already
  }
  wake_->wake();
}

std::vector<std::uint64_t> PeerSession::take_releases() {
  MutexLock lock(mutex_);
  return std::exchange(releases_, {});
}

void PeerSession::end() noexcept {
  over_.stop();
  MutexLock lock(mutex_);
  is_over_ = true;
  releases_.clear();
  idle_.clear();
}

std::optional<FrameStream> PeerSession::take_idle() {
  MutexLock lock(mutex_);
  while (!idle_.empty()) {
    FrameStream connection = std::move(idle_.back());
    idle_.pop_back();
    if (is_quiet(connection)) return connection;
  }
  return std::nullopt;
}

void PeerSession::give_back(FrameStream connection) {
  MutexLock lock(mutex_);
  if (!is_over_ && idle_.size() < kMaxIdle) idle_.push_back(std::move(connection));
}

}  // namespace kvbm::remote
