// The life of a process that has a manager with a disk tier that survives.
#pragma once

#include <cstdint>
#include <string>

#include "told.h"

namespace kvbm::kill9 {

inline constexpr std::size_t kDiskBlocks = 96;

// Opens the store in the directory, compares what is there with what the processes before told,
// writes a byte to `at_work`, and then computes, onboards and resets on several threads until it is
// killed, telling the log. What is wrong it tells the log, too, and ends.
[[noreturn]] void live(const std::string& directory, const Told& told, Log& log, int at_work,
                       std::uint64_t seed);

}  // namespace kvbm::kill9
