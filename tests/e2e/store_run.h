// Stores in directories, and the commands on them.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "store/test_store.h"
#include "tests/e2e/program.h"

namespace kvbm::e2e {

// The store of this shape in the directory, which is made if it is missing.
std::unique_ptr<store::DiskStore> open_store(const std::string& directory,
                                             const store::StoreShape& shape = store::test_shape());

// Makes a store with the chain 1 <- 2 <- 3 in the slots 10, 20 and 30, block 4 of namespace 7 in
// 40, and a block of before a reset of namespace 8 in 50.
void make_store(const std::string& directory);

// Inverts one byte of a file.
void damage(const std::string& path, std::uint64_t offset);

// What `fsck` with these arguments says in JSON. It must end with this exit code.
nlohmann::json fsck(const std::vector<std::string>& arguments, int exit_code);

}  // namespace kvbm::e2e
