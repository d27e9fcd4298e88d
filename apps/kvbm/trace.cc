#include "apps/kvbm/trace.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>
#include <memory>
#include <new>
#include <nlohmann/json.hpp>
#include <string_view>
#include <system_error>
#include <unordered_map>
#include <utility>

namespace kvbm::app {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kChunkBytes = std::size_t{1} << 20;
constexpr char kStandardStream[] = "-";

Error io_error(const std::string& name, std::string_view what, int error_number) {
  // Not strerror(), which is not thread-safe.
  return Error{.code = ErrorCode::OperationFailed,
               .native = error_number,
               .message = fmt::format("{}: {}: {}", name, what,
                                      std::generic_category().message(error_number))};
}

Error bad_input(std::string message) {
  return Error{.code = ErrorCode::InvalidConfig, .message = std::move(message)};
}

Error bad_line(const std::string& name, std::size_t line, std::string_view what) {
  return bad_input(fmt::format("{}:{}: {}", name, line, what));
}

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd, bool owned) : fd_(fd), owned_(owned) {}
  ~FileDescriptor() {
    if (owned_ && fd_ >= 0) ::close(fd_);
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;

  int get() const { return fd_; }

  // Returns 0 or errno. Some file systems report a failed write only here.
  int close() {
    if (!owned_ || fd_ < 0) return 0;
    const int fd = std::exchange(fd_, -1);
    return ::close(fd) == 0 ? 0 : errno;
  }

 private:
  int fd_;
  bool owned_;
};

// Splits a file into lines without ever holding more than one line and one chunk.
class LineReader {
 public:
  LineReader(int fd, const std::string& name) : fd_(fd), name_(name) {}

  // The next line without its newline, valid until the next call; nothing at the end of the file.
  Result<std::optional<std::string_view>> next() {
    std::size_t searched = begin_;
    while (true) {
      const char* data = buffer_.data();
      const void* newline =
          searched < end_ ? std::memchr(data + searched, '\n', end_ - searched) : nullptr;
      const std::size_t stop =
          newline != nullptr ? static_cast<std::size_t>(static_cast<const char*>(newline) - data)
                             : end_;
      if (stop - begin_ > kMaxTraceLineBytes) {
        return bad_line(name_, line_ + 1,
                        fmt::format("the line is too long; a line has at most {} bytes (16 MiB)",
                                    kMaxTraceLineBytes));
      }
      if (newline != nullptr) return take(stop, stop + 1);
      if (at_end_) {
        if (begin_ == end_) return std::optional<std::string_view>();
        return take(end_, end_);  // a last line without a newline
      }
      searched = end_ - begin_;
      KVBM_CHECK_OK(fill());
    }
  }

  std::size_t line() const { return line_; }  // of the line returned last, from 1

 private:
  std::optional<std::string_view> take(std::size_t stop, std::size_t next_begin) {
    const std::string_view text(buffer_.data() + begin_, stop - begin_);
    begin_ = next_begin;
    ++line_;
    return text;
  }

  // Moves the unfinished line to the front and reads once behind it.
  Result<void> fill() {
    if (begin_ > 0) {
      std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
      end_ -= begin_;
      begin_ = 0;
    }
    if (buffer_.size() - end_ < kChunkBytes / 2) {
      buffer_.resize(std::max(buffer_.size() * 2, kChunkBytes));
    }
    ssize_t got;
    do {
      got = ::read(fd_, buffer_.data() + end_, buffer_.size() - end_);
    } while (got < 0 && errno == EINTR);
    if (got < 0) return io_error(name_, "cannot read the trace", errno);
    if (got == 0) at_end_ = true;
    end_ += static_cast<std::size_t>(got);
    return {};
  }

  int fd_;
  const std::string& name_;
  std::string buffer_;
  std::size_t begin_ = 0;  // first byte not yet returned
  std::size_t end_ = 0;    // end of the bytes read
  std::size_t line_ = 0;
  bool at_end_ = false;
};

// What to print for a wrong value. Strings and containers are named, not shown: they may be as long
// as the line.
std::string show(const Json& value) {
  if (value.is_string()) return "a string";
  if (value.is_array()) return "an array";
  if (value.is_object()) return "an object";
  return value.dump();
}

