#include "benchmarks/remote_owner.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <random>
#include <thread>

#include "physical/transfer/copy_block.h"

namespace kvbm::bench {
namespace {

constexpr std::size_t kLayers = 32;
constexpr std::size_t kOuters = 2;

Error system_error(const char* what) {
  return Error{ErrorCode::OperationFailed, errno, 0, 0, std::string("the bench's ") + what};
}

// Long enough for a machine that does other things.
Until soon() { return {.deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60)}; }

// Makes calls of the socket wait, as plain code does.
void make_blocking(const Descriptor& socket) {
  ::fcntl(socket.number(), F_SETFL, ::fcntl(socket.number(), F_GETFL) & ~O_NONBLOCK);
}

bool send_plain(const Descriptor& socket, const Region& extent) {
  for (std::size_t sent = 0; sent < extent.bytes;) {
    const ssize_t count =
        ::send(socket.number(), extent.data() + sent, extent.bytes - sent, MSG_NOSIGNAL);
    if (count <= 0) return false;
    sent += static_cast<std::size_t>(count);
  }
  return true;
}

}  // namespace

LayoutConfig remote_layout_config(std::size_t block_bytes) {
  return {.num_blocks = kRemoteBytes / block_bytes,
          .num_layers = kLayers,
          .outer_dim = kOuters,
          .page_size = 16,
          .inner_dim = block_bytes / kLayers / kOuters / 16 / size_bytes(DType::FP16),
          .alignment = 4096};
}

Result<std::unique_ptr<RemoteOwner>> RemoteOwner::start() {
  std::unique_ptr<RemoteOwner> owner(new RemoteOwner);
  KVBM_CHECK_OK(owner->lay_out());
  KVBM_CHECK_OK(owner->listen());
  KVBM_CHECK_OK(owner->fork_owner());
  return owner;
}

RemoteOwner::~RemoteOwner() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  if (shared_) ::munmap(shared_, sizeof(Shared));
}

Result<void> RemoteOwner::lay_out() {
  KVBM_TRY(const PinnedStorage storage, PinnedAllocator().allocate(kRemoteBytes));
  memory_ = storage.memory();
  for (const std::size_t bytes : kRemoteBlockBytes) {
    KVBM_TRY(layouts_.emplace_back(),
             Layout::create(LayoutType::FullyContiguous, remote_layout_config(bytes), {memory_}));
    KVBM_TRY(blocks_.emplace_back(), remote::TierBlocks::of(Tier::Host, *layouts_.back()));
  }
  void* const shared =
      ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) return system_error("mmap");
  shared_ = new (shared) Shared;
  return {};
}

Result<void> RemoteOwner::listen() {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const SocketAddress any_port(reinterpret_cast<sockaddr*>(&address), sizeof address);
  KVBM_TRY(listener_, TcpListener::open(any_port));
  return {};
}

Result<void> RemoteOwner::fork_owner() {
  int ends[2] = {-1, -1};
  if (::pipe(ends) != 0) return system_error("pipe");
  const Descriptor ready(ends[0]);
  Descriptor theirs(ends[1]);
  pid_ = ::fork();
  if (pid_ < 0) return system_error("fork");
  if (pid_ == 0) run_owner(theirs);
  theirs = Descriptor();
  char byte = 0;
  if (::read(ready.number(), &byte, 1) != 1) return system_error("other process");
  return {};
}

void RemoteOwner::run_owner(const Descriptor& ready) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  std::mt19937_64 random(1);
  for (std::size_t at = 0; at < kRemoteBytes; at += sizeof(std::uint64_t)) {
    const std::uint64_t value = random();
    std::memcpy(memory_->data() + at, &value, sizeof value);
  }
  for (std::size_t size = 0; size < kRemoteSizes; ++size) {
    for (BlockId id = 0; id < layouts_[size]->config().num_blocks; ++id) {
      shared_->sums[size][id] = sum_block(*layouts_[size], id).value();
    }
  }
  shared_->identity = ProcessIdentity::of_this_process().value();
  if (::write(ready.number(), "", 1) != 1) ::_exit(1);
  for (;;) {
    pollfd waiting = {listener_->descriptor(), POLLIN, 0};
    ::poll(&waiting, 1, -1);
    auto socket = listener_->accept();
    if (!socket) ::_exit(1);
    if (*socket) std::thread([this, made = std::move(**socket)] { serve(made); }).detach();
  }
}

void RemoteOwner::serve(const Descriptor& socket) const {
  make_blocking(socket);
  OwnerRequest request;
  bool is_good = true;
  while (is_good &&
         ::recv(socket.number(), &request, sizeof request, MSG_WAITALL) == sizeof request) {
    const Layout& layout = *layouts_[request.size];
    for (std::uint32_t i = 0; is_good && i < request.count; ++i) {
      const Region extent = layout.extent(request.ids[i]);
      is_good = request.plain == 1
                    ? send_plain(socket, extent)
                    : send_all(socket, {extent.data(), extent.bytes}, soon()).has_value();
    }
  }
}

std::span<const std::uint64_t> RemoteOwner::sums(std::size_t size) const noexcept {
  return std::span(shared_->sums[size]).first(layouts_[size]->config().num_blocks);
}

Result<Descriptor> RemoteOwner::connect() const {
  KVBM_TRY(Descriptor socket, connect_tcp(listener_->address(), soon()));
  make_blocking(socket);
  return socket;
}

}  // namespace kvbm::bench
