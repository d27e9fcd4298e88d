// Numbers as people read them.
#pragma once

#include <cstdint>
#include <string>

namespace kvbm::app {

// Digits in groups of three: "12,031".
std::string grouped(std::uint64_t number);

// In the largest unit that keeps the number at 1 or above: "64 B", "1.5 KiB", "385.5 MiB".
std::string size_text(std::uint64_t bytes);

// Per cent; 0 of nothing.
double percent(std::uint64_t part, std::uint64_t whole);

}  // namespace kvbm::app
