// Whether blocks that the lower tiers have are loaded or computed again, whichever is sooner.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>

#include "kvbm/tiers.h"

namespace kvbm::detail {

// Measures how fast blocks are loaded, and says how many of a prefix are worth loading.
//
// A path's speed is the geometric mean, weighted by bytes, over the newest transfers. Where the
// newest few contradict it by a factor of two the older ones are forgotten, so that a disk that
// stalls or recovers is noticed within a few transfers, and one late transfer changes little.
//
// Nothing is measured of a path that is not used, so blocks that would be refused are loaded all
// the same now and then, for at most a 64th of the time that is spent on computing refused ones.
//
// Not thread-safe; time comes in with the calls. Costs are per call; no memory is allocated.
class Governor {
 public:
  using Nanoseconds = std::chrono::nanoseconds;
  using TimePoint = std::chrono::steady_clock::time_point;

  // What it takes to load a block, or several, and what to compute them.
  struct LoadStep {
    std::uint64_t bytes_from_disk = 0;  // that go through the host to the device
    std::uint64_t bytes_from_peer = 0;  // likewise
    std::uint64_t bytes_from_host = 0;  // that are in the host tier already
    std::uint32_t tokens = 0;
  };
  struct Decision {
    std::size_t blocks = 0;  // to load, from the first on; the others are to be computed
    // Some of them are only loaded to see how fast that is now.
    bool is_trial = false;
    Nanoseconds load_time{0};       // of those that are loaded, with what waits before them
    Nanoseconds recompute_time{0};  // of those that are not
  };
  struct Check {
    bool is_behind = false;  // what has not arrived is computed sooner
    TimePoint next_check;    // when to ask again if nothing arrives before; max(): never
  };

  // A transfer has succeeded, whether or not anybody still waits for it. `busy` is the time from
  // its start to its end, and `in_flight` how many shared the path, itself included: together they
  // are taken to be so many times as fast. Ignored where it says nothing: no bytes, or no time.
  // O(1).
  void observe(Edge edge, std::uint64_t bytes, Nanoseconds busy, std::size_t in_flight) noexcept;
  // So many bytes are queued or moving on the path, from now on. O(1).
  void queue(Edge edge, std::uint64_t bytes_waiting) noexcept;

  // How many blocks, given in prefix order, to load so that all are there soonest: those first,
  // then the others computed. Disk, peers and host work at the same time, so the slowest of them
  // decides. Of equals, the most blocks. All blocks where the rate is not above 0, that is unknown,
  // or a path that they need was never measured; it counts as no time. Not const: it counts what it
  // refuses. O(prefix).
  Decision decide(std::span<const LoadStep> prefix, double prefill_tokens_per_second) noexcept;

  // Whether the running load of a decision should be cut. `rest` is the sum of what has not
  // arrived, with the bytes of others that are before it in the queues, and `last_arrival` when a
  // block of it last arrived, or when it began. What has been spent does not count: it is behind if
  // the rest needs longer, at the speed measured now, than computing it would, or if nothing has
  // arrived for as long as that; a trial may always take as long as it was thought to. To be asked
  // when a block has arrived and at `next_check`. With an unknown rate never behind. O(1).
  Check check(const Decision& decision, const LoadStep& rest, double prefill_tokens_per_second,
              TimePoint last_arrival, TimePoint now) const noexcept;

  // What was measured; 0: nothing yet.
  double bytes_per_second(Edge edge) const noexcept;

 private:
  // A weighted mean that forgets: the newest `most_weight` count.
  struct Mean {
    void add(double sample, double its_weight, double most_weight) noexcept;
    double value = 0;
    double weight = 0;
  };
  struct Path {
    Mean newest, longer;  // logarithms of bytes per second, weighted by bytes
    Mean transfer_bytes;  // likewise
    double settling = 0;  // bytes until `longer` begins anew, after a change
    std::uint64_t waiting = 0;
  };
  struct Load {
    void add(const LoadStep& step) noexcept {
      from_disk += static_cast<double>(step.bytes_from_disk);
      from_peer += static_cast<double>(step.bytes_from_peer);
      to_device += static_cast<double>(step.bytes_from_disk) +
                   static_cast<double>(step.bytes_from_peer) +
                   static_cast<double>(step.bytes_from_host);
      tokens += step.tokens;
    }
    double from_disk = 0, from_peer = 0;  // bytes; they take two paths ...
    double to_device = 0;                 // ... of which this is the second
    double tokens = 0;
  };
  class Cost;

  const Path& path(Edge edge) const noexcept { return paths_[static_cast<std::size_t>(edge)]; }

  std::array<Path, kEdgeCount> paths_{};
  // Seconds that may be spent on trials: of blocks in the host tier, on disk, and of peers.
  std::array<double, 3> for_trials_{};
};

}  // namespace kvbm::detail
