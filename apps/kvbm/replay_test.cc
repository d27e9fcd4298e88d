#include "apps/kvbm/replay.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>

#include "apps/kvbm/text.h"
#include "apps/kvbm/trace_generate.h"
#include "manager/manager_core.h"
#include "store/store_files.h"

namespace kvbm::app {
namespace {

using testing::HasSubstr;

ReplayOptions small_options() {
  ReplayOptions options;
  options.device_blocks = 80;
  options.host_blocks = 150;
  options.disk_blocks = 900;
  options.block_bytes = 4096;
  options.layers = 2;
  return options;
}

const Trace& small_trace() {
  static const Trace trace = [] {
    GenerateOptions options;
    options.requests = 120;
    options.users = 12;
    options.max_prompt_tokens = 20'000;
    return generate_trace(options).value();
  }();
  return trace;
}

// Carries out transfers as if there were no checksums: what the engine knows of the bytes is lost
// on the way to the executor that moves them.
class UnverifiedExecutor final : public TransferExecutor {
 public:
  explicit UnverifiedExecutor(std::unique_ptr<TransferExecutor> inner) : inner_(std::move(inner)) {}
  void submit(TransferRequest request, Done done) override {
    for (BlockCopy& copy : request.blocks) copy.payload_sum.reset();
    inner_->submit(std::move(request), std::move(done));
  }

