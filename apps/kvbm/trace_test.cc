#include "apps/kvbm/trace.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace kvbm::app {
namespace {

namespace fs = std::filesystem;

// A folder of its own for each test, since tests may run at the same time.
class TraceTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/kvbm_trace_XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string path(const std::string& name) const { return folder_ + "/" + name; }

  std::string file(const std::string& text) const {
    const std::string result = path("trace.jsonl");
    std::ofstream(result, std::ios::binary) << text;
    return result;
  }

  Result<Trace> read(const std::string& text, std::optional<std::size_t> limit = std::nullopt) {
    return read_trace(file(text), limit);
  }

  // The message of a refused text, without the path before the line number.
  std::string refusal(const std::string& text) {
    const auto result = read(text);
    if (result) return "(accepted)";
    EXPECT_EQ(result.error().code, ErrorCode::InvalidConfig);
    const std::string prefix = path("trace.jsonl") + ":";
    const std::string& message = result.error().message;
    EXPECT_TRUE(message.starts_with(prefix)) << message;
    return message.substr(std::min(prefix.size(), message.size()));
  }

  static std::string contents(const std::string& name) {
    std::ostringstream out;
    out << std::ifstream(name, std::ios::binary).rdbuf();
    return std::move(out).str();
  }

  std::vector<std::string> names() const {
    std::vector<std::string> result;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      result.push_back(entry.path().filename().string());
    }
    return result;
  }

  std::string folder_;
};

// A line whose ids are given as JSON.
std::string line(std::uint64_t timestamp, std::uint64_t input, const std::string& ids) {
  return "{\"timestamp\": " + std::to_string(timestamp) +
         ", \"input_length\": " + std::to_string(input) +
         ", \"output_length\": 7, \"hash_ids\": " + ids + "}\n";
}

// A line whose fields before hash_ids are given as JSON.
std::string fields(const std::string& timestamp, const std::string& input,
                   const std::string& output) {
  return "{\"timestamp\": " + timestamp + ", \"input_length\": " + input +
         ", \"output_length\": " + output + ", \"hash_ids\": [4]}\n";
}

const char kLineForm[] =
    "a line must be one JSON object with timestamp, input_length, output_length and hash_ids";

Trace sample() {
  return Trace{{{0, 600, 5, {0, 1}}, {0, 512, 6, {0}}, {3000, 1025, 7, {0, 2, 3}}}};
}

TEST_F(TraceTest, ReadsEveryField) {
  const auto trace = read(line(3, 1025, "[5, 6, 18446744073709551615]") + line(3, 512, "[5]") +
                          line(18446744073709551615U, 513, "[5, 6]"));
  ASSERT_TRUE(trace) << trace.error().message;
  EXPECT_EQ(*trace, (Trace{{{3, 1025, 7, {5, 6, 18446744073709551615U}},
                            {3, 512, 7, {5}},
                            {18446744073709551615U, 513, 7, {5, 6}}}}));
}

TEST_F(TraceTest, AcceptsBlankLinesOtherFieldsAndAnyLineEnd) {
  const auto trace = read(
      "\n  \t\r\n{\"hint\": {\"a\": [1]}, \"hash_ids\": [9], \"timestamp\": 1, "
      "\"output_length\": 0, \"input_length\": 1}\r\n\n" +
      std::string("{\"timestamp\":2,\"input_length\":0,\"output_length\":"
                  "4294967295,\"hash_ids\":[]}"));
  ASSERT_TRUE(trace) << trace.error().message;
  EXPECT_EQ(*trace, (Trace{{{1, 1, 0, {9}}, {2, 0, 4294967295U, {}}}}));
}

