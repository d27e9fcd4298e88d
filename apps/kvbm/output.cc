#include "apps/kvbm/output.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

namespace kvbm::app {
namespace {

Error write_error(const std::string& where) {
  return Error{ErrorCode::OperationFailed, errno, 0, 0, "cannot write " + where};
}

Result<void> write_stdout(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    return write_error("standard output");
  }
  return {};
}

Result<void> write_file(const std::string& path, const std::string& text) {
  std::FILE* file = std::fopen(path.c_str(), "w");
  if (!file) return write_error(path);
  const bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  if (std::fclose(file) != 0 || !written) return write_error(path);
  return {};
}

}  // namespace

void Output::add_option(CLI::App& command) {
  json_ = command
              .add_option("--json", file_,
                          "Print JSON instead of the table, or write it to FILE beside the table")
              ->expected(0, 1)
              ->type_name("[FILE]");
}

Result<void> Output::check() const {
  if (file_.empty() || file_ == "-") return {};
  std::FILE* file = std::fopen(file_.c_str(), "a");
  if (!file) return write_error(file_);
  std::fclose(file);
  return {};
}

Result<void> Output::write(const nlohmann::json& json, const std::string& table) const {
  const std::string text = json.dump(2) + "\n";
  if (json_->count() == 0) return write_stdout(table);
  if (file_.empty() || file_ == "-") return write_stdout(text);
  KVBM_CHECK_OK(write_file(file_, text));
  return write_stdout(table);
}

ProgressBar::ProgressBar(std::string label, std::size_t total)
    : label_(std::move(label)), total_(total), is_terminal_(::isatty(STDERR_FILENO) == 1) {}

void ProgressBar::update(std::size_t done) {
  if (!is_terminal_ || total_ == 0) return;
  const std::size_t per_mille = done * 1000 / total_;
  if (per_mille == shown_per_mille_) return;
  shown_per_mille_ = per_mille;
  constexpr std::size_t kWidth = 40;
  const std::size_t filled = per_mille * kWidth / 1000;
  fmt::print(stderr, "\r{} [{}{}] {:>5.1f}%", label_, std::string(filled, '#'),
             std::string(kWidth - filled, ' '), static_cast<double>(per_mille) / 10);
  std::fflush(stderr);
}

ProgressBar::~ProgressBar() {
  if (is_terminal_ && shown_per_mille_ != ~std::size_t{0}) fmt::print(stderr, "\r\033[K");
}

}  // namespace kvbm::app
