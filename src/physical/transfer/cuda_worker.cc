#include "physical/transfer/cuda_worker.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/xxh3.h"

namespace kvbm {
namespace {

using Side = CopyPlan::Side;

constexpr std::size_t kGroups = 2;
// Every file system's direct I/O is content with it.
constexpr std::size_t kRingAlignment = 4096;

bool all_registered(const Layout& layout) {
  return std::all_of(layout.memories().begin(), layout.memories().end(),
                     [](const auto& memory) { return memory->is_registered(); });
}

Result<void> check_device(const Layout& layout, std::uint32_t ordinal) {
  for (const auto& memory : layout.memories()) {
    const StorageType type = memory->type();
    if (type.kind == StorageType::Kind::Device && type.id != ordinal) {
      return Error{ErrorCode::InvalidConfig, 0, type.id, ordinal,
                   "blocks of CUDA device " + std::to_string(type.id) +
                       " were given to the executor of device " + std::to_string(ordinal)};
    }
  }
  return {};
}

// The sum of what a plan moves, where it lies on the host.
Result<std::uint64_t> sum_on_host(const CopyPlan& plan, const BlockCopy& copy,
                                  CudaDirection direction) {
  const bool to_device = direction == CudaDirection::ToDevice;
  if (plan.is_whole()) {
    return to_device ? sum_block(plan.source(), copy.source)
                     : sum_block(plan.target(), copy.target);
  }
  std::vector<std::uint64_t> sums;
  for (std::size_t region = 0; region < plan.num_regions(); ++region) {
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    for (const CopyPiece& piece : plan.region_pieces(region)) {
      const std::uint64_t at =
          to_device ? piece.source_of(copy.source) : piece.target_of(copy.target);
      XXH3_64bits_update(&state, reinterpret_cast<const std::byte*>(at), piece.bytes);
    }
    sums.push_back(XXH3_64bits_digest(&state));
  }
  return xxh3(sums.data(), sums.size() * sizeof sums[0]);
}

}  // namespace

Result<CudaShared> CudaShared::create(std::shared_ptr<const cuda::Device> device) {
  CudaShared shared;
  shared.device = std::move(device);
  for (CudaLane& lane : shared.lanes) {
    KVBM_TRY(lane.copies, cuda::Stream::create(shared.device));
    KVBM_TRY(lane.kernels, cuda::Stream::create(shared.device));
  }
  // The kernel's table is read at its host address.
  if (!shared.device->shares_host_addresses()) return shared;
  if (auto kernel = cuda::CopyKernel::load(shared.device)) shared.kernel = std::move(*kernel);
  return shared;
}

Result<std::unique_ptr<CudaWorker>> CudaWorker::create(const CudaShared& shared) {
  std::unique_ptr<CudaWorker> worker(new CudaWorker(shared));
  for (Group& group : worker->groups_) {
    KVBM_TRY(group.flight, CudaFlight::create(shared.device, shared.kernel.get()));
  }
  return worker;
}

CudaWorker::~CudaWorker() {
  const cuda::Current current(*shared_.device);
  if (recover(shared_.patience)) return;
  for (Group& group : groups_) keep_for_ever(std::shared_ptr<CudaFlight>(std::move(group.flight)));
  keep_for_ever(std::move(ring_));
  keep_for_ever(std::move(unanswered_));
}

Result<void> CudaWorker::recover(std::chrono::nanoseconds patience) {
  if (!unanswered_) return {};
  for (Group& group : groups_) {
    if (!group.flight->under_way()) continue;
    Result<void> ended = group.flight->end(patience);
    if (group.flight->under_way()) return ended;
  }
  unanswered_ = nullptr;
  return {};
}

Result<CudaWorker::Route> CudaWorker::route_of(const std::shared_ptr<const CopyPlan>& plan) {
  const bool to_device = plan->target_side() == Side::Device;
  if (to_device == (plan->source_side() == Side::Device)) {
    return Error{ErrorCode::NotAccessible, 0, 0, 0,
                 "one side of a copy must be device memory and the other host memory or a file"};
  }
  KVBM_CHECK_OK(
      check_device(to_device ? plan->target() : plan->source(), shared_.device->ordinal()));
  Route route;
  route.direction = to_device ? CudaDirection::ToDevice : CudaDirection::ToHost;
  route.device_plan = plan;
  route.blocks_per_group = std::max(shared_.group_bytes / plan->bytes(), std::size_t{1});
  const Side other = to_device ? plan->source_side() : plan->target_side();
  if (other == Side::File) KVBM_CHECK_OK(add_ring(route, plan));
  const CopyPlan& moved = *route.device_plan;
  route.way = shared_.table.choose(route.direction, moved.bytes() / moved.pieces().size());
  // The kernel reads host memory; the copy engines do that for it where it cannot.
  if (route.way == CudaWay::Kernel && !all_registered(moved.source())) route.way = CudaWay::Engine;
  return route;
}

Result<void> CudaWorker::add_ring(Route& route, const std::shared_ptr<const CopyPlan>& plan) {
  const bool to_device = route.direction == CudaDirection::ToDevice;
  const Layout& file = to_device ? plan->source() : plan->target();
  LayoutConfig shape = file.config();
  shape.alignment = std::max(kRingAlignment, file.memory(0).file()->io_alignment());
  // As many as fit with their padding, which is most of a small block's place.
  const std::size_t units = (plan->bytes() + shape.alignment - 1) / shape.alignment;
  route.blocks_per_group =
      std::max(shared_.group_bytes / (units * shape.alignment), std::size_t{1});
  shape.num_blocks = kGroups * route.blocks_per_group;
  KVBM_TRY(const std::size_t bytes,
           Layout::contiguous_bytes(*file.content(), shape.num_blocks, shape.alignment));
  if (!ring_ || ring_->bytes() < bytes) {
    ring_ = nullptr;  // before the larger one is asked for
    KVBM_TRY(ring_, allocate_for_cuda(shared_.device, bytes));
  }
  KVBM_TRY(auto ring, Layout::contiguous(file.content(), shape, ring_));
  // The request's plan keeps the layouts; these are the same ones.
  const std::shared_ptr<const Layout> source(plan, &plan->source());
  const std::shared_ptr<const Layout> target(plan, &plan->target());
  KVBM_TRY(route.device_plan,
           CopyPlan::create(to_device ? ring : source, to_device ? target : ring));
  KVBM_TRY(route.file_plan, CopyPlan::create(to_device ? source : ring, to_device ? ring : target));
  return {};
}

BlockCopy CudaWorker::device_copy(const Route& route, const TransferRequest& request,
                                  std::size_t i) {
  BlockCopy copy = request.blocks[i];
  if (!route.file_plan) return copy;
  const auto in_ring = static_cast<BlockId>(i % (kGroups * route.blocks_per_group));
  (route.direction == CudaDirection::ToDevice ? copy.source : copy.target) = in_ring;
  return copy;
}

BlockCopy CudaWorker::file_copy(const Route& route, const TransferRequest& request, std::size_t i) {
  BlockCopy copy = request.blocks[i];
  const auto in_ring = static_cast<BlockId>(i % (kGroups * route.blocks_per_group));
  (route.direction == CudaDirection::ToDevice ? copy.target : copy.source) = in_ring;
  return copy;
}

std::vector<Result<std::uint64_t>> CudaWorker::run(const TransferRequest& request) {
  const std::size_t count = request.blocks.size();
  std::vector<Result<std::uint64_t>> sums;
  sums.reserve(count);
  const auto answer_the_rest = [&](const Error& error) {
    while (sums.size() < count) sums.push_back(Error(error));
  };
  const cuda::Current current(*shared_.device);
  Result<void> able = current.check();
  if (able) able = recover(std::chrono::nanoseconds{0});
  if (!able) {
    answer_the_rest(able.error());
    return sums;
  }
  const Result<Route> route = route_of(request.plan);
  if (!route) {
    answer_the_rest(route.error());
    return sums;
  }
  const auto may_begin = [&](std::size_t next) {
    const bool cancelled = request.cancelled && request.cancelled->load(std::memory_order_relaxed);
    return next < count && !cancelled && !unanswered_;
  };
  std::size_t next = 0;
  std::size_t begun = 0;
  std::size_t ended = 0;
  while (begun > ended || may_begin(next)) {
    if (begun - ended < kGroups && may_begin(next)) {
      Group& group = groups_[begun++ % kGroups];
      group.first = next;
      next = std::min(next + route->blocks_per_group, count);
      begin(*route, request, group, next - group.first);
      continue;
    }
    Group& group = groups_[ended++ % kGroups];
    end(*route, request, group);
    std::move(group.sums.begin(), group.sums.end(), std::back_inserter(sums));
  }
  answer_the_rest(
      unanswered_ ? Error{ErrorCode::Cuda, cuda::kNotReady, 0, 0, "the CUDA device does not answer"}
                  : Error{ErrorCode::Cancelled, 0, 0, 0, {}});
  return sums;
}

void CudaWorker::begin(const Route& route, const TransferRequest& request, Group& group,
                       std::size_t count) {
  group.sums.clear();
  ranges_.clear();
  for (std::size_t i = group.first; i < group.first + count; ++i) {
    group.sums.push_back(before_copy(route, request, i));
    if (group.sums.back()) add_ranges(route, device_copy(route, request, i));
  }
  group.flying = !ranges_.empty();
  if (!group.flying) return;
  const CudaLane& lane = shared_.lane(route.direction);
  void* const theirs = request.order.stream;
  const CudaFlight::Order order{.direction = route.direction,
                                .way = route.way,
                                .copies = theirs ? theirs : lane.copies->handle(),
                                .kernels = theirs ? theirs : lane.kernels->handle(),
                                .after_event = request.order.after_event};
  const Result<void> begun = group.flight->begin(order, ranges_);
  if (begun) return;
  for (Result<std::uint64_t>& sum : group.sums) {
    if (sum) sum = Error(begun.error());
  }
}

Result<std::uint64_t> CudaWorker::before_copy(const Route& route, const TransferRequest& request,
                                              std::size_t i) {
  const BlockCopy& copy = request.blocks[i];
  KVBM_CHECK_OK(request.plan->check(copy));
  if (route.direction == CudaDirection::ToHost) return std::uint64_t{0};  // known after the copy
  if (route.file_plan) return move_file(route, request, file_copy(route, request, i), i);
  KVBM_TRY(const std::uint64_t sum, sum_on_host(*route.device_plan, copy, route.direction));
  if (copy.payload_sum && *copy.payload_sum != sum) {
    return Error{ErrorCode::ChecksumMismatch, 0, 0, 0, {}};
  }
  return sum;
}

void CudaWorker::end(const Route& route, const TransferRequest& request, Group& group) {
  Result<void> ended;
  if (group.flying) ended = group.flight->end(shared_.patience);
  if (group.flight->under_way()) unanswered_ = request.plan;
  for (std::size_t i = 0; i < group.sums.size(); ++i) {
    Result<std::uint64_t>& sum = group.sums[i];
    if (!sum) continue;
    sum = ended ? after_copy(route, request, group.first + i, *sum) : Error(ended.error());
  }
}

Result<std::uint64_t> CudaWorker::after_copy(const Route& route, const TransferRequest& request,
                                             std::size_t i, std::uint64_t sum_before) {
  if (route.direction == CudaDirection::ToDevice) return sum_before;
  const BlockCopy copy = device_copy(route, request, i);
  if (!route.device_plan->is_whole()) return sum_on_host(*route.device_plan, copy, route.direction);
  KVBM_TRY(const std::uint64_t sum, verify_block(route.device_plan->target(), copy));
  if (!route.file_plan) return sum;
  BlockCopy summed = file_copy(route, request, i);
  summed.payload_sum = sum;
  return move_file(route, request, summed, i);
}

Result<std::uint64_t> CudaWorker::move_file(const Route& route, const TransferRequest& request,
                                            const BlockCopy& copy, std::size_t i) {
  KVBM_CHECK_OK(check_copy(*route.file_plan, copy));
  KVBM_CHECK_OK(journal_begin(request, request.blocks[i]));
  return journal_end(request, request.blocks[i], copy_block(*route.file_plan, copy));
}

void CudaWorker::add_ranges(const Route& route, const BlockCopy& copy) {
  for (const CopyPiece& piece : route.device_plan->pieces()) {
    add_copy(route.direction,
             {piece.source_of(copy.source), piece.target_of(copy.target), piece.bytes}, ranges_);
  }
}

}  // namespace kvbm
