// What is in a store, told without touching it: also while its owner works.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kvbm/result.h"
#include "store/store_files.h"
#include "store/survey.h"

namespace kvbm::app {

// The process that last opened the store for writing.
struct StoreOwner {
  std::uint64_t pid = 0;
  bool alive = false;               // a process of that number is visible from here
  std::optional<bool> has_it_open;  // unknown if we may not look
};

struct NamespaceUse {
  std::uint64_t blocks = 0;
  std::uint32_t oldest_put = 0;  // seconds since 1970, as the next one
  std::uint32_t newest_put = 0;
};

// Blocks whose put is at most so long ago, and not in the class before; the last class is the rest.
struct AgeClass {
  const char* name;
  std::uint64_t max_seconds;
};
inline constexpr std::array<AgeClass, 6> kAges = {{{"1 minute", 60},
                                                   {"1 hour", 3600},
                                                   {"1 day", 86'400},
                                                   {"1 week", 604'800},
                                                   {"30 days", 2'592'000},
                                                   {"older", ~std::uint64_t{0}}}};

struct StoreView {
  std::string directory;
  store::Superblock superblock;
  std::string damaged_superblock;  // what is wrong with one of the two; empty if nothing
  StoreOwner owner;
  std::uint64_t now = 0;  // seconds since 1970
  std::uint64_t used = 0;
  std::uint64_t free = 0;
  std::uint64_t forgotten = 0;
  std::uint64_t damaged = 0;
  std::map<NamespaceId, NamespaceUse> namespaces;  // those with blocks
  std::array<std::uint64_t, kAges.size()> ages{};
  std::uint64_t rated_endurance_bytes = 0;  // what the disk is rated for; 0: the caller did not say

  // As StoreCounters has them.
  double write_amplification() const noexcept;
  double bytes_written_per_day() const noexcept;
  std::optional<double> days_of_life_left() const noexcept;
  double age_seconds() const noexcept;  // negative if a clock was set back
};

// Opens a store to read it. Errors: those of File; OperationFailed saying that it is none.
Result<store::StoreFiles> open_to_look(const std::string& directory);

// Errors: those of open_to_look() and survey_manifest(). Cost: reads the index once.
Result<StoreView> view_store(const std::string& directory, std::uint64_t now);
nlohmann::json to_json(const StoreView& view);
std::string to_table(const StoreView& view);

struct StoredBlock {
  store::Slot slot = 0;
  store::SlotRecord record;
  std::uint64_t payload_sum = 0;
  bool forgotten = false;     // of before a reset
  std::vector<Token> tokens;  // empty if not kept
};

// All blocks of this name, in the order of slots. Errors and cost: as view_store().
Result<std::vector<StoredBlock>> find_blocks(const std::string& directory, SequenceHash hash);
nlohmann::json to_json(std::span<const StoredBlock> blocks);
std::string to_table(std::span<const StoredBlock> blocks);

}  // namespace kvbm::app
