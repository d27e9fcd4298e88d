// `kvbm plan`: which sizes of the host and disk tiers pay for a workload.
#pragma once

#include <CLI/CLI.hpp>
#include <cstddef>
#include <functional>
#include <optional>
#include <string>

#include "apps/kvbm/output.h"
#include "apps/kvbm/plan.h"

namespace kvbm::app {

// As the other commands: the object must live until `chosen` has run.
class PlanCommand {
 public:
  void add_to(CLI::App& parent, std::function<int()>& chosen);

 private:
  int run() const;

  std::string trace_;
  std::optional<std::size_t> limit_;
  PlanOptions options_;
  Output output_;
  std::string report_file_;  // empty: none
};

}  // namespace kvbm::app