TEST_F(TraceTest, LimitStopsBeforeWhatFollows) {
  const std::string text = std::string("\n") + line(0, 1, "[1]") + line(1, 1, "[2]") + "not JSON\n";
  const auto two = read(text, 2);
  ASSERT_TRUE(two) << two.error().message;
  EXPECT_EQ(two->requests.size(), 2U);
  EXPECT_FALSE(read(text, 3));
  const auto more = read(line(0, 1, "[1]"), 1000);
  ASSERT_TRUE(more);
  EXPECT_EQ(more->requests.size(), 1U);

  const auto none = read(text, 0);
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, ErrorCode::InvalidConfig);
  EXPECT_EQ(none.error().message, "the limit of requests to read is 0; it must be at least 1");
}

TEST_F(TraceTest, RefusesWhatIsNotAJsonObject) {
  EXPECT_EQ(refusal(line(0, 1, "[1]") + "\n{\"timestamp\": x}\n"),
            std::string("3: not valid JSON at byte 15; ") + kLineForm);
  EXPECT_EQ(refusal("{\"timestamp\": 1\n"),
            std::string("1: not valid JSON at byte 16; ") + kLineForm);
  EXPECT_EQ(refusal("{} {}\n"), std::string("1: not valid JSON at byte 4; ") + kLineForm);
  EXPECT_EQ(refusal("\"\xff\"\n"), std::string("1: not valid JSON at byte 2; ") + kLineForm);
  EXPECT_EQ(refusal(std::string("\0\n", 2)),
            std::string("1: not valid JSON at byte 1; ") + kLineForm);
  EXPECT_EQ(refusal("{\"timestamp\": 1e999}\n"),
            std::string("1: not valid JSON: a number is too large; ") + kLineForm);
  EXPECT_EQ(refusal("[1, 2]\n"), std::string("1: an array is not a JSON object; ") + kLineForm);
  EXPECT_EQ(refusal("17\n"), std::string("1: 17 is not a JSON object; ") + kLineForm);
  EXPECT_EQ(refusal("null\n"), std::string("1: null is not a JSON object; ") + kLineForm);
}

TEST_F(TraceTest, RefusesMissingFields) {
  EXPECT_EQ(refusal("{}\n"), std::string("1: timestamp is missing; ") + kLineForm);
  EXPECT_EQ(refusal("{\"timestamp\": 1}\n"),
            std::string("1: input_length is missing; ") + kLineForm);
  EXPECT_EQ(refusal("{\"timestamp\": 1, \"input_length\": 1}\n"),
            std::string("1: output_length is missing; ") + kLineForm);
  EXPECT_EQ(refusal("{\"timestamp\": 1, \"input_length\": 1, \"output_length\": 1}\n"),
            std::string("1: hash_ids is missing; ") + kLineForm);
}

TEST_F(TraceTest, RefusesNumbersOutOfRange) {
  const std::string allowed32 = "; it must be an integer from 0 to 4294967295";
  const std::string allowed64 = "; it must be an integer from 0 to 18446744073709551615";
  EXPECT_EQ(refusal(fields("-1", "1", "1")), "1: timestamp is -1" + allowed64);
  EXPECT_EQ(refusal(fields("1.5", "1", "1")), "1: timestamp is 1.5" + allowed64);
  EXPECT_EQ(refusal(fields("18446744073709551616", "1", "1")),
            "1: timestamp is 1.8446744073709552e+19" + allowed64);
  EXPECT_EQ(refusal(fields("\"3\"", "1", "1")), "1: timestamp is a string" + allowed64);
  EXPECT_EQ(refusal(fields("null", "1", "1")), "1: timestamp is null" + allowed64);
  EXPECT_EQ(refusal(fields("0", "-5", "1")), "1: input_length is -5" + allowed32);
  EXPECT_EQ(refusal(fields("0", "4294967296", "1")), "1: input_length is 4294967296" + allowed32);
  EXPECT_EQ(refusal(fields("0", "true", "1")), "1: input_length is true" + allowed32);
  EXPECT_EQ(refusal(fields("0", "1", "[1]")), "1: output_length is an array" + allowed32);
  EXPECT_EQ(refusal(fields("0", "1", "4294967296")), "1: output_length is 4294967296" + allowed32);
  EXPECT_EQ(refusal(fields("0", "1", "{}")), "1: output_length is an object" + allowed32);

  EXPECT_EQ(refusal(line(0, 1025, "[1, 2, -3]")), "1: hash_ids[2] is -3" + allowed64);
  EXPECT_EQ(refusal(line(0, 1025, "[1, 2.5, 3]")), "1: hash_ids[1] is 2.5" + allowed64);
  EXPECT_EQ(refusal(line(0, 1, "[\"1\"]")), "1: hash_ids[0] is a string" + allowed64);
  EXPECT_EQ(refusal(line(0, 1, "7")),
            "1: hash_ids is 7; it must be an array of integers from 0 to 18446744073709551615");
}

