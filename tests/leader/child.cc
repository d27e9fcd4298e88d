#include "child.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <stdexcept>

namespace kvbm::leader {

Child::Child(const std::vector<std::string>& command) {
  std::vector<char*> words;
  for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  int in[2];
  int out[2];
  if (::pipe2(in, O_CLOEXEC) != 0 || ::pipe2(out, O_CLOEXEC) != 0) {
    throw std::runtime_error("the system gives no pipes");
  }
  pid_ = ::fork();
  if (pid_ == 0) {
    ::dup2(in[0], STDIN_FILENO);
    ::dup2(out[1], STDOUT_FILENO);
    ::execv(words[0], words.data());
    std::_Exit(127);
  }
  ::close(in[0]);
  ::close(out[1]);
  in_ = ::fdopen(in[1], "w");
  out_ = ::fdopen(out[0], "r");
}

Child::~Child() {
  kill();
  std::fclose(in_);
  std::fclose(out_);
}

std::string Child::read_line() {
  std::string line;
  for (int c = std::fgetc(out_); c != EOF && c != '\n'; c = std::fgetc(out_)) {
    line += static_cast<char>(c);
  }
  return line;
}

std::uint64_t Child::tell(const std::string& line) {
  std::fprintf(in_, "%s\n", line.c_str());
  std::fflush(in_);
  const std::string answer = read_line();
  if (answer.empty()) throw std::runtime_error("the process is gone at: " + line);
  return std::stoull(answer);
}

void Child::kill() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

void Child::stop() {
  ::kill(pid_, SIGSTOP);
  ::waitpid(pid_, nullptr, WUNTRACED);
}

void Child::resume() { ::kill(pid_, SIGCONT); }

}  // namespace kvbm::leader
