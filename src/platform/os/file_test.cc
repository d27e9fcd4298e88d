#include "platform/os/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <vector>

#include "platform/os/fake_file.h"
#include "platform/os/pages.h"

namespace kvbm {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kBeyondAnyDisk = std::uint64_t{1} << 50;

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
  std::span<std::byte> first(std::size_t bytes) { return {pages_->data(), bytes}; }
  std::span<std::byte> all() { return first(bytes_); }
  void fill(std::mt19937_64& random) {
    for (std::byte& byte : all()) byte = std::byte(random());
  }

 private:
  std::unique_ptr<Pages> pages_;
  std::size_t bytes_;
};

// A file by name, new or not, for this owner alone and of this size.
Result<std::shared_ptr<File>> named_file(const std::string& path, std::uint64_t bytes) {
  KVBM_TRY(auto file, open_file(path, {.create = true, .locked = true}));
  KVBM_CHECK_OK(file->resize(bytes));
  return file;
}

std::uint64_t size_on_disk(const File& file) {
  struct stat found{};
  EXPECT_EQ(::fstat(file.descriptor(), &found), 0);
  return static_cast<std::uint64_t>(found.st_size);
}

// Every test runs in a fresh folder of a disk file system and of a memory file system, as far as
// the machine has them.
class FileTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::string parent = std::string(GetParam()).empty() ? testing::TempDir() : GetParam();
    if (!fs::is_directory(parent)) GTEST_SKIP() << "no folder " << parent;
    std::string name = parent + "/kvbm-file-test-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    directory_ = name;
  }
  void TearDown() override {
    if (!directory_.empty()) fs::remove_all(directory_);
  }

  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(directory_)) {
      names.push_back(entry.path().filename());
    }
    return names;
  }

  std::string directory_;
};

INSTANTIATE_TEST_SUITE_P(TempDir, FileTest, testing::Values(""));
INSTANTIATE_TEST_SUITE_P(Shm, FileTest, testing::Values("/dev/shm"));

using Names = std::vector<std::string>;

TEST_P(FileTest, ReadsBackWhatWasWrittenAtAnyOffset) {
  const std::uint64_t seed = random_seed();
  SCOPED_TRACE("GTEST_RANDOM_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  constexpr std::size_t kBytes = 64 * 4096;
  const auto file = create_temporary_file(directory_, kBytes).value();
  const std::size_t unit = file->io_alignment();
  Buffer buffer(kBytes);
  std::vector<std::byte> expected(kBytes);

  for (int i = 0; i < 200; ++i) {
    const std::size_t begin = random() % (kBytes / unit);
    const std::size_t count = random() % (kBytes / unit - begin) + 1;
    buffer.fill(random);
    const auto bytes = buffer.first(count * unit);
    if (i % 2 == 0) {
      ASSERT_TRUE(file->write(bytes, begin * unit).has_value());
      std::copy(bytes.begin(), bytes.end(), expected.begin() + std::ptrdiff_t(begin * unit));
    } else {
      ASSERT_TRUE(file->read(bytes, begin * unit).has_value());
      ASSERT_TRUE(
          std::equal(bytes.begin(), bytes.end(), expected.begin() + std::ptrdiff_t(begin * unit)));
    }
  }
  ASSERT_TRUE(file->read(buffer.all(), 0).has_value());
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), buffer.all().begin()));
}

TEST_P(FileTest, ANewFileIsZeroAndHasItsSpace) {
  constexpr std::size_t kBytes = 16 * 4096 + 100;
  const auto file = create_temporary_file(directory_, kBytes).value();
  EXPECT_EQ(file->size(), kBytes);
  EXPECT_EQ(size_on_disk(*file), kBytes);

  Buffer buffer(16 * 4096);
  std::mt19937_64 random(1);
  buffer.fill(random);
  ASSERT_TRUE(file->read(buffer.all(), 0).has_value());
  for (std::byte byte : buffer.all()) ASSERT_EQ(byte, std::byte{0});

  const std::string& text = file->description();
  if (text.find("preallocated") == std::string::npos) {
    GTEST_SKIP() << "this file system reserves nothing: " << text;
  }
  struct stat found{};
  ASSERT_EQ(::fstat(file->descriptor(), &found), 0);
  EXPECT_GE(found.st_blocks * 512, std::int64_t{kBytes});
}

