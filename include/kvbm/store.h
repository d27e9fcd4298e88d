// The disk tier's store: a directory whose blocks survive the process, the machine's loss of power
// and a failing disk. This file has its configuration and what it tells of itself.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "kvbm/types.h"

namespace kvbm {

// How to keep the disk tier in a directory. One directory has one owner at a time; every rank needs
// its own.
struct DiskStoreConfig {
  std::string directory = {};  // required; made if it is missing, its parent must exist
  // Syncs before a block counts as registered, instead of in the background: then nothing that was
  // registered is lost with the power. Costs latency, and throughput where few blocks are written
  // at once.
  bool durable = false;
  // How much may be lost with the power where `durable` is off: what was written in this time.
  // Nothing is lost with the process. 10 ms .. 1 h.
  std::chrono::milliseconds sync_interval{1000};
  // Keeps the token ids of every block beside it, 4 bytes a token.
  bool keep_tokens = false;

  // Bytes that may be written per day; 0: no limit. While less than half of an hour's share is
  // left, only blocks that are offered a second time are written, and none when nothing is left.
  std::uint64_t write_budget_bytes_per_day = 0;
  // What the disk is rated for, in bytes ever written (its TBW); 0: unknown. Without a budget of
  // its own the store may write a day's share of it: rated_endurance_bytes / (rated_years * 365).
  std::uint64_t rated_endurance_bytes = 0;
  std::uint32_t rated_years = 5;  // 1 .. 100

  // Bytes per second at which stored blocks are read and verified in the background; 0: never.
  std::uint64_t scrub_bytes_per_second = 0;
  // A disk that answers nothing for this long counts as hanging; the tier is off until it does.
  std::chrono::milliseconds stall_timeout{10000};
};

enum class DiskHealth : std::uint8_t {
  Healthy,
  ReadOnly,  // blocks are served, none is written: the disk refuses writes
  Off,       // nothing is asked of the disk: it refuses reads, or does not answer
};
const char* to_string(DiskHealth health) noexcept;  // "healthy", "read-only", "off"

// What a disk tier that is a store tells of itself. Counters begin when the store was made, unless
// they say otherwise.
struct DiskStats {
  DiskHealth health = DiskHealth::Healthy;
  std::string reason = {};            // why it is not healthy, else empty
  std::uint64_t restored_blocks = 0;  // found at the start of this manager
  std::uint64_t damaged_records = 0;  // refused at the start of this manager
  std::uint64_t blocks_written = 0;
  std::uint64_t payload_bytes_written = 0;
  std::uint64_t index_bytes_written = 0;  // pages of the index, of tokens and of the manifest
  std::uint64_t bytes_served = 0;         // read and found right
  std::uint64_t blocks_refused_by_budget = 0;
  std::uint64_t write_errors = 0;  // of this manager
  std::uint64_t read_errors = 0;   // of this manager; mismatches included
  std::uint64_t scrubbed_blocks = 0;
  std::uint64_t scrub_mismatches = 0;
  std::uint64_t write_budget_bytes_per_day = 0;  // 0: none
  double write_amplification = 0;                // bytes written per byte of blocks; 0 before any
  // Until rated_endurance_bytes are written, at the pace since the store was made; none where
  // nothing is rated, or nothing was written yet.
  std::optional<double> days_of_life_left = std::nullopt;
};

}  // namespace kvbm
