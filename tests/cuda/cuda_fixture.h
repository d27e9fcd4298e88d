// What tests of CUDA run against: the fake driver, or with KVBM_TEST_GPU=1 the machine's own.
#pragma once

#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <span>
#include <vector>

#include "fake_cuda/fake_cuda.h"
#include "physical/transfer/cuda_executor.h"
#include "physical/transfer/thread_executor.h"

namespace kvbm {

// On the machine's own device, tests of it are skipped where there is none.
class CudaTest : public testing::Test {
 public:
  static bool on_fake();
  // Requires: on_fake().
  static fake_cuda::Control& fake();

 protected:
  void SetUp() override;
  // Nothing of the driver may be left, unless keeps_objects() was called.
  void TearDown() override;
  void keeps_objects() { keeps_objects_ = true; }

  std::shared_ptr<const cuda::Device> device();

 private:
  std::shared_ptr<const cuda::Device> device_;
  fake_cuda::Live before_;
  bool keeps_objects_ = false;
};

// For tests that need the fake's control; skipped on a device.
class FakeCudaTest : public CudaTest {
 protected:
  void SetUp() override;
};

std::uint64_t test_seed();

// The device of the tests, for those that have no fixture. Errors: Cuda.
Result<std::shared_ptr<const cuda::Device>> open_test_device();

// Bytes of the device, through the driver.
std::vector<std::byte> device_bytes(const std::shared_ptr<const cuda::Device>& device,
                                    std::uint64_t address, std::size_t bytes);
void set_device_bytes(const std::shared_ptr<const cuda::Device>& device, std::uint64_t address,
                      std::span<const std::byte> bytes);

// A layout in memory of some kind, and the same bytes in plain memory, where plain copies show what
// each byte must be.
struct Mirrored {
  enum class Kind : std::uint8_t { Device, Registered, Pageable };
  std::shared_ptr<const Layout> layout;
  std::shared_ptr<const Layout> oracle;
  std::shared_ptr<const cuda::Device> device;

  // Filled with random bytes, in all places between the blocks too.
  static Mirrored make(const std::shared_ptr<const cuda::Device>& device, Kind kind,
                       LayoutType type, LayoutConfig config, std::uint64_t seed);
  // All bytes of the memories, one after the other.
  std::vector<std::byte> bytes() const;
  std::vector<std::byte> oracle_bytes() const;
  // The sum of a block, as the oracle has it.
  std::uint64_t sum(BlockId block) const { return sum_block(*oracle, block).value(); }
};

std::shared_ptr<const CopyPlan> plan_of(const Mirrored& source, const Mirrored& target);
// Does the same with the oracles.
void copy_oracle(const Mirrored& source, const Mirrored& target, std::span<const BlockCopy> blocks);

// The answer of one request, and how often it came.
class Answer {
 public:
  TransferExecutor::Done done();
  // Fails the test where the answer does not come within a minute.
  TransferResult get();

 private:
  struct State {
    std::promise<TransferResult> promise;
    std::atomic<int> calls = 0;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

// Runs a request to its end.
TransferResult run(TransferExecutor& executor, TransferRequest request);

std::unique_ptr<CudaExecutor> make_executor(const std::shared_ptr<const cuda::Device>& device,
                                            const CudaExecutorOptions& options);

// The codes of a result, such as "ok ok Cuda".
std::string codes(const TransferResult& result);

}  // namespace kvbm
