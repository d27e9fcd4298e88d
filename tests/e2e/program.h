// Runs the built program as a user does: arguments, streams and signals; no look inside.
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace kvbm::e2e {

struct Finished {
  int exit_code = -1;  // -1 if a signal ended it
  int signal = 0;      // 0 if it ended by itself
  std::string out;     // empty if standard output went elsewhere
  std::string err;
};

// A process that was started. It dies with the test.
class Running {
 public:
  // Takes the file descriptors; -1 for a stream that is not connected.
  Running(pid_t pid, int input, int output, int error, std::string text);
  ~Running();  // kills it if it still runs
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

  pid_t pid() const { return pid_; }
  bool has_ended() const;
  void send(int signal) const;

  // Whether `condition` came true while the process ran; asked every few milliseconds, for at most
  // the time limit.
  bool reaches(const std::function<bool()>& condition) const;
  // Whether a file that it has open, and whose path begins with `prefix`, has so many pages of
  // 4 KiB that are not zero. However they were written: not every way is counted by the system.
  bool has_written(const std::string& prefix, std::uint64_t pages) const;

  // Feeds the input, collects both streams, and waits for the end. After the time limit the process
  // is killed and the test has failed.
  Finished wait();

 private:
  bool pump(int timeout_ms);
  void feed();

  pid_t pid_;
  int pidfd_;
  int input_;
  int output_;
  int error_;
  std::string text_;  // of the input, not yet written
  Finished finished_;
};

class Command {
 public:
  // The program with these arguments. Standard input is empty.
  explicit Command(std::vector<std::string> arguments);
  // A line for /bin/sh, in which $KVBM is the program.
  static Command shell(const std::string& script);

  Command& input(std::string text);
  Command& environment(const std::string& name, const std::string& value);
  Command& folder(const std::filesystem::path& path);
  Command& output_to(const std::string& path);
  Command& terminal_on_stderr();
  Command& limit(int resource, rlim_t value);  // soft limit
  // As in a container: no privileges to gain or to lock memory with, and io_uring_setup() answers
  // EPERM.
  Command& sandboxed();

  Running start() const;
  Finished run() const { return start().wait(); }

 private:
  std::vector<std::string> arguments_;
  std::string input_;
  std::vector<std::string> environment_;
  std::string folder_;
  std::string output_path_;
  bool terminal_ = false;
  bool sandboxed_ = false;
  std::vector<std::pair<int, rlim_t>> limits_;
};

// A new folder that is gone with its contents at the end.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

// Everything below a folder: relative paths in order, a file with its size.
std::vector<std::string> contents(const std::filesystem::path& folder);
std::string read_file(const std::string& path);
void write_file(const std::string& path, const std::string& text);

// What the program prints for `trace generate` with these arguments.
std::string generate(const std::vector<std::string>& arguments);

}  // namespace kvbm::e2e
