// A plan's rows as a page: the time that all prompts take with each pair of sizes, as bars.
#pragma once

#include <string>

#include "apps/kvbm/plan.h"

namespace kvbm::app {

// A page that needs no other file and no script, and is XML as well. `trace` is as the command line
// named it.
std::string to_html(const PlanReport& report, const std::string& trace);

}  // namespace kvbm::app