TEST_P(FileTest, AccessBeyondTheEndIsOutOfBounds) {
  const auto file = create_temporary_file(directory_, 8192).value();
  Buffer buffer(8192);
  const struct {
    std::size_t bytes;
    std::uint64_t offset;
    std::uint64_t end;  // 0: the sum overflows
  } cases[] = {{8192, 4096, 12288}, {4096, 8192, 12288}, {4096, std::uint64_t{0} - 4096, 0}};
  for (const auto& [bytes, offset, end] : cases) {
    for (const Result<void>& result :
         {file->read(buffer.first(bytes), offset), file->write(buffer.first(bytes), offset)}) {
      ASSERT_FALSE(result.has_value());
      EXPECT_EQ(result.error().code, ErrorCode::OutOfBounds);
      EXPECT_EQ(result.error().requested, end);
      EXPECT_EQ(result.error().available, 8192u);
    }
  }
  EXPECT_EQ(size_on_disk(*file), 8192u) << "a refused write must not make the file grow";
  EXPECT_TRUE(file->read(buffer.first(0), 8192).has_value());
  EXPECT_TRUE(file->write(buffer.all(), 0).has_value());
}

TEST_P(FileTest, ANamelessFileLeavesNothingInItsDirectory) {
  {
    const auto file = create_temporary_file(directory_, 8192).value();
    EXPECT_EQ(names(), Names());
    EXPECT_NE(file->description().find(directory_), std::string::npos);
    EXPECT_TRUE(create_temporary_file(directory_, 8192).has_value())
        << "they do not exclude each other";
  }
  EXPECT_EQ(names(), Names());
}

TEST_P(FileTest, ANamedFileStaysWithItsBytes) {
  Buffer buffer(8192);
  std::mt19937_64 random(2);
  buffer.fill(random);
  const std::vector<std::byte> written(buffer.all().begin(), buffer.all().end());
  {
    const auto file = named_file(directory_ + "/blocks", 8192).value();
    EXPECT_NE(file->description().find(directory_ + "/blocks"), std::string::npos);
    ASSERT_TRUE(file->write(buffer.all(), 0).has_value());
  }
  EXPECT_EQ(names(), Names{"blocks"});

  const auto again = named_file(directory_ + "/blocks", 16384).value();
  EXPECT_EQ(again->size(), 16384u);
  EXPECT_EQ(size_on_disk(*again), 16384u);
  ASSERT_TRUE(again->read(buffer.all(), 0).has_value());
  EXPECT_TRUE(std::equal(written.begin(), written.end(), buffer.all().begin()));
  ASSERT_TRUE(again->read(buffer.all(), 8192).has_value());
  for (std::byte byte : buffer.all()) ASSERT_EQ(byte, std::byte{0});
}

TEST_P(FileTest, ASecondOpenerIsRefusedUntilTheFirstIsDone) {
  auto first = named_file(directory_ + "/blocks", 8192).value();

  const auto second = named_file(directory_ + "/blocks", 4096);
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().code, ErrorCode::OperationFailed);
  EXPECT_EQ(second.error().native, EWOULDBLOCK);
  EXPECT_NE(second.error().message.find(directory_ + "/blocks"), std::string::npos);
  EXPECT_EQ(size_on_disk(*first), 8192u) << "the refused opener must not touch the file";
  EXPECT_EQ(names(), Names{"blocks"});

  first.reset();
  EXPECT_TRUE(named_file(directory_ + "/blocks", 4096).has_value());
}

TEST_P(FileTest, AMissingDirectoryIsRefused) {
  for (const auto& file : {create_temporary_file(directory_ + "/missing", 8192),
                           named_file(directory_ + "/missing" + "/blocks", 8192)}) {
    ASSERT_FALSE(file.has_value());
    EXPECT_EQ(file.error().code, ErrorCode::OperationFailed);
    EXPECT_EQ(file.error().native, ENOENT);
    EXPECT_NE(file.error().message.find(directory_ + "/missing"), std::string::npos);
  }
  EXPECT_EQ(names(), Names()) << "the directory is not made";
}

