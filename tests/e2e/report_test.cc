// The page that `replay --report` writes: whether it is there, whole, and says what the table says.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "apps/kvbm/text.h"
#include "tests/e2e/replay_run.h"

namespace kvbm::e2e {
namespace {

using app::grouped;
using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

class ReportTest : public testing::Test {
 protected:
  Finished run(const std::string& report_file, std::vector<std::string> more = {}) const {
    more.insert(more.end(), {"--report", report_file});
    return replay_command("-", kSmallTiers, more).input(small_trace()).run();
  }

  TemporaryFolder folder_;
};

TEST_F(ReportTest, ItTellsTheNumbersOfTheReplay) {
  const Finished finished = run(folder_ / "r.html", {"--json"});
  EXPECT_EQ(finished.exit_code, 0) << finished.err;
  const auto report = parse_only_json(finished);
  const std::string page = read_file(folder_ / "r.html");

  EXPECT_THAT(page, StartsWith("<!DOCTYPE html>\n"));
  EXPECT_THAT(page, EndsWith("</html>\n"));
  EXPECT_THAT(page, HasSubstr(fmt::format(">{}<", grouped(report["prompt_tokens"]))));
  for (const char* tier : {"device", "host", "disk"}) {
    for (const char* what : {"hit_tokens", "blocks_verified", "evictions"}) {
      EXPECT_THAT(page, HasSubstr(fmt::format("<td>{}</td>", grouped(report[what][tier]))));
    }
  }
  for (const auto& [name, edge] : report["edges"].items()) {
    EXPECT_THAT(page, HasSubstr(fmt::format("<td>{}</td>", app::size_text(edge["bytes"])))) << name;
  }
  EXPECT_THAT(page, HasSubstr(fmt::format(" 0 wrong blocks of {} verified",
                                          grouped(sum(report["blocks_verified"])))));
}

TEST_F(ReportTest, ItReplacesAnOldPageThroughALinkAndLeavesNothingElse) {
  write_file(folder_ / "r.html", std::string(1'000'000, 'x'));
  std::filesystem::create_symlink("r.html", folder_ / "link.html");
  EXPECT_EQ(run(folder_ / "link.html").exit_code, 0);
  EXPECT_THAT(read_file(folder_ / "r.html"), EndsWith("</html>\n"));
  EXPECT_TRUE(std::filesystem::is_symlink(folder_ / "link.html"));
  EXPECT_EQ(contents(folder_.path()).size(), 2u);
}

TEST_F(ReportTest, AFileThatCannotBeWrittenIsRefusedBeforeTheWork) {
  for (const char* name : {"none/r.html", "."}) {
    const Finished finished = run(folder_ / name);
    EXPECT_EQ(finished.exit_code, 2);
    EXPECT_EQ(finished.out, "");
    EXPECT_THAT(finished.err, StartsWith("kvbm: cannot write " + (folder_ / name)));
  }
  for (const char* name : {"", "-"}) {
    const Finished finished = run(name);
    EXPECT_EQ(finished.exit_code, 2);
    EXPECT_THAT(finished.err, HasSubstr("--report"));
    EXPECT_THAT(finished.err, HasSubstr("needs the name of a file"));
  }
  EXPECT_THAT(contents(folder_.path()), IsEmpty());
}

TEST_F(ReportTest, AReplayThatFailsLeavesNoEmptyPage) {
  const Finished finished =
      run(folder_ / "r.html", {"--disk-dir", folder_ / "none/none", "--json", folder_ / "r.json"});
  EXPECT_EQ(finished.exit_code, 2);
  EXPECT_THAT(contents(folder_.path()), IsEmpty());
}

TEST_F(ReportTest, AFullDiskLeavesTheOldPage) {
  write_file(folder_ / "r.html", "old\n");
  constexpr rlim_t kLimitBytes = 50'000;  // room for the disk tier of ten blocks, not for the page
  const Finished finished = replay_command("-", {20, 60, 10}, {"--report", folder_ / "r.html"})
                                .limit(RLIMIT_FSIZE, kLimitBytes)
                                .input(small_trace())
                                .run();
  EXPECT_EQ(finished.exit_code, 2);
  EXPECT_THAT(finished.err, HasSubstr("r.html: File too large"));
  EXPECT_EQ(read_file(folder_ / "r.html"), "old\n");
  EXPECT_THAT(contents(folder_.path()), ElementsAre("r.html 4"));

  const Finished full = run("/dev/full");
  EXPECT_EQ(full.exit_code, 2);
  EXPECT_THAT(full.err, HasSubstr("cannot write /dev/full: No space left"));
}

}  // namespace
}  // namespace kvbm::e2e
