// Where a command's result goes: a table for people, JSON for programs.
#pragma once

#include <CLI/CLI.hpp>
#include <cstddef>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "kvbm/result.h"

namespace kvbm::app {

// A file that has its name only when it is whole: until then a regular file keeps what it had,
// where its folder lets files be made. What is no regular file is written as it is.
class NewFile {
 public:
  // "-" is standard output. Errors, as of all calls: OperationFailed with errno naming the file.
  static Result<std::unique_ptr<NewFile>> create(const std::string& path);
  ~NewFile();  // without finish() nothing has changed
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  Result<void> write(std::span<const std::byte> bytes);
  // Makes it durable, and gives it its name.
  Result<void> finish();

 private:
  NewFile(std::string path, std::string target, std::string temporary, std::FILE* file)
      : path_(std::move(path)),
        target_(std::move(target)),
        temporary_(std::move(temporary)),
        file_(file) {}

  std::string path_;       // as it was given
  std::string target_;     // behind links
  std::string temporary_;  // name until then; empty if there is none
  std::FILE* file_;        // null when it is finished
};

// Whether the file can be written, before there is anything to write. Leaves everything as it was.
// Errors: as write_file().
Result<void> check_writable(const std::string& path);
// Writes the text to a NewFile. Errors: as there.
Result<void> write_file(const std::string& path, const std::string& text);

// --json alone: JSON to standard output instead of the table. --json FILE: the table to standard
// output and JSON to the file.
class Output {
 public:
  void add_option(CLI::App& command);
  // Empty: there is none.
  std::string file() const { return file_ == "-" ? "" : file_; }
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
