// inspect and fsck, on stores in directories.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>

#include "tests/e2e/store_run.h"

namespace kvbm::e2e {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

class StoreTest : public testing::Test {
 protected:
  StoreTest() { make_store(dir_); }

  nlohmann::json inspect(const std::vector<std::string>& more = {}, int exit_code = 0) const {
    std::vector<std::string> arguments = {"inspect", dir_};
    arguments.insert(arguments.end(), more.begin(), more.end());
    arguments.push_back("--json");
    const Finished finished = Command(std::move(arguments)).run();
    EXPECT_EQ(finished.exit_code, exit_code) << finished.err;
    EXPECT_EQ(finished.err, "");
    return nlohmann::json::parse(finished.out);
  }
  std::string file(const char* name) const { return dir_ + "/" + name; }
  std::string bytes() const {
    std::string all;
    for (const char* name : {store::kManifestName, store::kIndexName, store::kBlocksName}) {
      all += read_file(file(name));
    }
    return all;
  }
  void expect_refused(const std::vector<std::string>& arguments,
                      const std::vector<std::string>& told) const {
    const auto before = contents(folder_.path());
    const Finished finished = Command(arguments).folder(folder_.path()).run();
    EXPECT_EQ(finished.exit_code, 2);
    EXPECT_EQ(finished.out, "");
    EXPECT_THAT(finished.err, StartsWith("kvbm: "));
    EXPECT_EQ(std::count(finished.err.begin(), finished.err.end(), '\n'), 1) << finished.err;
    for (const std::string& text : told) EXPECT_THAT(finished.err, HasSubstr(text));
    EXPECT_EQ(contents(folder_.path()), before);
  }