// The value if it is an integer from 0 to `max`. A number beyond 64 bits was parsed as a float.
std::optional<std::uint64_t> as_unsigned(const Json& value, std::uint64_t max) {
  std::uint64_t number = 0;
  if (const auto* u = value.get_ptr<const Json::number_unsigned_t*>()) {
    number = *u;
  } else if (const auto* i = value.get_ptr<const Json::number_integer_t*>(); i && *i >= 0) {
    number = static_cast<std::uint64_t>(*i);
  } else {
    return std::nullopt;
  }
  if (number > max) return std::nullopt;
  return number;
}

// Turns lines into requests and checks each against those before it.
class TraceParser {
 public:
  explicit TraceParser(const std::string& name) : name_(name) {}

  Result<TraceRequest> parse(std::string_view text, std::size_t line) {
    line_ = line;
    Json json;
    try {
      json = Json::parse(text.begin(), text.end());
    } catch (const Json::parse_error& error) {
      // Not its what(): that repeats the offending token, which may be as long as the line.
      return fail(fmt::format("not valid JSON at byte {}; {}", error.byte, kAllowedLine));
    } catch (const Json::exception&) {
      return fail(fmt::format("not valid JSON: a number is too large; {}", kAllowedLine));
    }
    if (!json.is_object()) {
      return fail(fmt::format("{} is not a JSON object; {}", show(json), kAllowedLine));
    }

    constexpr std::uint64_t kMax32 = std::numeric_limits<std::uint32_t>::max();
    constexpr std::uint64_t kMax64 = std::numeric_limits<std::uint64_t>::max();
    TraceRequest request;
    KVBM_TRY(request.timestamp_ms, number(json, "timestamp", kMax64));
    KVBM_TRY(const std::uint64_t input, number(json, "input_length", kMax32));
    KVBM_TRY(const std::uint64_t output, number(json, "output_length", kMax32));
    request.input_length = static_cast<std::uint32_t>(input);
    request.output_length = static_cast<std::uint32_t>(output);
    KVBM_TRY(request.hash_ids, ids(json, request.input_length));

    if (last_line_ != 0 && request.timestamp_ms < last_timestamp_) {
      return fail(
          fmt::format("timestamp {} is less than {} on line {}; timestamps must not "
                      "decrease",
                      request.timestamp_ms, last_timestamp_, last_line_));
    }
    KVBM_CHECK_OK(check_prefix(request.hash_ids));
    last_timestamp_ = request.timestamp_ms;
    last_line_ = line;
    return request;
  }

 private:
  struct Seen {
    std::optional<std::uint64_t> parent;  // none: the id is the first of its prompts
    std::size_t first_line;
    std::size_t last_line;
  };

  // Ids may come in any pattern, such as multiples of a power of two.
  struct Mix {
    std::size_t operator()(std::uint64_t x) const {
      x = (x ^ (x >> 32)) * 0x9e3779b97f4a7c15ULL;
      return static_cast<std::size_t>(x ^ (x >> 29));
    }
  };

  static constexpr char kAllowedLine[] =
      "a line must be one JSON object with timestamp, input_length, output_length and hash_ids";

  Error fail(std::string_view what) const { return bad_line(name_, line_, what); }

  Result<const Json*> field(const Json& json, const char* name) const {
    const auto found = json.find(name);
    if (found == json.end()) {
      return fail(fmt::format("{} is missing; {}", name, kAllowedLine));
    }
    return &*found;
  }

  Result<std::uint64_t> number(const Json& json, const char* name, std::uint64_t max) const {
    KVBM_TRY(const Json* value, field(json, name));
    const auto result = as_unsigned(*value, max);
    if (!result) {
      return fail(
          fmt::format("{} is {}; it must be an integer from 0 to {}", name, show(*value), max));
    }
    return *result;
  }

