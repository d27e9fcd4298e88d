// Checks of a store, as a command does and tells them.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "store/check.h"

namespace kvbm::app {

struct StoreCheck {
  std::string directory;
  bool deep = false;
  store::CheckReport report;
};

// Owns the store meanwhile. Errors: those of open_to_look(), open_store_files() and check().
Result<StoreCheck> check_store(const std::string& directory, const store::CheckOptions& options);
nlohmann::json to_json(const StoreCheck& check);
std::string to_table(const StoreCheck& check);

}  // namespace kvbm::app
