#include "platform/uring/io_queue.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <future>
#include <map>
#include <random>
#include <thread>

#include "platform/os/fake_file.h"
#include "platform/os/pages.h"

namespace kvbm {
namespace {

using Wait = IoQueue::Wait;
using Op = IoRequest::Op;

constexpr std::size_t kDepth = 8;
constexpr std::size_t kUnit = 4096;

// GTEST_RANDOM_SEED repeats a run.
std::uint64_t random_seed() {
  const int given = GTEST_FLAG_GET(random_seed);
  return given != 0 ? static_cast<std::uint64_t>(given) : std::random_device()() % 99999 + 1;
}

// Memory that any file can read into.
class Buffer {
 public:
  explicit Buffer(std::size_t bytes)
      : pages_(Pages::map(bytes, Pages::Kind::Plain).value()), bytes_(bytes) {}
  std::span<std::byte> all() { return {pages_->data(), bytes_}; }
  std::span<std::byte> part(std::size_t offset, std::size_t bytes) {
    return all().subspan(offset, bytes);
  }
  void fill(std::mt19937_64& random) {
    for (std::byte& byte : all()) byte = std::byte(random());
  }

 private:
  std::unique_ptr<Pages> pages_;
  std::size_t bytes_;
};

// Collects answers until nothing is in flight.
std::map<std::uint64_t, Result<void>> finish_all(IoQueue& queue) {
  std::vector<IoDone> done;
  while (queue.in_flight() > 0) queue.poll(Wait::ForOne, done);
  std::map<std::uint64_t, Result<void>> answers;
  for (IoDone& each : done) {
    EXPECT_TRUE(answers.emplace(each.tag, std::move(each.result)).second) << "answered twice";
  }
  return answers;
}

Result<void> run(IoQueue& queue, const IoRequest& request) {
  queue.push(request);
  return finish_all(queue).at(request.tag);
}

void expect_error(const Result<void>& result, ErrorCode code, std::int32_t native,
                  std::uint64_t requested, std::uint64_t available) {
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, code) << result.error().to_string();
  EXPECT_EQ(result.error().native, native) << result.error().to_string();
  EXPECT_EQ(result.error().requested, requested);
  EXPECT_EQ(result.error().available, available);
}

std::shared_ptr<File> make_file(std::uint64_t bytes) {
  return create_temporary_file(testing::TempDir(), bytes).value();
}

// A descriptor as a File that promises `bytes`, whatever it is.
class Descriptor final : public File {
 public:
  Descriptor(int descriptor, std::uint64_t bytes) : descriptor_(descriptor), bytes_(bytes) {}
  ~Descriptor() override {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  Result<void> read(std::span<std::byte>, std::uint64_t) override { std::abort(); }
  Result<void> write(std::span<const std::byte>, std::uint64_t) override { std::abort(); }
  Result<void> sync() override { std::abort(); }
  Result<void> resize(std::uint64_t) override { std::abort(); }
  bool is_removed() const noexcept override { return false; }
  std::uint64_t size() const noexcept override { return bytes_; }
  std::size_t io_alignment() const noexcept override { return 1; }
  int descriptor() const noexcept override { return descriptor_; }
  const std::string& description() const noexcept override { return description_; }

 private:
  int descriptor_;
  std::uint64_t bytes_;
  std::string description_ = "a descriptor";
};

// What every queue does, on a real file.
class IoQueueTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (GetParam() == std::string("blocking")) {
      queue_ = create_blocking_queue(kDepth);
      return;
    }
    auto made = create_uring_queue(kDepth);
    if (!made) GTEST_SKIP() << made.error().to_string();
    queue_ = std::move(*made);
  }

  std::unique_ptr<IoQueue> queue_;
};

INSTANTIATE_TEST_SUITE_P(Blocking, IoQueueTest, testing::Values("blocking"));
INSTANTIATE_TEST_SUITE_P(Uring, IoQueueTest, testing::Values("uring"));

