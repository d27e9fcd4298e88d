// Runs a trace against real pools and compares every byte that a hit returns.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "apps/kvbm/trace.h"
#include "kvbm/layout.h"
#include "kvbm/manager.h"
#include "kvbm/result.h"

namespace kvbm::app {

enum class Verify : std::uint8_t {
  Full,    // every byte of every hit
  Sample,  // one region of every hit
  Off,
};

struct ReplayOptions {
  std::size_t device_blocks = 0;
  std::size_t host_blocks = 0;
  std::size_t disk_blocks = 0;
  std::size_t block_bytes = 0;  // a multiple of layers * 2 * 512
  std::size_t layers = 4;
  // Each layer of the device tier in its own memory, as engines keep it; gather and scatter at the
  // border are part of the job.
  LayoutType device_layout = LayoutType::LayerSeparateBlockContiguous;
  std::optional<std::string> disk_dir;  // kept there; a nameless file in $TMPDIR or /tmp if absent
  Verify verify = Verify::Full;
};

// Errors: InvalidConfig naming the command line option and what is allowed.
Result<void> validate(const ReplayOptions& options);

struct ReplayReport {
  std::uint64_t requests = 0;
  std::uint64_t prompt_tokens = 0;
  std::array<std::uint64_t, kTierCount> hit_tokens{};       // by the tier that served them
  std::array<std::uint64_t, kTierCount> blocks_verified{};  // likewise
  std::uint64_t wrong_blocks = 0;
  std::uint64_t failed_transfers = 0;  // blocks
  std::array<PoolStats, kTierCount> pools;
  TransferStats transfers;
  double seconds = 0;

  // Nothing was wrong: no wrong block, no mismatch, no failed transfer.
  bool clean() const noexcept;
};

// Called from inside a replay: by the progress bar, and by tests that break things on purpose.
struct ReplayHooks {
  // Makes the manager; ReferenceBlockManager::create unless set.
  std::function<Result<ReferenceBlockManager>(const KvBlockManagerConfig&)> create_manager;
  // After each request, with the number of requests done.
  std::function<void(ReferenceBlockManager&, std::size_t done)> after_request;
};

// Requests in file order, one at a time: match, onboard, compute the rest, register, wait until the
// offloads have ended, release. So hits depend on the trace and the capacities, not on this
// machine's speed. A prompt's partial last block is cached like the others, as the trace names it.
// Errors: those of validate() and of ReferenceBlockManager::create; OperationFailed if a request
// cannot be carried out.
Result<ReplayReport> replay(const Trace& trace, const ReplayOptions& options,
                            const ReplayHooks& hooks = {});

nlohmann::json to_json(const ReplayReport& report);
// A table for people, newline at the end.
std::string to_table(const ReplayReport& report);

}  // namespace kvbm::app
