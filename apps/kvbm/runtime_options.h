// Options of the manager that any command may be given: as flags, in the environment, in a file.
#pragma once

#include <CLI/CLI.hpp>
#include <deque>
#include <string>
#include <utility>

#include "kvbm/config.h"
#include "kvbm/result.h"

namespace kvbm::app {

// What is set later in this list wins: default, --config FILE (TOML), KVBM_RUNTIME_... in the
// environment, flag.
class RuntimeOptions {
 public:
  void add_to(CLI::App& command);
  // Errors: InvalidConfig naming the flag, the variable, or the file with its line, what was wrong
  // and what is allowed; OperationFailed if the file cannot be read.
  Result<KvManagerRuntimeConfig> resolve() const;

 private:
  std::string file_;
  std::deque<std::pair<std::string, std::string>> flags_;  // option name, text; empty: not given
};

}  // namespace kvbm::app
