// A process that does what it is told on standard input, line by line, and ends with its input.
#pragma once

#include <cstdint>
#include <iostream>
#include <sstream>
#include <string>

namespace kvbm::leader {

inline void answer(const std::string& line) { std::cout << line << std::endl; }

// Calls `obey(command, number)` for each line and answers with what it returns.
template <class F>
void obey_lines(F obey) {
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string command;
    std::uint64_t number = 0;
    words >> command >> number;
    answer(std::to_string(obey(command, number)));
  }
}

}  // namespace kvbm::leader
