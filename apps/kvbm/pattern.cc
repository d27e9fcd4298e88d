#include "apps/kvbm/pattern.h"

#include <cstring>

namespace kvbm::app {
namespace {

// splitmix64's finaliser: neighbours in, unrelated numbers out.
constexpr std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Word i of a region is start + i * kStep: one addition a word, so that filling runs at the speed
// of memory, and no two regions share a word at the same place unless their starts collide.
constexpr std::uint64_t kStep = 0x9e3779b97f4a7c15u;

std::uint64_t start_of(const RegionName& name) {
  return mix(name.sequence_hash.value() ^ mix(name.layer * 2 + name.outer + 1));
}

// Calls use(offset, word, bytes) for each word; the last may be short.
template <class Use>
void for_each_word(std::size_t bytes, std::uint64_t word, Use use) {
  std::size_t at = 0;
  for (; at + sizeof word <= bytes; at += sizeof word, word += kStep) use(at, word, sizeof word);
  if (at < bytes) use(at, word, bytes - at);
}

}  // namespace

void fill_pattern(std::span<std::byte> region, const RegionName& name) {
  for_each_word(region.size(), start_of(name),
                [&](std::size_t at, std::uint64_t word, std::size_t bytes) {
                  std::memcpy(region.data() + at, &word, bytes);
                });
}

bool has_pattern(std::span<const std::byte> region, const RegionName& name) {
  std::uint64_t difference = 0;  // collected, so that the loop has no branch
  for_each_word(region.size(), start_of(name),
                [&](std::size_t at, std::uint64_t word, std::size_t bytes) {
                  std::uint64_t found = word;  // bytes past a short end count as equal
                  std::memcpy(&found, region.data() + at, bytes);
                  difference |= found ^ word;
                });
  return difference == 0;
}

}  // namespace kvbm::app
