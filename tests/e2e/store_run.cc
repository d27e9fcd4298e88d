#include "tests/e2e/store_run.h"

#include <gtest/gtest.h>

#include <fstream>

namespace kvbm::e2e {

using store::put_block;

std::unique_ptr<store::DiskStore> open_store(const std::string& directory,
                                             const store::StoreShape& shape) {
  auto store = store::open_disk_store(directory, shape).value();
  store->load([](store::Slot, const store::SlotRecord&) {}).value();
  return store;
}

void make_store(const std::string& directory) {
  const auto store = open_store(directory);
  put_block(*store, 10, {.hash = 1});
  put_block(*store, 20, {.hash = 2, .parent = 1, .position = 1});
  put_block(*store, 30, {.hash = 3, .parent = 2, .position = 2});
  put_block(*store, 40, {.hash = 4, .name_space = 7});
  put_block(*store, 50, {.hash = 5, .name_space = 8});
  store->reset(NamespaceId{8}).value();
  store->count_served(640);
  store->sync().value();
}

void damage(const std::string& path, std::uint64_t offset) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekg(static_cast<std::streamoff>(offset));
  const int byte = file.get();
  file.seekp(static_cast<std::streamoff>(offset));
  file.put(static_cast<char>(~byte));
  file.close();
  EXPECT_FALSE(file.fail()) << path;
}

nlohmann::json fsck(const std::vector<std::string>& arguments, int exit_code) {
  std::vector<std::string> all = {"fsck"};
  all.insert(all.end(), arguments.begin(), arguments.end());
  all.push_back("--json");
  const Finished finished = Command(std::move(all)).run();
  EXPECT_EQ(finished.exit_code, exit_code) << finished.err;
  EXPECT_EQ(finished.err, "");
  return nlohmann::json::parse(finished.out);
}

}  // namespace kvbm::e2e