TEST_F(TraceTest, RefusesAWrongNumberOfIds) {
  EXPECT_EQ(refusal(line(0, 512, "[1]") + line(0, 513, "[1]")),
            "2: hash_ids has 1 ids; it must have 2 for input_length 513, one per started block of "
            "512 tokens");
  EXPECT_EQ(refusal(line(0, 1024, "[1, 2, 3]")),
            "1: hash_ids has 3 ids; it must have 2 for input_length 1024, one per started block of "
            "512 tokens");
  EXPECT_EQ(refusal(line(0, 0, "[1]")),
            "1: hash_ids has 1 ids; it must have 0 for input_length 0, one per started block of "
            "512 tokens");
  EXPECT_EQ(refusal(line(0, 4294967295U, "[]")),
            "1: hash_ids has 0 ids; it must have 8388608 for input_length 4294967295, one per "
            "started block of 512 tokens");
}

TEST_F(TraceTest, RefusesIdsThatContradictTheirPrefix) {
  const std::string rule =
      "where it was first seen; an id names its whole prefix, so it must "
      "always follow the same id";
  const std::string first = line(0, 1536, "[1, 2, 3]");
  EXPECT_EQ(refusal(first + line(0, 1024, "[1, 3]")),
            "2: hash id 3 follows id 1 here but follows id 2 on line 1, " + rule);
  EXPECT_EQ(refusal(first + "\n" + first + line(0, 512, "[2]")),
            "4: hash id 2 is first in its prompt here but follows id 1 on line 1, " + rule);
  EXPECT_EQ(refusal(line(0, 512, "[8]") + first + line(0, 1024, "[8, 1]")),
            "3: hash id 1 follows id 8 here but is first in its prompt on line 2, " + rule);
  // Id 0 as a parent is not "no parent".
  EXPECT_EQ(refusal(line(0, 1024, "[0, 1]") + line(0, 512, "[1]")),
            "2: hash id 1 is first in its prompt here but follows id 0 on line 1, " + rule);
}

TEST_F(TraceTest, RefusesAnIdTwiceInOnePrompt) {
  const std::string rule = " occurs twice in this prompt; the ids of a prompt must all differ";
  EXPECT_EQ(refusal(line(0, 1024, "[1, 1]")), "1: hash id 1" + rule);
  EXPECT_EQ(refusal(line(0, 1024, "[1, 2]") + line(0, 2048, "[1, 2, 3, 2]")),
            "2: hash id 2" + rule);
}

TEST_F(TraceTest, RefusesDecreasingTimestamps) {
  EXPECT_EQ(refusal(line(0, 1, "[1]") + line(9, 1, "[2]") + "\n" + line(8, 1, "[3]")),
            "4: timestamp 8 is less than 9 on line 2; timestamps must not decrease");
}

TEST_F(TraceTest, RefusesFilesWithoutRequests) {
  const std::string rule = " no requests; a trace must have at least one line with a JSON object";
  EXPECT_EQ(refusal(""), rule);
  EXPECT_EQ(refusal("\n \n\n"), rule);
}

