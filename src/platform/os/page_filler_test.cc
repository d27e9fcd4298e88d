#include "platform/os/page_filler.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cerrno>
#include <latch>
#include <vector>

#include "platform/os/pages.h"

namespace kvbm {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;
using std::chrono::seconds;

std::size_t resident_bytes(std::span<const std::byte> memory) {
  std::vector<unsigned char> pages(memory.size() / 4096);
  EXPECT_EQ(::mincore(const_cast<std::byte*>(memory.data()), memory.size(), pages.data()), 0);
  std::size_t resident = 0;
  for (const unsigned char page : pages) resident += page & 1u;
  return resident * 4096;
}

struct Mapping {
  explicit Mapping(std::size_t size) : pages(Pages::map(size, Pages::Kind::Plain).value()) {
    bytes = {pages->data(), size};
  }
  std::unique_ptr<Pages> pages;
  std::span<std::byte> bytes;
};

TEST(PageFillerTest, FillsFromFrontToBack) {
  const Mapping mapping(24 * kMiB);
  EXPECT_EQ(resident_bytes(mapping.bytes), 0u);
  std::vector<std::size_t> told;
  const auto filler =
      PageFiller::start(mapping.bytes, {.ready = [&](std::size_t bytes) { told.push_back(bytes); }})
          .value();
  ASSERT_TRUE(filler->wait(seconds(60)).has_value());
  EXPECT_EQ(filler->ready_bytes(), 24 * kMiB);
  EXPECT_EQ(resident_bytes(mapping.bytes), 24 * kMiB);
  EXPECT_EQ(told, (std::vector<std::size_t>{8 * kMiB, 16 * kMiB, 24 * kMiB}));
}

TEST(PageFillerTest, TheFirstPieceIsThereOnReturn) {
  const Mapping mapping(64 * kMiB);
  std::latch gate(1);
  const auto filler =
      PageFiller::start(mapping.bytes, {.prepare = [&](std::span<std::byte> piece) -> Result<void> {
                          if (piece.data() != mapping.bytes.data()) gate.wait();
                          return {};
                        }})
          .value();
  EXPECT_EQ(filler->ready_bytes(), 4 * kMiB);
  EXPECT_GE(resident_bytes(mapping.bytes.first(4 * kMiB)), 4 * kMiB);
  const Result<void> waited = filler->wait(seconds(0));
  ASSERT_FALSE(waited.has_value());
  EXPECT_EQ(waited.error().code, ErrorCode::TimedOut);
  EXPECT_EQ(waited.error().requested, 64 * kMiB);
  EXPECT_EQ(waited.error().available, 4 * kMiB);
  gate.count_down();
  EXPECT_TRUE(filler->wait(seconds(60)).has_value());
}

TEST(PageFillerTest, WhatIsSmallIsWholeOnReturn) {
  const Mapping mapping(3 * kMiB);
  const auto filler = PageFiller::start(mapping.bytes, {}).value();
  EXPECT_EQ(filler->ready_bytes(), 3 * kMiB);
  EXPECT_TRUE(filler->wait(seconds(0)).has_value());
}

TEST(PageFillerTest, PiecesEndWhereUnitsDo) {
  const Mapping mapping(40 * kMiB);
  constexpr std::size_t kUnit = 3 * kMiB + 4096;
  std::size_t at = 0;
  const auto filler =
      PageFiller::start(mapping.bytes,
                        {.unit_bytes = kUnit,
                         .prepare = [&](std::span<std::byte> piece) -> Result<void> {
                           EXPECT_EQ(piece.data(), mapping.bytes.data() + at);
                           at += piece.size();
                           const auto end =
                               reinterpret_cast<std::uintptr_t>(piece.data()) + piece.size();
                           EXPECT_TRUE(end % kUnit == 0 || at == mapping.bytes.size());
                           return {};
                         }})
          .value();
  ASSERT_TRUE(filler->wait(seconds(60)).has_value());
  EXPECT_EQ(at, mapping.bytes.size());
}

TEST(PageFillerTest, WhatTheOwnerWroteStays) {
  const Mapping mapping(16 * kMiB);
  for (std::size_t i = 0; i < mapping.bytes.size(); i += 777) mapping.bytes[i] = std::byte{7};
  const auto filler = PageFiller::start(mapping.bytes, {}).value();
  ASSERT_TRUE(filler->wait(seconds(60)).has_value());
  for (std::size_t i = 0; i < mapping.bytes.size(); i += 777) {
    ASSERT_EQ(mapping.bytes[i], std::byte{7});
  }
}

TEST(PageFillerTest, AFailureEndsItAndIsTold) {
  const Mapping mapping(64 * kMiB);
  const auto filler =
      PageFiller::start(mapping.bytes, {.prepare = [&](std::span<std::byte> piece) -> Result<void> {
                          if (piece.data() < mapping.bytes.data() + 10 * kMiB) return {};
                          return Error{ErrorCode::Cuda, 2, 5, 6, "no"};
                        }})
          .value();
  const Result<void> waited = filler->wait(seconds(60));
  ASSERT_FALSE(waited.has_value());
  EXPECT_EQ(waited.error().code, ErrorCode::Cuda);
  EXPECT_EQ(filler->ready_bytes(), 16 * kMiB) << "4, 4 and 8; the next piece failed";
}

TEST(PageFillerTest, AFailureOfTheFirstPieceIsAnError) {
  const Mapping mapping(kMiB);
  const auto filler =
      PageFiller::start(mapping.bytes, {.prepare = [](std::span<std::byte>) -> Result<void> {
                          return Error{ErrorCode::Cuda, 2, 0, 0, "no"};
                        }});
  ASSERT_FALSE(filler.has_value());
  EXPECT_EQ(filler.error().code, ErrorCode::Cuda);
}

TEST(PageFillerTest, PagesThatTheKernelDoesNotGiveAreAnError) {
  // Nobody may write here, so the kernel refuses to make the pages writable.
  const Mapping mapping(16 * kMiB);
  ASSERT_EQ(::mprotect(mapping.bytes.data() + 8 * kMiB, kMiB, PROT_NONE), 0);
  const auto filler = PageFiller::start(mapping.bytes, {}).value();
  const Result<void> waited = filler->wait(seconds(60));
  ASSERT_FALSE(waited.has_value());
  EXPECT_EQ(waited.error().code, ErrorCode::AllocationFailed);
  EXPECT_NE(waited.error().native, 0);
  EXPECT_EQ(waited.error().requested, 16 * kMiB);
  EXPECT_EQ(waited.error().available, 8 * kMiB);
}

TEST(PageFillerTest, StoppingEndsTheWait) {
  const Mapping mapping(64 * kMiB);
  PageFiller* raw = nullptr;
  std::latch known(1);
  const auto filler = PageFiller::start(mapping.bytes, {.ready =
                                                            [&](std::size_t) {
                                                              known.wait();
                                                              raw->stop();
                                                            }})
                          .value();
  raw = filler.get();
  known.count_down();
  const Result<void> waited = filler->wait(seconds(60));
  ASSERT_FALSE(waited.has_value());
  EXPECT_EQ(waited.error().code, ErrorCode::ProgressEngineShutdown);
  EXPECT_LT(filler->ready_bytes(), 64 * kMiB);
}

}  // namespace
}  // namespace kvbm