  Result<std::vector<std::uint64_t>> ids(const Json& json, std::uint32_t input_length) const {
    constexpr std::uint64_t kMax = std::numeric_limits<std::uint64_t>::max();
    KVBM_TRY(const Json* values, field(json, "hash_ids"));
    if (!values->is_array()) {
      return fail(fmt::format("hash_ids is {}; it must be an array of integers from 0 to {}",
                              show(*values), kMax));
    }
    if (values->size() != trace_blocks(input_length)) {
      return fail(
          fmt::format("hash_ids has {} ids; it must have {} for input_length {}, one per "
                      "started block of {} tokens",
                      values->size(), trace_blocks(input_length), input_length, kTraceBlockTokens));
    }
    std::vector<std::uint64_t> result;
    result.reserve(values->size());
    for (const Json& value : *values) {
      const auto id = as_unsigned(value, kMax);
      if (!id) {
        return fail(fmt::format("hash_ids[{}] is {}; it must be an integer from 0 to {}",
                                result.size(), show(value), kMax));
      }
      result.push_back(*id);
    }
    return result;
  }

  static std::string after(std::optional<std::uint64_t> parent) {
    return parent ? fmt::format("follows id {}", *parent) : std::string("is first in its prompt");
  }

  // An id that comes back in the same prompt also contradicts its prefix, but is told apart: the
  // cause is another one.
  Result<void> check_prefix(const std::vector<std::uint64_t>& ids) {
    std::optional<std::uint64_t> parent;
    for (const std::uint64_t id : ids) {
      const auto [it, fresh] = seen_.try_emplace(id, Seen{parent, line_, line_});
      Seen& seen = it->second;
      if (!fresh) {
        if (seen.last_line == line_) {
          return fail(
              fmt::format("hash id {} occurs twice in this prompt; the ids of a prompt "
                          "must all differ",
                          id));
        }
        if (seen.parent != parent) {
          return fail(
              fmt::format("hash id {} {} here but {} on line {}, where it was first seen; "
                          "an id names its whole prefix, so it must always follow the same "
                          "id",
                          id, after(parent), after(seen.parent), seen.first_line));
        }
        seen.last_line = line_;
      }
      parent = id;
    }
    return {};
  }

  const std::string& name_;
  std::size_t line_ = 0;
  std::uint64_t last_timestamp_ = 0;
  std::size_t last_line_ = 0;  // of the request before; 0: none
  std::unordered_map<std::uint64_t, Seen, Mix> seen_;
};

Result<Trace> read_lines(int fd, const std::string& name, std::optional<std::size_t> limit) {
  LineReader reader(fd, name);
  TraceParser parser(name);
  Trace trace;
  while (!limit || trace.requests.size() < *limit) {
    KVBM_TRY(const auto line, reader.next());
    if (!line) break;
    if (line->find_first_not_of(" \t\r") == std::string_view::npos) continue;
    KVBM_TRY(TraceRequest request, parser.parse(*line, reader.line()));
    trace.requests.push_back(std::move(request));
  }
  if (trace.requests.empty()) {
    return bad_input(
        fmt::format("{}: no requests; a trace must have at least one line with a JSON "
                    "object",
                    name));
  }
  return trace;
}

Result<void> write_all(int fd, const std::string& name, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::write(fd, bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return io_error(name, "cannot write the trace", errno);
    if (put == 0) return io_error(name, "cannot write the trace", EIO);  // would loop for ever
    bytes.remove_prefix(static_cast<std::size_t>(put));
  }
  return {};
}

Result<void> write_requests(int fd, const std::string& name, const Trace& trace) {
  std::string buffer;
  for (const TraceRequest& request : trace.requests) {
    append_line(buffer, request);
    if (buffer.size() < kChunkBytes) continue;
    KVBM_CHECK_OK(write_all(fd, name, buffer));
    buffer.clear();
  }
  return write_all(fd, name, buffer);
}

