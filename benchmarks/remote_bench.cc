#include "benchmarks/remote_bench.h"

#include <sys/socket.h>

#include <cerrno>
#include <ctime>
#include <memory>
#include <random>
#include <utility>

#include "benchmarks/disk_blocks.h"
#include "benchmarks/remote_owner.h"
#include "remote/block_stream.h"
#include "remote/cma.h"

namespace kvbm::bench {
namespace {

constexpr std::size_t kRounds = 51;
constexpr std::size_t kBytesPerRun = std::size_t{32} << 20;
// Of the probes that copy past the caches: the best of those that were tried.
constexpr std::size_t kBufferBytes = std::size_t{256} << 10;
constexpr std::size_t kStreamBufferBytes = std::size_t{64} << 10;

constexpr std::chrono::seconds kSilence{60};

// Long enough for a machine that does other things.
Until soon() { return {.deadline = std::chrono::steady_clock::now() + kSilence}; }

// Of this thread. Reading another process's memory never waits: on a machine that does other things
// as well, this is what it would take on one that does not.
std::uint64_t cpu_ns() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(time.tv_nsec);
}

// Both sides of the pulls of blocks of one size.
struct Sides {
  const RemoteOwner& owner;
  std::size_t size;  // index of kRemoteBlockBytes
  std::shared_ptr<const Layout> target;
  remote::Staging staging;
  std::mt19937_64 random;
  FirstError error;