 private:
  std::unique_ptr<TransferExecutor> inner_;
};

ReplayHooks hooks(bool verify_checksums) {
  ReplayHooks hooks;
  if (!verify_checksums) {
    hooks.create_manager = [](const KvBlockManagerConfig& config) {
      return detail::ManagerAccess::create(config, [](auto inner) {
        return std::make_unique<UnverifiedExecutor>(std::move(inner));
      });
    };
  }
  return hooks;
}

// Flips one bit in the middle of every block of the host tier.
void flip_host_memory(ReferenceBlockManager& manager) {
  const Layout& layout = *detail::ManagerAccess::core(manager).host->layout();
  for (std::size_t block = 0; block < layout.config().num_blocks; ++block) {
    const Region extent = layout.extent(block);
    extent.data()[extent.bytes / 2] ^= std::byte{0x10};
  }
}

// The same for the disk tier's file, through a descriptor of its own.
void flip_disk_file(const std::string& directory, std::size_t block_bytes, std::size_t blocks) {
  const std::string path = directory + "/" + store::kBlocksName;
  const int file = ::open(path.c_str(), O_RDWR);
  ASSERT_GE(file, 0);
  for (std::size_t block = 0; block < blocks; ++block) {
    const auto at = static_cast<off_t>(block * block_bytes + block_bytes / 2);
    char byte = 0;
    ASSERT_EQ(::pread(file, &byte, 1, at), 1);
    byte ^= 0x10;
    ASSERT_EQ(::pwrite(file, &byte, 1, at), 1);
  }
  ::close(file);
}

std::string fresh_directory(const char* name) {
  const std::string path = testing::TempDir() + "/" + name + std::to_string(::getpid());
  std::filesystem::remove_all(path);
  std::filesystem::create_directory(path);
  return path;
}

TEST(ReplayTest, AllTiersServeVerifiedBlocks) {
  const auto report = replay(small_trace(), small_options()).value();
  EXPECT_EQ(report.requests, small_trace().requests.size());
  for (std::size_t tier = 0; tier < kTierCount; ++tier) {
    EXPECT_GT(report.hit_tokens[tier], 0u) << to_string(Tier(tier));
    EXPECT_GT(report.blocks_verified[tier], 0u) << to_string(Tier(tier));
  }
  EXPECT_EQ(report.wrong_blocks, 0u);
  EXPECT_TRUE(report.clean());
}

// The verification of the replayer itself, shown to see: without checksums a flipped bit in host
// memory is served, and counted.
TEST(ReplayTest, WithoutChecksumsAFlippedHostBitIsServedAndSeen) {
  ReplayHooks broken = hooks(false);
  broken.after_request = [](ReferenceBlockManager& manager, std::size_t) {
    flip_host_memory(manager);
  };
  const auto report = replay(small_trace(), small_options(), broken).value();
  EXPECT_GT(report.wrong_blocks, 0u);
  EXPECT_FALSE(report.clean());
}

TEST(ReplayTest, WithChecksumsAFlippedHostBitIsAMiss) {
  ReplayHooks broken = hooks(true);
  broken.after_request = [](ReferenceBlockManager& manager, std::size_t) {
    flip_host_memory(manager);
  };
  const auto report = replay(small_trace(), small_options(), broken).value();
  EXPECT_EQ(report.wrong_blocks, 0u);
  EXPECT_GT(report.transfers.checksum_mismatches, 0u);
  EXPECT_FALSE(report.clean());
}

TEST(ReplayTest, FlippedBitsInTheDiskFileAreServedOnlyWithoutChecksums) {
  for (const bool verify_checksums : {false, true}) {
    ReplayOptions options = small_options();
    options.disk_dir = fresh_directory("kvbm-flip");
    ReplayHooks broken = hooks(verify_checksums);
    broken.after_request = [&](ReferenceBlockManager&, std::size_t) {
      flip_disk_file(*options.disk_dir, options.block_bytes, options.disk_blocks);
    };
    const auto report = replay(small_trace(), options, broken).value();
    if (verify_checksums) {
      EXPECT_EQ(report.wrong_blocks, 0u);
      EXPECT_GT(report.transfers.checksum_mismatches, 0u);
    } else {
      EXPECT_GT(report.wrong_blocks, 0u);
    }
    std::filesystem::remove_all(*options.disk_dir);
  }
}

TEST(ReplayTest, InjectedFaultsAreCountedAndOnlyWrongBlocksAreWrong) {
  ReplayOptions options = small_options();
  options.fault_rate = 0.05;
  auto report = replay(small_trace(), options).value();
  const auto count = [&](simulator::FaultKind kind) {
    const auto& by_edge = report.faults.value()[static_cast<std::size_t>(kind)];
    return std::accumulate(by_edge.begin(), by_edge.end(), std::uint64_t{0});
  };
  const std::uint64_t failing = count(simulator::FaultKind::Error) +
                                count(simulator::FaultKind::Short) +
                                count(simulator::FaultKind::DiskFull);
  EXPECT_GT(failing, 20u);
  EXPECT_EQ(report.failed_transfers, failing + report.transfers.checksum_mismatches);
  EXPECT_GT(report.transfers.checksum_mismatches, 0u);
  EXPECT_LE(report.transfers.checksum_mismatches, count(simulator::FaultKind::WrongBytes));
  EXPECT_EQ(report.wrong_blocks, 0u);
  EXPECT_TRUE(report.clean());
  report.wrong_blocks = 1;
  EXPECT_FALSE(report.clean());
}

TEST(ReplayTest, ASecondRunFindsTheBlocksOfTheFirst) {
  ReplayOptions options = small_options();
  options.disk_dir = fresh_directory("kvbm-warm");
  const auto cold = replay(small_trace(), options).value();
  const auto warm = replay(small_trace(), options).value();
  EXPECT_EQ(cold.disk->restored_blocks, 0u);
  EXPECT_EQ(warm.disk->restored_blocks, cold.pools[2].registered_blocks);
  EXPECT_GT(warm.hit_tokens[2], cold.hit_tokens[2]);
  EXPECT_EQ(warm.wrong_blocks, 0u);
  EXPECT_TRUE(warm.clean());
  EXPECT_THAT(to_table(warm), HasSubstr(" blocks restored"));
  EXPECT_EQ(to_json(warm)["disk_store"]["health"], "healthy");
  std::filesystem::remove_all(*options.disk_dir);
}

TEST(ReplayTest, VerifySampleSeesEveryHitAndOffSeesNone) {
  ReplayOptions options = small_options();
  const auto full = replay(small_trace(), options).value();
  options.verify = Verify::Sample;
  const auto sample = replay(small_trace(), options).value();
  options.verify = Verify::Off;
  const auto off = replay(small_trace(), options).value();
  EXPECT_EQ(sample.blocks_verified, full.blocks_verified);
  EXPECT_EQ(off.hit_tokens, full.hit_tokens);
  EXPECT_EQ(off.blocks_verified, (std::array<std::uint64_t, kTierCount>{}));
}

// A prompt of more blocks than the device has is cached as far as it fits.
TEST(ReplayTest, APromptLongerThanTheDeviceIsCachedInPart) {
  TraceRequest request;
  request.input_length = 20 * kTraceBlockTokens;
  for (std::uint64_t id = 0; id < 20; ++id) request.hash_ids.push_back(id);
  ReplayOptions options = small_options();
  options.device_blocks = 6;
  const auto report = replay({{request, request}}, options).value();
  EXPECT_EQ(report.hit_tokens[0], 6 * kTraceBlockTokens);
  EXPECT_EQ(report.wrong_blocks, 0u);
}

TEST(ReplayTest, AnEmptyPromptIsNoTrouble) {
  const auto report = replay({{TraceRequest{}}}, small_options()).value();
  EXPECT_EQ(report.requests, 1u);
  EXPECT_EQ(report.prompt_tokens, 0u);
}

TEST(ReplayTest, OptionsOutOfRangeAreNamed) {
  const auto message = [](auto change) {
    ReplayOptions options = small_options();
    change(options);
    return validate(options) ? std::string() : validate(options).error().message;
  };
  EXPECT_EQ(message([](auto&) {}), "");
  EXPECT_THAT(message([](auto& o) { o.device_blocks = 0; }),
              HasSubstr("--device-blocks must be 1 .. 4294967294, but is 0"));
  EXPECT_THAT(message([](auto& o) { o.host_blocks = 1ul << 40; }), HasSubstr("--host-blocks"));
  EXPECT_THAT(message([](auto& o) { o.disk_blocks = 0; }), HasSubstr("--disk-blocks"));
  EXPECT_THAT(message([](auto& o) { o.fault_rate = 1.5; }),
              HasSubstr("--fault-rate must be 0 .. 1"));
  EXPECT_THAT(message([](auto& o) { o.fault_rate = -0.5; }), HasSubstr("but is -0.5"));
  EXPECT_THAT(message([](auto& o) { o.layers = 129; }), HasSubstr("--layers must be 1 .. 128"));
  EXPECT_THAT(message([](auto& o) { o.block_bytes = 4097; }),
              HasSubstr("--block-bytes must be a multiple of 2048"));
  EXPECT_THAT(message([](auto& o) { o.block_bytes = 0; }), HasSubstr("--block-bytes"));
}

TEST(ReplayReportTest, JsonAndTableTellTheSame) {
  const auto report = replay(small_trace(), small_options()).value();
  const auto json = to_json(report);
  EXPECT_EQ(json["requests"], report.requests);
  EXPECT_EQ(json["hit_tokens"]["disk"], report.hit_tokens[2]);
  EXPECT_EQ(json["evictions"]["device"], report.pools[0].evictions);
  EXPECT_EQ(json["edges"]["host_to_disk"]["bytes"], report.transfers.edges[1].bytes);
  const std::string table = to_table(report);
  EXPECT_THAT(table, HasSubstr(grouped(report.hit_tokens[2])));
  EXPECT_THAT(table, HasSubstr("0 wrong blocks of"));
}

}  // namespace
}  // namespace kvbm::app