TEST_P(FileTest, APathBelowARegularFileIsRefused) {
  std::ofstream(directory_ + "/regular") << "text";
  for (const auto& file : {create_temporary_file(directory_ + "/regular", 8192),
                           named_file(directory_ + "/regular" + "/blocks", 8192)}) {
    ASSERT_FALSE(file.has_value());
    EXPECT_EQ(file.error().code, ErrorCode::OperationFailed);
    EXPECT_EQ(file.error().native, ENOTDIR);
  }
}

TEST(FileDirectoryTest, ADirectoryWithoutWriteAccessIsRefused) {
  if (!fs::is_directory("/proc")) GTEST_SKIP() << "no /proc here";
  // Not even root may create files there.
  for (const auto& file :
       {create_temporary_file("/proc", 8192), named_file(std::string("/proc") + "/blocks", 8192)}) {
    ASSERT_FALSE(file.has_value());
    EXPECT_EQ(file.error().code, ErrorCode::OperationFailed);
    EXPECT_NE(file.error().native, 0);
  }
}

TEST_P(FileTest, TooLargeASizeIsRefusedWithTheRoomThereIs) {
  for (std::uint64_t bytes : {kBeyondAnyDisk, ~std::uint64_t{0}}) {
    for (const auto& file :
         {create_temporary_file(directory_, bytes), named_file(directory_ + "/blocks", bytes)}) {
      if (file) GTEST_SKIP() << "this file system reserves nothing: " << (*file)->description();
      ASSERT_FALSE(file.has_value());
      EXPECT_EQ(file.error().code, ErrorCode::AllocationFailed);
      EXPECT_NE(file.error().native, 0);
      EXPECT_EQ(file.error().requested, bytes);
      EXPECT_GT(file.error().available, 0u);
      EXPECT_LT(file.error().available, kBeyondAnyDisk);
    }
  }
  EXPECT_EQ(fs::file_size(directory_ + "/blocks"), 0u);
}

TEST_P(FileTest, AnOlderFileStaysWhenItCannotGrow) {
  Buffer buffer(8192);
  std::mt19937_64 random(3);
  buffer.fill(random);
  const std::vector<std::byte> written(buffer.all().begin(), buffer.all().end());
  ASSERT_TRUE(named_file(directory_ + "/blocks", 8192).value()->write(buffer.all(), 0).has_value());

  ASSERT_FALSE(named_file(directory_ + "/blocks", kBeyondAnyDisk).has_value());

  EXPECT_EQ(names(), Names{"blocks"});
  const auto again = named_file(directory_ + "/blocks", 8192).value();
  ASSERT_TRUE(again->read(buffer.all(), 0).has_value());
  EXPECT_TRUE(std::equal(written.begin(), written.end(), buffer.all().begin()));
}

TEST_P(FileTest, ARefusedSizeLeavesAnOlderFilesSizeAlone) {
  ASSERT_TRUE(named_file(directory_ + "/blocks", 8192).has_value());
  ASSERT_FALSE(named_file(directory_ + "/blocks", kBeyondAnyDisk).has_value());
  EXPECT_EQ(fs::file_size(directory_ + "/blocks"), 8192u);
}

TEST_P(FileTest, AFileShrinksAndItsEndIsOutOfBounds) {
  const auto file = named_file(directory_ + "/blocks", 16384).value();
  ASSERT_TRUE(file->resize(4096).has_value());
  EXPECT_EQ(file->size(), 4096u);
  EXPECT_EQ(size_on_disk(*file), 4096u);
  Buffer buffer(4096);
  EXPECT_TRUE(file->read(buffer.all(), 0).has_value());
  EXPECT_EQ(file->read(buffer.all(), 4096).error().code, ErrorCode::OutOfBounds);
  ASSERT_TRUE(file->resize(0).has_value());
  EXPECT_EQ(size_on_disk(*file), 0u);
}

