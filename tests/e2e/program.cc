#include "tests/e2e/program.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pty.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace kvbm::e2e {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kTimeLimit = std::chrono::seconds(60);
constexpr int kPollMs = 5;

struct Pipe {
  int read = -1;
  int write = -1;
};

void require(bool condition, const char* what) {
  if (!condition) throw std::runtime_error(std::string(what) + ": errno " + std::to_string(errno));
}

// Nobody else inherits the ends; dup2() in the child makes the copies that live on.
Pipe make_pipe() {
  int ends[2];
  require(::pipe2(ends, O_CLOEXEC) == 0, "pipe");
  return {ends[0], ends[1]};
}

// In raw mode, so that the bytes arrive as the program wrote them.
Pipe make_terminal() {
  Pipe ends;
  require(::openpty(&ends.read, &ends.write, nullptr, nullptr, nullptr) == 0, "openpty");
  termios mode{};
  require(::tcgetattr(ends.write, &mode) == 0, "tcgetattr");
  ::cfmakeraw(&mode);
  require(::tcsetattr(ends.write, TCSANOW, &mode) == 0, "tcsetattr");
  for (const int end : {ends.read, ends.write}) ::fcntl(end, F_SETFD, FD_CLOEXEC);
  return ends;
}

void close_one(int& descriptor) {
  if (descriptor >= 0) ::close(descriptor);
  descriptor = -1;
}

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (const std::string& text : texts) result.push_back(const_cast<char*>(text.c_str()));
  result.push_back(nullptr);
  return result;
}

std::vector<std::string> whole_environment(const std::vector<std::string>& changes) {
  std::vector<std::string> result = changes;
  for (char** entry = environ; *entry; ++entry) {
    const std::string text = *entry;
    const std::string name = text.substr(0, text.find('=') + 1);
    const bool changed = std::any_of(changes.begin(), changes.end(), [&](const std::string& other) {
      return other.starts_with(name);
    });
    if (!changed) result.push_back(text);
  }
  return result;
}

// Adds what can be read now; at the end of the stream closes it. A terminal whose other side has
// closed answers EIO.
void collect(int& descriptor, std::string& text) {
  char buffer[65536];
  const ssize_t got = ::read(descriptor, buffer, sizeof buffer);
  if (got > 0) {
    text.append(buffer, static_cast<std::size_t>(got));
  } else if (got == 0 || errno != EINTR) {
    close_one(descriptor);
  }
}

// Makes this process forbid itself what a container forbids. Safe between fork and exec.
bool enter_sandbox() {
  // Root gets back on exec what is not out of the bounding set. Others have nothing to drop.
  if (::geteuid() == 0 && ::prctl(PR_CAPBSET_DROP, CAP_IPC_LOCK, 0, 0, 0) != 0) return false;
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program{4, code};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

}  // namespace

// --- Running ---------------------------------------------------------------------------------

Running::Running(pid_t pid, int input, int output, int error, std::string text)
    : pid_(pid),
      pidfd_(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))),
      input_(input),
      output_(output),
      error_(error),
      text_(std::move(text)) {
  require(pidfd_ >= 0, "pidfd_open");
  if (text_.empty()) close_one(input_);
}

Running::~Running() {
  if (pidfd_ >= 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  for (int* descriptor : {&pidfd_, &input_, &output_, &error_}) close_one(*descriptor);
}

bool Running::has_ended() const {
  pollfd end{pidfd_, POLLIN, 0};
  return ::poll(&end, 1, 0) == 1;
}

void Running::send(int signal) const { require(::kill(pid_, signal) == 0, "kill"); }

bool Running::reaches(const std::function<bool()>& condition) const {
  const auto deadline = Clock::now() + kTimeLimit;
  while (!condition()) {
    pollfd end{pidfd_, POLLIN, 0};
    if (::poll(&end, 1, kPollMs) != 0 || Clock::now() > deadline) return false;
  }
  return !has_ended();
}

bool Running::has_written(const std::string& prefix, std::uint64_t pages) const {
  std::error_code error;
  const std::string folder = "/proc/" + std::to_string(pid_) + "/fd";
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const auto target = std::filesystem::read_symlink(entry.path(), error);
    if (error || !target.string().starts_with(prefix)) continue;
    std::ifstream file(entry.path(), std::ios::binary);
    std::array<char, 4096> page;
    const std::array<char, 4096> zeros{};
    std::uint64_t written = 0;
    while (written < pages && file.read(page.data(), page.size())) written += page != zeros;
    if (written == pages) return true;
  }
  return false;
}

void Running::feed() {
  const ssize_t put = ::write(input_, text_.data(), text_.size());
  if (put > 0) text_.erase(0, static_cast<std::size_t>(put));
  if (text_.empty() || (put < 0 && errno != EINTR && errno != EAGAIN)) close_one(input_);
}

