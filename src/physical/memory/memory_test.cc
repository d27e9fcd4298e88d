#include "physical/memory/memory.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <type_traits>
#include <vector>

namespace kvbm {
namespace {

namespace fs = std::filesystem;

static_assert(Storage<SystemStorage> && Storage<PinnedStorage> && Storage<DeviceStorage> &&
              Storage<DiskStorage>);
static_assert(!Storage<int> && !Storage<detail::Memory>);
static_assert(!std::is_convertible_v<SystemStorage, DeviceStorage> &&
                  !std::is_constructible_v<PinnedStorage, DeviceStorage>,
              "storages of different tiers must not mix");

// A folder that disappears with the test.
class TestFolder {
 public:
  TestFolder() : path_(testing::TempDir() + "/kvbm-memory-test-XXXXXX") {
    if (!::mkdtemp(path_.data())) std::abort();
  }
  ~TestFolder() { fs::remove_all(path_); }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;
  const std::string& path() const { return path_; }
  std::size_t entries() const {
    return static_cast<std::size_t>(
        std::distance(fs::directory_iterator(path_), fs::directory_iterator()));
  }

 private:
  std::string path_;
};

template <class Allocator>
class HostAllocatorTest : public testing::Test {};
using HostAllocators = testing::Types<SystemAllocator, PinnedAllocator, HostBackedDeviceAllocator>;
TYPED_TEST_SUITE(HostAllocatorTest, HostAllocators);

template <class Allocator>
constexpr StorageType::Kind kKindOf = StorageType::Kind::System;
template <>
constexpr StorageType::Kind kKindOf<PinnedAllocator> = StorageType::Kind::Pinned;

TYPED_TEST(HostAllocatorTest, GivesZeroedAlignedMemoryOfTheSize) {
  for (std::size_t bytes : {1u, 4096u, 100003u}) {
    auto storage = TypeParam().allocate(bytes).value();
    EXPECT_EQ(storage.size(), bytes);
    EXPECT_EQ(storage.addr() % 4096, 0u);
    EXPECT_EQ(storage.storage_type(), (StorageType{kKindOf<TypeParam>, 0}));
    ASSERT_NE(storage.as_ptr(), nullptr);
    EXPECT_EQ(storage.as_ptr(), storage.as_mut_ptr());
    EXPECT_EQ(storage.addr(), reinterpret_cast<std::uintptr_t>(storage.as_ptr()));
    EXPECT_EQ(storage.memory()->file(), nullptr);
    EXPECT_FALSE(storage.description().empty());
    for (std::size_t i = 0; i < bytes; ++i) ASSERT_EQ(storage.as_ptr()[i], std::byte{0});
    std::fill_n(storage.as_mut_ptr(), bytes, std::byte{1});
  }
}

TYPED_TEST(HostAllocatorTest, CopiesShareTheMemory) {
  auto first = TypeParam().allocate(100).value();
  {
    auto second = first;
    second.as_mut_ptr()[99] = std::byte{5};
  }
  EXPECT_EQ(first.as_ptr()[99], std::byte{5});
}

TYPED_TEST(HostAllocatorTest, RefusesNothingAndTooMuch) {
  const auto empty = TypeParam().allocate(0);
  ASSERT_FALSE(empty.has_value());
  EXPECT_EQ(empty.error().code, ErrorCode::InvalidConfig);

  const std::size_t large = std::size_t{1} << 60;
  const auto too_large = TypeParam().allocate(large);
  ASSERT_FALSE(too_large.has_value());
  EXPECT_EQ(too_large.error().code, ErrorCode::AllocationFailed);
  EXPECT_EQ(too_large.error().requested, large);
  EXPECT_NE(too_large.error().native, 0);

  const auto absurd = TypeParam().allocate(std::numeric_limits<std::size_t>::max());
  ASSERT_FALSE(absurd.has_value());
  EXPECT_EQ(absurd.error().code, ErrorCode::InvalidConfig);
}

TEST(DiskAllocatorTest, GivesAZeroedFileWithoutAnAddress) {
  const TestFolder folder;
  DiskAllocator allocator(folder.path());
  auto storage = allocator.allocate(8192).value();
  File* const file = storage.memory()->file();
  ASSERT_NE(file, nullptr);
  EXPECT_EQ(storage.size(), 8192u);
  EXPECT_EQ(storage.addr(), 0u);
  EXPECT_EQ(storage.as_ptr(), nullptr);
  EXPECT_EQ(storage.as_mut_ptr(), nullptr);
  EXPECT_EQ(storage.storage_type().kind, StorageType::Kind::Disk);
  EXPECT_EQ(storage.storage_type().id, static_cast<std::uint64_t>(file->descriptor()));
  EXPECT_EQ(storage.description(), file->description());

  auto page = SystemAllocator().allocate(8192).value();
  std::fill_n(page.as_mut_ptr(), 8192, std::byte{1});
  ASSERT_TRUE(file->read({page.as_mut_ptr(), 8192}, 0).has_value());
  EXPECT_TRUE(std::all_of(page.as_ptr(), page.as_ptr() + 8192,
                          [](std::byte byte) { return byte == std::byte{0}; }));
}

TEST(DiskAllocatorTest, LeavesNothingBehind) {
  const TestFolder folder;
  DiskAllocator allocator(folder.path());
  const auto storage = allocator.allocate(8192).value();
  EXPECT_EQ(folder.entries(), 0u);
}

TEST(DiskAllocatorTest, ClosesItsFileWithTheLastStorage) {
  const TestFolder folder;
  int descriptor = -1;
  {
    DiskAllocator allocator(folder.path());
    const auto storage = allocator.allocate(8192).value();
    descriptor = storage.memory()->file()->descriptor();
    EXPECT_NE(::fcntl(descriptor, F_GETFD), -1);
  }
  EXPECT_EQ(::fcntl(descriptor, F_GETFD), -1);
}

TEST(DiskAllocatorTest, RefusesNothingTooMuchAndAMissingDirectory) {
  const TestFolder folder;
  DiskAllocator allocator(folder.path());
  const auto empty = allocator.allocate(0);
  ASSERT_FALSE(empty.has_value());
  EXPECT_EQ(empty.error().code, ErrorCode::InvalidConfig);

  for (std::size_t bytes : {std::size_t{1} << 50, std::numeric_limits<std::size_t>::max()}) {
    const auto too_large = allocator.allocate(bytes);
    ASSERT_FALSE(too_large.has_value());
    EXPECT_EQ(too_large.error().code, ErrorCode::AllocationFailed);
    EXPECT_EQ(too_large.error().requested, bytes);
    EXPECT_GT(too_large.error().available, 0u);
  }

  const auto missing = DiskAllocator(folder.path() + "/missing").allocate(8192);
  ASSERT_FALSE(missing.has_value());
  EXPECT_EQ(missing.error().code, ErrorCode::OperationFailed);
  EXPECT_EQ(folder.entries(), 0u);
}

TEST(StorageTypeTest, KindsHaveNames) {
  EXPECT_STREQ(to_string(StorageType::Kind::System), "system");
  EXPECT_STREQ(to_string(StorageType::Kind::Device), "device");
  EXPECT_STREQ(to_string(StorageType::Kind::Pinned), "pinned");
  EXPECT_STREQ(to_string(StorageType::Kind::Disk), "disk");
}

}  // namespace
}  // namespace kvbm
