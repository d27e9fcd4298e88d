#include "apps/kvbm/store_inspect.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "apps/kvbm/store_check.h"
#include "store/test_store.h"

namespace kvbm::app {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr std::uint64_t kDay = 86'400;

StoreView view() {
  StoreView view;
  view.directory = "/a/store";
  view.superblock.shape = store::test_shape();
  view.superblock.created = 1'000'000'000;
  view.superblock.counters = {.blocks_written = 10,
                              .payload_bytes_written = 40'960,
                              .index_bytes_written = 2'640,
                              .bytes_served = 5'000};
  view.now = 1'000'000'000 + 2 * kDay;
  return view;
}

TEST(StoreViewTest, CountsWhatWasWrittenPerBlockAndDay) {
  EXPECT_DOUBLE_EQ(view().write_amplification(), 43'600.0 / 2'640);
  EXPECT_DOUBLE_EQ(view().bytes_written_per_day(), 21'800);
}

TEST(StoreViewTest, TellsHowLongTheDiskLastsIfItIsRated) {
  StoreView rated = view();
  EXPECT_FALSE(rated.days_of_life_left().has_value());
  EXPECT_EQ(to_json(rated)["days_of_life_left"], nullptr);
  rated.rated_endurance_bytes = 43'600 + 21'800 * 50;
  EXPECT_DOUBLE_EQ(*rated.days_of_life_left(), 50);
  EXPECT_EQ(to_json(rated)["days_of_life_left"], 50.0);
  EXPECT_THAT(to_table(rated), HasSubstr("days of life left"));
  rated.rated_endurance_bytes = 1;
  EXPECT_DOUBLE_EQ(*rated.days_of_life_left(), 0) << "it was used up long ago";
}

TEST(StoreViewTest, AStoreWithoutAPastDividesByNothing) {
  StoreView fresh = view();
  fresh.superblock.counters = {};
  fresh.now = fresh.superblock.created - 5;  // a clock that was set back
  EXPECT_EQ(fresh.write_amplification(), 0);
  EXPECT_EQ(fresh.bytes_written_per_day(), 0);
  fresh.rated_endurance_bytes = 1000;
  EXPECT_FALSE(fresh.days_of_life_left().has_value());
}

TEST(StoreViewTest, TablesTellOwnersAndTimes) {
  StoreView some = view();
  some.owner = {.pid = 12, .alive = false, .has_it_open = false};
  EXPECT_THAT(to_table(some), HasSubstr("process 12 (gone)"));
  EXPECT_THAT(to_table(some), HasSubstr("2001-09-09 01:46:40 UTC"));
  EXPECT_THAT(to_table(some), Not(HasSubstr("superblock")));
  some.owner = {.pid = 12, .alive = true, .has_it_open = std::nullopt};
  EXPECT_THAT(to_table(some), HasSubstr("process 12 (alive)"));
  some.superblock.created = ~std::uint64_t{0};
  EXPECT_THAT(to_table(some), HasSubstr("9999-12-31"));
  EXPECT_EQ(to_json(some)["owner"]["has_it_open"], nullptr);
}

TEST(StoreViewTest, BarsShowSharesOfAllBlocks) {
  StoreView some = view();
  some.used = 101;
  some.ages = {0, 1, 100, 0, 0, 0};
  const std::string table = to_table(some);
  EXPECT_THAT(table, HasSubstr("1 minute               0\n"));
  EXPECT_THAT(table, HasSubstr("1 hour                 1  #\n"));
  EXPECT_THAT(table, HasSubstr("1 day                100  " + std::string(40, '#') + "\n"));
}

TEST(StoreCheckTest, TablesEndWithTheVerdict) {
  StoreCheck check{.directory = "/a/store", .report = {}};
  EXPECT_TRUE(to_table(check).ends_with("\nclean\n"));
  check.report.damaged_records = {1, 2};
  EXPECT_TRUE(to_table(check).ends_with("\ndamage: 2; --repair takes it out\n"));
  check.report.repeated_puts = {3};
  check.report.repaired = 3;
  EXPECT_TRUE(to_table(check).ends_with("\ndamage: 3, all of it taken out\n"));
  EXPECT_THAT(to_table(check), HasSubstr("puts that came twice    1\n"));
}

class ViewStoreTest : public testing::Test {
 protected:
  ViewStoreTest() {
    std::string name = testing::TempDir() + "kvbm-inspect-XXXXXX";
    directory_ = ::mkdtemp(name.data());
    const auto store = store::open_disk_store(directory_, store::test_shape()).value();
    store->load([](store::Slot, const store::SlotRecord&) {}).value();
    for (store::Slot slot = 0; slot < 4; ++slot) put_block(*store, slot, {.hash = slot + 1});
    store::SlotRecord record;
    put_time_ = (store->read(3, record).value(), record.put_time);
  }
  ~ViewStoreTest() override { std::filesystem::remove_all(directory_); }

  std::string directory_;
  std::uint64_t put_time_ = 0;
};

TEST_F(ViewStoreTest, SortsBlocksByTheirAge) {
  for (std::size_t age = 0; age + 1 < kAges.size(); ++age) {
    const auto seen = view_store(directory_, put_time_ + kAges[age].max_seconds - 5).value();
    EXPECT_EQ(seen.ages[age], 4u);
    EXPECT_EQ(view_store(directory_, put_time_ + kAges[age].max_seconds + 5).value().ages[age + 1],
              4u);
  }
  EXPECT_EQ(view_store(directory_, 0).value().ages[0], 4u) << "a clock that was set back";
}

}  // namespace
}  // namespace kvbm::app
