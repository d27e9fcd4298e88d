#include "cuda/cuda_fixture.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <random>

namespace kvbm {
namespace {

// Loaded before the product looks for the driver, which then gets this one for its name.
fake_cuda::Control* load_fake() {
  void* const library = ::dlopen(KVBM_FAKE_CUDA, RTLD_NOW | RTLD_LOCAL);
  if (!library) return nullptr;
  auto* get = reinterpret_cast<fake_cuda::GetControl*>(::dlsym(library, fake_cuda::kControlSymbol));
  return get ? get() : nullptr;
}

fake_cuda::Control* fake_or_null() {
  static fake_cuda::Control* const control = std::getenv("KVBM_TEST_GPU") ? nullptr : load_fake();
  return control;
}

// One copy to its end, through pageable memory.
void copy_now(const std::shared_ptr<const cuda::Device>& device, const cuda::CopyRange& range) {
  if (range.bytes == 0) return;
  const cuda::Current current(*device);
  const auto stream = cuda::Stream::create(device).value();
  const auto event = cuda::Event::create(device).value();
  cuda::CopyBatch().enqueue(*device, stream->handle(), {&range, 1}).value();
  event->record(stream->handle()).value();
  while (!event->reached().value()) continue;
}

}  // namespace

std::uint64_t test_seed() {
  const char* text = std::getenv("KVBM_TEST_SEED");
  static const std::uint64_t seed = text ? std::strtoull(text, nullptr, 10) : 20250601;
  return seed;
}

void CudaTest::SetUp() {
  RecordProperty("seed", std::to_string(test_seed()));
  if (on_fake()) {
    fake().reset(test_seed());
    before_ = fake().live();
  }
  auto opened = cuda::Device::open(0);
  if (!opened && !on_fake()) GTEST_SKIP() << opened.error().to_string();
  ASSERT_TRUE(opened) << opened.error().to_string();
  device_ = std::move(*opened);
}

void CudaTest::TearDown() {
  device_ = nullptr;
  if (!on_fake()) return;
  EXPECT_EQ(fake().waiting(), 0u);
  if (keeps_objects_) return;
  const fake_cuda::Live live = fake().live();
  EXPECT_EQ(live.contexts, before_.contexts);
  EXPECT_EQ(live.allocations, before_.allocations);
  EXPECT_EQ(live.registrations, before_.registrations);
  EXPECT_EQ(live.streams, before_.streams);
  EXPECT_EQ(live.events, before_.events);
  EXPECT_EQ(live.modules, before_.modules);
}

Result<std::shared_ptr<const cuda::Device>> open_test_device() {
  if (CudaTest::on_fake()) CudaTest::fake().reset(test_seed());
  return cuda::Device::open(0);
}

bool CudaTest::on_fake() { return fake_or_null() != nullptr; }

fake_cuda::Control& CudaTest::fake() { return *fake_or_null(); }

std::shared_ptr<const cuda::Device> CudaTest::device() { return device_; }

void FakeCudaTest::SetUp() {
  if (!on_fake()) GTEST_SKIP() << "needs the fake driver";
  CudaTest::SetUp();
}

std::vector<std::byte> device_bytes(const std::shared_ptr<const cuda::Device>& device,
                                    std::uint64_t address, std::size_t bytes) {
  std::vector<std::byte> copy(bytes);
  copy_now(device, {address, reinterpret_cast<std::uintptr_t>(copy.data()), bytes});
  return copy;
}

void set_device_bytes(const std::shared_ptr<const cuda::Device>& device, std::uint64_t address,
                      std::span<const std::byte> bytes) {
  copy_now(device, {reinterpret_cast<std::uintptr_t>(bytes.data()), address, bytes.size()});
}

Mirrored Mirrored::make(const std::shared_ptr<const cuda::Device>& device, Kind kind,
                        LayoutType type, LayoutConfig config, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  // A larger one would put the first block elsewhere in the device's memory than in the oracle's.
  if (kind == Kind::Device) config.alignment = std::min(config.alignment, std::size_t{64});
  const std::size_t bytes = config.storage_bytes(type).value();
  Layout::Memories memories;
  Layout::Memories oracles;
  for (std::size_t i = 0; i < config.storage_count(type); ++i) {
    auto oracle = SystemAllocator().allocate(bytes).value();
    std::generate_n(oracle.as_mut_ptr(), bytes, [&] { return static_cast<std::byte>(random()); });
    const std::span<const std::byte> content(oracle.as_ptr(), bytes);
    if (kind == Kind::Device) {
      auto memory = DeviceAllocator().allocate(bytes).value();
      set_device_bytes(device, memory.addr(), content);
      memories.push_back(memory.memory());
    } else {
      auto memory = PinnedAllocator().allocate(bytes).value();
      std::memcpy(memory.as_mut_ptr(), content.data(), bytes);
      if (kind == Kind::Registered) memory.memory()->register_with(device).value();
      memories.push_back(memory.memory());
    }
    oracles.push_back(oracle.memory());
  }
  return {Layout::create(type, config, std::move(memories)).value(),
          Layout::create(type, config, std::move(oracles)).value(), device};
}

std::vector<std::byte> Mirrored::bytes() const {
  std::vector<std::byte> all;
  for (const auto& memory : layout->memories()) {
    if (memory->data()) {
      all.insert(all.end(), memory->data(), memory->data() + memory->bytes());
    } else {
      const auto part = device_bytes(device, memory->address(), memory->bytes());
      all.insert(all.end(), part.begin(), part.end());
    }
  }
  return all;
}

std::vector<std::byte> Mirrored::oracle_bytes() const {
  std::vector<std::byte> all;
  for (const auto& memory : oracle->memories()) {
    all.insert(all.end(), memory->data(), memory->data() + memory->bytes());
  }
  return all;
}

std::shared_ptr<const CopyPlan> plan_of(const Mirrored& source, const Mirrored& target) {
  return CopyPlan::create(source.layout, target.layout).value();
}

void copy_oracle(const Mirrored& source, const Mirrored& target,
                 std::span<const BlockCopy> blocks) {
  const auto plan = CopyPlan::create(source.oracle, target.oracle).value();
  for (const BlockCopy& copy : blocks) copy_block(*plan, copy).value();
}

TransferExecutor::Done Answer::done() {
  return [state = state_](TransferResult result) {
    if (state->calls++ == 0) return state->promise.set_value(std::move(result));
    ADD_FAILURE() << "a request was answered twice";
  };
}

TransferResult Answer::get() {
  auto future = state_->promise.get_future();
  if (future.wait_for(std::chrono::minutes(1)) != std::future_status::ready) {
    ADD_FAILURE() << "a request was not answered";
    std::abort();  // the executor would wait for ever
  }
  return future.get();
}

TransferResult run(TransferExecutor& executor, TransferRequest request) {
  Answer answer;
  executor.submit(std::move(request), answer.done());
  return answer.get();
}

std::unique_ptr<CudaExecutor> make_executor(const std::shared_ptr<const cuda::Device>& device,
                                            const CudaExecutorOptions& options) {
  return CudaExecutor::create(device, options, ThreadExecutor::create(1).value()).value();
}

std::string codes(const TransferResult& result) {
  std::string text;
  for (const auto& block : result.blocks) {
    text += text.empty() ? "" : " ";
    text += block ? "ok" : to_string(block.error().code);
  }
  return text;
}

}  // namespace kvbm
