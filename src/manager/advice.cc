#include "manager/advice.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <random>
#include <utility>

#include "platform/os/pages.h"

namespace kvbm::detail {
namespace {

// --- sizes -----------------------------------------------------------------------------------

std::string scaled(double number, double step, std::array<const char*, 4> units) {
  std::size_t unit = 0;
  while (number >= step && unit + 1 < units.size()) {
    number /= step;
    ++unit;
  }
  char text[64];
  std::snprintf(text, sizeof text, "%.3g %s", number, units[unit]);
  return text;
}
std::string bytes_text(double bytes) { return scaled(bytes, 1024, {"bytes", "KiB", "MiB", "GiB"}); }
std::string speed_text(double speed) {
  return scaled(speed, 1000, {"B/s", "KB/s", "MB/s", "GB/s"});
}
std::string time_text(double seconds) {
  return scaled(seconds * 1e6, 1000, {"us", "ms", "s", "ks"});
}

struct SizedTier {
  Tier tier;
  std::size_t blocks;
};

std::string text(const SizedTier& sized, std::size_t block_bytes) {
  return std::string(to_string(sized.tier)) + " tier (" + std::to_string(sized.blocks) +
         " blocks, " + bytes_text(static_cast<double>(sized.blocks * block_bytes)) + ")";
}

// Under write-through, the newest blocks of the tier above are all that a smaller one has room for.
void compare(const SizedTier& above, const OffloadPolicy& policy, const SizedTier& below,
             std::size_t block_bytes, std::vector<std::string>& lines) {
  const bool takes_all =
      policy.mode == OffloadMode::WriteThrough && policy.admission.rule == AdmissionRule::All;
  if (!takes_all || below.blocks >= above.blocks) return;
  const std::string layout = std::string(to_string(above.tier)) + "_layout";
  lines.push_back("warning: the " + text(below, block_bytes) + " is smaller than the " +
                  text(above, block_bytes) +
                  ", which writes every block through to it: it has little that is not above it. "
                  "Give it more than " +
                  std::to_string(above.blocks) + " blocks, or set " + layout +
                  ".offload.mode to on-eviction");
}

// --- the speed of a disk ---------------------------------------------------------------------

constexpr std::size_t kPiece = std::size_t{1} << 20;
constexpr std::size_t kPiecesAtOnce = 4;
constexpr std::size_t kWaves = 4;
constexpr std::chrono::milliseconds kPatience{100};

// Moves one piece each, from `offset` on, and waits for all.
bool move_wave(IoQueue& queue, IoRequest::Op op, File& file, std::byte* memory,
               std::uint64_t offset) {
  for (std::size_t i = 0; i < kPiecesAtOnce; ++i) {
    queue.push({.op = op,
                .file = &file,
                .memory = {{memory + i * kPiece, kPiece}},
                .offset = offset + i * kPiece,
                .tag = i});
  }
  std::vector<IoDone> done;
  while (done.size() < kPiecesAtOnce) queue.poll(IoQueue::Wait::ForOne, done);
  return std::ranges::all_of(done, [](const IoDone& each) { return each.result.has_value(); });
}

}  // namespace

std::vector<std::string> advice(const KvBlockManagerConfig& config, std::size_t block_bytes,
                                std::optional<double> disk_bytes_per_second) {
  std::vector<std::string> lines;
  if (config.device_layout->logical) return lines;  // nothing moves
  const SizedTier device{Tier::Device, config.device_layout->num_blocks};
  const SizedTier disk{Tier::Disk, config.disk_layout ? config.disk_layout->num_blocks : 0};
  // Without a pool nothing is registered there, and what is offloaded is the engine's choice.
  const bool has_pool = !config.device_layout->external;
  if (config.host_layout) {
    const SizedTier host{Tier::Host, config.host_layout->num_blocks};
    if (has_pool) compare(device, config.device_layout->offload, host, block_bytes, lines);
    if (config.disk_layout) compare(host, config.host_layout->offload, disk, block_bytes, lines);
  } else if (config.disk_layout && has_pool) {
    compare(device, config.device_layout->offload, disk, block_bytes, lines);
  }
  const auto rate = static_cast<double>(config.runtime.prefill_tokens_per_second);
  if (!config.disk_layout || !disk_bytes_per_second || rate <= 0) return lines;
  const double read = static_cast<double>(block_bytes) / *disk_bytes_per_second;
  const double computed = static_cast<double>(config.model.page_size) / rate;
  if (read <= computed) return lines;
  lines.push_back(
      "warning: the disk tier is slower than computing: a block of " +
      bytes_text(static_cast<double>(block_bytes)) + " is read in " + time_text(read) + " (" +
      speed_text(*disk_bytes_per_second) + ") and computed in " + time_text(computed) +
      " (runtime.prefill_tokens_per_second is " +
      std::to_string(config.runtime.prefill_tokens_per_second) + "). Use a disk of at least " +
      speed_text(static_cast<double>(block_bytes) / computed) + ", or leave disk_layout out");
  return lines;
}

std::optional<double> measure_reads(File& file, IoQueue& queue, std::uint64_t used_bytes) {
  using Clock = std::chrono::steady_clock;
  constexpr std::size_t kWaveBytes = kPiecesAtOnce * kPiece;
  const bool is_behind_cache = file.io_alignment() == 1;
  const std::uint64_t there = used_bytes > 0 ? std::min(used_bytes, file.size()) : file.size();
  std::size_t waves = std::min<std::size_t>(there / kWaveBytes, kWaves);
  if (is_behind_cache || waves == 0) return std::nullopt;
  auto memory = Pages::map(kWaveBytes, Pages::Kind::Plain);
  if (!memory) return std::nullopt;
  const auto give_up = Clock::now() + kPatience;
  if (used_bytes == 0) {
    std::mt19937_64 random;  // so that no file system can leave it out
    auto* const words = reinterpret_cast<std::uint64_t*>((*memory)->data());
    std::generate(words, words + kWaveBytes / sizeof *words, std::ref(random));
    std::size_t written = 0;
    for (; written < waves && (written == 0 || Clock::now() < give_up); ++written) {
      if (!move_wave(queue, IoRequest::Op::Write, file, (*memory)->data(), written * kWaveBytes)) {
        return std::nullopt;
      }
    }
    waves = written;
  }
  double best = 0;
  for (std::size_t wave = 0; wave < waves && (wave == 0 || Clock::now() < give_up); ++wave) {
    const auto begin = Clock::now();
    if (!move_wave(queue, IoRequest::Op::Read, file, (*memory)->data(), wave * kWaveBytes)) {
      return std::nullopt;
    }
    const std::chrono::duration<double> took = Clock::now() - begin;
    best = std::max(best, static_cast<double>(kWaveBytes) / took.count());
  }
  return best;
}

}  // namespace kvbm::detail
