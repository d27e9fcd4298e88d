// What the commands of the program have in common.
#pragma once

#include <CLI/CLI.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "apps/kvbm/output.h"
#include "kvbm/result.h"

namespace kvbm::app {

// Exit codes.
inline constexpr int kOk = 0;
inline constexpr int kWrong = 1;
inline constexpr int kBadInput = 2;

// Prints one line on standard error and returns kBadInput.
int fail(std::string_view text);
// An error for people: the numbers and the system's reason, without the name of the code.
int fail(const Error& error);

// Decimal digits only. CLI11 itself takes -1 for the largest number and 010 for eight.
CLI::Validator whole_number(std::uint64_t min, std::uint64_t max);
inline constexpr std::uint64_t kMaxNumber = std::numeric_limits<std::uint64_t>::max();

// "a,b" is a list of two. CLI11 by itself would take the words that follow as well.
template <class Value>
CLI::Option* add_list(CLI::App& command, const std::string& name, std::vector<Value>& values,
                      const std::function<Value(std::string&)>& parse, const std::string& help) {
  const auto split = [&values, parse](const std::string& text) {
    std::size_t begin = 0;
    for (std::size_t end = 0; end != std::string::npos; begin = end + 1) {
      end = text.find(',', begin);
      std::string item = text.substr(begin, end == std::string::npos ? end : end - begin);
      values.push_back(parse(item));
    }
  };
  return command.add_option_function<std::string>(name, split, help);
}

// --limit N: use only the first requests of a trace.
void add_limit(CLI::App& command, std::optional<std::size_t>& limit);
// --report FILE.
void add_report(CLI::App& command, std::string& file, const std::string& help);
// Whether the results can be written, before the work: over no file that is read (`trace`, - for
// standard input) or that the other result goes to. Errors: as check_writable(); InvalidConfig.
Result<void> check_outputs(const Output& output, const std::string& report_file,
                           const std::string& trace);

}  // namespace kvbm::app
