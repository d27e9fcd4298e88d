#include "apps/kvbm/output.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>

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

// Replaces what a symbolic link points at, not the link.
std::filesystem::path behind_links(const std::string& path) {
  std::error_code error;
  const std::filesystem::path real = std::filesystem::canonical(path, error);
  return error ? std::filesystem::path(path) : real;
}

}  // namespace

Result<std::unique_ptr<NewFile>> NewFile::create(const std::string& path) {
  const auto made = [&path](std::string target, std::string temporary, std::FILE* file) {
    return std::unique_ptr<NewFile>(
        new NewFile(path, std::move(target), std::move(temporary), file));
  };
  if (path == "-") return made("", "", stdout);
  struct stat status = {};
  const bool exists = ::stat(path.c_str(), &status) == 0;
  const std::string target = behind_links(path);
  const std::string temporary = fmt::format("{}.kvbm-{}", target, ::getpid());
  std::FILE* file = nullptr;
  if (!exists || S_ISREG(status.st_mode)) file = std::fopen(temporary.c_str(), "wx");
  if (!file) {  // a device, or a folder that takes no new file
    file = std::fopen(path.c_str(), "w");
    if (!file) return write_error(path);
    return made(target, "", file);
  }
  if (exists) ::fchmod(::fileno(file), status.st_mode & 07777U);
  return made(target, temporary, file);
}

NewFile::~NewFile() {
  if (!file_) return;
  if (file_ != stdout) std::fclose(file_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

Result<void> NewFile::write(std::span<const std::byte> bytes) {
  if (std::fwrite(bytes.data(), 1, bytes.size(), file_) == bytes.size()) return {};
  return write_error(path_ == "-" ? "standard output" : path_);
}

Result<void> NewFile::finish() {
  if (std::fflush(file_) != 0) return write_error(path_ == "-" ? "standard output" : path_);
  if (!temporary_.empty() &&
      (::fsync(::fileno(file_)) != 0 || std::rename(temporary_.c_str(), target_.c_str()) != 0)) {
    return write_error(path_);
  }
  std::FILE* const file = std::exchange(file_, nullptr);
  if (file != stdout && std::fclose(file) != 0) return write_error(path_);
  return {};
}

Result<void> check_writable(const std::string& path) {
  const bool existed = ::access(path.c_str(), F_OK) == 0;
  std::FILE* file = std::fopen(path.c_str(), "a");
  if (!file) return write_error(path);
  std::fclose(file);
  if (!existed) ::unlink(path.c_str());
  return {};
}

Result<void> write_file(const std::string& path, const std::string& text) {
  KVBM_TRY(const auto file, NewFile::create(path));
  KVBM_CHECK_OK(file->write(std::as_bytes(std::span(text))));
  return file->finish();
}

void Output::add_option(CLI::App& command) {
  json_ = command
              .add_option("--json", file_,
                          "Print JSON instead of the table, or write it to FILE beside the table")
              ->expected(0, 1)
              ->type_name("[FILE]");
}

Result<void> Output::check() const {
  return file().empty() ? Result<void>() : check_writable(file());
}

Result<void> Output::write(const nlohmann::json& json, const std::string& table) const {
  const std::string text = json.dump(2) + "\n";
  if (json_->count() == 0) return write_stdout(table);
  if (file().empty()) return write_stdout(text);
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
