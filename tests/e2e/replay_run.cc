#include "tests/e2e/replay_run.h"

#include <gtest/gtest.h>

#include <sstream>
#include <string>

namespace kvbm::e2e {

std::string small_trace(std::uint64_t seed) {
  return generate({"--seed", std::to_string(seed), "--requests", "300", "--users", "20",
                   "--max-prompt-tokens", "10000", "--one-off-tokens", "4000"});
}

Command replay_command(const std::string& trace_file, const Tiers& tiers,
                       const std::vector<std::string>& more) {
  std::vector<std::string> arguments = {"replay",          trace_file,
                                        "--device-blocks", std::to_string(tiers.device),
                                        "--host-blocks",   std::to_string(tiers.host),
                                        "--disk-blocks",   std::to_string(tiers.disk),
                                        "--block-bytes",   std::to_string(kBlockBytes),
                                        "--layers",        "2"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return Command(std::move(arguments));
}

nlohmann::json replay_json(const std::string& trace, const Tiers& tiers,
                           const std::vector<std::string>& more) {
  std::vector<std::string> arguments = more;
  arguments.push_back("--json");
  return parse_only_json(replay_command("-", tiers, arguments).input(trace).run());
}

namespace {

// Tests choose sizes that a manager warns of.
std::string without_warnings(const std::string& err) {
  std::istringstream in(err);
  std::string rest;
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with("kvbm: warning: ")) rest += line + "\n";
  }
  return rest;
}

}  // namespace

nlohmann::json parse_only_json(const Finished& finished) {
  EXPECT_EQ(finished.exit_code, 0);
  EXPECT_EQ(without_warnings(finished.err), "");
  return nlohmann::json::parse(finished.out);  // throws
}

std::uint64_t sum(const nlohmann::json& by_tier) {
  std::uint64_t total = 0;
  for (const auto& value : by_tier) total += value.get<std::uint64_t>();
  return total;
}

}  // namespace kvbm::e2e