  const TemporaryFolder folder_;
  const std::string dir_ = folder_ / "store";
};

// --- inspect ---------------------------------------------------------------------------------

TEST_F(StoreTest, InspectTellsWhatIsInAStore) {
  const std::string before = bytes();
  const auto view = inspect();
  EXPECT_EQ(view["directory"], dir_);
  EXPECT_EQ(view["model"], "a model");
  EXPECT_EQ(view["layout"], "2x(2xN4C8:fp16)");
  EXPECT_EQ(view["layout_digest"], "0x0000000000000005");
  EXPECT_EQ(view["block_bytes"], 264);
  EXPECT_EQ(view["page_size"], 4);
  EXPECT_EQ(view["hash_profile"], "kvbm");
  EXPECT_EQ(view["key_fingerprint"], "0x0000000000000009");
  EXPECT_EQ(view["keeps_tokens"], true);
  EXPECT_EQ(view["damaged_superblock"], "");
  EXPECT_EQ(
      view["slots"],
      nlohmann::json({{"all", 100}, {"used", 4}, {"free", 95}, {"forgotten", 1}, {"damaged", 0}}));
  ASSERT_EQ(view["namespaces"].size(), 2u);
  EXPECT_EQ(view["namespaces"][0]["namespace"], 0);
  EXPECT_EQ(view["namespaces"][0]["blocks"], 3);
  EXPECT_EQ(view["namespaces"][0]["bytes"], 3 * 264);
  EXPECT_LE(view["namespaces"][0]["oldest_put"], view["namespaces"][0]["newest_put"]);
  EXPECT_EQ(view["namespaces"][1]["namespace"], 7);
  EXPECT_EQ(view["ages"][0]["blocks"].get<int>() + view["ages"][1]["blocks"].get<int>(), 4);
  EXPECT_EQ(view["blocks_written"], 5);
  EXPECT_EQ(view["bytes_served"], 640);
  const double written =
      view["payload_bytes_written"].get<double>() + view["index_bytes_written"].get<double>();
  EXPECT_DOUBLE_EQ(view["write_amplification"].get<double>(), written / (5 * 264));
  EXPECT_GT(view["bytes_written_per_day"], 0);
  EXPECT_EQ(bytes(), before);
}

TEST_F(StoreTest, InspectTellsWhetherTheOwnerIsThere) {
  const auto mine = nlohmann::json(static_cast<std::uint64_t>(::getpid()));
  const auto store = std::make_unique<std::unique_ptr<store::DiskStore>>(open_store(dir_));
  auto owner = inspect()["owner"];
  EXPECT_EQ(owner["pid"], mine);
  EXPECT_EQ(owner["alive"], true);
  EXPECT_EQ(owner["has_it_open"], true) << "a store that is in use can be looked at";
  store->reset();
  owner = inspect()["owner"];
  EXPECT_EQ(owner["alive"], true);
  EXPECT_EQ(owner["has_it_open"], false);
  EXPECT_EQ(Command::shell("$KVBM inspect " + dir_ + " | grep -c 'alive, but'").run().out, "1\n");
}

TEST_F(StoreTest, InspectAsATable) {
  damage(file(store::kIndexName), 20 * 64 + 5);
  damage(file(store::kManifestName), 100);
  const Finished finished = Command({"inspect", dir_}).run();
  EXPECT_EQ(finished.exit_code, 0);
  for (const char* text :
       {"store                   /", "one superblock          ", "a model", "264 B in 4 regions",
        "100: 3 used, 95 free, 1 forgotten, 1 damaged", "write amplification", "oldest put",
        "1 minute", "0x0000000000000009", " UTC"}) {
    EXPECT_THAT(finished.out, HasSubstr(text));
  }
}

TEST_F(StoreTest, InspectTellsAllAboutOneBlock) {
  for (const char* hash : {"3", "0x3", "0x0000000000000003"}) {
    const auto blocks = inspect({"--hash", hash})["blocks"];
    ASSERT_EQ(blocks.size(), 1u);
    EXPECT_EQ(blocks[0]["slot"], 30);
    EXPECT_EQ(blocks[0]["sequence_hash"], "0x0000000000000003");
    EXPECT_EQ(blocks[0]["parent_hash"], "0x0000000000000002");
    EXPECT_EQ(blocks[0]["position"], 2);
    EXPECT_EQ(blocks[0]["forgotten"], false);
    EXPECT_EQ(blocks[0]["put_sequence"], 3);
    EXPECT_EQ(blocks[0]["tokens"], nlohmann::json({300, 301, 302, 303}));
  }
  EXPECT_EQ(inspect({"--hash", "5"})["blocks"][0]["forgotten"], true);
  EXPECT_EQ(inspect({"--hash", "1"})["blocks"][0]["parent_hash"], nullptr);
  EXPECT_EQ(inspect({"--hash", "99"}, 1)["blocks"].size(), 0u);

  const Finished table = Command({"inspect", dir_, "--hash", "3"}).run();
  EXPECT_THAT(table.out, HasSubstr("300 301 302 303"));
  EXPECT_THAT(Command({"inspect", dir_, "--hash", "99"}).run().out, HasSubstr("no block"));
}

// --- fsck ------------------------------------------------------------------------------------

TEST_F(StoreTest, FsckFindsNothingInAStoreThatIsWhole) {
  const std::string before = bytes();
  const auto report = fsck({dir_, "--deep", "--repair"}, 0);
  EXPECT_EQ(report["damage"], 0);
  EXPECT_EQ(report["valid"], 4);
  EXPECT_EQ(report["forgotten"], 1);
  EXPECT_EQ(report["checked_payload_bytes"], 4 * 264);
  EXPECT_EQ(bytes(), before);
  EXPECT_THAT(Command({"fsck", dir_}).run().out, EndsWith("\nclean\n"));
}

TEST_F(StoreTest, FsckRepairsOnRequestOnly) {
  damage(file(store::kIndexName), 20 * 64 + 5);
  damage(file(store::kManifestName), 100);
  const std::string before = bytes();
  auto report = fsck({dir_}, 1);
  EXPECT_EQ(report["damage"], 2);
  EXPECT_EQ(report["damaged_records"], nlohmann::json({20}));
  EXPECT_NE(report["damaged_superblock"], "");
  EXPECT_EQ(report["orphans"], 1);
  EXPECT_EQ(bytes(), before);
  report = fsck({dir_, "--repair"}, 1);
  EXPECT_EQ(report["repaired"], 2);
  EXPECT_EQ(fsck({dir_}, 0)["valid"], 3);
}

TEST_F(StoreTest, FsckReadsTheBlocksOnRequest) {
  damage(file(store::kBlocksName), 40 * 4096 + 200);
  EXPECT_EQ(fsck({dir_}, 0)["checked_payload_bytes"], 0);
  EXPECT_EQ(fsck({dir_, "--deep"}, 1)["damaged_payloads"], nlohmann::json({40}));
  const Finished table = Command({"fsck", dir_, "--deep", "--repair"}).run();
  EXPECT_EQ(table.exit_code, 1);
  EXPECT_THAT(table.out, EndsWith("\ndamage: 1, all of it taken out\n"));
  EXPECT_EQ(fsck({dir_, "--deep"}, 0)["valid"], 3);
}

TEST_F(StoreTest, FsckShowsABarOnATerminal) {
  const Finished finished = Command({"fsck", dir_, "--deep"}).terminal_on_stderr().run();
  EXPECT_EQ(finished.exit_code, 0);
  EXPECT_THAT(finished.err, StartsWith("\rfsck ["));
  EXPECT_THAT(finished.err, EndsWith("] 100.0%\r\033[K"));
}

TEST_F(StoreTest, FsckRefusesAStoreThatIsInUse) {
  const auto store = open_store(dir_);
  expect_refused({"fsck", "store"}, {"store/kvbm-blocks is in use"});
}

// --- what is wrong with the command line -----------------------------------------------------

TEST_F(StoreTest, DirectoriesThatAreNoStores) {
  std::filesystem::create_directory(folder_ / "empty");
  write_file(folder_ / "file", "text\n");
  for (const char* command : {"inspect", "fsck"}) {
    SCOPED_TRACE(command);
    expect_refused({command, "none"}, {"none is no store", "No such file"});
    expect_refused({command, "empty"}, {"empty is no store", "kvbm-blocks", "No such file"});
    expect_refused({command, "file"}, {"file is no store", "Not a directory"});
    expect_refused({command, ""}, {"DIR", "empty"});
    expect_refused({command}, {"DIR", "required", "kvbm " + std::string(command) + " --help"});
    expect_refused({command, "store", "more"}, {"'more'"});
    expect_refused({command, "store", "--fast"}, {"'--fast'"});
    expect_refused({command, "store", "--json", "none/new"}, {"none/new", "No such file"});
  }
  for (const char* hash : {"", "0x", "-1", "1.5", "12z", "0x10000000000000000", " 1"}) {
    SCOPED_TRACE(hash);
    expect_refused({"inspect", "store", "--hash", hash},
                   {"--hash", "'" + std::string(hash) + "'", "64 bits"});
  }
}

TEST_F(StoreTest, StoresThatCannotBeUsed) {
  const auto refused = [&](const std::vector<std::string>& told) {
    expect_refused({"inspect", "store"}, told);
    expect_refused({"fsck", "store", "--repair"}, told);
  };
  const std::string manifest = read_file(file(store::kManifestName));
  write_file(file(store::kManifestName), std::string(16384, 'x'));
  refused({"kvbm-manifest", "no manifest of a store"});
  write_file(file(store::kManifestName), "");
  refused({"no store", "never finished"});
  write_file(file(store::kManifestName), manifest);
  std::filesystem::resize_file(file(store::kIndexName), 64);
  refused({"kvbm-index has 64 bytes", "6400"});
  std::filesystem::remove(file(store::kIndexName));
  refused({"no store", "kvbm-index", "No such file"});
}

}  // namespace
}  // namespace kvbm::e2e
