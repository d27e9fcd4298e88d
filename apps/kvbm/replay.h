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
#include <string_view>
#include <vector>

#include "apps/kvbm/trace.h"
#include "kvbm/layout.h"
#include "kvbm/manager.h"
#include "kvbm/result.h"
#include "simulator/faults.h"

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
  // Where the disk tier survives; a nameless file in $TMPDIR or /tmp if absent.
  std::optional<std::string> disk_dir;
  Verify verify = Verify::Full;
  // Of the blocks of every transfer: how many go wrong, and which. See simulator::FaultyExecutor.
  double fault_rate = 0;
  std::uint64_t seed = 0;
  KvManagerRuntimeConfig runtime;
};

// Errors: InvalidConfig naming the command line option and what is allowed.
Result<void> validate(const ReplayOptions& options);

// What had been counted when so many requests were done.
struct ReplaySample {
  std::uint64_t requests = 0;
  std::uint64_t timestamp_ms = 0;  // of the last of them, in the trace's time
  std::uint64_t prompt_tokens = 0;
  std::array<std::uint64_t, kTierCount> hit_tokens{};
  std::array<std::uint64_t, kEdgeCount> edge_bytes{};
};

struct ReplayReport {
  std::uint64_t requests = 0;
  std::uint64_t prompt_tokens = 0;
  std::array<std::uint64_t, kTierCount> hit_tokens{};       // by the tier that served them
  std::array<std::uint64_t, kTierCount> blocks_verified{};  // likewise
  std::uint64_t wrong_blocks = 0;
  std::uint64_t failed_transfers = 0;  // blocks
  std::array<PoolStats, kTierCount> pools;
  TransferStats transfers;
  // Faults that were injected, by kind and edge; nothing where none were asked for.
  std::optional<simulator::FaultCounts> faults;
  // RequestLoop::run_digest(), where runtime.deterministic is set: only then it is equal in every
  // run.
  std::optional<std::uint64_t> run_digest;
  std::optional<DiskStats> disk;            // of a disk tier that survives
  std::vector<std::string> transfer_paths;  // as KvBlockManager::transfer_paths()
  double seconds = 0;
  // Evenly spaced over the requests; the last one is of the whole trace.
  static constexpr std::size_t kMaxSamples = 100;
  std::vector<ReplaySample> samples;

  // Nothing was wrong: no wrong block, no mismatch, no failed transfer. Where faults were asked for
  // only wrong blocks are.
  bool clean() const noexcept;
};

// Called from inside a replay: by the progress bar, and by tests that break things on purpose.
struct ReplayHooks {
  // Makes the manager; ReferenceBlockManager::create unless set.
  std::function<Result<ReferenceBlockManager>(const KvBlockManagerConfig&)> create_manager;
  // After each request, with the number of requests done.
  std::function<void(ReferenceBlockManager&, std::size_t done)> after_request;
};

// Runs the requests through a RequestLoop: hits depend on the trace, the capacities and what a disk
// tier has from earlier runs. Errors: those of validate() and of ReferenceBlockManager::create;
// OperationFailed if a request cannot be carried out.
Result<ReplayReport> replay(const Trace& trace, const ReplayOptions& options,
                            const ReplayHooks& hooks = {});

nlohmann::json to_json(const ReplayReport& report);
// A table for people, newline at the end.
std::string to_table(const ReplayReport& report);

// What the ways to tell a report have in common.
std::uint64_t computed_tokens(const ReplayReport& report);  // that no tier had
std::string verdict(const ReplayReport& report);            // one line about what was wrong
std::string edge_name(Edge edge, std::string_view arrow);   // "device -> host"
double seconds(const EdgeStats& edge);                      // of all transfer threads together
double gigabytes_per_second(const EdgeStats& edge);         // of one thread; 0 if nothing moved

}  // namespace kvbm::app