// Removes a file that was not renamed into place.
class TemporaryFile {
 public:
  explicit TemporaryFile(std::string path) : path_(std::move(path)) {}
  ~TemporaryFile() {
    if (!path_.empty()) ::unlink(path_.c_str());
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  const std::string& path() const { return path_; }
  void release() { path_.clear(); }

 private:
  std::string path_;
};

Result<void> write_replacing(const Trace& trace, const std::string& path,
                             std::optional<mode_t> mode) {
  // Replace what a symbolic link points at, not the link.
  std::string target = path;
  if (const std::unique_ptr<char, decltype(&std::free)> resolved(::realpath(path.c_str(), nullptr),
                                                                 &std::free);
      resolved) {
    target = resolved.get();
  }
  const std::size_t slash = target.rfind('/');
  const std::string folder =
      slash == std::string::npos ? std::string() : target.substr(0, slash + 1);

  // Not mkstemp(), which ignores the umask.
  std::string temporary;
  int fd = -1;
  for (int attempt = 0; fd < 0; ++attempt) {
    temporary = fmt::format("{}.kvbm-trace.{}.{}", folder, ::getpid(), attempt);
    fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0 && (errno != EEXIST || attempt >= 1000)) {
      return io_error(path, "cannot create a temporary file beside it", errno);
    }
  }
  TemporaryFile guard(temporary);
  FileDescriptor file(fd, true);
  if (mode && ::fchmod(fd, *mode) != 0) return io_error(path, "cannot set the file mode", errno);
  KVBM_CHECK_OK(write_requests(fd, path, trace));
  // A full disk may show only now; and the new name must never hold fewer bytes than the old one.
  if (::fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP) {
    return io_error(path, "cannot write the trace", errno);
  }
  if (const int error = file.close(); error != 0) {
    return io_error(path, "cannot write the trace", error);
  }
  if (::rename(temporary.c_str(), target.c_str()) != 0) {
    return io_error(path, "cannot put the trace in its place", errno);
  }
  guard.release();
  return {};
}

Result<void> write_to(const Trace& trace, const std::string& path) {
  if (path == kStandardStream) {
    // What the program printed before must come first.
    if (std::fflush(stdout) != 0) return io_error("<stdout>", "cannot write the trace", errno);
    return write_requests(STDOUT_FILENO, "<stdout>", trace);
  }
  struct stat status = {};
  if (::stat(path.c_str(), &status) != 0) {
    if (errno != ENOENT) return io_error(path, "cannot write the trace", errno);
    return write_replacing(trace, path, std::nullopt);
  }
  if (S_ISDIR(status.st_mode)) return io_error(path, "cannot write the trace", EISDIR);
  if (S_ISREG(status.st_mode)) return write_replacing(trace, path, status.st_mode & 07777U);

  FileDescriptor file(::open(path.c_str(), O_WRONLY | O_CLOEXEC), true);
  if (file.get() < 0) return io_error(path, "cannot open the file", errno);
  KVBM_CHECK_OK(write_requests(file.get(), path, trace));
  if (const int error = file.close(); error != 0) {
    return io_error(path, "cannot write the trace", error);
  }
  return {};
}

// Only memory can fail this way: everything else is checked.
Error out_of_memory(const std::string& path) {
  return Error{.code = ErrorCode::AllocationFailed,
               .native = ENOMEM,
               .message = fmt::format("{}: not enough memory for the trace", path)};
}

void append_number(std::string& out, std::uint64_t number) {
  char digits[20];
  const auto result = std::to_chars(std::begin(digits), std::end(digits), number);
  out.append(digits, result.ptr);
}

}  // namespace

Result<Trace> read_trace(const std::string& path, std::optional<std::size_t> limit) {
  if (limit && *limit == 0) {
    return bad_input("the limit of requests to read is 0; it must be at least 1");
  }
  try {
    if (path == kStandardStream) return read_lines(STDIN_FILENO, "<stdin>", limit);
    FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC), true);
    if (file.get() < 0) return io_error(path, "cannot open the trace", errno);
    return read_lines(file.get(), path, limit);
  } catch (const std::bad_alloc&) {
    return out_of_memory(path);
  }
}

Result<void> write_trace(const Trace& trace, const std::string& path) {
  try {
    return write_to(trace, path);
  } catch (const std::bad_alloc&) {
    return out_of_memory(path);
  }
}

void append_line(std::string& out, const TraceRequest& request) {
  out += "{\"timestamp\": ";
  append_number(out, request.timestamp_ms);
  out += ", \"input_length\": ";
  append_number(out, request.input_length);
  out += ", \"output_length\": ";
  append_number(out, request.output_length);
  out += ", \"hash_ids\": [";
  bool first = true;
  for (const std::uint64_t id : request.hash_ids) {
    if (!first) out += ", ";
    first = false;
    append_number(out, id);
  }
  out += "]}\n";
}

}  // namespace kvbm::app