TEST_P(FileTest, AFileThatExistsIsOpenedAtItsSize) {
  ASSERT_TRUE(named_file(directory_ + "/blocks", 12288).has_value());
  const auto file = open_file(directory_ + "/blocks", {.direct = false}).value();
  EXPECT_EQ(file->size(), 12288u);
  EXPECT_EQ(file->io_alignment(), 1u);
  EXPECT_NE(file->description().find("buffered"), std::string::npos);
  EXPECT_EQ(open_file(directory_ + "/other", {}).error().native, ENOENT);
  EXPECT_EQ(names(), Names{"blocks"}) << "nothing is made unless that was asked for";
}

TEST_P(FileTest, AReadOnlyFileIsNotWritten) {
  ASSERT_TRUE(named_file(directory_ + "/blocks", 8192).has_value());
  const auto file =
      open_file(directory_ + "/blocks", {.access = OpenOptions::Access::ReadOnly, .direct = false})
          .value();
  Buffer buffer(4096);
  EXPECT_TRUE(file->read(buffer.all(), 0).has_value());
  EXPECT_EQ(file->write(buffer.all(), 0).error().native, EBADF);
  EXPECT_FALSE(file->resize(4096).has_value());
  EXPECT_EQ(size_on_disk(*file), 8192u);
}

TEST_P(FileTest, ANewFileIsItsOwnersAlone) {
  ASSERT_TRUE(named_file(directory_ + "/blocks", 4096).has_value());
  const auto permissions = fs::status(directory_ + "/blocks").permissions();
  EXPECT_EQ(permissions, fs::perms::owner_read | fs::perms::owner_write);
}

TEST_P(FileTest, SyncsAndKnowsWhetherItHasAName) {
  const auto file = named_file(directory_ + "/blocks", 4096).value();
  EXPECT_TRUE(file->sync().has_value());
  EXPECT_TRUE(sync_directory(directory_).has_value());
  EXPECT_FALSE(file->is_removed());
  fs::remove(directory_ + "/blocks");
  EXPECT_TRUE(file->is_removed());
  EXPECT_EQ(sync_directory(directory_ + "/blocks").error().native, ENOENT);
}

TEST_P(FileTest, IoAlignmentTellsWhetherTheFileIsDirect) {
  const auto file = create_temporary_file(directory_, 8192).value();
  const bool direct = (::fcntl(file->descriptor(), F_GETFL) & O_DIRECT) != 0;
  EXPECT_EQ(file->io_alignment(), direct ? 4096u : 1u);
  EXPECT_EQ(file->description().find("O_DIRECT") != std::string::npos, direct);
  EXPECT_EQ(file->description().find("buffered") != std::string::npos, !direct);
}

TEST_P(FileTest, UnalignedDirectAccessIsAnError) {
  const auto file = create_temporary_file(directory_, 8192).value();
  if (file->io_alignment() == 1) GTEST_SKIP() << file->description();
  Buffer buffer(8192);
  if (file->read(buffer.first(100), 1)) {
    GTEST_SKIP() << "this file system serves unaligned access: " << file->description();
  }
  for (const Result<void>& result :
       {file->read(buffer.first(100), 0), file->read(buffer.first(4096), 1),
        file->write(buffer.first(100), 0), file->write(buffer.first(4096), 1)}) {
    ASSERT_FALSE(result.has_value());
    EXPECT_EQ(result.error().code, ErrorCode::OperationFailed);
    EXPECT_EQ(result.error().native, EINVAL);
    EXPECT_EQ(result.error().available, 0u);
  }
}

TEST_P(FileTest, ATruncatedFileFailsWithTheBytesThatCame) {
  const auto file = create_temporary_file(directory_, 16384).value();
  ASSERT_EQ(::ftruncate(file->descriptor(), 8192), 0);
  Buffer buffer(12288);

  const Result<void> part = file->read(buffer.all(), 4096);
  ASSERT_FALSE(part.has_value());
  EXPECT_EQ(part.error().code, ErrorCode::OperationFailed);
  EXPECT_EQ(part.error().native, 0);
  EXPECT_EQ(part.error().requested, 12288u);
  EXPECT_EQ(part.error().available, 4096u);

  const Result<void> nothing = file->read(buffer.first(4096), 12288);
  ASSERT_FALSE(nothing.has_value());
  EXPECT_EQ(nothing.error().code, ErrorCode::OperationFailed);
  EXPECT_EQ(nothing.error().requested, 4096u);
  EXPECT_EQ(nothing.error().available, 0u);
}

