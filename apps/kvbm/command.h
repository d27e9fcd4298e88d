// What the commands of the program have in common.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <limits>
#include <string_view>

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

}  // namespace kvbm::app
