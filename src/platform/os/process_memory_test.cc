#include "platform/os/process_memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <type_traits>
#include <vector>

#include "platform/os/test_child.h"

namespace kvbm {
namespace {

static_assert(!std::is_copy_constructible_v<ProcessMemory>, "one descriptor, one owner");

using Bytes = std::vector<std::byte>;

Bytes pattern(std::size_t count, unsigned first = 0) {
  Bytes bytes(count);
  for (std::size_t i = 0; i < count; ++i) bytes[i] = std::byte((first + i * 7) % 251);
  return bytes;
}

iovec run(const std::byte* data, std::size_t bytes) {
  return {const_cast<std::byte*>(data), bytes};
}

TEST(ProcessIdentityTest, OfThisProcessIsAlwaysTheSame) {
  const auto one = ProcessIdentity::of_this_process().value();
  EXPECT_EQ(one, ProcessIdentity::of_this_process().value());
  EXPECT_EQ(one.pid, static_cast<std::uint32_t>(::getpid()));
  EXPECT_EQ(one.user, ::geteuid());
  EXPECT_NE(one.pid_namespace, 0u);
  EXPECT_NE(one.start_ticks, 0u);
  EXPECT_NE(one.boot_id, (std::array<std::uint8_t, 16>{}));
}

TEST(ProcessMemoryTest, ReadsRunsThatAreCutDifferentlyOnBothSides) {
  Bytes data = pattern(100'000);
  const TestChild child([&] { std::ranges::reverse(data); });
  Bytes expected(data.rbegin(), data.rend());
  const auto memory = ProcessMemory::open(child.identity()).value();
  Bytes read(data.size());
  const iovec remote[] = {run(data.data(), 1), run(data.data() + 1, 0), run(&data[1], 70'000),
                          run(&data[70'001], data.size() - 70'001)};
  const iovec local[] = {run(read.data(), 0), run(read.data(), 4097),
                         run(&read[4097], read.size() - 4097)};
  ASSERT_TRUE(memory.read(local, remote));
  EXPECT_EQ(read, expected);
  EXPECT_TRUE(memory.read({}, {})) << "nothing is no error";
}

TEST(ProcessMemoryTest, ReadsMoreRunsThanOneCallTakes) {
  const Bytes data = pattern(5'000);
  const TestChild child;
  const auto memory = ProcessMemory::open(child.identity()).value();
  Bytes read(data.size());
  // The other way round, and with more empty runs than a call takes before and in between.
  std::vector<iovec> remote(2000, run(data.data(), 0));
  std::vector<iovec> local;
  for (std::size_t i = 0; i < data.size(); ++i) {
    remote.push_back(run(&data[data.size() - 1 - i], 1));
    if (i == 700) remote.insert(remote.end(), 2000, run(data.data(), 0));
  }
  for (std::size_t i = 0; i < data.size(); i += 2) local.push_back(run(&read[i], 2));
  ASSERT_TRUE(memory.read(local, remote));
  EXPECT_EQ(read, Bytes(data.rbegin(), data.rend()));
}

TEST(ProcessMemoryTest, RefusesListsOfDifferentLengths) {
  const TestChild child;
  const auto memory = ProcessMemory::open(child.identity()).value();
  Bytes bytes(10);
  const iovec ten = run(bytes.data(), 10);
  const iovec nine = run(bytes.data(), 9);
  const auto answer = memory.read({&ten, 1}, {&nine, 1});
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::InvalidConfig);
  EXPECT_EQ(answer.error().requested, 10u);
  EXPECT_EQ(answer.error().available, 9u);
}

TEST(ProcessMemoryTest, SaysHowMuchCameBeforeMemoryThatIsNotThere) {
  const TestChild child;
  const auto memory = ProcessMemory::open(child.identity()).value();
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  // Mapped after the child was made: it has nothing there.
  void* const mapped =
      ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(mapped, MAP_FAILED);
  const Bytes there = pattern(100);
  Bytes read(200);
  const iovec remote[] = {run(there.data(), 100), run(static_cast<std::byte*>(mapped), 100)};
  const iovec local = run(read.data(), 200);
  const auto answer = memory.read({&local, 1}, remote);
  ::munmap(mapped, page);
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::OperationFailed);
  EXPECT_EQ(answer.error().native, EFAULT);
  EXPECT_EQ(answer.error().requested, 200u);
  EXPECT_EQ(answer.error().available, 100u);
}

TEST(ProcessMemoryTest, TellsThatTheOwnerHasEnded) {
  const Bytes data = pattern(100);
  TestChild child;
  const ProcessIdentity identity = child.identity();
  const auto memory = ProcessMemory::open(identity).value();
  EXPECT_TRUE(memory.check_alive());
  child.kill();
  EXPECT_EQ(memory.check_alive().error().code, ErrorCode::SourceGone);
  Bytes read(100);
  const iovec remote = run(data.data(), 100);
  const iovec local = run(read.data(), 100);
  const auto answer = memory.read({&local, 1}, {&remote, 1});
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::SourceGone);
  EXPECT_EQ(answer.error().native, ESRCH);
  const auto again = ProcessMemory::open(identity);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, ErrorCode::SourceGone);
}

TEST(ProcessMemoryTest, RefusesAPidThatIsAnotherProcessNow) {
  const TestChild child;
  ProcessIdentity identity = child.identity();
  --identity.start_ticks;
  const auto answer = ProcessMemory::open(identity);
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::SourceGone);
  EXPECT_NE(answer.error().message.find(std::to_string(identity.start_ticks)), std::string::npos)
      << answer.error().message;
  for (const std::uint32_t nobody : {0u, 0xFFFFFFFFu, 0x7FFFFFFFu}) {
    identity.pid = nobody;
    const auto refused = ProcessMemory::open(identity);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::SourceGone);
  }
}

TEST(ProcessMemoryTest, RefusesAnotherMachineNamespaceAndUserAndNamesBoth) {
  const TestChild child;
  const ProcessIdentity identity = child.identity();
  const auto expect_refused = [](const ProcessIdentity& other, const std::string& theirs,
                                 const std::string& ours) {
    const auto answer = ProcessMemory::open(other);
    ASSERT_FALSE(answer);
    EXPECT_EQ(answer.error().code, ErrorCode::NotAccessible);
    EXPECT_NE(answer.error().message.find(theirs), std::string::npos) << answer.error().message;
    EXPECT_NE(answer.error().message.find(ours), std::string::npos) << answer.error().message;
  };
  ProcessIdentity other = identity;
  other.boot_id = {0xAB, 0x01};
  expect_refused(other, "ab010000000000000000000000000000", "boot id");
  other = identity;
  other.pid_namespace = 77;
  expect_refused(other, " 77,", std::to_string(identity.pid_namespace));
  other = identity;
  other.user += 5;
  expect_refused(other, std::to_string(other.user), std::to_string(identity.user));
}

}  // namespace
}  // namespace kvbm