TEST_F(TraceTest, RefusesLinesAbove16MiB) {
  const std::string request = line(0, 1, "[1]");
  const std::string json = request.substr(0, request.size() - 1);
  const std::string longest = json + std::string(kMaxTraceLineBytes - json.size(), ' ');
  const auto trace = read(request + longest + "\n" + longest);
  ASSERT_TRUE(trace) << trace.error().message;
  EXPECT_EQ(trace->requests.size(), 3U);

  const std::string rule = ": the line is too long; a line has at most 16777216 bytes (16 MiB)";
  EXPECT_EQ(refusal(request + longest + " \n" + request), "2" + rule);
  EXPECT_EQ(refusal(longest + " "), "1" + rule);
}

TEST_F(TraceTest, ReadsLinesAcrossChunks) {
  // Lines of about 100 kB, so that many of them straddle two reads.
  std::string text;
  Trace expected;
  std::uint64_t id = 1'000'000'000;
  for (std::uint64_t i = 0; i < 50; ++i) {
    TraceRequest request{i, static_cast<std::uint32_t>(512 * (9000 + i)), 1, {}};
    for (std::uint64_t k = 0; k < 9000 + i; ++k) request.hash_ids.push_back(id++);
    append_line(text, request);
    expected.requests.push_back(std::move(request));
  }
  const auto trace = read(text);
  ASSERT_TRUE(trace) << trace.error().message;
  EXPECT_TRUE(*trace == expected);
}

TEST_F(TraceTest, ReportsFilesThatCannotBeRead) {
  const auto missing = read_trace(path("missing"));
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::OperationFailed);
  EXPECT_EQ(missing.error().native, ENOENT);
  EXPECT_EQ(missing.error().message,
            path("missing") + ": cannot open the trace: No such file or directory");

  const auto directory = read_trace(folder_);
  ASSERT_FALSE(directory);
  EXPECT_EQ(directory.error().code, ErrorCode::OperationFailed);
  EXPECT_EQ(directory.error().native, EISDIR);
  EXPECT_EQ(directory.error().message, folder_ + ": cannot read the trace: Is a directory");
}

// Puts a file in the place of a standard stream while it lives.
class Redirect {
 public:
  Redirect(int stream, const std::string& file, int flags) : stream_(stream) {
    std::fflush(stdout);  // what the test runner has printed belongs elsewhere
    saved_ = ::dup(stream);
    const int fd = ::open(file.c_str(), flags, 0600);
    ::dup2(fd, stream);
    ::close(fd);
  }
  ~Redirect() {
    ::dup2(saved_, stream_);
    ::close(saved_);
  }

 private:
  int stream_;
  int saved_;
};

TEST_F(TraceTest, ReadsStandardInput) {
  const std::string name = file(line(5, 1, "[1]") + "x\n");
  {
    Redirect input(STDIN_FILENO, name, O_RDONLY);
    const auto trace = read_trace("-", 1);
    ASSERT_TRUE(trace) << trace.error().message;
    EXPECT_EQ(trace->requests[0].timestamp_ms, 5U);
  }
  Redirect input(STDIN_FILENO, name, O_RDONLY);
  const auto trace = read_trace("-");
  ASSERT_FALSE(trace);
  EXPECT_EQ(trace.error().message,
            std::string("<stdin>:2: not valid JSON at byte 1; ") + kLineForm);
}

TEST_F(TraceTest, WritesTheFormOfThePublicTraces) {
  std::string text;
  append_line(text, TraceRequest{0, 6758, 500, {0, 18446744073709551615U}});
  append_line(text, TraceRequest{18446744073709551615U, 0, 4294967295U, {}});
  EXPECT_EQ(text,
            "{\"timestamp\": 0, \"input_length\": 6758, \"output_length\": 500, \"hash_ids\": [0, "
            "18446744073709551615]}\n"
            "{\"timestamp\": 18446744073709551615, \"input_length\": 0, \"output_length\": "
            "4294967295, \"hash_ids\": []}\n");
}

TEST_F(TraceTest, ReadsBackWhatItWrote) {
  const std::string name = path("out");
  ASSERT_TRUE(write_trace(sample(), name));
  const auto trace = read_trace(name);
  ASSERT_TRUE(trace) << trace.error().message;
  EXPECT_EQ(*trace, sample());
  EXPECT_EQ(names(), std::vector<std::string>{"out"});
}

