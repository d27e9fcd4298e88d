// The functions of the fake driver. Signatures: platform/cuda/driver.h.
#include <cstdlib>
#include <cstring>

#include "fake_cuda/device.h"

namespace kvbm::fake_cuda {
namespace {

constexpr int kHandle = 7;  // of the only device; not its ordinal
void* const kContext = reinterpret_cast<void*>(0x77);
void* const kFunction = reinterpret_cast<void*>(0x99);

template <class Objects>
typename Objects::mapped_type find(const Objects& objects, void* handle) {
  const auto found = objects.find(handle);
  return found == objects.end() ? nullptr : found->second;
}

}  // namespace
}  // namespace kvbm::fake_cuda

using namespace kvbm::fake_cuda;  // NOLINT: everything here is the C interface of the fake

#define ENTER(needs_context)              \
  Fake& fake = Fake::instance();          \
  const std::lock_guard lock(fake.mutex); \
  if (const Status status = fake.enter(__func__, needs_context)) return status

// Functions that release something are neither counted nor made to fail.
#define ENTER_RELEASE()          \
  Fake& fake = Fake::instance(); \
  const std::lock_guard lock(fake.mutex)

extern "C" {

Control* kvbm_fake_cuda_control() { return &Fake::instance(); }

Status cuInit(unsigned) {
  ENTER(false);
  return kSuccess;
}

Status cuGetErrorName(Status status, const char** name) {
  *name = status == kIllegalAddress ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "CUDA_ERROR_OF_THE_FAKE";
  return kSuccess;
}

Status cuDeviceGet(int* device, int ordinal) {
  ENTER(false);
  *device = kHandle;
  return ordinal == 0 ? kSuccess : kInvalidDevice;
}

Status cuDeviceGetName(char* name, int bytes, int device) {
  ENTER(false);
  std::strncpy(name, "fake", static_cast<std::size_t>(bytes));
  return device == kHandle ? kSuccess : kInvalidDevice;
}

Status cuDeviceGetAttribute(int* value, int, int device) {
  ENTER(false);
  *value = 1;
  return device == kHandle ? kSuccess : kInvalidDevice;
}

Status cuDevicePrimaryCtxRetain(void** context, int device) {
  ENTER(false);
  if (device != kHandle) return kInvalidDevice;
  *context = kContext;
  ++fake.contexts;
  return kSuccess;
}

Status cuDevicePrimaryCtxRelease_v2(int) {
  ENTER_RELEASE();
  --fake.contexts;
  return kSuccess;
}

Status cuCtxPushCurrent_v2(void* context) {
  ENTER(false);
  if (context != kContext || fake.contexts == 0) return kInvalidContext;
  ++current_contexts();
  return kSuccess;
}

Status cuCtxPopCurrent_v2(void** context) {
  *context = kContext;
  --current_contexts();
  return kSuccess;
}

Status cuMemAlloc_v2(DeviceAddress* address, std::size_t bytes) {
  ENTER(true);
  std::size_t used = 0;
  for (const auto& [first, size] : fake.allocations) used += size;
  if (bytes > fake.memory_limit - std::min(fake.memory_limit, used)) return kOutOfMemory;
  void* const memory = std::aligned_alloc(512, (bytes + 511) / 512 * 512);
  if (!memory) return kOutOfMemory;
  std::memset(memory, 0xC5, bytes);  // a device does not clear it
  const auto real = reinterpret_cast<std::uintptr_t>(memory);
  fake.allocations[real] = bytes;
  *address = real | Fake::kDeviceBit;
  return kSuccess;
}

Status cuMemFree_v2(DeviceAddress address) {
  ENTER_RELEASE();
  const std::uint64_t real = address & ~Fake::kDeviceBit;
  if (fake.allocations.erase(real) == 0) return kInvalidValue;
  std::free(reinterpret_cast<void*>(real));
  return kSuccess;
}

Status cuMemsetD8_v2(DeviceAddress address, unsigned char value, std::size_t bytes) {
  ENTER(true);
  std::byte* const memory = fake.resolve(address, bytes, true);
  if (!memory) return kInvalidValue;
  std::memset(memory, value, bytes);
  return kSuccess;
}

Status cuMemHostRegister_v2(void* memory, std::size_t bytes, unsigned) {
  ENTER(true);
  const auto address = reinterpret_cast<std::uintptr_t>(memory);
  if (!fake.resolve(address, bytes, false)) return kAlreadyRegistered;
  if (fake.resolve(address, bytes, true)) return kAlreadyRegistered;
  fake.registrations[address] = bytes;
  return kSuccess;
}

Status cuMemHostUnregister(void* memory) {
  ENTER_RELEASE();
  const auto address = reinterpret_cast<std::uintptr_t>(memory);
  return fake.registrations.erase(address) == 1 ? kSuccess : kNotRegistered;
}

Status cuStreamCreate(void** handle, unsigned) {
  ENTER(true);
  auto stream = std::make_shared<Stream>();
  *handle = stream.get();
  fake.add_stream(stream);
  fake.streams[*handle] = std::move(stream);
  return kSuccess;
}

Status cuStreamDestroy_v2(void* handle) {
  ENTER_RELEASE();
  return fake.streams.erase(handle) == 1 ? kSuccess : kInvalidHandle;
}

Status cuStreamWaitEvent(void* handle, void* event_handle, unsigned) {
  ENTER(true);
  const auto stream = find(fake.streams, handle);
  const auto event = find(fake.events, event_handle);
  if (!stream || !event) return kInvalidHandle;
  stream->operations.push_back({event, event->recorded, nullptr});
  return kSuccess;
}

Status cuEventCreate(void** handle, unsigned) {
  ENTER(true);
  auto event = std::make_shared<Event>();
  *handle = event.get();
  fake.events[*handle] = std::move(event);
  return kSuccess;
}

Status cuEventDestroy_v2(void* handle) {
  ENTER_RELEASE();
  return fake.events.erase(handle) == 1 ? kSuccess : kInvalidHandle;
}

Status cuEventRecord(void* event_handle, void* handle) {
  ENTER(true);
  const auto stream = find(fake.streams, handle);
  const auto event = find(fake.events, event_handle);
  if (!stream || !event) return kInvalidHandle;
  const std::size_t record = ++event->recorded;
  stream->operations.push_back({nullptr, 0, [event, record]() -> Status {
                                  event->reached = record;
                                  return kSuccess;
                                }});
  return kSuccess;
}

Status cuEventQuery(void* handle) {
  ENTER(true);
  const auto event = find(fake.events, handle);
  if (!event) return kInvalidHandle;
  fake.advance();
  return event->reached == event->recorded ? kSuccess : kNotReady;
}

Status cuMemcpyAsync(DeviceAddress target, DeviceAddress source, std::size_t bytes, void* handle) {
  ENTER(true);
  const auto stream = find(fake.streams, handle);
  return stream ? fake.copy(*stream, target, source, bytes) : kInvalidHandle;
}

Status cuModuleLoadData(void** handle, const void* image) {
  ENTER(true);
  if (!image) return kInvalidValue;
  *handle = new char;
  fake.modules.insert(*handle);
  return kSuccess;
}

Status cuModuleUnload(void* handle) {
  ENTER_RELEASE();
  if (fake.modules.erase(handle) == 0) return kInvalidHandle;
  delete static_cast<char*>(handle);
  return kSuccess;
}

Status cuModuleGetFunction(void** function, void* handle, const char* name) {
  ENTER(true);
  if (!fake.modules.contains(handle)) return kInvalidHandle;
  *function = kFunction;
  return std::strcmp(name, "kvbm_copy_ranges") == 0 ? kSuccess : kNotFound;
}

Status cuLaunchKernel(void* function, unsigned grid, unsigned, unsigned, unsigned threads, unsigned,
                      unsigned, unsigned, void* handle, void** parameters, void**) {
  ENTER(true);
  const auto stream = find(fake.streams, handle);
  if (!stream || function != kFunction) return kInvalidHandle;
  if (grid == 0 || threads == 0 || threads > 1024) return kInvalidValue;
  return fake.launch(*stream, *static_cast<DeviceAddress*>(parameters[0]),
                     *static_cast<unsigned*>(parameters[1]));
}

namespace {

Status copy_batch(DeviceAddress* targets, DeviceAddress* sources, std::size_t* bytes,
                  std::size_t count, kvbm::cuda::CopyAttributes* attributes,
                  std::size_t* attribute_starts, std::size_t attribute_count, std::size_t*,
                  void* handle) {
  Fake& fake = Fake::instance();
  const std::lock_guard lock(fake.mutex);
  if (const Status status = fake.enter("cuMemcpyBatchAsync", true)) return status;
  const auto stream = find(fake.streams, handle);
  if (!stream) return kInvalidHandle;
  if (count == 0 || attribute_count != 1 || attribute_starts[0] != 0 ||
      attributes->source_access_order != kvbm::cuda::CopyAttributes::kInStreamOrder) {
    return kInvalidValue;
  }
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t at = count - 1 - i;  // a batch has no order
    if (const Status status = fake.copy(*stream, targets[at], sources[at], bytes[at])) {
      return status;
    }
  }
  return kSuccess;
}

}  // namespace

Status cuGetProcAddress_v2(const char* symbol, void** function, int version, std::uint64_t,
                           int* how) {
  Fake& fake = Fake::instance();
  const std::lock_guard lock(fake.mutex);
  *function = nullptr;
  *how = 1;  // not found
  const bool known = std::strcmp(symbol, "cuMemcpyBatchAsync") == 0 && version == 12080;
  if (!known || fake.hidden.contains(symbol)) return kNotFound;
  *function = reinterpret_cast<void*>(&copy_batch);
  *how = 0;
  return kSuccess;
}

}  // extern "C"
