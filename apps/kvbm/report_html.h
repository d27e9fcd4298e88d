// A replay's report as a page: charts and tables in one HTML file.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "apps/kvbm/replay.h"

namespace kvbm::app {

// What was asked for, to be told beside what came out.
struct ReplayParameters {
  std::string trace;  // as the command line named it
  std::optional<std::size_t> limit;
  ReplayOptions options;
};

// A page that needs no other file and no script, light or dark as the reader's system is. Its text
// is XML as well, so that any XML parser reads it. Bytes of file names that are not UTF-8 or
// control characters are shown as U+FFFD.
std::string to_html(const ReplayReport& report, const ReplayParameters& parameters);

}  // namespace kvbm::app
