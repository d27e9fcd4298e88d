#include "logical/policy/age_model.h"

#include <algorithm>

#include "logical/policy/check.h"

namespace kvbm {
namespace {

constexpr double kPriorSamples = 20;
constexpr double kNsPerSecond = 1e9;

struct Bounds {
  std::array<double, kAgeBuckets + 1> seconds{};
  std::array<std::int64_t, kAgeBuckets> ns{};
  constexpr Bounds() {
    constexpr std::array<double, 3> kThirds = {1.0, 1.259921049894873, 1.587401051968199};
    for (std::size_t i = 1; i <= kAgeBuckets; ++i) {
      seconds[i] = static_cast<double>(1u << ((i - 1) / 3)) * kThirds[(i - 1) % 3];
      if (i < kAgeBuckets) ns[i] = static_cast<std::int64_t>(seconds[i] * kNsPerSecond);
    }
  }
};
constexpr Bounds kBounds;

}  // namespace

std::size_t age_bucket(std::int64_t age_ns) noexcept {
  const auto after = std::upper_bound(kBounds.ns.begin() + 1, kBounds.ns.end(), age_ns);
  return static_cast<std::size_t>(after - kBounds.ns.begin()) - 1;
}

double age_bucket_begin_s(std::size_t bucket) noexcept { return kBounds.seconds[bucket]; }

HazardRow shrunk_hazard(const LifeTable& table, const HazardRow& pooled) noexcept {
  HazardRow hazard;
  for (std::size_t i = 0; i < kAgeBuckets; ++i) {
    hazard[i] = (table.reused[i] + kPriorSamples * pooled[i]) / (table.reached[i] + kPriorSamples);
  }
  return hazard;
}

IndexRow keep_index(const HazardRow& hazard) noexcept {
  HazardRow survive, time;  // of one bucket
  std::size_t end = 0;      // no horizon beyond the last use is the best
  for (std::size_t i = 0; i < kAgeBuckets; ++i) {
    survive[i] = 1 - hazard[i];
    // A use comes in the middle of its bucket on average.
    time[i] = (1 - hazard[i] / 2) * (kBounds.seconds[i + 1] - kBounds.seconds[i]);
    if (hazard[i] > 0) end = i + 1;
  }
  IndexRow row{};
  for (std::size_t from = 0; from < end; ++from) {
    double alive = 1, reuse = 0, held = 0;
    double best_reuse = 0, best_held = 1;
    for (std::size_t i = from; i < end; ++i) {
      reuse += alive * hazard[i];
      held += alive * time[i];
      alive *= survive[i];
      // reuse / held > best_reuse / best_held, without the division.
      if (reuse * best_held > best_reuse * held) {
        best_reuse = reuse;
        best_held = held;
      }
    }
    row[from] = static_cast<float>(best_reuse / best_held);
  }
  return row;
}

AgeModel::AgeModel()
    : hashes_(kSamples), begin_(kSamples), state_(kSamples), bucket_(kSamples), open_(hashes_) {}

void AgeModel::drop(std::uint32_t position) noexcept {
  if (state_[position] & kOpen) {
    open_.erase(position);
  } else {
    --reused_[state_[position]][bucket_[position]];
  }
}

void AgeModel::follow(SequenceHash hash, UseClass use_class, std::int64_t now_ns) noexcept {
  end(hash, now_ns);
  if (size_ == kSamples) {
    drop(next_);
  } else {
    ++size_;
  }
  hashes_[next_] = hash;
  begin_[next_] = now_ns;
  state_[next_] = use_class | kOpen;
  open_.insert(next_);
  next_ = next_ + 1 == kSamples ? 0 : next_ + 1;
}

bool AgeModel::end(SequenceHash hash, std::int64_t now_ns) noexcept {
  const std::uint32_t position = open_.find(hash);
  if (position == RingIndex::kNone) return false;
  open_.erase(position);
  state_[position] &= static_cast<std::uint8_t>(~kOpen);
  bucket_[position] = static_cast<std::uint8_t>(age_bucket(now_ns - begin_[position]));
  ++reused_[state_[position]][bucket_[position]];
  return true;
}

void AgeModel::on_request(std::int64_t now_ns) noexcept {
  ++requests_;
  if (requests_ == kFirstRebuild || requests_ % kRebuildEvery == 0) rebuild(now_ns);
}

// Samples begin in the order of the ring, so from the newest on the bucket of the age only grows.
void AgeModel::count_open(std::int64_t now_ns) noexcept {
  for (auto& row : waiting_) row.fill(0);
  std::size_t bucket = 0;
  for (std::uint32_t i = 0, at = next_; i < size_; ++i) {
    at = at == 0 ? kSamples - 1 : at - 1;
    const std::int64_t age = now_ns - begin_[at];
    while (bucket + 1 < kAgeBuckets && age >= kBounds.ns[bucket + 1]) ++bucket;
    // Whether a sample is open is hard to predict for a processor: no branch.
    waiting_[state_[at] & (kOpen - 1)][bucket] += (state_[at] & kOpen) != 0;
  }
}

void AgeModel::rebuild(std::int64_t now_ns) noexcept {
  count_open(now_ns);
  LifeTable all;
  const auto table_of = [this](std::size_t use_class) {
    LifeTable table;
    double reached = 0;
    for (std::size_t i = kAgeBuckets; i-- > 0;) {
      table.reused[i] = reused_[use_class][i];
      reached += table.reused[i] + waiting_[use_class][i];
      table.reached[i] = reached;
    }
    return table;
  };
  std::array<bool, kUseClasses> seen{};
  for (std::size_t c = 0; c < kUseClasses; ++c) {
    const LifeTable table = table_of(c);
    seen[c] = table.reached[0] > 0;
    for (std::size_t i = 0; i < kAgeBuckets; ++i) {
      all.reused[i] += table.reused[i];
      all.reached[i] += table.reached[i];
    }
  }
  HazardRow pooled{};
  for (std::size_t i = 0; i < kAgeBuckets; ++i) {
    if (all.reached[i] > 0) pooled[i] = all.reused[i] / all.reached[i];
  }
  const IndexRow unseen = keep_index(pooled);
  for (std::size_t c = 0; c < kUseClasses; ++c) {
    table_[c] = seen[c] ? keep_index(shrunk_hazard(table_of(c), pooled)) : unseen;
  }
}

void AgeModel::check_invariants() const {
  std::array<std::array<std::uint32_t, kAgeBuckets>, kUseClasses> reused{};
  for (std::uint32_t i = 0; i < size_; ++i) {
    if (state_[i] & kOpen) {
      policy_check(open_.find(hashes_[i]) == i, "an open sample cannot be found by its hash");
    } else {
      ++reused[state_[i]][bucket_[i]];
    }
    const bool newest = (i + 1) % size_ == next_ % size_;
    policy_check(newest || begin_[i] <= begin_[(i + 1) % size_], "samples are out of order");
  }
  policy_check(reused == reused_, "the counts of reuses contradict the samples");
}

}  // namespace kvbm
