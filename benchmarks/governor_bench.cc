#include "benchmarks/governor_bench.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <random>
#include <span>
#include <vector>

#include "tiers/governor.h"

namespace kvbm::bench {
namespace {

using detail::Governor;

constexpr double kPathSpeeds[] = {5e7, 2e8, 1e9, 3e9, 7e9, 2.5e10, 5e10};  // bytes per second
constexpr double kTokenRates[] = {1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6};
constexpr std::size_t kPrefixBlocks[] = {1, 8, 64, 256};
constexpr double kSharesInHost[] = {0, 0.5, 1};
constexpr std::uint64_t kBlockBytes = 5 << 20;
constexpr std::uint32_t kBlockTokens = 16;
constexpr int kWarmUpTransfers = 200;
constexpr int kDecisions = 16;

// What the governor cannot see.
class Machine {
 public:
  Machine(double disk, double host, std::uint32_t seed) : speeds_{disk, host}, random_(seed) {
    for (int i = 0; i < kWarmUpTransfers; ++i) transfer();
  }

  double time(std::span<const Governor::LoadStep> loaded) const {
    double from_disk = 0, to_device = 0;
    for (const Governor::LoadStep& step : loaded) {
      from_disk += static_cast<double>(step.bytes_from_disk);
      to_device += static_cast<double>(step.bytes_from_disk + step.bytes_from_host);
    }
    return std::max(from_disk / speeds_[0], to_device / speeds_[1]);
  }
  // One of each path ends: a third faster or slower than it should, now and then much slower, and
  // beside it a tiny one.
  void transfer() {
    constexpr Edge kEdges[] = {Edge::DiskToHost, Edge::HostToDevice};
    constexpr double kTinyBytes = 4096, kTinyOverhead = 1e-4;
    for (std::size_t i = 0; i < speeds_.size(); ++i) {
      const auto in_flight = static_cast<std::size_t>(1 + fraction() * 8);
      const double noise = (0.7 + 0.6 * fraction()) * (fraction() < 0.01 ? 5 : 1);
      const double busy = kBlockBytes / speeds_[i] * static_cast<double>(in_flight) * noise;
      governor_.observe(kEdges[i], kBlockBytes, nanoseconds(busy), in_flight);
      governor_.observe(kEdges[i], static_cast<std::uint64_t>(kTinyBytes),
                        nanoseconds(kTinyOverhead + kTinyBytes / speeds_[i]), 1);
    }
  }
  Governor& governor() { return governor_; }

 private:
  static std::chrono::nanoseconds nanoseconds(double seconds) {
    return std::chrono::nanoseconds(static_cast<std::int64_t>(seconds * 1e9));
  }
  double fraction() { return static_cast<double>(random_()) / 4294967296.0; }

  const std::array<double, 2> speeds_;  // disk, host
  std::mt19937 random_;
  Governor governor_;
};

// What the decisions take in place of the better extreme.
double ratio(Machine machine, std::span<const Governor::LoadStep> prefix, double rate) {
  const auto compute = [&](std::size_t blocks) {
    return static_cast<double>(blocks * kBlockTokens) / rate;
  };
  double taken = 0;
  for (int i = 0; i < kDecisions; ++i) {
    const std::size_t blocks = machine.governor().decide(prefix, rate).blocks;
    taken += machine.time(prefix.first(blocks)) + compute(prefix.size() - blocks);
    if (blocks > 0) machine.transfer();
  }
  return taken / kDecisions / std::min(machine.time(prefix), compute(prefix.size()));
}

std::vector<Governor::LoadStep> make_prefix(std::size_t blocks, double share_in_host) {
  std::vector<Governor::LoadStep> prefix(blocks,
                                         {.bytes_from_disk = kBlockBytes, .tokens = kBlockTokens});
  const auto in_host = static_cast<std::size_t>(static_cast<double>(blocks) * share_in_host);
  std::fill_n(prefix.begin(), in_host,
              Governor::LoadStep{.bytes_from_host = kBlockBytes, .tokens = kBlockTokens});
  return prefix;
}

}  // namespace

double governor_worst_ratio(std::uint32_t seed) {
  double worst = 0;
  for (const double disk : kPathSpeeds) {
    for (const double host : kPathSpeeds) {
      const Machine machine(disk, host, seed++);
      for (const std::size_t blocks : kPrefixBlocks) {
        for (const double share : kSharesInHost) {
          const auto prefix = make_prefix(blocks, share);
          for (const double rate : kTokenRates) {
            worst = std::max(worst, ratio(machine, prefix, rate));
          }
        }
      }
    }
  }
  return worst;
}

}  // namespace kvbm::bench
