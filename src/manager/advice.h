// Configurations that work and do not help.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "kvbm/config.h"
#include "platform/uring/io_queue.h"

namespace kvbm::detail {

// A line for the operator, with the numbers and what to change, for each tier that cannot help:
// one that is written through from a larger one, and a disk that is slower than computing.
// `disk_bytes_per_second`: nothing where it is not known.
std::vector<std::string> advice(const KvBlockManagerConfig& config, std::size_t block_bytes,
                                std::optional<double> disk_bytes_per_second);

// How fast the beginning of a file is read in large pieces, several at once, at its best. Nothing
// where that cannot be told: behind the page cache, for less than 4 MiB, or if the file fails.
// `used_bytes`, from the beginning on, hold data; where there are none, noise is written first,
// since what was never written is read from nowhere. Moves at most 16 MiB, and begins nothing new
// after 100 ms.
std::optional<double> measure_reads(File& file, IoQueue& queue, std::uint64_t used_bytes);

}  // namespace kvbm::detail
