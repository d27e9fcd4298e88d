#include "physical/transfer/cuda_table.h"

#include <gtest/gtest.h>

namespace kvbm {
namespace {

constexpr auto kToDevice = CudaDirection::ToDevice;
constexpr auto kToHost = CudaDirection::ToHost;

TEST(CudaCopyTableTest, KnowsNothingButTheEnginesAtFirst) {
  const CudaCopyTable table;
  for (std::size_t bytes : {0, 1, 4096, 1 << 30}) {
    EXPECT_EQ(table.choose(kToDevice, bytes), CudaWay::Engine);
    EXPECT_EQ(table.choose(kToHost, bytes), CudaWay::Engine);
  }
}

TEST(CudaCopyTableTest, TheFastestWayIsChosenBySizeAndDirection) {
  CudaCopyTable table;
  table.set(kToDevice, CudaWay::Engine, 1, 10);  // 16 KiB
  table.set(kToDevice, CudaWay::Staged, 1, 11);
  table.set(kToDevice, CudaWay::Kernel, 1, 12);
  EXPECT_EQ(table.choose(kToDevice, 16 << 10), CudaWay::Kernel);
  EXPECT_EQ(table.choose(kToHost, 16 << 10), CudaWay::Engine);
  table.set(kToDevice, CudaWay::Staged, 1, 13);
  EXPECT_EQ(table.choose(kToDevice, 16 << 10), CudaWay::Staged);
  EXPECT_EQ(table.choose(kToDevice, 64 << 10), CudaWay::Engine);
}

TEST(CudaCopyTableTest, TheNearestSizeCounts) {
  CudaCopyTable table;
  table.set(kToHost, CudaWay::Staged, 1, 1);  // 16 KiB
  EXPECT_EQ(table.choose(kToHost, (8 << 10) - 1), CudaWay::Engine);
  EXPECT_EQ(table.choose(kToHost, 8 << 10), CudaWay::Staged);
  EXPECT_EQ(table.choose(kToHost, (32 << 10) - 1), CudaWay::Staged);
  EXPECT_EQ(table.choose(kToHost, 32 << 10), CudaWay::Engine);
  table.set(kToHost, CudaWay::Staged, 5, 1);  // 4 MiB and all above
  EXPECT_EQ(table.choose(kToHost, std::size_t{1} << 40), CudaWay::Staged);
}

TEST(CudaCopyTableTest, AKernelMustBeClearlyFasterThanTheEngines) {
  CudaCopyTable table;
  table.set(kToDevice, CudaWay::Engine, 0, 100);
  table.set(kToDevice, CudaWay::Kernel, 0, 102);
  EXPECT_EQ(table.choose(kToDevice, 4096), CudaWay::Engine);
  table.set(kToDevice, CudaWay::Kernel, 0, 104);
  EXPECT_EQ(table.choose(kToDevice, 4096), CudaWay::Kernel);
}

TEST(CudaCopyTableTest, AlwaysIsWhereverItCanBe) {
  const auto table = CudaCopyTable::always(CudaWay::Kernel);
  EXPECT_EQ(table.choose(kToDevice, 1 << 20), CudaWay::Kernel);
  EXPECT_EQ(table.choose(kToHost, 1 << 20), CudaWay::Engine);
  EXPECT_EQ(table.description(),
            "to the device: 4 KiB kernel 16 KiB kernel 64 KiB kernel 256 KiB kernel 1024 KiB "
            "kernel 4096 KiB kernel; to the host: 4 KiB engine 16 KiB engine 64 KiB engine 256 KiB "
            "engine 1024 KiB engine 4096 KiB engine");
}

}  // namespace
}  // namespace kvbm