TEST_F(TraceTest, WritesMoreThanOneBuffer) {
  Trace trace;
  for (std::uint64_t i = 0; i < 40'000; ++i) {
    trace.requests.push_back(TraceRequest{i, 1, 1, {i}});  // 2.6 MB
  }
  ASSERT_TRUE(write_trace(trace, path("out")));
  const auto back = read_trace(path("out"));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_TRUE(*back == trace);
}

TEST_F(TraceTest, ReplacesAFileAndKeepsItsMode) {
  const std::string name = file("old");
  ASSERT_EQ(::chmod(name.c_str(), 0640), 0);
  fs::create_symlink(name, path("link"));
  ASSERT_TRUE(write_trace(sample(), path("link")));
  EXPECT_TRUE(fs::is_symlink(path("link")));
  const auto trace = read_trace(name);
  ASSERT_TRUE(trace) << trace.error().message;
  EXPECT_EQ(*trace, sample());
  EXPECT_EQ(static_cast<unsigned>(fs::status(name).permissions()), 0640U);
  EXPECT_EQ(names().size(), 2U);
}

TEST_F(TraceTest, KeepsTheOldFileIfWritingFails) {
  const std::string name = file("old");
  // No disk to fill here: a limit on the size of files makes write() fall short and then fail.
  rlimit before = {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit limited = before;
  limited.rlim_cur = 100;
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limited), 0);
  const auto result = write_trace(sample(), name);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);

  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::OperationFailed);
  EXPECT_EQ(result.error().native, EFBIG);
  EXPECT_EQ(result.error().message, name + ": cannot write the trace: File too large");
  EXPECT_EQ(contents(name), "old");
  EXPECT_EQ(names(), std::vector<std::string>{"trace.jsonl"});
}

TEST_F(TraceTest, ReportsAFullDevice) {
  const auto result = write_trace(sample(), "/dev/full");
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::OperationFailed);
  EXPECT_EQ(result.error().native, ENOSPC);
  EXPECT_EQ(result.error().message, "/dev/full: cannot write the trace: No space left on device");
  EXPECT_TRUE(fs::exists("/dev/full"));
}

TEST_F(TraceTest, ReportsPlacesThatCannotBeWritten) {
  const auto missing = write_trace(sample(), path("none/out"));
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::OperationFailed);
  EXPECT_EQ(missing.error().native, ENOENT);
  EXPECT_TRUE(missing.error().message.starts_with(path("none/out") + ": cannot create"));

  const auto directory = write_trace(sample(), folder_);
  ASSERT_FALSE(directory);
  EXPECT_EQ(directory.error().native, EISDIR);
  EXPECT_TRUE(names().empty());
}

TEST_F(TraceTest, WritesThroughAPipe) {
  const std::string name = path("pipe");
  ASSERT_EQ(::mkfifo(name.c_str(), 0600), 0);
  std::optional<Result<Trace>> trace;
  std::thread reader([&] { trace.emplace(read_trace(name)); });
  const auto result = write_trace(sample(), name);
  reader.join();
  EXPECT_TRUE(result);
  ASSERT_TRUE(*trace) << trace->error().message;
  EXPECT_EQ(**trace, sample());
  EXPECT_TRUE(fs::is_fifo(name));
}

TEST_F(TraceTest, WritesStandardOutput) {
  const std::string name = path("out");
  {
    Redirect output(STDOUT_FILENO, name, O_WRONLY | O_CREAT | O_TRUNC);
    ASSERT_TRUE(write_trace(sample(), "-"));
  }
  const auto trace = read_trace(name);
  ASSERT_TRUE(trace) << trace.error().message;
  EXPECT_EQ(*trace, sample());

  Redirect output(STDOUT_FILENO, "/dev/full", O_WRONLY);
  const auto full = write_trace(sample(), "-");
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().native, ENOSPC);
  EXPECT_EQ(full.error().message, "<stdout>: cannot write the trace: No space left on device");
}

}  // namespace
}  // namespace kvbm::app
