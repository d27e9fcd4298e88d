// Request traces in the Mooncake form: JSON Lines, one request a line.
//
// A line is an object with `timestamp` (ms), `input_length` and `output_length` (tokens) and
// `hash_ids`: one id per started block of 512 prompt tokens. An id names the whole prefix up to and
// including its block, so it always follows the same id; the last block may be partial. Other
// fields are ignored.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kvbm/result.h"

namespace kvbm::app {

inline constexpr std::size_t kTraceBlockTokens = 512;
inline constexpr std::size_t kMaxTraceLineBytes = std::size_t{16} << 20;  // without the newline

struct TraceRequest {
  std::uint64_t timestamp_ms = 0;
  std::uint32_t input_length = 0;   // tokens
  std::uint32_t output_length = 0;  // tokens
  std::vector<std::uint64_t> hash_ids;

  friend bool operator==(const TraceRequest&, const TraceRequest&) = default;
};

struct Trace {
  std::vector<TraceRequest> requests;

  friend bool operator==(const Trace&, const Trace&) = default;
};

// Number of ids that a prompt of `input_length` tokens has.
constexpr std::size_t trace_blocks(std::uint32_t input_length) {
  return (std::size_t{input_length} + kTraceBlockTokens - 1) / kTraceBlockTokens;
}

// Reads a trace from the file `path`, or from standard input if `path` is "-". Stops after `limit`
// requests if given, without looking at what follows. Blank lines are skipped.
//
// A trace returned here is well-formed: it has at least one request, timestamps do not decrease,
// each prompt has trace_blocks(input_length) ids, no id occurs twice in a prompt, and each id has
// one parent throughout. Anything else is InvalidConfig, whose message starts with "path:LINE:" and
// says what was wrong and what is allowed. I/O failures are OperationFailed with errno.
Result<Trace> read_trace(const std::string& path, std::optional<std::size_t> limit = std::nullopt);

// Writes `trace` to the file `path`, or to standard output if `path` is "-". A regular file appears
// whole or not at all: it is written beside its place and then renamed, and an old file of that
// name keeps its contents if anything fails. Devices and pipes are written directly. Does not check
// that the trace is well-formed. Failures are OperationFailed with errno.
Result<void> write_trace(const Trace& trace, const std::string& path);

// Appends the request's line, newline included, in the form of the public traces.
void append_line(std::string& out, const TraceRequest& request);

}  // namespace kvbm::app
