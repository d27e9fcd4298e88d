#include "apps/kvbm/command.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdio>
#include <string>
#include <system_error>

namespace kvbm::app {

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

}  // namespace kvbm::app
