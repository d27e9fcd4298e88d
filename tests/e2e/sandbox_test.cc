// What a container takes away: locked memory beyond 8 MiB, and io_uring.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "tests/e2e/replay_run.h"

namespace kvbm::e2e {
namespace {

using testing::HasSubstr;

std::string paths_of(const nlohmann::json& report) {
  std::string text;
  for (const auto& path : report["transfer_paths"]) text += path.get<std::string>() + "\n";
  return text;
}

void expect_three_tiers_at_work(const nlohmann::json& report) {
  EXPECT_GT(report["hit_tokens"]["host"], 0u);
  EXPECT_GT(report["hit_tokens"]["disk"], 0u);
  EXPECT_GT(report["edges"]["host_to_disk"]["blocks"], 0u);
  EXPECT_EQ(report["wrong_blocks"], 0);
  EXPECT_EQ(report["checksum_mismatches"], 0);
  EXPECT_EQ(report["failed_transfers"], 0);
}

TEST(SandboxTest, WithoutLockedMemoryAndIoUringAReplayIsTheSame) {
  const std::string trace = small_trace();
  const auto free = replay_json(trace, kSmallTiers);
  expect_three_tiers_at_work(free);

  const auto boxed = parse_only_json(replay_command("-", kSmallTiers, {"--json"})
                                         .input(trace)
                                         .limit(RLIMIT_MEMLOCK, 8 << 20)
                                         .sandboxed()
                                         .run());
  expect_three_tiers_at_work(boxed);
  EXPECT_EQ(boxed["hit_tokens"], free["hit_tokens"]);
  EXPECT_EQ(boxed["evictions"], free["evictions"]);
  EXPECT_THAT(
      paths_of(boxed),
      HasSubstr("files: 4 transfer threads (OperationFailed: the system gives no io_uring"));
}

}  // namespace
}  // namespace kvbm::e2e
