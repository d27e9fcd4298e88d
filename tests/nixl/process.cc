// A worker in a process of its own, told by lines what to do: process NAME BLOCKS
//
// It says its address, then answers each line with a number.
//   load ADDRESS  meets the worker `tester` that lives there
//   write         begins to write all of its blocks over those of that worker; 1
//   wait          waits for the end of that; 1 if it went well
//   pattern N     fills its memory, and answers with the sum of it
//   sum           of its memory
//   count N       how many bytes of it are this
//   quit          ends as programs do
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <sstream>

#include "worker.h"

namespace kvbm::nixl {
namespace {

constexpr const char* kTester = "tester";

std::uint64_t obey(Worker& worker, const std::string& command, std::istringstream& rest) {
  std::uint64_t number = 0;
  if (command == "load") {
    std::string line;
    std::getline(rest >> std::ws, line);
    static std::uint64_t generation = 0;
    worker.meet(kTester, 1, ++generation, Address::parse(line));
    return 1;
  }
  rest >> number;
  if (command == "write") {
    worker.start(Operation::Write, std::chrono::minutes(10));
    return 1;
  }
  if (command == "wait") return worker.wait_for(AgentEvent::Kind::Ended).result ? 1 : 0;
  if (command == "pattern") {
    worker.fill_with_pattern(number);
    return worker.sum();
  }
  if (command == "count") {
    return worker.memory().size() - bytes_other_than(worker.memory(), static_cast<char>(number));
  }
  return worker.sum();
}

}  // namespace
}  // namespace kvbm::nixl

int main(int, char** arguments) {
  using namespace kvbm::nixl;
  // UCX writes what it has to say to standard output.
  std::FILE* const answers = ::fdopen(::dup(STDOUT_FILENO), "w");
  ::dup2(STDERR_FILENO, STDOUT_FILENO);
  const auto answer = [&](const std::string& line) {
    std::fprintf(answers, "%s\n", line.c_str());
    std::fflush(answers);
  };
  Worker worker(arguments[1], static_cast<std::uint32_t>(std::stoul(arguments[2])), 'p');
  answer(worker.address().to_line());
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string command;
    words >> command;
    if (command == "quit") return 0;
    answer(std::to_string(obey(worker, command, words)));
  }
  return 0;
}