// Moves what the streams are ready for. False when all have ended, and the process, too.
bool Running::pump(int timeout_ms) {
  std::vector<pollfd> waiting;
  const auto add = [&](int descriptor, short events) {
    if (descriptor >= 0) waiting.push_back({descriptor, events, 0});
  };
  add(input_, POLLOUT);
  add(output_, POLLIN);
  add(error_, POLLIN);
  if (waiting.empty() && has_ended()) return false;
  if (waiting.empty()) add(pidfd_, POLLIN);
  ::poll(waiting.data(), waiting.size(), timeout_ms);
  for (const pollfd& one : waiting) {
    if (one.revents == 0) continue;
    if (one.fd == input_) feed();
    if (one.fd == output_) collect(output_, finished_.out);
    if (one.fd == error_) collect(error_, finished_.err);
  }
  return true;
}

Finished Running::wait() {
  const auto deadline = Clock::now() + kTimeLimit;
  while (pump(100)) {
    if (Clock::now() < deadline) continue;
    ADD_FAILURE() << "the program did not end in time; it printed:\n"
                  << finished_.out << finished_.err;
    send(SIGKILL);
    break;
  }
  int status = 0;
  ::waitpid(pid_, &status, 0);
  close_one(pidfd_);
  if (WIFEXITED(status)) finished_.exit_code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) finished_.signal = WTERMSIG(status);
  return finished_;
}

// --- Command ---------------------------------------------------------------------------------

Command::Command(std::vector<std::string> arguments) : arguments_(std::move(arguments)) {
  arguments_.insert(arguments_.begin(), KVBM_PROGRAM);
}

Command Command::shell(const std::string& script) {
  Command command({});
  command.arguments_ = {"/bin/sh", "-c", script};
  return command.environment("KVBM", KVBM_PROGRAM);
}

Command& Command::input(std::string text) {
  input_ = std::move(text);
  return *this;
}

Command& Command::environment(const std::string& name, const std::string& value) {
  environment_.push_back(name + "=" + value);
  return *this;
}

Command& Command::folder(const std::filesystem::path& path) {
  folder_ = path;
  return *this;
}

Command& Command::output_to(const std::string& path) {
  output_path_ = path;
  return *this;
}

Command& Command::terminal_on_stderr() {
  terminal_ = true;
  return *this;
}

Command& Command::limit(int resource, rlim_t value) {
  limits_.emplace_back(resource, value);
  return *this;
}

Command& Command::sandboxed() {
  sandboxed_ = true;
  return *this;
}

Running Command::start() const {
  ::signal(SIGPIPE, SIG_IGN);  // a program that does not read its input is no failure of the test
  Pipe input = make_pipe();
  Pipe output = make_pipe();
  Pipe error = terminal_ ? make_terminal() : make_pipe();
  if (!output_path_.empty()) {
    close_one(output.read);
    close_one(output.write);
    output.write = ::open(output_path_.c_str(), O_WRONLY | O_CLOEXEC);
    require(output.write >= 0, "open");
  }
  ::fcntl(input.write, F_SETFL, O_NONBLOCK);
  const std::vector<std::string> environment = whole_environment(environment_);
  const std::vector<char*> envp = pointers(environment);
  const std::vector<char*> argv = pointers(arguments_);
  const pid_t parent = ::getpid();

  const pid_t pid = ::fork();
  require(pid >= 0, "fork");
  if (pid == 0) {  // only calls that are safe between fork and exec
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    bool ready = ::getppid() == parent && ::signal(SIGPIPE, SIG_DFL) != SIG_ERR &&
                 ::dup2(input.read, 0) == 0 && ::dup2(output.write, 1) == 1 &&
                 ::dup2(error.write, 2) == 2 && (folder_.empty() || ::chdir(folder_.c_str()) == 0);
    for (const auto& [resource, value] : limits_) {
      rlimit limit{};
      ready = ready && ::getrlimit(resource, &limit) == 0;
      limit.rlim_cur = value;
      ready = ready && ::setrlimit(resource, &limit) == 0;
    }
    ready = ready && (!sandboxed_ || enter_sandbox());
    if (ready) ::execve(argv[0], argv.data(), envp.data());
    ::_exit(127);
  }
  for (int* end : {&input.read, &output.write, &error.write}) close_one(*end);
  return {pid, input.write, output.read, error.read, input_};
}

// --- files -----------------------------------------------------------------------------------

TemporaryFolder::TemporaryFolder() {
  std::string path = (std::filesystem::temp_directory_path() / "kvbm-e2e-XXXXXX").string();
  require(::mkdtemp(path.data()) != nullptr, "mkdtemp");
  path_ = path;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::vector<std::string> contents(const std::filesystem::path& folder) {
  std::vector<std::string> result;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    std::string text = entry.path().lexically_relative(folder).string();
    if (entry.is_regular_file()) text += " " + std::to_string(entry.file_size());
    result.push_back(std::move(text));
  }
  std::sort(result.begin(), result.end());
  return result;
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  require(file.is_open(), path.c_str());
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void write_file(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  require(!file.fail(), path.c_str());
}

std::string generate(const std::vector<std::string>& arguments) {
  std::vector<std::string> all = {"trace", "generate"};
  all.insert(all.end(), arguments.begin(), arguments.end());
  const Finished finished = Command(std::move(all)).run();
  EXPECT_EQ(finished.exit_code, 0) << finished.err;
  EXPECT_EQ(finished.err, "");
  return finished.out;
}

}  // namespace kvbm::e2e
