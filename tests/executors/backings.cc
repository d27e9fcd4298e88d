#include "executors/backings.h"

#include <gtest/gtest.h>

#include <cstring>
#include <thread>

#include "cuda/cuda_fixture.h"
#include "physical/transfer/file_executor.h"
#include "physical/transfer/thread_executor.h"
#include "platform/os/fake_file.h"

namespace kvbm {
namespace {

constexpr Kind kMemory = Kind::Memory;
constexpr Kind kFile = Kind::File;

Backing memory_backing() {
  return {
      .make = [](std::size_t bytes) { return SystemAllocator().allocate(bytes).value().memory(); },
      .read =
          [](const detail::Memory& memory) {
            return Bytes(memory.data(), memory.data() + memory.bytes());
          },
      .write = [](const detail::Memory& memory,
                  const Bytes& bytes) { std::memcpy(memory.data(), bytes.data(), bytes.size()); }};
}

// Pages, as direct I/O wants them.
Bytes whole(const detail::Memory& memory) {
  auto buffer = SystemAllocator().allocate(memory.bytes()).value();
  memory.file()->read({buffer.as_mut_ptr(), memory.bytes()}, 0).value();
  return Bytes(buffer.as_ptr(), buffer.as_ptr() + memory.bytes());
}

void set_whole(const detail::Memory& memory, const Bytes& bytes) {
  auto buffer = SystemAllocator().allocate(bytes.size()).value();
  std::memcpy(buffer.as_mut_ptr(), bytes.data(), bytes.size());
  memory.file()->write({buffer.as_mut_ptr(), bytes.size()}, 0).value();
}

constexpr std::size_t whole_units(std::size_t bytes) { return (bytes + 4095) / 4096 * 4096; }

Backing real_file_backing() {
  return {.make =
              [](std::size_t bytes) {
                return std::make_shared<detail::Memory>(
                    create_temporary_file(testing::TempDir(), whole_units(bytes)).value());
              },
          .read = whole,
          .write = set_whole};
}

Backing fake_file_backing() {
  return {.make =
              [](std::size_t bytes) {
                return std::make_shared<detail::Memory>(
                    std::make_shared<FakeFile>(whole_units(bytes), 4096));
              },
          .read = whole,
          .write = set_whole};
}

struct HostExecutor final : MadeExecutor {
  HostExecutor(std::unique_ptr<TransferExecutor> which, Backing files) : files_(std::move(files)) {
    executor = std::move(which);
  }
  Backing backing(Kind kind) override { return kind == kFile ? files_ : memory_backing(); }

 private:
  Backing files_;
};

std::unique_ptr<MadeExecutor> make_threads(std::string&) {
  return std::make_unique<HostExecutor>(ThreadExecutor::create(2).value(), real_file_backing());
}

// Runs each task on a thread of its own.
std::unique_ptr<MadeExecutor> make_shared_executor(std::string&) {
  auto executor = std::make_unique<SharedExecutor>(
      [](std::function<void()> task) { std::thread(std::move(task)).detach(); });
  return std::make_unique<HostExecutor>(std::move(executor), fake_file_backing());
}

std::unique_ptr<MadeExecutor> make_uring(std::string& reason) {
  auto executor = FileExecutor::create([] { return create_uring_queue(8); });
  if (!executor) {
    reason = executor.error().to_string();
    return nullptr;
  }
  return std::make_unique<HostExecutor>(std::move(*executor), real_file_backing());
}

std::unique_ptr<MadeExecutor> make_blocking_files(std::string&) {
  auto executor = FileExecutor::create(
      []() -> Result<std::unique_ptr<IoQueue>> { return create_blocking_queue(8); });
  return std::make_unique<HostExecutor>(std::move(*executor), fake_file_backing());
}

// A device, the fake one unless KVBM_TEST_GPU is set.
struct DeviceExecutor final : MadeExecutor {
  explicit DeviceExecutor(std::shared_ptr<const cuda::Device> which, CudaWay way)
      : device_(std::move(which)) {
    executor = make_executor(
        device_, {.threads = 2, .table = CudaCopyTable::always(way), .group_bytes = 65536});
  }
  Backing backing(Kind kind) override {
    if (kind == Kind::File) return real_file_backing();
    if (kind == Kind::Memory) return memory_backing();
    return {
        .make =
            [](std::size_t bytes) { return DeviceAllocator().allocate(bytes).value().memory(); },
        .read =
            [device = device_](const detail::Memory& memory) {
              return device_bytes(device, memory.address(), memory.bytes());
            },
        .write = [device = device_](
                     const detail::Memory& memory,
                     const Bytes& bytes) { set_device_bytes(device, memory.address(), bytes); }};
  }

 private:
  std::shared_ptr<const cuda::Device> device_;
};

template <CudaWay kWay>
std::unique_ptr<MadeExecutor> make_cuda(std::string& reason) {
  auto device = open_test_device();
  if (!device) {
    reason = device.error().to_string();
    return nullptr;
  }
  return std::make_unique<DeviceExecutor>(std::move(*device), kWay);
}

}  // namespace

std::vector<ExecutorCase> executor_cases() {
  const std::vector<std::pair<Kind, Kind>> host = {
      {kMemory, kMemory}, {kMemory, kFile}, {kFile, kMemory}};
  const std::vector<std::pair<Kind, Kind>> files = {{kMemory, kFile}, {kFile, kMemory}};
  const std::vector<std::pair<Kind, Kind>> device = {{kMemory, Kind::Device},
                                                     {Kind::Device, kMemory},
                                                     {kFile, Kind::Device},
                                                     {Kind::Device, kFile}};
  return {{"Threads", host, make_threads},
          {"Shared", host, make_shared_executor},
          {"Uring", files, make_uring},
          {"BlockingFiles", files, make_blocking_files},
          {"CudaEngine", device, make_cuda<CudaWay::Engine>},
          {"CudaStaged", device, make_cuda<CudaWay::Staged>},
          {"CudaKernel", device, make_cuda<CudaWay::Kernel>}};
}

}  // namespace kvbm
