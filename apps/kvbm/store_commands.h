// The commands on stores: inspect, fsck, export and import.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "apps/kvbm/output.h"

namespace kvbm::app {

struct InspectCommand {
  std::string directory;
  std::uint64_t rated_endurance_bytes = 0;
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

struct ExportCommand {
  std::string directory;
  std::string file;
  std::optional<std::uint8_t> name_space;
  std::vector<std::uint64_t> ends;

  void add_to(CLI::App& parent, std::function<int()>& chosen);
  int run() const;
};

struct ImportCommand {
  std::string file;
  std::string directory;

  void add_to(CLI::App& parent, std::function<int()>& chosen);
  int run() const;
};

// Must live until the chosen one has run.
struct StoreCommands {
  InspectCommand inspect;
  FsckCommand fsck;
  ExportCommand export_command;
  ImportCommand import_command;

  void add_to(CLI::App& app, std::function<int()>& chosen) {
    inspect.add_to(app, chosen);
    fsck.add_to(app, chosen);
    export_command.add_to(app, chosen);
    import_command.add_to(app, chosen);
  }
};

}  // namespace kvbm::app
