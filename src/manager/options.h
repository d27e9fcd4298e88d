// Every number that configures a manager, in one table: what it is called, its range, its default
// and what it does. Checks, command-line flags, environment variables and files follow it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

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
  void (*write)(KvBlockManagerConfig& config, std::uint64_t value);

  // "model.num_layers" is --num-layers on a command line, KVBM_MODEL_NUM_LAYERS in the environment,
  // and num_layers under [model] in a file.
  std::string flag() const;
  std::string environment_variable() const;
};

std::span<const Option> options() noexcept;

// Null if there is no option of that name.
const Option* find_option(std::string_view name) noexcept;

// Sets one option from text: decimal digits. `source` says where the text came from, for the
// message. Errors: InvalidConfig{value, limit} naming source, text and range; the configuration is
// unchanged.
Result<void> set_option(KvBlockManagerConfig& config, const Option& option, std::string_view text,
                        std::string_view source);

// Sets every option whose variable is in the environment; an empty variable counts as absent.
// Errors: those of set_option(), for the first bad variable.
Result<void> apply_environment(KvBlockManagerConfig& config);

// Errors: InvalidConfig with every problem of the configuration in its message.
Result<void> check(const KvBlockManagerConfig& config);

}  // namespace kvbm::detail