TEST_P(IoQueueTest, BytesComeBackWhereTheyWereWritten) {
  const std::uint64_t seed = random_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  constexpr std::size_t kPieces = 64;
  const auto file = make_file(kPieces * kUnit);
  Buffer from(kPieces * kUnit);
  Buffer to(kPieces * kUnit);
  from.fill(random);
  std::vector<std::size_t> order(kPieces);
  for (std::size_t i = 0; i < kPieces; ++i) order[i] = i;

  for (const Op op : {Op::Write, Op::Read}) {
    Buffer& memory = op == Op::Write ? from : to;
    std::shuffle(order.begin(), order.end(), random);
    std::vector<IoDone> done;
    std::vector<int> answers(kPieces);
    for (std::size_t next = 0; next < kPieces || queue_->in_flight() > 0;) {
      while (next < kPieces && queue_->in_flight() < queue_->depth()) {
        const std::size_t piece = order[next++];
        queue_->push({op, file.get(), {memory.part(piece * kUnit, kUnit)}, piece * kUnit, piece});
      }
      done.clear();
      queue_->poll(random() % 2 == 0 ? Wait::No : Wait::ForOne, done);
      for (const IoDone& each : done) {
        EXPECT_TRUE(each.result.has_value());
        ++answers[each.tag];
      }
    }
    EXPECT_EQ(answers, std::vector<int>(kPieces, 1));
  }
  EXPECT_EQ(std::memcmp(from.all().data(), to.all().data(), kPieces * kUnit), 0);
}

TEST_P(IoQueueTest, OneRunOfAFileFillsManyRunsOfMemory) {
  const std::uint64_t seed = random_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const auto file = make_file(8 * kUnit);
  Buffer from(6 * kUnit);
  Buffer to(6 * kUnit);
  from.fill(random);
  // Units 3, 4, 0, 5 of the memory lie at unit 1 of the file and behind it.
  const IoRequest write{
      Op::Write,
      file.get(),
      {from.part(3 * kUnit, 2 * kUnit), from.part(0, kUnit), from.part(5 * kUnit, kUnit)},
      kUnit,
      1};
  EXPECT_EQ(write.bytes(), 4 * kUnit);
  EXPECT_TRUE(run(*queue_, write).has_value());
  EXPECT_TRUE(run(*queue_, {Op::Read,
                            file.get(),
                            {to.part(3 * kUnit, kUnit), to.part(4 * kUnit, kUnit),
                             to.part(0, kUnit), to.part(5 * kUnit, kUnit)},
                            kUnit,
                            2})
                  .has_value());
  std::memset(from.part(kUnit, 2 * kUnit).data(), 0, 2 * kUnit);  // not moved
  EXPECT_EQ(std::memcmp(from.all().data(), to.all().data(), 6 * kUnit), 0);
}

TEST_P(IoQueueTest, NothingMovesBeforeAPoll) {
  const auto file = make_file(kUnit);
  Buffer memory(kUnit);
  memory.all()[0] = std::byte{7};
  queue_->push({Op::Read, file.get(), {memory.all()}, 0, 1});
  EXPECT_EQ(queue_->in_flight(), 1u);
  EXPECT_EQ(memory.all()[0], std::byte{7});
  EXPECT_EQ(finish_all(*queue_).size(), 1u);
  EXPECT_EQ(memory.all()[0], std::byte{0});
  EXPECT_EQ(queue_->in_flight(), 0u);
}

TEST_P(IoQueueTest, ARangeBeyondTheFileIsRefusedAndTheNextRequestServed) {
  const auto file = make_file(4 * kUnit);
  Buffer memory(2 * kUnit);
  queue_->push({Op::Read, file.get(), {memory.all()}, 3 * kUnit, 1});
  queue_->push({Op::Read, file.get(), {memory.all()}, std::uint64_t{0} - kUnit, 2});
  queue_->push({Op::Read, file.get(), {memory.all()}, 2 * kUnit, 3});
  const auto answers = finish_all(*queue_);
  expect_error(answers.at(1), ErrorCode::OutOfBounds, 0, 5 * kUnit, 4 * kUnit);
  EXPECT_EQ(answers.at(2).error().code, ErrorCode::OutOfBounds);
  EXPECT_TRUE(answers.at(3).has_value());
}

TEST_P(IoQueueTest, WhatIsMisalignedIsNamedWithTheUnit) {
  const auto file = make_file(4 * kUnit);
  if (file->io_alignment() == 1) GTEST_SKIP() << file->description();
  const std::uint64_t unit = file->io_alignment();
  Buffer memory(4 * kUnit);
  const std::uint64_t address = reinterpret_cast<std::uintptr_t>(memory.all().data());
  const auto offset = run(*queue_, {Op::Read, file.get(), {memory.part(0, kUnit)}, 512, 1});
  expect_error(offset, ErrorCode::InvalidConfig, 0, 512, unit);
  EXPECT_NE(offset.error().message.find("offset"), std::string::npos);
  const auto length = run(*queue_, {Op::Read, file.get(), {memory.part(0, 100)}, 0, 1});
  expect_error(length, ErrorCode::InvalidConfig, 0, 100, unit);
  EXPECT_NE(length.error().message.find("length"), std::string::npos);
  const auto memory_address = run(*queue_, {Op::Write, file.get(), {memory.part(8, kUnit)}, 0, 1});
  expect_error(memory_address, ErrorCode::InvalidConfig, 0, address + 8, unit);
  EXPECT_NE(memory_address.error().message.find("address"), std::string::npos);
}

