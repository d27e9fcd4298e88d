// `kvbm torture`: the tier engine under random workloads and faults, in simulated time.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <optional>

#include "apps/kvbm/output.h"

namespace kvbm::app {

// As the other commands: the object must live until `chosen` has run.
class TortureCommand {
 public:
  void add_to(CLI::App& parent, std::function<int()>& chosen);

 private:
  int run() const;

  std::optional<std::uint64_t> seed_;
  std::uint64_t schedules_ = 0;  // 0: not given
  std::uint64_t threads_ = 0;    // 0: one per core
  std::uint64_t least_faults_ = 0;
  bool trace_ = false;
  Output output_;
};

}  // namespace kvbm::app
