#include "remote/pull_executor.h"

#include <algorithm>
#include <system_error>

#include "remote/block_stream.h"
#include "remote/blockset.h"

namespace kvbm::remote {
namespace {

using std::chrono::steady_clock;

bool is_cancelled(const TransferRequest& request) {
  return request.cancelled && request.cancelled->load(std::memory_order_relaxed);
}

Error cancelled() { return Error{ErrorCode::Cancelled, 0, 0, 0, {}}; }

}  // namespace

PullExecutor::PullExecutor(Peers& peers, std::shared_ptr<const Layout> target, PullOptions options)
    : peers_(peers), target_(std::move(target)), options_(options) {}

Result<std::unique_ptr<PullExecutor>> PullExecutor::create(Peers& peers,
                                                           std::shared_ptr<const Layout> target,
                                                           PullOptions options) {
  std::unique_ptr<PullExecutor> executor(new PullExecutor(peers, std::move(target), options));
  try {
    for (std::size_t i = 0; i < options.threads; ++i) {
      executor->threads_.emplace_back([raw = executor.get()] { raw->run(); });
    }
  } catch (const std::system_error& error) {
    return Error{ErrorCode::OperationFailed, error.code().value(), options.threads, 0,
                 "the system gives no more threads"};
  }
  return executor;
}

PullExecutor::~PullExecutor() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  threads_.clear();
}

void PullExecutor::submit(TransferRequest request, Done done) {
  {
    MutexLock lock(mutex_);
    jobs_.push_back({std::move(request), std::move(done)});
  }
  changed_.notify_one();
}

void PullExecutor::run() {
  Staging staging;
  for (;;) {
    Job job;
    bool stopping = false;
    {
      MutexLock lock(mutex_);
      while (jobs_.empty() && !stopping_) changed_.wait(mutex_);
      if (jobs_.empty()) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
      stopping = stopping_;
    }
    TransferResult result;
    if (stopping || is_cancelled(job.request)) {
      for (std::size_t i = 0; i < job.request.blocks.size(); ++i) {
        result.blocks.push_back(cancelled());
      }
    } else {
      const auto begin = steady_clock::now();
      result = pull(job.request, staging);
      result.busy = steady_clock::now() - begin;
    }
    job.request = {};  // the peer's blocks are given back before anybody is told
    job.done(std::move(result));
  }
}

TransferResult PullExecutor::pull(const TransferRequest& request, Staging& staging) {
  const PeerPlan& plan = static_cast<const PeerBlocks&>(*request.remote).plan();
  const Sums sums = pull_blocks(request, plan, staging);
  TransferResult result;
  result.blocks.reserve(sums.size());
  for (std::size_t i = 0; i < sums.size(); ++i) {
    if (sums[i]) {
      result.blocks.push_back(token(*request.plan, request.blocks[i].target, *sums[i]));
    } else {
      result.blocks.push_back(sums[i].error());
    }
  }
  return result;
}

PullExecutor::Sums PullExecutor::pull_blocks(const TransferRequest& request, const PeerPlan& plan,
                                             Staging& staging) {
  const Time deadline = steady_clock::now() + options_.patience;
  const std::size_t count = request.blocks.size();
  auto connection = peers_.connect(plan, deadline);
  if (!connection) return Sums(count, connection.error());
  BlockChoice choice{.plan = plan.id(), .patience = options_.patience, .indexes = {}};
  for (const BlockCopy& copy : request.blocks) choice.indexes.push_back(copy.source);

  const Until until{deadline, &plan.session().over()};
  const auto reader = reader_of(plan.session());
  Sums sums = reader ? by_cma(request, choice, *connection, *reader, staging, until)
                     : by_stream(request, choice, *connection, staging, until);
  const auto has_come = [](const auto& sum) { return sum.has_value(); };
  if (std::ranges::none_of(sums, has_come)) return sums;
  const auto is_current = connection->confirm(plan.id(), deadline);
  if (is_current && *is_current) return sums;
  const Error why = is_current ? Error{ErrorCode::PlanExpired, 0, plan.id(), 0,
                                       "the peer has reset its blocks, or the lease is over"}
                               : is_current.error();
  for (std::size_t i = 0; i < count; ++i) {
    if (!sums[i]) continue;
    zero_block(*target_, request.blocks[i].target);
    sums[i] = why;
  }
  return sums;
}

PullExecutor::Sums PullExecutor::by_cma(const TransferRequest& request, const BlockChoice& choice,
                                        PeerConnection& connection, const CmaReader& reader,
                                        Staging& staging, const Until& until) {
  const auto fetched = connection.fetch(choice, until.deadline);
  if (!fetched) return Sums(choice.indexes.size(), fetched.error());
  Sums sums;
  for (std::size_t i = 0; i < fetched->size(); ++i) {
    const auto& block = (*fetched)[i];
    if (!block) {
      sums.push_back(block.error());
    } else if (is_cancelled(request)) {
      sums.push_back(cancelled());
    } else {
      sums.push_back(reader.pull({block->block, request.blocks[i].target, block->payload_sum},
                                 staging, until));
    }
  }
  return sums;
}

PullExecutor::Sums PullExecutor::by_stream(const TransferRequest& request,
                                           const BlockChoice& choice, PeerConnection& connection,
                                           Staging& staging, const Until& until) {
  Sums sums(choice.indexes.size(), cancelled());
  const auto receive = [&](std::size_t position, const Descriptor& socket,
                           std::uint64_t payload_sum) -> Result<void> {
    const BlockId target = request.blocks[position].target;
    KVBM_TRY(const std::uint64_t sum, receive_block(socket, *target_, {0, target, payload_sum},
                                                    staging, {until, options_.silence}));
    sums[position] = sum;
    return {};
  };
  const auto received =
      connection.pull(choice, target_->content()->bytes(), until.deadline, receive);
  if (!received) return Sums(choice.indexes.size(), received.error());
  for (std::size_t i = 0; i < received->size(); ++i) {
    if (!(*received)[i]) sums[i] = (*received)[i].error();
  }
  return sums;
}

// Whether the peer's memory can be read is found out once per session.
std::shared_ptr<const CmaReader> PullExecutor::reader_of(const PeerSession& session) {
  {
    MutexLock lock(mutex_);
    const auto known = readers_.find(session.peer());
    if (known != readers_.end() && known->second.first == session.generation()) {
      return known->second.second;
    }
  }
  std::shared_ptr<const CmaReader> reader;
  if (const auto blockset = decode_blockset(session.blockset()); blockset && blockset->process) {
    const auto host = std::ranges::find(blockset->tiers, Tier::Host, &TierBlocks::tier);
    if (host != blockset->tiers.end()) {
      if (auto opened = CmaReader::open(*blockset->process, *host, target_)) {
        reader = std::make_shared<const CmaReader>(std::move(*opened));
        peers_[session.peer()].set_path(session.generation(), PeerPath::Cma);
      }
    }
  }
  MutexLock lock(mutex_);
  return readers_.insert_or_assign(session.peer(), std::pair(session.generation(), reader))
      .first->second.second;
}

}  // namespace kvbm::remote
