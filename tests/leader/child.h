// A process that is told what to do and may be killed at any time.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace kvbm::leader {

class Child {
 public:
  // Requires: no other thread starts children, which would inherit this one's pipes.
  explicit Child(const std::vector<std::string>& command);
  // Kills it if it is still there.
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // What it says next, without the newline; empty if it is gone.
  std::string read_line();
  // Its answer to a line. Requires: it lives and is not stopped.
  std::uint64_t tell(const std::string& line);

  void kill();    // SIGKILL, and waits for its end
  void stop();    // SIGSTOP, and waits until it stands
  void resume();  // SIGCONT

 private:
  pid_t pid_ = -1;
  std::FILE* in_ = nullptr;  // of the child
  std::FILE* out_ = nullptr;
};

}  // namespace kvbm::leader