  std::size_t block_bytes() const { return kRemoteBlockBytes[size]; }
  std::size_t blocks() const { return target->config().num_blocks; }
  std::byte* target_of(BlockId id) const { return target->extent(id).data(); }
  iovec source_of(BlockId id) const {
    const remote::TierBlocks& blocks = owner.blocks(size);
    const Fragment& first = blocks.fragments.front();
    return {reinterpret_cast<void*>(blocks.memories[0].address + first.offset +
                                    id * first.block_stride),
            block_bytes()};
  }
  std::vector<BlockCopy> sample() {
    std::vector<BlockCopy> copies(kBlocksPerPull);
    for (BlockCopy& copy : copies) {
      copy.source = static_cast<BlockId>(random() % blocks());
      copy.target = static_cast<BlockId>(random() % blocks());
      copy.payload_sum = owner.sums(size)[copy.source];
    }
    return copies;
  }
};

// Operations are blocks, which `move` takes in transfers.
template <class Move>
Work pull_work(std::string name, Sides& sides, Move move) {
  return {std::move(name),
          [&sides, move = std::move(move)](std::uint64_t blocks) mutable {
            for (std::uint64_t done = 0; done < blocks; done += kBlocksPerPull)
              move(sides.sample());
          },
          {},
          kBytesPerRun / sides.block_bytes()};
}

// --- out of the other process's memory --------------------------------------------------------

void read_remote(Sides& sides, std::span<const iovec> local, std::span<const iovec> remote) {
  std::size_t bytes = 0;
  for (const iovec& run : local) bytes += run.iov_len;
  const auto pid = static_cast<pid_t>(sides.owner.identity().pid);
  const ssize_t read =
      ::process_vm_readv(pid, local.data(), local.size(), remote.data(), remote.size(), 0);
  if (read != static_cast<ssize_t>(bytes)) sides.error.note_errno(errno, "process_vm_readv");
}

std::vector<Work> cma_probes(Sides& sides) {
  std::vector<Work> probes;
  probes.push_back(pull_work("process_vm_readv, block by block", sides, [&sides](const auto& list) {
    for (const BlockCopy& copy : list) {
      const iovec local = {sides.target_of(copy.target), sides.block_bytes()};
      const iovec remote = sides.source_of(copy.source);
      read_remote(sides, {&local, 1}, {&remote, 1});
    }
  }));
  probes.push_back(
      pull_work("process_vm_readv, 16 blocks at once", sides, [&sides](const auto& list) {
        std::vector<iovec> local;
        std::vector<iovec> remote;
        for (const BlockCopy& copy : list) {
          local.push_back({sides.target_of(copy.target), sides.block_bytes()});
          remote.push_back(sides.source_of(copy.source));
        }
        read_remote(sides, local, remote);
      }));
  probes.push_back(
      pull_work("through a buffer, past the caches", sides, [&sides](const auto& list) {
        for (const BlockCopy& copy : list) {
          for (std::size_t at = 0; at < sides.block_bytes(); at += kBufferBytes) {
            const iovec local = {sides.staging.bytes().data(), kBufferBytes};
            iovec remote = sides.source_of(copy.source);
            remote = {static_cast<std::byte*>(remote.iov_base) + at, kBufferBytes};
            read_remote(sides, {&local, 1}, {&remote, 1});
            copy_bytes(sides.target_of(copy.target) + at, sides.staging.bytes().data(),
                       kBufferBytes, Store::Streaming);
          }
        }
      }));
  return probes;
}

Result<Row> cma_row(const char* name, Sides& sides) {
  KVBM_TRY(const auto reader,
           remote::CmaReader::open(sides.owner.identity(), sides.owner.blocks(sides.size),
                                   sides.target));
  const auto pull = pull_work(name, sides, [&](const auto& list) {
    for (const BlockCopy& copy : list) sides.error.note(reader.pull(copy, sides.staging, soon()));
  });
  Row row = measure(pull, cma_probes(sides), "ratio >= 0.90", {.count = kRounds, .now = cpu_ns});
  KVBM_CHECK_OK(sides.error.result());
  return as_rate(std::move(row), sides.block_bytes());
}

// --- over a connection ------------------------------------------------------------------------

enum class Sender : std::uint32_t { Blocks, Plain };

// A connection of its own for each work.
Result<std::shared_ptr<Descriptor>> connect(const RemoteOwner& owner) {
  KVBM_TRY(Descriptor socket, owner.connect());
  return std::make_shared<Descriptor>(std::move(socket));
}

void ask(Sides& sides, int socket, Sender sender, std::span<const BlockCopy> list) {
  OwnerRequest request{.size = static_cast<std::uint32_t>(sides.size),
                       .plain = static_cast<std::uint32_t>(sender),
                       .count = static_cast<std::uint32_t>(list.size())};
  for (std::size_t i = 0; i < list.size(); ++i) request.ids[i] = list[i].source;
  if (::send(socket, &request, sizeof request, MSG_NOSIGNAL) != sizeof request) {
    sides.error.note_errno(errno, "send");
  }
}

// Receives each block in calls of recv() for at most so many bytes. take(block, offset, bytes) says
// where to.
template <class Receive>
Result<Work> plain_stream(std::string name, Sides& sides, Receive receive) {
  KVBM_TRY(const auto socket, connect(sides.owner));
  return pull_work(std::move(name), sides, [&sides, socket, receive](const auto& list) {
    ask(sides, socket->number(), Sender::Plain, list);
    for (const BlockCopy& copy : list) {
      for (std::size_t at = 0; at < sides.block_bytes();) {
        const ssize_t count =
            receive(socket->number(), sides.target_of(copy.target) + at, sides.block_bytes() - at);
        if (count <= 0) return sides.error.note_errno(errno, "recv");
        at += static_cast<std::size_t>(count);
      }
    }
  });
}

Result<std::vector<Work>> stream_probes(Sides& sides) {
  std::vector<Work> probes;
  KVBM_TRY(probes.emplace_back(), plain_stream("recv, whole blocks", sides,
                                               [](int socket, std::byte* to, std::size_t left) {
                                                 return ::recv(socket, to, left, MSG_WAITALL);
                                               }));
  KVBM_TRY(
      probes.emplace_back(),
      plain_stream("recv, what there is", sides, [](int socket, std::byte* to, std::size_t left) {
        return ::recv(socket, to, std::min(left, kBufferBytes), 0);
      }));
  KVBM_TRY(
      probes.emplace_back(),
      plain_stream("through a buffer, past the caches", sides,
                   [&sides](int socket, std::byte* to, std::size_t left) {
                     std::byte* const buffer = sides.staging.bytes().data();
                     const ssize_t count =
                         ::recv(socket, buffer, std::min(left, kStreamBufferBytes), MSG_WAITALL);
                     if (count > 0) {
                       copy_bytes(to, buffer, static_cast<std::size_t>(count), Store::Streaming);
                     }
                     return count;
                   }));
  return probes;
}

Result<Row> stream_row(const char* name, Sides& sides) {
  KVBM_TRY(const auto socket, connect(sides.owner));
  KVBM_TRY(std::vector<Work> probes, stream_probes(sides));
  const auto pull = pull_work(name, sides, [&](const auto& list) {
    ask(sides, socket->number(), Sender::Blocks, list);
    for (const BlockCopy& copy : list) {
      sides.error.note(
          remote::receive_block(*socket, *sides.target, copy, sides.staging, {soon(), kSilence}));
    }
  });
  Row row = measure(pull, std::move(probes), "ratio >= 0.85", {.count = kRounds});
  KVBM_CHECK_OK(sides.error.result());
  return as_rate(std::move(row), sides.block_bytes());
}

}  // namespace

Result<Report> remote_bench(const Options& options) {
  KVBM_TRY(const auto owner, RemoteOwner::start());
  KVBM_TRY(const PinnedStorage memory, PinnedAllocator().allocate(kRemoteBytes));
  std::fill_n(memory.memory()->data(), kRemoteBytes, std::byte{2});
  Report report{.rows = {}, .seed = options.seed};
  struct Size {
    const char* cma;
    const char* stream;
  };
  constexpr Size kSizes[] = {{"pull_cma_2m", "pull_stream_2m"},
                             {"pull_cma_256k", "pull_stream_256k"}};
  for (std::size_t size = 0; size < kRemoteSizes; ++size) {
    KVBM_TRY(auto target,
             Layout::create(LayoutType::FullyContiguous,
                            remote_layout_config(kRemoteBlockBytes[size]), {memory.memory()}));
    Sides sides{*owner, size, std::move(target), {}, std::mt19937_64(options.seed), {}};
    KVBM_TRY(report.rows.emplace_back(), cma_row(kSizes[size].cma, sides));
    KVBM_TRY(report.rows.emplace_back(), stream_row(kSizes[size].stream, sides));
  }
  return report;
}

}  // namespace kvbm::bench
