#include "fake_cuda/device.h"

#include <algorithm>
#include <cstring>

namespace kvbm::fake_cuda {
namespace {

// So few that whoever asks is often too early.
constexpr std::size_t kMaxOperationsPerQuery = 100;

bool contains(const Ranges& ranges, std::uint64_t address, std::size_t bytes) {
  auto after = ranges.upper_bound(address);
  if (after == ranges.begin()) return false;
  const auto& [first, size] = *std::prev(after);
  return address - first <= size && bytes <= size - (address - first);
}

bool touches(const Ranges& ranges, std::uint64_t address, std::size_t bytes) {
  return std::any_of(ranges.begin(), ranges.end(), [&](const auto& range) {
    return address < range.first + range.second && range.first < address + bytes;
  });
}

}  // namespace

Fake& Fake::instance() {
  static Fake* const fake = new Fake;  // for ever, like a driver
  return *fake;
}

std::size_t& current_contexts() {
  thread_local std::size_t count = 0;
  return count;
}

void Fake::reset(std::uint64_t seed) {
  const std::lock_guard lock(mutex);
  calls_.clear();
  all_calls_ = 0;
  faults_.clear();
  operations_ = 0;
  break_at_ = ~std::size_t{0};
  broken_ = kSuccess;
  stopped_ = false;
  memory_limit = ~std::size_t{0};
  hidden.clear();
  random_.seed(static_cast<std::minstd_rand::result_type>(seed));
}

Live Fake::live() const {
  const std::lock_guard lock(mutex);
  return {contexts,       allocations.size(), registrations.size(),
          streams.size(), events.size(),      modules.size()};
}

std::size_t Fake::calls(const std::string& function) const {
  const std::lock_guard lock(mutex);
  const auto found = calls_.find(function);
  return found == calls_.end() ? 0 : found->second;
}

std::size_t Fake::calls() const {
  const std::lock_guard lock(mutex);
  return all_calls_;
}

void Fake::fail(const std::string& function, std::size_t call, int status) {
  const std::lock_guard lock(mutex);
  faults_.push_back({function, call, status});
}

void Fake::fail(std::size_t call, int status) { fail({}, call, status); }

void Fake::break_at_operation(std::size_t operation, int status) {
  const std::lock_guard lock(mutex);
  break_at_ = operation;
  break_status_ = status;
}

void Fake::stop_streams(bool stopped) {
  const std::lock_guard lock(mutex);
  stopped_ = stopped;
}

void Fake::limit_memory(std::size_t bytes) {
  const std::lock_guard lock(mutex);
  memory_limit = bytes;
}

void Fake::hide(const std::string& function) {
  const std::lock_guard lock(mutex);
  hidden.insert(function);
}

std::size_t Fake::waiting() const {
  const std::lock_guard lock(mutex);
  std::size_t count = 0;
  for (const auto& stream : working_) count += stream->operations.size();
  return count;
}

void Fake::drop_work() {
  const std::lock_guard lock(mutex);
  for (const auto& stream : working_) stream->operations.clear();
}

Status Fake::enter(const char* function, bool needs_context) {
  const std::size_t of_this = calls_[function]++;
  const std::size_t of_all = all_calls_++;
  for (const Fault& fault : faults_) {
    if (fault.function.empty() ? fault.call == of_all
                               : fault.function == function && fault.call == of_this) {
      return fault.status;
    }
  }
  if (broken_ != kSuccess) return broken_;
  if (needs_context && current_contexts() == 0) return kInvalidContext;
  return kSuccess;
}

std::byte* Fake::resolve(std::uint64_t address, std::size_t bytes, bool registered) const {
  if (address & kDeviceBit) {
    const std::uint64_t real = address & ~kDeviceBit;
    return contains(allocations, real, bytes) ? reinterpret_cast<std::byte*>(real) : nullptr;
  }
  const bool whole = contains(registrations, address, bytes);
  if (!whole && (registered || touches(registrations, address, bytes))) return nullptr;
  return reinterpret_cast<std::byte*>(address);
}

Status Fake::copy(Stream& stream, DeviceAddress target, DeviceAddress source, std::size_t bytes) {
  if (!resolve(target, bytes, false) || !resolve(source, bytes, false)) return kInvalidValue;
  stream.operations.push_back({nullptr, 0, [=, this]() -> Status {
                                 std::byte* const to = resolve(target, bytes, false);
                                 const std::byte* const from = resolve(source, bytes, false);
                                 if (!to || !from) return kIllegalAddress;
                                 std::memcpy(to, from, bytes);
                                 return kSuccess;
                               }});
  return kSuccess;
}

Status Fake::launch(Stream& stream, std::uint64_t table, unsigned count) {
  stream.operations.push_back({nullptr, 0, [=, this]() -> Status {
                                 const auto* fragments = reinterpret_cast<const cuda::CopyRange*>(
                                     resolve(table, count * sizeof(cuda::CopyRange), true));
                                 if (!fragments) return kIllegalAddress;
                                 for (unsigned i = 0; i < count; ++i) {
                                   cuda::CopyRange real = fragments[i];
                                   const auto* from = resolve(real.source, real.bytes, true);
                                   auto* to = resolve(real.target, real.bytes, true);
                                   if (!from || !to) return kIllegalAddress;
                                   real.source = reinterpret_cast<std::uintptr_t>(from);
                                   real.target = reinterpret_cast<std::uintptr_t>(to);
                                   for (unsigned lane = 0; lane < cuda::kLanes; ++lane) {
                                     cuda::copy_range(real, lane);
                                   }
                                 }
                                 return kSuccess;
                               }});
  return kSuccess;
}

bool Fake::step() {
  const auto ready = [](const std::shared_ptr<Stream>& stream) {
    if (stream->operations.empty()) return false;
    const Operation& next = stream->operations.front();
    return !next.event || next.event->reached >= next.records;
  };
  std::vector<Stream*> able;
  for (const auto& stream : working_) {
    if (ready(stream)) able.push_back(stream.get());
  }
  if (able.empty() || stopped_ || broken_ != kSuccess) return false;
  Stream& stream = *able[random_() % able.size()];
  const Operation next = std::move(stream.operations.front());
  stream.operations.pop_front();
  if (next.run) broken_ = operations_ >= break_at_ ? break_status_ : next.run();
  ++operations_;
  return true;
}

void Fake::advance() {
  const std::size_t most = random_() % kMaxOperationsPerQuery;
  for (std::size_t i = 0; i < most && step(); ++i) continue;
  std::erase_if(working_, [](const std::shared_ptr<Stream>& stream) {
    return stream.use_count() == 1 && stream->operations.empty();
  });
}

}  // namespace kvbm::fake_cuda
