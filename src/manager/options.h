// Every number that configures a manager, in one table: what it is called, its range, its default
// and what it does. Checks, builders and documentation follow it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kvbm/config.h"

namespace kvbm::detail {

struct Option {
  const char* name;  // "model.num_layers"
  const char* type;
  const char* unit;  // empty: a plain number
  std::uint64_t min;
  std::uint64_t max;
  std::uint64_t default_value;
  const char* help;
  std::uint64_t (*read)(const KvBlockManagerConfig& config);
};

std::span<const Option> options() noexcept;

// Errors: InvalidConfig with every problem of the configuration in its message.
Result<void> check(const KvBlockManagerConfig& config);

}  // namespace kvbm::detail
