#include "simulator/faulty_executor.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "kvbm/storage.h"
#include "platform/os/file.h"
#include "simulator/random.h"

namespace kvbm::simulator {
namespace {

using std::chrono::steady_clock;

// How often a cancelled transfer that never ends is looked for.
constexpr std::chrono::milliseconds kGlance{1};

Edge edge_of(const TransferRequest& request) {
  if (request.remote) return Edge::PeerToHost;
  if (request.plan->target_side() == CopyPlan::Side::File) return Edge::HostToDisk;
  if (request.plan->source_side() == CopyPlan::Side::File) return Edge::DiskToHost;
  return request.priority == TransferPriority::Onboard ? Edge::HostToDevice : Edge::DeviceToHost;
}

bool is_cancelled(const TransferRequest& request) {
  return request.cancelled && request.cancelled->load(std::memory_order_relaxed);
}

FaultKind draw_kind(std::size_t per_cent) {
  if (per_cent < 30) return FaultKind::Error;
  if (per_cent < 50) return FaultKind::Short;
  if (per_cent < 80) return FaultKind::WrongBytes;
  if (per_cent < 90) return FaultKind::Late;
  return per_cent < 94 ? FaultKind::Never : FaultKind::DiskFull;
}

// What can become of this copy where not everything can.
FaultKind possible(FaultKind kind, const TransferRequest& request, const BlockCopy& copy) {
  const Edge edge = edge_of(request);
  if (!exists(kind, static_cast<std::size_t>(edge))) return FaultKind::Error;
  if (kind == FaultKind::Short && request.step == TransferStep::Verify) return FaultKind::Error;
  const bool turns_sum = kind == FaultKind::WrongBytes && edge == Edge::HostToDevice;
  return turns_sum && !copy.payload_sum ? FaultKind::Error : kind;
}

// Turns the bytes [begin, end) of a block's extent in a file, which is read and written in units.
void turn_file(const Region& extent, std::size_t begin, std::size_t end) {
  File& file = *extent.memory->file();
  const std::size_t unit = std::max<std::size_t>(file.io_alignment(), 1);
  const std::size_t first = begin / unit * unit;
  const std::size_t bytes = (end - first + unit - 1) / unit * unit;
  auto buffer = SystemAllocator().allocate(bytes);
  if (!buffer) return;
  const std::span part(buffer->as_mut_ptr(), bytes);
  if (!file.read(part, extent.offset + first)) return;
  for (std::size_t i = begin; i < end; ++i) part[i - first] ^= std::byte{0x05};
  static_cast<void>(file.write(part, extent.offset + first).has_value());
}

// Turns one byte of a block, or its first half.
void damage(const Layout& layout, BlockId id, std::uint64_t random, bool half) {
  if (layout.memory(0).file()) {
    const Region extent = layout.extent(id);
    const std::size_t at = half ? 0 : random % extent.bytes;
    return turn_file(extent, at, half ? (extent.bytes + 1) / 2 : at + 1);
  }
  const auto fragments = layout.fragments();
  const std::size_t first = half ? 0 : random % fragments.size();
  for (std::size_t i = first; i < (half ? (fragments.size() + 1) / 2 : first + 1); ++i) {
    const Region region = layout.place(fragments[i], id);
    if (!region.data()) continue;
    const std::size_t at = half ? 0 : random / fragments.size() % region.bytes;
    for (std::size_t b = at; b < (half ? region.bytes : at + 1); ++b) {
      region.data()[b] ^= std::byte{0x05};
    }
  }
}

}  // namespace

// --- which faults ----------------------------------------------------------------------------

std::optional<InjectedFault> FaultInjector::draw(Edge edge, BlockId target) {
  const std::uint64_t where = (std::uint64_t{target} << 8) + static_cast<std::uint64_t>(edge);
  std::uint64_t use = 0;
  {
    MutexLock lock(mutex_);
    use = uses_[where]++;
  }
  Random random(options_.seed ^ Random(where ^ Random(use).next()).next());
  if (!random.chance(options_.rate)) return std::nullopt;
  return InjectedFault{draw_kind(random.below(100)), random.next()};
}

void FaultInjector::count(FaultKind kind, Edge edge) {
  MutexLock lock(mutex_);
  ++counts_[static_cast<std::size_t>(kind)][static_cast<std::size_t>(edge)];
}

FaultCounts FaultInjector::counts() const {
  MutexLock lock(mutex_);
  return counts_;
}

std::uint64_t FaultInjector::total() const {
  std::uint64_t total = 0;
  for (const auto& by_edge : counts()) {
    for (const std::uint64_t count : by_edge) total += count;
  }
  return total;
}

// --- what they do ----------------------------------------------------------------------------

struct FaultyExecutor::Job {
  TransferRequest request;
  Done done;
  std::vector<std::optional<InjectedFault>> faults;  // one per block
  std::vector<std::size_t> sound = {};               // blocks that `inner_` moves
  std::vector<std::optional<Result<TransferToken>>> answers = {};
  std::chrono::nanoseconds busy{0};
  bool has_begun = false;

