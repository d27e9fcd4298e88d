#include "logical/mrc/miss_ratio_curve.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace kvbm {
namespace {

constexpr std::uint32_t kNone = ~std::uint32_t{0};

// Bins of sizes: each of its own below 2 * kPerOctave, then kPerOctave to each power of two.
constexpr int kBitsPerOctave = 6;
constexpr std::uint64_t kPerOctave = std::uint64_t{1} << kBitsPerOctave;
constexpr std::size_t kBins = (64 - kBitsPerOctave + 1) * kPerOctave;

std::size_t bin_of(std::uint64_t size) {
  const int shift = std::max(0, static_cast<int>(std::bit_width(size)) - kBitsPerOctave - 1);
  return static_cast<std::size_t>(shift) * kPerOctave + (size >> shift);
}

std::uint64_t first_of(std::size_t bin) {
  if (bin < 2 * kPerOctave) return bin;
  const std::size_t shift = bin / kPerOctave - 1;
  return (bin - shift * kPerOctave) << shift;
}

std::uint64_t width_of(std::size_t bin) {
  return bin < 2 * kPerOctave ? 1 : std::uint64_t{1} << (bin / kPerOctave - 1);
}

void require(bool condition, const char* what, std::uint64_t number) {
  if (condition) return;
  std::fprintf(stderr, "kvbm: miss ratio curve invariant broken: %s (%llu)\n", what,
               static_cast<unsigned long long>(number));
  std::abort();
}

}  // namespace

MissRatioCurve::MissRatioCurve(std::size_t max_samples)
    : max_samples_(max_samples),
      followed_(max_samples + 1),  // one more until the largest is dropped
      table_(std::bit_ceil(2 * (max_samples + 1)), kNone),
      at_time_(2 * (max_samples + 1), kNone),
      tree_(at_time_.size() + 1, 0),
      hits_by_size_(kBins, 0.0) {
  assert(max_samples >= 1 && max_samples < (std::size_t{1} << 29));
  heap_.reserve(followed_.size());
  free_.reserve(followed_.size());
  for (std::size_t i = followed_.size(); i-- > 0;) free_.push_back(static_cast<std::uint32_t>(i));
}

// Of the blocks, those that are followed.
double MissRatioCurve::share() const noexcept {
  return std::ldexp(static_cast<double>(limit_) + 1, -64);
}

void MissRatioCurve::access_followed(std::uint64_t scrambled) noexcept {
  const double weight = 1 / share();
  seen_ += weight;
  const std::uint32_t found = table_[find(scrambled)];
  if (found == kNone) {
    follow(scrambled);
    return;
  }
  const std::uint32_t before = followed_[found].time;
  const auto between = heap_.size() - marks_up_to(before);
  const double size = 1 + std::min(static_cast<double>(between) * weight, 0x1p62);
  hits_by_size_[bin_of(static_cast<std::uint64_t>(size))] += weight;
  unmark(before);
  mark(next_time(), found);
}

void MissRatioCurve::follow(std::uint64_t scrambled) noexcept {
  const std::uint32_t number = free_.back();
  free_.pop_back();
  followed_[number].scrambled = scrambled;
  table_[find(scrambled)] = number;
  mark(next_time(), number);
  heap_.push_back(number);
  std::push_heap(heap_.begin(), heap_.end(), [this](std::uint32_t a, std::uint32_t b) {
    return followed_[a].scrambled < followed_[b].scrambled;
  });
  if (heap_.size() > max_samples_) drop_largest();
}

void MissRatioCurve::drop_largest() noexcept {
  std::pop_heap(heap_.begin(), heap_.end(), [this](std::uint32_t a, std::uint32_t b) {
    return followed_[a].scrambled < followed_[b].scrambled;
  });
  const std::uint32_t number = heap_.back();
  heap_.pop_back();
  free_.push_back(number);
  const Followed& largest = followed_[number];
  limit_ = largest.scrambled - 1;  // it is not 0: there are others, and they are less
  unmark(largest.time);
  erase(find(largest.scrambled));
}

// --- time ------------------------------------------------------------------------------------

// When all times are used up, those that still matter are numbered anew, in the same order. They
// are at most half, so this costs O(1) for each access.
std::uint32_t MissRatioCurve::next_time() noexcept {
  if (now_ < at_time_.size()) return now_++;
  std::uint32_t kept = 0;
  for (const std::uint32_t number : at_time_) {
    if (number == kNone) continue;
    at_time_[kept] = number;
    followed_[number].time = kept++;
  }
  std::fill(at_time_.begin() + kept, at_time_.end(), kNone);
  for (std::size_t i = 1; i < tree_.size(); ++i) {
    const std::size_t first = i - (i & -i);  // tree_[i] counts the times first .. i - 1
    tree_[i] = static_cast<std::uint32_t>(std::clamp<std::size_t>(kept, first, i) - first);
  }
  now_ = kept;
  return now_++;
}