TEST_P(IoQueueTest, AFileThatWasCutOffTellsHowMuchItGave) {
  const auto file = make_file(4 * kUnit);
  ASSERT_EQ(::ftruncate(file->descriptor(), 3 * kUnit), 0);
  Buffer memory(2 * kUnit);
  expect_error(run(*queue_, {Op::Read, file.get(), {memory.all()}, 2 * kUnit, 1}),
               ErrorCode::OperationFailed, 0, 2 * kUnit, kUnit);
}

TEST_P(IoQueueTest, AnEarlierWakeEndsTheNextWait) {
  std::vector<IoDone> done;
  queue_->poll(Wait::No, done);
  for (int i = 0; i < 3; ++i) {  // each of them
    queue_->wake();
    queue_->poll(Wait::No, done);
    queue_->poll(Wait::ForOne, done);
  }
  EXPECT_TRUE(done.empty());
}

TEST_P(IoQueueTest, AWakeOfAnotherThreadEndsAWait) {
  std::vector<IoDone> done;
  std::jthread waker([&] { queue_->wake(); });
  queue_->poll(Wait::ForOne, done);
  EXPECT_TRUE(done.empty());
}

TEST_P(IoQueueTest, MayGoWithRequestsThatWerePushedOrBegun) {
  const auto file = make_file(kDepth * kUnit);
  Buffer memory(kDepth * kUnit);
  for (std::size_t i = 0; i < kDepth; ++i) {
    if (i == kDepth / 2) {
      std::vector<IoDone> done;
      queue_->poll(Wait::No, done);
    }
    if (queue_->in_flight() == queue_->depth()) break;
    queue_->push({Op::Read, file.get(), {memory.part(i * kUnit, kUnit)}, i * kUnit, i});
  }
  queue_.reset();
}

TEST_P(IoQueueTest, TellsWhatItIs) {
  EXPECT_EQ(queue_->depth(), kDepth);
  EXPECT_EQ(queue_->description(), GetParam() == std::string("uring")
                                       ? "io_uring, 8 requests deep"
                                       : "blocking reads and writes");
}

// What the kernel answers.
class UringQueueTest : public IoQueueTest {};
INSTANTIATE_TEST_SUITE_P(Uring, UringQueueTest, testing::Values("uring"));

TEST_P(UringQueueTest, AnErrorOfTheKernelIsTold) {
  Descriptor closed(-1, kUnit);
  Buffer memory(kUnit);
  expect_error(run(*queue_, {Op::Read, &closed, {memory.all()}, 0, 1}), ErrorCode::OperationFailed,
               EBADF, kUnit, 0);
  Descriptor full(::open("/dev/full", O_WRONLY | O_CLOEXEC), kUnit);
  const auto written = run(*queue_, {Op::Write, &full, {memory.all()}, 0, 2});
  expect_error(written, ErrorCode::OperationFailed, ENOSPC, kUnit, 0);
  EXPECT_EQ(written.error().message, "write of a descriptor at byte 0");
}

// A pipe gives what is in it, so the rest needs more requests.
TEST_P(UringQueueTest, AShortReadIsContinuedToTheEnd) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  Descriptor pipe(ends[0], 3);
  Buffer memory(3);
  queue_->push({Op::Read, &pipe, {memory.all()}, 0, 1});
  std::vector<IoDone> done;
  for (const char piece : {'a', 'b', 'c'}) {
    EXPECT_TRUE(done.empty());
    ASSERT_EQ(::write(ends[1], &piece, 1), 1);
    // Without a wake the third piece alone would end the wait.
    if (piece != 'c') queue_->wake();
    queue_->poll(Wait::ForOne, done);
  }
  ASSERT_EQ(done.size(), 1u);
  EXPECT_TRUE(done[0].result.has_value());
  EXPECT_EQ(std::memcmp(memory.all().data(), "abc", 3), 0);
  ::close(ends[1]);
}

