// The device behind the fake driver. All members need the lock of Fake::mutex.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <vector>

#include "fake_cuda/fake_cuda.h"
#include "platform/cuda/copy_range.h"
#include "platform/cuda/driver.h"

namespace kvbm::fake_cuda {

using cuda::DeviceAddress;
using cuda::Status;

// Of the driver's codes, those that the fake gives by itself.
enum : Status {
  kSuccess = 0,
  kInvalidValue = 1,
  kOutOfMemory = 2,
  kInvalidDevice = 101,
  kInvalidContext = 201,
  kInvalidHandle = 400,
  kNotFound = 500,
  kNotReady = 600,
  kIllegalAddress = 700,
  kAlreadyRegistered = 712,
  kNotRegistered = 713,
};

struct Event {
  std::size_t recorded = 0;  // how often
  std::size_t reached = 0;
};

// What a stream does next: wait for an event, or run something.
struct Operation {
  std::shared_ptr<Event> event;  // waited for until so many records are reached
  std::size_t records = 0;
  std::function<Status()> run;
};

struct Stream {
  std::deque<Operation> operations;
};

// Memory by first address, and the bytes of each.
using Ranges = std::map<std::uint64_t, std::size_t>;

class Fake final : public Control {
 public:
  // Addresses of the device have this bit set, which makes them useless to the CPU.
  static constexpr std::uint64_t kDeviceBit = std::uint64_t{1} << 62;

  static Fake& instance();

  void reset(std::uint64_t seed) override;
  Live live() const override;
  std::size_t calls(const std::string& function) const override;
  std::size_t calls() const override;
  void fail(const std::string& function, std::size_t call, int status) override;
  void fail(std::size_t call, int status) override;
  void break_at_operation(std::size_t operation, int status) override;
  void stop_streams(bool stopped) override;
  void limit_memory(std::size_t bytes) override;
  void hide(const std::string& function) override;
  std::size_t waiting() const override;
  void drop_work() override;

  // Counts a call of a function. Answers what it must answer at once, or kSuccess.
  Status enter(const char* function, bool needs_context);
  // The CPU's address of memory of the device or of the host, null if it is neither whole device
  // memory nor host memory that is registered as one or not at all. `registered`: unregistered
  // memory is refused too.
  std::byte* resolve(std::uint64_t address, std::size_t bytes, bool registered) const;
  Status copy(Stream& stream, DeviceAddress target, DeviceAddress source, std::size_t bytes);
  Status launch(Stream& stream, std::uint64_t table, unsigned count);
  // Does some of the streams' work.
  void advance();

  mutable std::mutex mutex;
  std::size_t contexts = 0;
  Ranges allocations;
  Ranges registrations;
  std::map<void*, std::shared_ptr<Stream>> streams;
  std::map<void*, std::shared_ptr<Event>> events;
  std::set<void*> modules;
  std::size_t memory_limit = ~std::size_t{0};
  std::set<std::string> hidden;

 private:
  struct Fault {
    std::string function;  // empty: any
    std::size_t call;
    Status status;
  };
  // One operation of one stream; false if none can go on.
  bool step();

  std::map<std::string, std::size_t> calls_;
  std::size_t all_calls_ = 0;
  std::vector<Fault> faults_;
  std::vector<std::shared_ptr<Stream>> working_;  // destroyed ones too, until they are done
  std::size_t operations_ = 0;
  std::size_t break_at_ = ~std::size_t{0};
  Status break_status_ = kSuccess;
  Status broken_ = kSuccess;
  bool stopped_ = false;
  std::minstd_rand random_;

 public:
  void add_stream(std::shared_ptr<Stream> stream) { working_.push_back(std::move(stream)); }
};

// The contexts of this thread; there is only one device.
std::size_t& current_contexts();

}  // namespace kvbm::fake_cuda