  bool has(FaultKind kind) const {
    return std::ranges::any_of(faults, [&](const auto& f) { return f && f->kind == kind; });
  }
};

FaultyExecutor::FaultyExecutor(std::unique_ptr<TransferExecutor> inner,
                               std::shared_ptr<FaultInjector> faults)
    : faults_(std::move(faults)), inner_(std::move(inner)), thread_([this] { run_delayed(); }) {}

FaultyExecutor::~FaultyExecutor() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void FaultyExecutor::submit(TransferRequest request, Done done) {
  const Edge edge = edge_of(request);
  std::vector<std::optional<InjectedFault>> faults;
  bool any = false;
  for (const BlockCopy& copy : request.blocks) {
    faults.push_back(faults_->draw(edge, copy.target));
    if (!faults.back()) continue;
    faults.back()->kind = possible(faults.back()->kind, request, copy);
    any = true;
  }
  if (!any) return inner_->submit(std::move(request), std::move(done));
  auto job = std::make_shared<Job>(Job{std::move(request), std::move(done), std::move(faults)});
  {
    MutexLock lock(mutex_);
    ++open_;
  }
  const bool hangs = job->has(FaultKind::Never);
  wait(hangs ? faults_->options().never : std::chrono::nanoseconds(0), {std::move(job), hangs});
}

void FaultyExecutor::wait(std::chrono::nanoseconds delay, Delayed delayed) {
  MutexLock lock(mutex_);
  delayed_.emplace(steady_clock::now() + delay, std::move(delayed));
  changed_.notify_all();
}

// The next one whose time has come; null if that is later.
std::shared_ptr<FaultyExecutor::Job> FaultyExecutor::next_job() {
  const auto now = steady_clock::now();
  for (auto next = delayed_.begin(); next != delayed_.end(); ++next) {
    const Delayed& delayed = next->second;
    const bool is_due = stopping_ || next->first <= now ||
                        (delayed.ends_when_cancelled && is_cancelled(delayed.job->request));
    if (!is_due) continue;
    auto job = std::move(next->second.job);
    delayed_.erase(next);
    return job;
  }
  return nullptr;
}

void FaultyExecutor::run_delayed() {
  for (;;) {
    std::shared_ptr<Job> job;
    {
      MutexLock lock(mutex_);
      while (!(job = next_job())) {
        if (stopping_ && open_ == 0) return;
        if (delayed_.empty()) {
          changed_.wait(mutex_);
        } else {
          changed_.wait_until(mutex_,
                              std::min(delayed_.begin()->first, steady_clock::now() + kGlance));
        }
      }
    }
    job->has_begun ? answer(job) : begin(job);
  }
}

// Fails those that are to fail and has the others moved.
void FaultyExecutor::begin(const std::shared_ptr<Job>& job) {
  job->has_begun = true;
  const TransferRequest& request = job->request;
  if (is_cancelled(request)) std::ranges::fill(job->faults, std::nullopt);
  const Edge edge = edge_of(request);
  TransferRequest rest = request;
  rest.blocks.clear();
  job->answers.resize(request.blocks.size());
  for (std::size_t i = 0; i < request.blocks.size(); ++i) {
    const auto& fault = job->faults[i];
    if (fault) faults_->count(fault->kind, edge);
    const bool fails =
        fault && (fault->kind == FaultKind::Error || fault->kind == FaultKind::Short ||
                  fault->kind == FaultKind::DiskFull);
    if (fails) {
      job->answers[i] = fail(*job, i, fault->kind);
      continue;
    }
    BlockCopy copy = request.blocks[i];
    if (fault && fault->kind == FaultKind::WrongBytes) {
      if (edge == Edge::HostToDevice) *copy.payload_sum ^= fault->random | 1;
      if (edge == Edge::DiskToHost)
        damage(request.plan->source(), copy.source, fault->random, false);
    }
    job->sound.push_back(i);
    rest.blocks.push_back(copy);
  }
  if (rest.blocks.empty()) return moved(job, {});
  inner_->submit(std::move(rest),
                 [this, job](TransferResult result) { moved(job, std::move(result)); });
}

// As a device that fails: the file's journal hears of it.
Error FaultyExecutor::fail(const Job& job, std::size_t block, FaultKind kind) const {
  const TransferRequest& request = job.request;
  const BlockCopy& copy = request.blocks[block];
  const Error error{ErrorCode::OperationFailed, kind == FaultKind::DiskFull ? ENOSPC : EIO, 0, 0,
                    "injected"};
  if (request.step == TransferStep::Verify || !check_copy(*request.plan, copy)) return error;
  if (const auto begun = journal_begin(request, copy); !begun) return begun.error();
  if (kind == FaultKind::Short) {
    damage(request.plan->target(), copy.target, job.faults[block]->random, true);
  }
  return journal_end(request, copy, error).error();
}

void FaultyExecutor::moved(const std::shared_ptr<Job>& job, TransferResult result) {
  const Edge edge = edge_of(job->request);
  job->busy = result.busy;
  for (std::size_t i = 0; i < job->sound.size(); ++i) {
    const std::size_t block = job->sound[i];
    const auto& fault = job->faults[block];
    const bool turns_target = fault && fault->kind == FaultKind::WrongBytes && result.blocks[i] &&
                              (edge == Edge::DeviceToHost || edge == Edge::HostToDisk);
    if (turns_target) {
      damage(job->request.plan->target(), job->request.blocks[block].target, fault->random, false);
    }
    job->answers[block] = std::move(result.blocks[i]);
  }
  if (!job->has(FaultKind::Late)) return answer(job);
  wait(faults_->options().late, {job, false});
}

void FaultyExecutor::answer(const std::shared_ptr<Job>& job) {
  TransferResult result;
  result.busy = job->busy;
  for (auto& block : job->answers) result.blocks.push_back(std::move(*block));
  job->done(std::move(result));
  MutexLock lock(mutex_);
  if (--open_ == 0) changed_.notify_all();
}

}  // namespace kvbm::simulator