void MissRatioCurve::mark(std::uint32_t time, std::uint32_t follower) noexcept {
  at_time_[time] = follower;
  followed_[follower].time = time;
  add_to_tree(time, 1);
}

void MissRatioCurve::unmark(std::uint32_t time) noexcept {
  at_time_[time] = kNone;
  add_to_tree(time, ~std::uint32_t{0});  // -1
}

void MissRatioCurve::add_to_tree(std::uint32_t time, std::uint32_t amount) noexcept {
  for (std::size_t i = time + std::size_t{1}; i < tree_.size(); i += i & -i) tree_[i] += amount;
}

std::uint32_t MissRatioCurve::marks_up_to(std::uint32_t time) const noexcept {
  std::uint32_t count = 0;
  for (std::size_t i = time + std::size_t{1}; i > 0; i -= i & -i) count += tree_[i];
  return count;
}

// --- the table -------------------------------------------------------------------------------

// The high bits of followed blocks are all 0, and low bits of a product are weak: so mixed again.
std::size_t MissRatioCurve::home(std::uint64_t scrambled) const noexcept {
  const std::uint64_t mixed = (scrambled ^ (scrambled >> 32)) * kMultiplier;
  return (mixed >> 32) & (table_.size() - 1);
}

// Where the block is, or where it would be.
std::size_t MissRatioCurve::find(std::uint64_t scrambled) const noexcept {
  std::size_t place = home(scrambled);
  while (table_[place] != kNone && followed_[table_[place]].scrambled != scrambled) {
    place = (place + 1) & (table_.size() - 1);
  }
  return place;
}

// Moves up what lies behind, so that every block is still found from its home.
void MissRatioCurve::erase(std::size_t place) noexcept {
  const std::size_t mask = table_.size() - 1;
  for (std::size_t next = (place + 1) & mask; table_[next] != kNone; next = (next + 1) & mask) {
    const std::size_t wanted = home(followed_[table_[next]].scrambled);
    if (((next - wanted) & mask) < ((next - place) & mask)) continue;
    table_[place] = table_[next];
    place = next;
  }
  table_[place] = kNone;
}

// --- the curve -------------------------------------------------------------------------------

// The share that was seen is not exactly the share of the blocks, mostly for want or excess of a
// few very hot blocks. Their accesses hit in the smallest cache. Negative if too many were seen.
double MissRatioCurve::unseen_hits() const noexcept {
  return static_cast<double>(accesses_) - seen_;
}

double MissRatioCurve::hit_ratio(std::size_t capacity_blocks) const noexcept {
  if (accesses_ == 0 || capacity_blocks == 0) return 0;
  const std::size_t last = bin_of(capacity_blocks);
  double hits = unseen_hits();
  for (std::size_t bin = 0; bin < last; ++bin) hits += hits_by_size_[bin];
  const auto covered = static_cast<double>(capacity_blocks - first_of(last) + 1);
  hits += hits_by_size_[last] * covered / static_cast<double>(width_of(last));
  return std::clamp(hits / static_cast<double>(accesses_), 0.0, 1.0);
}

std::vector<MissRatioCurve::Point> MissRatioCurve::points() const {
  std::vector<Point> points;
  double hits = unseen_hits();
  for (std::size_t bin = 1; bin < kBins; ++bin) {
    if (hits_by_size_[bin] == 0) continue;
    hits += hits_by_size_[bin];
    points.push_back({first_of(bin) + (width_of(bin) - 1),
                      std::clamp(hits / static_cast<double>(accesses_), 0.0, 1.0)});
  }
  return points;
}

void MissRatioCurve::check_invariants() const {
  require(heap_.size() <= max_samples_, "no more blocks are followed than allowed", heap_.size());
  require(heap_.size() + free_.size() == followed_.size(), "each number is used or free",
          free_.size());
  for (std::size_t i = 0; i < heap_.size(); ++i) {
    const Followed& block = followed_[heap_[i]];
    require(block.scrambled <= limit_, "followed blocks are within the limit", block.scrambled);
    require(followed_[heap_[(i - (i > 0)) / 2]].scrambled >= block.scrambled,
            "the heap is in order", i);
    require(table_[find(block.scrambled)] == heap_[i], "the table has each followed block", i);
    require(block.time < now_ && at_time_[block.time] == heap_[i], "times and blocks agree", i);
  }
  const auto in_use = [](std::uint32_t number) { return number != kNone; };
  const auto filled = static_cast<std::size_t>(std::ranges::count_if(table_, in_use));
  require(filled == heap_.size(), "the table has nothing else", filled);
  std::uint32_t marks = 0;
  for (std::uint32_t time = 0; time < at_time_.size(); ++time) {
    if (in_use(at_time_[time])) ++marks;
    require(marks_up_to(time) == marks, "the tree counts the times in use", time);
  }
  require(marks == heap_.size(), "each followed block has one time", marks);

  double hits = 0;
  for (const double weight : hits_by_size_) hits += weight;
  require(hits <= seen_ * (1 + 1e-9), "hits are accesses that were seen", accesses_);
}

}  // namespace kvbm
