// export and import, from one directory to another.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>

#include "tests/e2e/replay_run.h"
#include "tests/e2e/store_run.h"

namespace kvbm::e2e {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

class StoreCopyTest : public testing::Test {
 protected:
  StoreCopyTest() { make_store(dir_); }

  Finished run(const std::vector<std::string>& arguments) const {
    return Command(arguments).folder(folder_.path()).run();
  }
  std::string run_well(const std::vector<std::string>& arguments, int exit_code = 0) const {
    const Finished finished = run(arguments);
    EXPECT_EQ(finished.exit_code, exit_code);
    EXPECT_EQ(finished.err, "");
    return finished.out;
  }
  void expect_refused(const std::vector<std::string>& arguments,
                      const std::vector<std::string>& told) const {
    const auto before = contents(folder_.path());
    const Finished finished = run(arguments);
    EXPECT_EQ(finished.exit_code, 2);
    EXPECT_EQ(finished.out, "");
    EXPECT_THAT(finished.err, StartsWith("kvbm: "));
    EXPECT_EQ(std::count(finished.err.begin(), finished.err.end(), '\n'), 1) << finished.err;
    for (const std::string& text : told) EXPECT_THAT(finished.err, HasSubstr(text));
    EXPECT_EQ(contents(folder_.path()), before);
  }
  // An empty store beside the other one.
  std::string make_empty(const std::string& name, std::uint32_t slots = 100) const {
    open_store(folder_ / name, store::test_shape(slots));
    return folder_ / name;
  }