TEST_P(FileTest, AFailedCallReportsErrno) {
  const auto file = create_temporary_file(directory_, 8192).value();
  const int other = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
  ASSERT_GE(other, 0);
  ASSERT_GE(::dup2(other, file->descriptor()), 0);  // reads now fail with EBADF
  ::close(other);
  Buffer buffer(4096);
  const Result<void> result = file->read(buffer.all(), 0);
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, ErrorCode::OperationFailed);
  EXPECT_EQ(result.error().native, EBADF);
  EXPECT_EQ(result.error().requested, 4096u);
}

TEST_P(FileTest, TheDescriptorIsClosedOnExecAndWithTheFile) {
  auto file = named_file(directory_ + "/blocks", 8192).value();
  const int descriptor = file->descriptor();
  EXPECT_NE(::fcntl(descriptor, F_GETFD) & FD_CLOEXEC, 0);
  file.reset();
  EXPECT_EQ(::fcntl(descriptor, F_GETFD), -1);
}

// The fake behaves like the real one, or tests that use it prove nothing.
TEST(FakeFileTest, MovesBytesAndChecksItsBounds) {
  FakeFile file(100);
  std::vector<std::byte> bytes(10, std::byte{7});
  ASSERT_TRUE(file.write(bytes, 90).has_value());
  const Result<void> result = file.write(bytes, 91);
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, ErrorCode::OutOfBounds);
  EXPECT_EQ(result.error().requested, 101u);
  EXPECT_EQ(result.error().available, 100u);
  bytes.assign(10, std::byte{0});
  ASSERT_TRUE(file.read(bytes, 85).has_value());
  EXPECT_EQ(bytes[4], std::byte{0});
  EXPECT_EQ(bytes[5], std::byte{7});
  EXPECT_EQ(file.reads(), 1u);
  EXPECT_EQ(file.writes(), 2u);
}

TEST(FakeFileTest, RefusesUnalignedAccess) {
  FakeFile file(8192, 4096);
  Buffer buffer(8192);
  EXPECT_TRUE(file.read(buffer.all(), 0).has_value());
  EXPECT_EQ(file.read(buffer.first(100), 0).error().native, EINVAL);
  EXPECT_EQ(file.write(buffer.first(4096), 1).error().native, EINVAL);
  EXPECT_EQ(file.read(buffer.all().subspan(1, 4096), 0).error().native, EINVAL);
}

TEST(FakeFileTest, FailsStopsAndFlipsOnDemand) {
  FakeFile file(100);
  const std::vector<std::byte> sevens(10, std::byte{7});
  file.set_hook([](const FakeFile::Call& call) {
    if (call.number == 0) return FakeFile::fails(EIO);
    if (call.number == 1) return FakeFile::stops_after(4);
    return FakeFile::flips(9);
  });

  const Result<void> failed = file.write(sevens, 0);
  ASSERT_FALSE(failed.has_value());
  EXPECT_EQ(failed.error().native, EIO);
  EXPECT_EQ(file.contents()[0], std::byte{0});

  const Result<void> stopped = file.write(sevens, 0);
  ASSERT_FALSE(stopped.has_value());
  EXPECT_EQ(stopped.error().code, ErrorCode::OperationFailed);
  EXPECT_EQ(stopped.error().requested, 10u);
  EXPECT_EQ(stopped.error().available, 4u);
  EXPECT_EQ(file.contents()[3], std::byte{7});
  EXPECT_EQ(file.contents()[4], std::byte{0});

  ASSERT_TRUE(file.write(sevens, 0).has_value());
  EXPECT_EQ(file.contents()[8], std::byte{7});
  EXPECT_EQ(file.contents()[9], ~std::byte{7});
}

}  // namespace
}  // namespace kvbm
