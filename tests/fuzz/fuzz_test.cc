// The fuzz targets without a fuzzer: over the corpus, and over random changes of it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <ostream>
#include <random>

#include "tests/fuzz/seeds.h"
#include "tests/fuzz/targets.h"

namespace kvbm::fuzz {

void PrintTo(const Target& target, std::ostream* out) { *out << target.name; }

namespace {

namespace fs = std::filesystem;
using Input = std::vector<std::byte>;

// A mutation per line, as much as a fuzzer does that knows nothing.
Input mutated(Input input, const Input& other, std::mt19937_64& random) {
  const auto below = [&random](std::size_t limit) { return limit == 0 ? 0 : random() % limit; };
  for (std::uint64_t rounds = below(4) + 1; rounds > 0; --rounds) {
    const std::size_t at = below(input.size());
    const auto place = [&input](std::size_t offset) {
      return input.begin() + static_cast<std::ptrdiff_t>(offset);
    };
    const std::size_t length = std::min(below(64) + 1, input.size() - at);
    constexpr std::uint8_t kEdges[] = {0, 1, 0x7F, 0x80, 0xFE, 0xFF};
    if (input.empty()) input = other;
    switch (below(7)) {
      case 0: input[at] ^= std::byte(1u << below(8)); break;
      case 1: input[at] = std::byte(kEdges[below(std::size(kEdges))]); break;
      case 2: std::fill_n(place(at), length, std::byte(kEdges[below(std::size(kEdges))])); break;
      case 3: input.erase(place(at), place(at + length)); break;
      case 4: input.resize(at); break;
      case 5: {
        const Input piece(place(at), place(at + length));
        const std::size_t target = below(input.size());
        input.insert(place(target), piece.begin(), piece.end());
        break;
      }
      default: {
        const std::size_t count = std::min(below(64), std::min(other.size(), input.size()));
        std::copy_n(other.begin(), count, place(below(input.size() - count)));
      }
    }
    if (input.empty()) return input;
  }
  return input;
}

std::uint64_t number_from(const char* variable, std::uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

Input read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const auto* const bytes = reinterpret_cast<const std::byte*>(text.data());
  return {bytes, bytes + text.size()};
}

class FuzzTest : public testing::TestWithParam<Target> {
 protected:
  fs::path folder() const { return fs::path(KVBM_CORPUS) / GetParam().name; }
  std::vector<Input> corpus() const {
    std::vector<fs::path> paths;
    for (const auto& entry : fs::directory_iterator(folder())) paths.push_back(entry.path());
    std::sort(paths.begin(), paths.end());
    std::vector<Input> inputs;
    for (const fs::path& path : paths) inputs.push_back(read(path));
    return inputs;
  }
};

// With KVBM_WRITE_CORPUS set it writes them.
TEST_P(FuzzTest, TheCorpusHasTheSeeds) {
  for (const auto& [name, bytes] : seeds(GetParam().name)) {
    const fs::path path = folder() / (name + ".bin");
    if (std::getenv("KVBM_WRITE_CORPUS")) {
      fs::create_directories(folder());
      std::ofstream(path, std::ios::binary)
          .write(reinterpret_cast<const char*>(bytes.data()),
                 static_cast<std::streamsize>(bytes.size()));
    }
    EXPECT_TRUE(read(path) == bytes) << path << " is not what seeds.cc makes; KVBM_WRITE_CORPUS=1 "
                                     << "writes it anew";
  }
}

TEST_P(FuzzTest, TheCorpusAndRandomChangesOfItBreakNothing) {
  const std::uint64_t seed = number_from("KVBM_SEED", std::random_device{}());
  const std::uint64_t changes = number_from("KVBM_CHANGES", 3000);
  std::printf("KVBM_SEED=%" PRIu64 " KVBM_CHANGES=%" PRIu64 "\n", seed, changes);
  std::fflush(stdout);  // a finding aborts
  std::mt19937_64 random(seed);
  const std::vector<Input> inputs = corpus();
  ASSERT_FALSE(inputs.empty());
  for (const Input& input : inputs) GetParam().run(input);
  for (std::uint64_t i = 0; i < changes; ++i) {
    const Input& input = inputs[random() % inputs.size()];
    GetParam().run(mutated(input, inputs[random() % inputs.size()], random));
  }
}

INSTANTIATE_TEST_SUITE_P(All, FuzzTest, testing::ValuesIn(kTargets),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace kvbm::fuzz
