#include "platform/os/pages.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdint>
#include <fstream>
#include <limits>
#include <type_traits>

namespace kvbm {
namespace {

static_assert(!std::is_copy_constructible_v<Pages> && !std::is_move_constructible_v<Pages>,
              "one mapping, one owner");

constexpr Pages::Kind kKinds[] = {Pages::Kind::Plain, Pages::Kind::Pinned};

bool is_mapped(const std::byte* address) {
  const std::uint64_t wanted = reinterpret_cast<std::uintptr_t>(address);
  std::ifstream maps("/proc/self/maps");
  std::string line;
  while (std::getline(maps, line)) {
    const std::size_t dash = line.find('-');
    const std::uint64_t begin = std::stoull(line.substr(0, dash), nullptr, 16);
    const std::uint64_t end = std::stoull(line.substr(dash + 1), nullptr, 16);
    if (begin <= wanted && wanted < end) return true;
  }
  return false;
}

TEST(PagesTest, AreZeroedAlignedAndWritable) {
  for (Pages::Kind kind : kKinds) {
    for (std::size_t bytes : {1u, 4095u, 4096u, 4097u, 3u << 20}) {
      const auto pages = Pages::map(bytes, kind).value();
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(pages->data()) % 4096, 0u);
      for (std::size_t i = 0; i < bytes; ++i) {
        ASSERT_EQ(pages->data()[i], std::byte{0});
        pages->data()[i] = std::byte{255};
      }
    }
  }
}

TEST(PagesTest, DescriptionTellsKindAndLocking) {
  EXPECT_EQ(Pages::map(4096, Pages::Kind::Plain).value()->description(), "4 KiB pages");
  const std::string pinned = Pages::map(4096, Pages::Kind::Pinned).value()->description();
  EXPECT_NE(pinned.find("pages"), std::string::npos) << pinned;
  EXPECT_NE(pinned.find(", locked"), pinned.find(", not locked (")) << "exactly one: " << pinned;
}

TEST(PagesTest, AreUnmappedWithTheirOwner) {
  constexpr std::size_t kBytes = std::size_t{64} << 20;
  for (Pages::Kind kind : kKinds) {
    auto pages = Pages::map(kBytes, kind).value();
    const std::byte* const middle = pages->data() + kBytes / 2;
    EXPECT_TRUE(is_mapped(middle));
    pages.reset();
    EXPECT_FALSE(is_mapped(middle));
  }
}

TEST(PagesTest, MoreThanTheKernelHasIsRefused) {
  for (Pages::Kind kind : kKinds) {
    const std::size_t bytes = std::size_t{1} << 60;
    const auto pages = Pages::map(bytes, kind);
    ASSERT_FALSE(pages.has_value());
    EXPECT_EQ(pages.error().code, ErrorCode::AllocationFailed);
    EXPECT_EQ(pages.error().requested, bytes);
    EXPECT_EQ(pages.error().native, ENOMEM);
  }
}

TEST(PagesTest, ANumaNodeIsPreferredIfItExists) {
  const auto pages = Pages::map(4096, Pages::Kind::Pinned, 0u).value();
  EXPECT_NE(pages->description().find(", NUMA node 0"), std::string::npos) << pages->description();
  pages->data()[0] = std::byte{1};
  const auto absent = Pages::map(4096, Pages::Kind::Pinned, 4000u);
  ASSERT_FALSE(absent.has_value());
  EXPECT_EQ(absent.error().code, ErrorCode::InvalidConfig);
  EXPECT_EQ(absent.error().requested, 4000u);
  EXPECT_GE(absent.error().available, 1u);
}

TEST(PagesTest, SizesThatOverflowWhenRoundedAreRefused) {
  for (Pages::Kind kind : kKinds) {
    const auto pages = Pages::map(std::numeric_limits<std::size_t>::max(), kind);
    ASSERT_FALSE(pages.has_value());
    EXPECT_EQ(pages.error().code, ErrorCode::InvalidConfig);
  }
}

}  // namespace
}  // namespace kvbm
