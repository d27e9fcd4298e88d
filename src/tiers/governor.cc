#include "tiers/governor.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace kvbm::detail {
namespace {

constexpr double kNewestTransfers = 3;
constexpr double kLongerTransfers = 64;
constexpr double kSettlingTransfers = 12;  // until the newest know nothing of what was before
constexpr double kContradiction = 0.693;   // log of 2
constexpr double kTrialShare = 1.0 / 64;   // of the time that is spent on computing
constexpr std::size_t kTrialBlocks = 4;

Governor::Nanoseconds to_nanoseconds(double seconds) noexcept {
  constexpr auto kMost = Governor::Nanoseconds::max();
  const double ns = seconds * 1e9;
  // The largest number of nanoseconds rounds up as a double.
  return ns < static_cast<double>(kMost.count())
             ? Governor::Nanoseconds(static_cast<std::int64_t>(ns))
             : kMost;
}

}  // namespace

void Governor::Mean::add(double sample, double its_weight, double most_weight) noexcept {
  weight += its_weight;
  value += (sample - value) * its_weight / weight;
  weight = std::min(weight, most_weight);
}

void Governor::observe(Edge edge, std::uint64_t bytes, Nanoseconds busy,
                       std::size_t in_flight) noexcept {
  if (bytes == 0 || busy.count() <= 0 || in_flight == 0) return;
  Path& path = paths_[static_cast<std::size_t>(edge)];
  const auto size = static_cast<double>(bytes);
  const double seconds = static_cast<double>(busy.count()) * 1e-9;
  const double speed = std::log(size * static_cast<double>(in_flight) / seconds);
  const double usual = path.transfer_bytes.value;
  // By bytes: a transfer that is tiny for its path tells its overhead, not the speed of the path.
  path.transfer_bytes.add(size, size, kLongerTransfers * std::max(usual, size));
  path.newest.add(speed, size, kNewestTransfers * path.transfer_bytes.value);
  path.longer.add(speed, size, kLongerTransfers * path.transfer_bytes.value);
  path.settling -= size;
  if (std::abs(path.newest.value - path.longer.value) > kContradiction) {
    path.settling = kSettlingTransfers * path.transfer_bytes.value;
  }
  if (path.settling > 0) path.longer = path.newest;
}

void Governor::queue(Edge edge, std::uint64_t bytes_waiting) noexcept {
  paths_[static_cast<std::size_t>(edge)].waiting = bytes_waiting;
}

double Governor::bytes_per_second(Edge edge) const noexcept {
  const Path& measured = path(edge);
  return measured.longer.weight > 0 ? std::exp(measured.longer.value) : 0;
}

// What loading takes, as far as it is known.
class Governor::Cost {
 public:
  Cost(const Governor& governor, bool with_queues) noexcept
      : disk_(governor, Edge::DiskToHost, with_queues),
        peers_(governor, Edge::PeerToHost, with_queues),
        device_(governor, Edge::HostToDevice, with_queues) {}

  bool knows(const Load& load) const noexcept {
    return (load.from_disk == 0 || disk_.is_known()) &&
           (load.from_peer == 0 || peers_.is_known()) &&
           (load.to_device == 0 || device_.is_known());
  }
  double seconds(const Load& load) const noexcept {
    return std::max({disk_.seconds(load.from_disk), peers_.seconds(load.from_peer),
                     device_.seconds(load.to_device)});
  }

 private:
  class OfPath {
   public:
    OfPath(const Governor& governor, Edge edge, bool with_queue) noexcept
        : speed_(governor.bytes_per_second(edge)),
          waiting_(with_queue ? static_cast<double>(governor.path(edge).waiting) : 0) {}
    bool is_known() const noexcept { return speed_ > 0; }
    double seconds(double bytes) const noexcept {
      return bytes > 0 && is_known() ? (waiting_ + bytes) / speed_ : 0;
    }

   private:
    double speed_;
    double waiting_;
  };
  OfPath disk_, peers_, device_;
};

Governor::Decision Governor::decide(std::span<const LoadStep> prefix,
                                    double prefill_tokens_per_second) noexcept {
  Load all;
  for (const LoadStep& step : prefix) all.add(step);
  const Cost cost(*this, true);
  if (!(prefill_tokens_per_second > 0) || !cost.knows(all)) {
    return {.blocks = prefix.size(), .load_time = to_nanoseconds(cost.seconds(all))};
  }

  const auto to_compute = [&](const Load& loaded) {
    return (all.tokens - loaded.tokens) / prefill_tokens_per_second;
  };
  Load loaded, best_load;
  std::size_t best = 0;
  double least = to_compute(loaded);
  for (std::size_t k = 0; k < prefix.size(); ++k) {
    loaded.add(prefix[k]);
    const double total = cost.seconds(loaded) + to_compute(loaded);
    if (total > least) continue;
    least = total;
    best = k + 1;
    best_load = loaded;
  }
  Decision decision{.blocks = best};
  if (best < prefix.size()) {
    const LoadStep& refused = prefix[best];
    double& credit = for_trials_[refused.bytes_from_disk > 0   ? 1
                                 : refused.bytes_from_peer > 0 ? 2
                                                               : 0];
    credit += kTrialShare * to_compute(best_load);
    Load trial = best_load;
    const std::size_t end = std::min(best + kTrialBlocks, prefix.size());
    for (std::size_t k = best; k < end; ++k) trial.add(prefix[k]);
    if (cost.seconds(trial) - cost.seconds(best_load) <= credit) {
      credit = 0;
      decision = {.blocks = end, .is_trial = true};
      best_load = trial;
    }
  }
  decision.load_time = to_nanoseconds(cost.seconds(best_load));
  decision.recompute_time = to_nanoseconds(to_compute(best_load));
  return decision;
}

Governor::Check Governor::check(const Decision& decision, const LoadStep& rest,
                                double prefill_tokens_per_second, TimePoint last_arrival,
                                TimePoint now) const noexcept {
  Load load;
  load.add(rest);
  if (!(prefill_tokens_per_second > 0) || load.to_device == 0) return {false, TimePoint::max()};
  Nanoseconds most = to_nanoseconds(load.tokens / prefill_tokens_per_second);
  if (decision.is_trial) most = std::max(most, decision.load_time);
  const bool is_slow = to_nanoseconds(Cost(*this, false).seconds(load)) > most;
  const bool is_endless = most > TimePoint::max() - last_arrival;
  return {is_slow || now - last_arrival >= most,
          is_endless ? TimePoint::max() : last_arrival + most};
}

}  // namespace kvbm::detail
