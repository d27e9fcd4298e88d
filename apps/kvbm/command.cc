#include "apps/kvbm/command.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdio>
#include <filesystem>
#include <string>
#include <system_error>

namespace kvbm::app {
namespace {

// Whether both name one regular file, which may be still to be made.
bool same_file(const std::string& a, const std::string& b) {
  namespace fs = std::filesystem;
  std::error_code error;
  if (fs::exists(a, error) && fs::exists(b, error)) {
    return fs::is_regular_file(a, error) && fs::equivalent(a, b, error);
  }
  const fs::path path = fs::weakly_canonical(fs::absolute(a, error), error);
  return !error && path == fs::weakly_canonical(fs::absolute(b, error), error) && !error;
}

}  // namespace

int fail(std::string_view text) {
  fmt::print(stderr, "kvbm: {}\n", text);
  return kBadInput;
}

int fail(const Error& error) {
  if (error.message.empty()) return fail(error.to_string());
  std::string text = error.message;
  if (error.requested != 0 || error.available != 0) {
    text += fmt::format(" (requested {}, available {})", error.requested, error.available);
  }
  if (error.native != 0) {
    const std::string reason = std::generic_category().message(error.native);
    if (!text.ends_with(reason)) text += ": " + reason;
  }
  return fail(text);
}

CLI::Validator whole_number(std::uint64_t min, std::uint64_t max) {
  const auto check = [min, max](std::string& text) -> std::string {
    std::uint64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error == std::errc() && end == text.data() + text.size() && number >= min &&
        number <= max) {
      text = std::to_string(number);
      return {};
    }
    return fmt::format("'{}' is not a whole number from {} to {}", text, min, max);
  };
  return CLI::Validator(check, "");
}

void add_limit(CLI::App& command, std::optional<std::size_t>& limit) {
  command.add_option("--limit", limit, "Use only the first N requests, at least 1")
      ->transform(whole_number(1, kMaxNumber))
      ->type_name("N");
}

void add_report(CLI::App& command, std::string& file, const std::string& help) {
  const auto check = [](std::string& text) {
    return text.empty() || text == "-" ? "it needs the name of a file" : std::string();
  };
  command.add_option("--report", file, help)->check(CLI::Validator(check, ""))->type_name("FILE");
}

Result<void> check_outputs(const Output& output, const std::string& report_file,
                           const std::string& trace) {
  const std::string input = trace == "-" ? "/dev/stdin" : trace;
  const auto refused = [](const std::string& text) {
    return Error{ErrorCode::InvalidConfig, 0, 0, 0, text};
  };
  if (!output.file().empty() && same_file(output.file(), input)) {
    return refused("--json would replace the trace " + output.file());
  }
  if (!report_file.empty() && same_file(report_file, input)) {
    return refused("--report would replace the trace " + report_file);
  }
  if (!report_file.empty() && !output.file().empty() && same_file(report_file, output.file())) {
    return refused("--json and --report both name " + report_file);
  }
  KVBM_CHECK_OK(output.check());
  return report_file.empty() ? Result<void>() : check_writable(report_file);
}

}  // namespace kvbm::app