  const TemporaryFolder folder_;
  const std::string dir_ = folder_ / "store";
};

TEST_F(StoreCopyTest, BlocksGoToAnotherStore) {
  EXPECT_EQ(run_well({"export", "store", "blocks"}), "exported                4 blocks, 1.0 KiB\n");
  make_empty("other");
  EXPECT_EQ(run_well({"import", "blocks", "other"}), "imported                4 of 4 blocks\n");
  EXPECT_EQ(run_well({"import", "blocks", "other"}),
            "imported                0 of 4 blocks\nthere already           4\n");
  const auto report = fsck({folder_ / "other", "--deep"}, 0);
  EXPECT_EQ(report["valid"], 4);
  EXPECT_EQ(report["orphans"], 0);
  EXPECT_EQ(report["without_tokens"], 0);
}

TEST_F(StoreCopyTest, BlocksGoThroughAPipe) {
  const std::string other = make_empty("other");
  const Finished piped =
      Command::shell("$KVBM export --hash 3 " + dir_ + " - | $KVBM import - " + other).run();
  EXPECT_EQ(piped.exit_code, 0);
  EXPECT_EQ(piped.out, "imported                3 of 3 blocks\n");
}

TEST_F(StoreCopyTest, PartsOfAStore) {
  EXPECT_THAT(run_well({"export", "store", "a", "--namespace", "7"}), HasSubstr(" 1 blocks"));
  EXPECT_THAT(run_well({"export", "store", "b", "--namespace", "9"}), HasSubstr(" 0 blocks"));
  EXPECT_THAT(run_well({"export", "--hash", "0x2", "store", "c"}), HasSubstr(" 2 blocks"));
  EXPECT_THAT(run_well({"export", "--hash", "4", "--hash", "1", "store", "d"}),
              HasSubstr(" 2 blocks"));
  expect_refused({"export", "store", "e", "--hash", "99"}, {"no block", "0x0000000000000063"});
}

TEST_F(StoreCopyTest, AStoreThatIsInUseCanBeExportedButNotImportedInto) {
  const auto owner = open_store(dir_);
  run_well({"export", "store", "blocks"});
  expect_refused({"import", "blocks", "store"}, {"store/kvbm-blocks is in use"});
}

TEST_F(StoreCopyTest, WhatIsDamagedStaysOut) {
  damage(dir_ + "/kvbm-blocks", 20 * 4096);
  EXPECT_EQ(run_well({"export", "store", "blocks"}, 1),
            "exported                3 blocks, 792 B\nleft out: damaged       1\n");
  make_empty("other");
  damage(folder_ / "blocks", std::filesystem::file_size(folder_ / "blocks") - 100);
  EXPECT_EQ(run_well({"import", "blocks", "other"}, 1),
            "imported                2 of 3 blocks\nleft out: damaged       1\n");
}

TEST_F(StoreCopyTest, WhatDoesNotFitIsTold) {
  run_well({"export", "store", "blocks"});
  make_empty("small", 3);
  EXPECT_EQ(run_well({"import", "blocks", "small"}, 1),
            "imported                3 of 4 blocks\nleft out: no free slot  1\n");
}

TEST_F(StoreCopyTest, FilesThatAreNotWholeAreRefused) {
  run_well({"export", "store", "blocks"});
  make_empty("other");
  const std::string whole = read_file(folder_ / "blocks");
  const auto refused = [&](const std::string& file, const std::vector<std::string>& told) {
    write_file(folder_ / "bad", file);
    expect_refused({"import", "bad", "other"}, told);
  };
  refused("", {"bad: this is no file of exported blocks"});
  refused("some text\n", {"bad: this is no file of exported blocks"});
  refused(whole.substr(0, 1000), {"bad: the file was cut"});
  std::string later = whole;
  later[8] = 2;
  refused(later, {"version 2", "version 1"});
  refused(whole.substr(0, whole.size() - 1),
          {"bad: the file was cut: it ends in an entry", "; 4 blocks before it were imported"});
  EXPECT_EQ(fsck({folder_ / "other", "--deep"}, 0)["valid"], 4);
}

TEST_F(StoreCopyTest, StoresOfAnotherKindAreRefusedNamingBoth) {
  run_well({"export", "store", "blocks"});
  auto shape = store::test_shape();
  shape.model = "another";
  open_store(folder_ / "other", shape);
  expect_refused({"import", "blocks", "other"}, {"model", "'another'", "the file 'a model'"});
  const auto manifest = read_file(folder_ / "other/kvbm-manifest");
  expect_refused({"import", "blocks", "other"}, {});
  EXPECT_EQ(read_file(folder_ / "other/kvbm-manifest"), manifest) << "nothing was written";
}

TEST_F(StoreCopyTest, PathsThatCannotBeUsed) {
  run_well({"export", "store", "blocks"});
  expect_refused({"export", "none", "new"}, {"none is no store"});
  expect_refused({"import", "blocks", "none"}, {"none is no store"});
  expect_refused({"import", "none", "store"}, {"cannot read none", "No such file"});
  expect_refused({"import", "store", "store"}, {"cannot read store", "Is a directory"});
  expect_refused({"export", "store", "none/new"}, {"cannot write none/new", "No such file"});
  expect_refused({"export", "store", "store"}, {"cannot write store", "Is a directory"});
  expect_refused({"export", "store", "/dev/full"}, {"/dev/full", "No space"});
}

TEST_F(StoreCopyTest, FullStandardOutput) {
  run_well({"export", "store", "blocks"});
  for (const auto& arguments :
       std::vector<std::vector<std::string>>{{"export", "store", "-"},
                                             {"export", "store", "blocks"},
                                             {"import", "blocks", "store"}}) {
    const Finished finished =
        Command(arguments).folder(folder_.path()).output_to("/dev/full").run();
    EXPECT_EQ(finished.exit_code, 2);
    EXPECT_THAT(finished.err, HasSubstr("cannot write standard output: No space left"));
  }
}

TEST_F(StoreCopyTest, ArgumentsThatCannotBe) {
  expect_refused({"export"}, {"DIR", "required"});
  expect_refused({"export", "store"}, {"FILE", "required"});
  expect_refused({"import", "blocks"}, {"DIR", "required"});
  expect_refused({"export", "store", ""}, {"FILE", "empty"});
  expect_refused({"import", "", "store"}, {"FILE", "empty"});
  expect_refused({"export", "store", "new", "more"}, {"'more'"});
  for (const char* number : {"-1", "256", "x", ""}) {
    expect_refused({"export", "store", "new", "--namespace", number},
                   {"--namespace", "'" + std::string(number) + "'", "from 0 to 255"});
  }
  expect_refused({"export", "store", "new", "--hash", "xyz"}, {"--hash", "'xyz'", "64 bits"});
}

TEST_F(StoreCopyTest, AnExportThatFailsLeavesWhatWasThere) {
  write_file(folder_ / "blocks", "old\n");
  const auto before = contents(folder_.path());
  const Finished finished =
      Command({"export", "store", "blocks"}).folder(folder_.path()).limit(RLIMIT_FSIZE, 9000).run();
  EXPECT_EQ(finished.exit_code, 2);
  EXPECT_THAT(finished.err, HasSubstr("cannot write blocks: File too large"));
  EXPECT_EQ(contents(folder_.path()), before);
}

// What a replay's manager wrote, and another one finds again in a store of another size.
TEST_F(StoreCopyTest, AReplayGoesOnWithBlocksThatWereImported) {
  const std::string written = folder_ / "written";
  const std::string trace = small_trace();
  replay_json(trace, kSmallTiers, {"--disk-dir", written});
  const auto found = fsck({written, "--deep"}, 0);
  EXPECT_EQ(found["valid"], kSmallTiers.disk);
  EXPECT_EQ(found["orphans"], 0) << "children go before their parents";
  run_well({"export", "written", "blocks"});

  const auto files = store::open_store_files_to_read(written).value();
  auto shape = store::read_manifest(*files.manifest).value()->superblock.shape;
  shape.num_slots *= 2;
  open_store(folder_ / "other", shape);
  run_well({"import", "blocks", "other"});
  const Tiers larger{kSmallTiers.device, kSmallTiers.host, 2 * kSmallTiers.disk};
  const auto report = replay_json(trace, larger, {"--disk-dir", folder_ / "other"});
  EXPECT_EQ(report["disk_store"]["restored_blocks"], kSmallTiers.disk);
  EXPECT_GT(report["hit_tokens"]["disk"], replay_json(trace, larger)["hit_tokens"]["disk"]);
}

// The bar is not read, so the program waits in the middle of its work.
TEST_F(StoreCopyTest, AKilledExportLeavesNothingUnderItsName) {
  {
    const auto store = open_store(folder_ / "large", store::test_shape(2000));
    for (store::Slot slot = 0; slot < 2000; ++slot) put_block(*store, slot, {.hash = slot + 1});
  }
  Running running =
      Command({"export", "large", "blocks"}).folder(folder_.path()).terminal_on_stderr().start();
  const std::string temporary = folder_ / ("blocks.kvbm-" + std::to_string(running.pid()));
  ASSERT_TRUE(running.reaches([&] {
    std::error_code error;
    return std::filesystem::file_size(temporary, error) > 0 && !error;
  }));
  running.send(SIGKILL);
  EXPECT_EQ(running.wait().signal, SIGKILL);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "blocks"));
}

TEST_F(StoreCopyTest, ATerminalGetsABar) {
  make_empty("other");
  for (const auto& arguments : {std::vector<std::string>{"export", "store", "blocks"},
                                std::vector<std::string>{"import", "blocks", "other"}}) {
    const Finished finished = Command(arguments).folder(folder_.path()).terminal_on_stderr().run();
    EXPECT_EQ(finished.exit_code, 0);
    EXPECT_THAT(finished.err, StartsWith("\r" + arguments[0] + " ["));
    EXPECT_THAT(finished.err, EndsWith("] 100.0%\r\033[K"));
  }
}

}  // namespace
}  // namespace kvbm::e2e
