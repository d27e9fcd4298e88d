// Where a command's result goes: a table for people, JSON for programs.
#pragma once

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "kvbm/result.h"

namespace kvbm::app {

// Whether the file can be written, before there is anything to write. Leaves everything as it was.
// Errors: as write_file().
Result<void> check_writable(const std::string& path);
// A regular file gets the text whole or keeps what it had, where its folder lets files be made.
// Errors: OperationFailed with errno naming the file.
Result<void> write_file(const std::string& path, const std::string& text);

// --json alone: JSON to standard output instead of the table. --json FILE: the table to standard
// output and JSON to the file.
class Output {
 public:
  void add_option(CLI::App& command);
  // As check_writable(), of the file if there is one. Errors: as write().
  Result<void> check() const;
  // Errors: OperationFailed with errno naming the file.
  Result<void> write(const nlohmann::json& json, const std::string& table) const;

 private:
  CLI::Option* json_ = nullptr;
  std::string file_;
};

// A bar on standard error, if that is a terminal; otherwise nothing.
class ProgressBar {
 public:
  ProgressBar(std::string label, std::size_t total);
  ~ProgressBar();  // wipes the bar
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  void update(std::size_t done);

 private:
  std::string label_;
  std::size_t total_;
  bool is_terminal_;
  std::size_t shown_per_mille_ = ~std::size_t{0};
};

}  // namespace kvbm::app
