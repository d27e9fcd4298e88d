// A CUDA driver in host memory, a shared library named libcuda.so.1: what tests of the code above
// the driver run against. It has exactly the functions of platform/cuda/driver.h.
//
// It is stricter and lazier than a device: streams do nothing until somebody asks for an event,
// then a few operations of streams chosen at random; a copy reads its source only when its turn
// comes; an address of the device cannot be dereferenced; a call without a current context, a copy
// across registrations, a kernel that reads unregistered memory and an operation on freed memory
// are errors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace kvbm::fake_cuda {

// Objects that exist.
struct Live {
  std::size_t contexts = 0;  // retentions of the primary context
  std::size_t allocations = 0;
  std::size_t registrations = 0;
  std::size_t streams = 0;
  std::size_t events = 0;
  std::size_t modules = 0;
  friend bool operator==(const Live&, const Live&) = default;
};

// Threads: any.
class Control {
 public:
  virtual ~Control() = default;
  // No faults, all abilities, no calls counted; random choices begin at `seed`. Objects stay.
  virtual void reset(std::uint64_t seed) = 0;
  virtual Live live() const = 0;

  // Calls since reset(): of that function, or of all but those that release something.
  virtual std::size_t calls(const std::string& function) const = 0;
  virtual std::size_t calls() const = 0;
  // The call of that number since reset(), as counted by calls(), answers `status` and does
  // nothing.
  virtual void fail(const std::string& function, std::size_t call, int status) = 0;
  virtual void fail(std::size_t call, int status) = 0;
  // From the operation of that number on, of all streams together, the device is broken: no
  // operation runs, and every call answers `status` but those that release something.
  virtual void break_at_operation(std::size_t operation, int status) = 0;
  // The streams stop, or go on.
  virtual void stop_streams(bool stopped) = 0;
  virtual void limit_memory(std::size_t bytes) = 0;    // that allocations together may have
  virtual void hide(const std::string& function) = 0;  // from cuGetProcAddress

  // Operations that streams have been given and have not done.
  virtual std::size_t waiting() const = 0;
  // Forgets them, as a reset of the device would.
  virtual void drop_work() = 0;
};

// Names the library's one other function.
inline constexpr const char* kControlSymbol = "kvbm_fake_cuda_control";
using GetControl = Control*();

}  // namespace kvbm::fake_cuda
