// The commands on stores: inspect and fsck.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "apps/kvbm/output.h"

namespace kvbm::app {

struct InspectCommand {
  std::string directory;
  std::optional<std::uint64_t> hash;
  Output output;

  void add_to(CLI::App& parent, std::function<int()>& chosen);
  int run() const;
};

struct FsckCommand {
  std::string directory;
  bool repair = false;
  bool deep = false;
  Output output;

  void add_to(CLI::App& parent, std::function<int()>& chosen);
  int run() const;
};

// Must live until the chosen one has run.
struct StoreCommands {
  InspectCommand inspect;
  FsckCommand fsck;

  void add_to(CLI::App& app, std::function<int()>& chosen) {
    inspect.add_to(app, chosen);
    fsck.add_to(app, chosen);
  }
};

}  // namespace kvbm::app
