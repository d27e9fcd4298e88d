// A process for tests: a copy of this one that does nothing, or what it is told, until it is
// killed.
#pragma once

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <functional>

#include "platform/os/process_memory.h"

namespace kvbm {

// Requires, where a test runs under TSan: no threads yet.
class TestChild {
 public:
  // Does `work` in the child; then it waits to be killed. What is at an address here is there as
  // well, and what the child writes stays its own.
  explicit TestChild(const std::function<void()>& work = {}) { start(work); }
  ~TestChild() { kill(); }
  TestChild(const TestChild&) = delete;
  TestChild& operator=(const TestChild&) = delete;

  const ProcessIdentity& identity() const noexcept { return identity_; }
  // Ends it, and gives its pid back.
  void kill() noexcept {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }

 private:
  // Returns when the child has done its work, and has said who it is.
  void start(const std::function<void()>& work) {
    int ends[2] = {-1, -1};
    if (::pipe(ends) != 0) std::abort();
    pid_ = ::fork();
    if (pid_ < 0) std::abort();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (work) work();
      const auto identity = ProcessIdentity::of_this_process().value();
      if (::write(ends[1], &identity, sizeof identity) < 0) std::abort();
      for (;;) ::pause();
    }
    ::close(ends[1]);
    if (::read(ends[0], &identity_, sizeof identity_) != sizeof identity_) std::abort();
    ::close(ends[0]);
  }

  pid_t pid_ = 0;
  ProcessIdentity identity_;
};

}  // namespace kvbm
