#include "apps/kvbm/runtime_options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <toml++/toml.h>

#include <cerrno>
#include <fstream>
#include <iterator>
#include <sstream>
#include <vector>

#include "manager/options.h"

namespace kvbm::app {
namespace {

constexpr std::string_view kSection = "runtime";

bool is_runtime(const detail::Option& option) {
  return std::string_view(option.name).starts_with("runtime.");
}

// On a command line the name alone says 1.
bool is_switch(const detail::Option& option) { return option.min == 0 && option.max == 1; }

Error bad_file(const std::string& file, const toml::source_region& where, std::string what) {
  return Error{ErrorCode::InvalidConfig, 0, 0, 0,
               fmt::format("{}:{}: {}", file, where.begin.line, what)};
}

Error unknown_key(const std::string& file, std::string_view key, const toml::node& node) {
  std::vector<std::string> known;
  for (const detail::Option& option : detail::options()) {
    if (is_runtime(option)) known.push_back(option.name);
  }
  return bad_file(
      file, node.source(),
      fmt::format("'{}' is no option; the options are {}", key, fmt::join(known, ", ")));
}

Result<void> apply_section(KvBlockManagerConfig& config, const std::string& file,
                           const toml::table& section) {
  for (const auto& [key, node] : section) {
    const std::string name = fmt::format("{}.{}", kSection, key.str());
    const detail::Option* option = detail::find_option(name);
    if (!option) return unknown_key(file, name, node);
    std::ostringstream value;
    value << toml::node_view(node);
    const auto* flag = node.as_boolean();
    const bool is_switch = option->min == 0 && option->max == 1;
    const std::string text = flag && is_switch ? (flag->get() ? "1" : "0") : value.str();
    KVBM_CHECK_OK(detail::set_option(
        config, *option, text, fmt::format("{}:{}: {}", file, node.source().begin.line, name)));
  }
  return {};
}

Result<void> apply_file(KvBlockManagerConfig& config, const std::string& file) {
  std::ifstream stream(file, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(stream), {}};
  if (!stream.is_open() || stream.bad()) {
    return Error{ErrorCode::OperationFailed, errno, 0, 0, "cannot read " + file};
  }
  try {
    const toml::table table = toml::parse(text, file);
    for (const auto& [key, node] : table) {
      const toml::table* section = node.as_table();
      if (key.str() != kSection || !section) return unknown_key(file, key.str(), node);
      KVBM_CHECK_OK(apply_section(config, file, *section));
    }
  } catch (const toml::parse_error& error) {
    return bad_file(file, error.source(), std::string(error.description()));
  }
  return {};
}

}  // namespace

void RuntimeOptions::add_to(CLI::App& command) {
  command
      .add_option("--config", file_,
                  "TOML file with a [runtime] table of the options below; the environment\n"
                  "(KVBM_RUNTIME_...) and flags override it")
      ->type_name("FILE");
  for (const detail::Option& option : detail::options()) {
    if (!is_runtime(option)) continue;
    auto& [name, text] = flags_.emplace_back(option.name, "");
    const std::string how =
        fmt::format("default {}; {}", option.default_value, option.environment_variable());
    if (is_switch(option)) {
      command.add_flag(option.flag(), text, fmt::format("{} ({})", option.help, how));
      continue;
    }
    command
        .add_option(option.flag(), text,
                    fmt::format("{}, {} .. {} ({})", option.help, option.min, option.max, how))
        ->type_name("N");
  }
}

Result<KvManagerRuntimeConfig> RuntimeOptions::resolve() const {
  KvBlockManagerConfig config;
  if (!file_.empty()) KVBM_CHECK_OK(apply_file(config, file_));
  KVBM_CHECK_OK(detail::apply_environment(config));
  for (const auto& [name, text] : flags_) {
    if (text.empty()) continue;
    const detail::Option& option = *detail::find_option(name);
    const bool alone = is_switch(option) && text == "true";  // as CLI11 has it
    KVBM_CHECK_OK(detail::set_option(config, option, alone ? "1" : text, option.flag()));
  }
  return config.runtime;
}

}  // namespace kvbm::app