// The pieces end inside, at the end of and behind the first run.
TEST_P(UringQueueTest, AShortReadIsContinuedInTheRightRun) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  Descriptor pipe(ends[0], 8);
  Buffer memory(10);
  queue_->push({Op::Read,
                &pipe,
                {memory.part(6, 4), memory.part(0, 1), memory.part(1, 1), memory.part(3, 2)},
                0,
                1});
  std::vector<IoDone> done;
  for (const std::string piece : {"ab", "cd", "efg", "h"}) {
    EXPECT_TRUE(done.empty());
    ASSERT_EQ(::write(ends[1], piece.data(), piece.size()), std::ssize(piece));
    if (piece != "h") queue_->wake();
    queue_->poll(Wait::ForOne, done);
  }
  ASSERT_EQ(done.size(), 1u);
  EXPECT_TRUE(done[0].result.has_value());
  EXPECT_EQ(std::memcmp(memory.all().data(), "ef\0gh\0abcd", 10), 0);
  ::close(ends[1]);
}

TEST_P(UringQueueTest, AReadThatStopsTellsHowMuchItMoved) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  Descriptor pipe(ends[0], 3);
  Buffer memory(3);
  ASSERT_EQ(::write(ends[1], "ab", 2), 2);
  ::close(ends[1]);
  expect_error(run(*queue_, {Op::Read, &pipe, {memory.all()}, 0, 1}), ErrorCode::OperationFailed, 0,
               3, 2);
}

// A limit on the size of files cuts the first write short and refuses the rest.
TEST_P(UringQueueTest, AShortWriteTellsHowMuchItMoved) {
  constexpr rlim_t kLimit = 6000;
  std::string path = testing::TempDir() + "/kvbm-short-write-XXXXXX";
  const int made = ::mkostemp(path.data(), O_CLOEXEC);
  ASSERT_GE(made, 0);
  ::unlink(path.c_str());
  Descriptor file(made, 16384);
  std::vector<std::byte> bytes(16384, std::byte{5});

  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  auto* const handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit tight{kLimit, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &tight), 0);
  // A ring of its own: the kernel may write on a thread that has the limits of its creation.
  auto queue = create_uring_queue(1).value();
  const Result<void> result = run(*queue, {.op = Op::Write, .file = &file, .memory = {bytes}});
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);

  expect_error(result, ErrorCode::OperationFailed, EFBIG, 16384, kLimit);
}

TEST(CreateUringQueueTest, ADepthOutOfRangeIsRefused) {
  for (const std::size_t depth : {std::size_t{0}, std::size_t{4097}}) {
    const auto made = create_uring_queue(depth);
    ASSERT_FALSE(made.has_value());
    EXPECT_EQ(made.error().code, ErrorCode::InvalidConfig);
    EXPECT_EQ(made.error().requested, depth);
    EXPECT_EQ(made.error().available, 4096u);
  }
}

TEST(CreateUringQueueTest, WithoutDescriptorsLeftTheReasonIsTold) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none{0, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  const auto made = create_uring_queue(kDepth);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  ASSERT_FALSE(made.has_value());
  EXPECT_EQ(made.error().code, ErrorCode::OperationFailed);
  if (made.error().native != ENOSYS && made.error().native != EPERM) {
    EXPECT_EQ(made.error().native, EMFILE);
  }
}

TEST(BlockingQueueTest, AFaultOfARunIsAFaultOfTheRequest) {
  FakeFile file(3 * kUnit);
  file.set_hook([](const FakeFile::Call& call) {
    return call.number == 1 ? FakeFile::stops_after(100) : FakeFile::Fault{};
  });
  const auto queue = create_blocking_queue(3);
  Buffer memory(3 * kUnit);
  const std::vector<std::span<std::byte>> runs = {memory.part(0, kUnit), memory.part(kUnit, kUnit),
                                                  memory.part(2 * kUnit, kUnit)};
  expect_error(run(*queue, {Op::Read, &file, runs, 0, 1}), ErrorCode::OperationFailed, 0, 3 * kUnit,
               kUnit + 100);
  EXPECT_EQ(file.reads(), 2u);
}

// The blocking queue passes on what the file answers.
TEST(BlockingQueueTest, FaultsOfTheFileAreAnswered) {
  FakeFile file(3 * kUnit);
  file.set_hook([](const FakeFile::Call& call) {
    return call.number == 0   ? FakeFile::fails(EIO)
           : call.number == 1 ? FakeFile::stops_after(100)
                              : FakeFile::Fault{};
  });
  const auto queue = create_blocking_queue(3);
  Buffer memory(kUnit);
  expect_error(run(*queue, {Op::Read, &file, {memory.all()}, 0, 1}), ErrorCode::OperationFailed,
               EIO, kUnit, 0);
  expect_error(run(*queue, {Op::Read, &file, {memory.all()}, 0, 2}), ErrorCode::OperationFailed, 0,
               kUnit, 100);
  EXPECT_TRUE(run(*queue, {Op::Read, &file, {memory.all()}, 0, 3}).has_value());
}

}  // namespace
}  // namespace kvbm
