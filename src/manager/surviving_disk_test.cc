// A disk tier in a directory: what one manager leaves is what the next one finds.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <numeric>

#include "kvbm/kvbm.h"
#include "manager/manager_core.h"
#include "store/disk_store.h"
#include "store/survey.h"
#include "store/token_entry.h"
#include "tiers/disk_tier.h"

namespace kvbm {
namespace {

using std::chrono::seconds;
using testing::HasSubstr;

constexpr std::size_t kPage = 4;
constexpr auto kLong = seconds(30);

// Lines of the log, to be waited for.
class Lines {
 public:
  std::function<void(const std::string&)> sink() {
    return [this](const std::string& line) {
      const std::lock_guard lock(mutex_);
      lines_.push_back(line);
      changed_.notify_all();
    };
  }
  bool wait_for(const std::string& part) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kLong, [&] {
      return std::ranges::any_of(
          lines_, [&](const std::string& line) { return line.find(part) != std::string::npos; });
    });
  }
  std::size_t count(const std::string& part) {
    const std::lock_guard lock(mutex_);
    return static_cast<std::size_t>(std::ranges::count_if(
        lines_, [&](const std::string& line) { return line.find(part) != std::string::npos; }));
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> lines_;
};

TokenBlockSequence prompt(Token first, std::size_t blocks, const HashSeeds& seeds = {}) {
  std::vector<Token> tokens(blocks * kPage);
  std::iota(tokens.begin(), tokens.end(), first);
  return TokenBlockSequence::create(tokens, kPage, seeds).value();
}

std::byte expected_byte(SequenceHash hash, std::size_t i) {
  return std::byte(hash.value() + i * 3);
}

void compute(ReferenceBlockManager& manager, std::span<const TokenBlock> tokens,
             NamespaceId name_space = 0) {
  auto owned = manager.device()->allocate_blocks_blocking(tokens.size()).value();
  for (std::size_t b = 0; b < tokens.size(); ++b) {
    const auto bytes = owned[b].block_view_mut().value().bytes();
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      bytes[i] = expected_byte(tokens[b].sequence_hash(), i);
    }
    owned[b].apply_token_block(tokens[b], name_space).value();
  }
  manager.device()->register_blocks_blocking(std::move(owned)).value();
}

bool is_right(const ImmutableBlock<DeviceStorage>& block) {
  const auto bytes = block.block_view().value().bytes();
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] != expected_byte(block.sequence_hash(), i)) return false;
  }
  return true;
}

class SurvivingDiskTest : public testing::Test {
 protected:
  SurvivingDiskTest() {
    std::string name = testing::TempDir() + "kvbm-survive-XXXXXX";
    parent_ = ::mkdtemp(name.data());
    config_.model = {.num_layers = 2,
                     .outer_dim = 2,
                     .page_size = kPage,
                     .inner_dim = 64,
                     .dtype = DType::FP16,
                     .name = "model A"};
    config_.runtime.log = log_.sink();
    config_.device_layout = {.num_blocks = 16,
                             .allocator = std::make_shared<HostBackedDeviceAllocator>()};
    config_.host_layout = {.num_blocks = 16, .allocator = std::make_shared<PinnedAllocator>()};
    config_.disk_layout = {.num_blocks = 40, .store = DiskStoreConfig{.directory = directory()}};
  }
  ~SurvivingDiskTest() override { std::filesystem::remove_all(parent_); }

  std::string directory() const { return parent_ + "/store"; }
  DiskStoreConfig& store() { return *config_.disk_layout->store; }
  ReferenceBlockManager manager() {
    auto made = ReferenceBlockManager::create(config_);
    EXPECT_TRUE(made.has_value()) << made.error().to_string();
    return std::move(*made);
  }
  // A life in which these tokens are computed and reach the disk.
  void live(const TokenBlockSequence& tokens, NamespaceId name_space = 0) {
    auto one = manager();
    compute(one, tokens.blocks(), name_space);
    ASSERT_TRUE(one.drain(kLong));
  }
  // How many leading blocks come from the disk and are right.
  static std::size_t served(ReferenceBlockManager& manager, const TokenBlockSequence& tokens,
                            NamespaceId name_space = 0) {
    Lookup found = manager.lookup(tokens.blocks(), name_space);
    EXPECT_EQ(found.count(Tier::Disk), found.size());
    const auto loaded = manager.onboard(std::move(found)).value().get();
    const std::size_t valid = loaded.valid_prefix();
    for (std::size_t i = 0; i < valid; ++i) EXPECT_TRUE(is_right(*loaded.blocks[i]));
    return valid;
  }
  void flip(const std::string& name, std::uint64_t offset) {
    std::fstream file(directory() + "/" + name, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(offset));
    const char byte = static_cast<char>(~file.get());
    file.seekp(static_cast<std::streamoff>(offset));
    file.put(byte);
  }

  std::string parent_;
  Lines log_;
  KvBlockManagerConfig config_;
};

TEST_F(SurvivingDiskTest, TheNextManagerServesWhatThisOneWrote) {
  const auto tokens = prompt(100, 12);
  live(tokens);
  auto next = manager();
  EXPECT_EQ(next.disk_stats()->restored_blocks, 12u);
  EXPECT_EQ(next.disk()->stats().registered_blocks, 12u);
  EXPECT_EQ(served(next, tokens), 12u);
  EXPECT_EQ(next.disk_stats()->bytes_served, 12u * 2048);
  EXPECT_EQ(next.disk_stats()->health, DiskHealth::Healthy);
}

TEST_F(SurvivingDiskTest, EvictionGoesOnInTheOrderOfTheWrites) {
  config_.disk_layout->num_blocks = 16;
  const auto first = prompt(100, 8);
  const auto second = prompt(500, 8);
  live(first);
  live(second);
  auto next = manager();
  detail::ManagerAccess::core(next).disk->disk()->wait_until_restored();
  EXPECT_EQ(next.disk()->available_blocks(), 16u);
  compute(next, prompt(900, 4).blocks());
  ASSERT_TRUE(next.drain(kLong));
  EXPECT_EQ(next.lookup(first.blocks()).size(), 4u) << "the oldest writes go, leaves first";
  EXPECT_EQ(next.lookup(second.blocks()).size(), 8u);
  detail::ManagerAccess::core(next).disk->store().check_invariants();
}

TEST_F(SurvivingDiskTest, AResetLastsForItsNamespaceOnly) {
  const auto tokens = prompt(100, 6);
  {
    auto one = manager();
    compute(one, tokens.blocks(), 0);
    compute(one, tokens.blocks(), 7);
    ASSERT_TRUE(one.drain(kLong));
    ASSERT_TRUE(one.reset(7).has_value());
    compute(one, tokens.blocks().first(2), 7);
    ASSERT_TRUE(one.drain(kLong));
  }
  {
    auto next = manager();
    EXPECT_EQ(served(next, tokens, 0), 6u);
    EXPECT_EQ(served(next, tokens, 7), 2u) << "what came after the reset";
    ASSERT_TRUE(next.disk()->reset().has_value());
  }
  auto last = manager();
  EXPECT_EQ(last.lookup(tokens.blocks(), 0).size(), 0u);
  EXPECT_EQ(last.lookup(tokens.blocks(), 7).size(), 0u);
}

TEST_F(SurvivingDiskTest, WrongBytesAreFoundAndDroppedForGood) {
  const auto tokens = prompt(100, 6);
  live(tokens);
  flip(store::kBlocksName, 2 * 4096 + 1000);
  {
    auto next = manager();
    EXPECT_EQ(served(next, tokens), 2u);
    EXPECT_EQ(next.transfer_stats().checksum_mismatches, 1u);
    EXPECT_TRUE(log_.wait_for("not what was written"));
  }
  auto last = manager();
  EXPECT_EQ(last.disk_stats()->restored_blocks, 5u);
  EXPECT_EQ(last.lookup(tokens.blocks()).size(), 2u);
}

TEST_F(SurvivingDiskTest, ADamagedRecordCostsItsBlockOnly) {
  const auto tokens = prompt(100, 6);
  live(tokens);
  flip(store::kIndexName, 5 * 64 + 8);
  auto next = manager();
  EXPECT_EQ(next.disk_stats()->damaged_records, 1u);
  EXPECT_EQ(served(next, tokens), 5u);
}

TEST_F(SurvivingDiskTest, BlocksOfAnotherModelKeyOrProfileAreRefused) {
  live(prompt(100, 2));
  const auto refusal = [&] {
    auto made = ReferenceBlockManager::create(config_);
    EXPECT_FALSE(made.has_value());
    return made ? std::string() : made.error().to_string();
  };
  const auto good = config_;
  config_.model.name = "model B";
  EXPECT_THAT(refusal(), AllOf(HasSubstr("'model A'"), HasSubstr("'model B'")));
  config_ = good;
  config_.model.hash_profile = "vllm";
  EXPECT_THAT(refusal(), AllOf(HasSubstr("'kvbm'"), HasSubstr("'vllm'")));
  config_ = good;
  config_.model.dtype = DType::BF16;
  EXPECT_THAT(refusal(), AllOf(HasSubstr("fp16"), HasSubstr("bf16")));
  config_ = good;
  const std::vector<std::byte> secret(32, std::byte{5});
  config_.runtime.digest_key = DigestKey::create(secret).value();
  EXPECT_THAT(refusal(), AllOf(HasSubstr("key"), HasSubstr("0000000000000000")));
  config_ = good;
  EXPECT_EQ(manager().disk_stats()->restored_blocks, 2u) << "and nothing was lost";
}

TEST_F(SurvivingDiskTest, ASecondOwnerIsRefused) {
  auto one = manager();
  const auto two = ReferenceBlockManager::create(config_);
  ASSERT_FALSE(two.has_value());
  EXPECT_THAT(two.error().message, HasSubstr("in use"));
  one.close();
}

TEST_F(SurvivingDiskTest, TokensAndPrioritiesTravelWithTheBlocks) {
  store().keep_tokens = true;
  const auto tokens = prompt(100, 3);
  {
    auto one = manager();
    auto owned = one.device()->allocate_blocks_blocking(3).value();
    for (std::size_t b = 0; b < 3; ++b) {
      owned[b].set_priority(80).value();
      owned[b].apply_token_block(tokens.blocks()[b]).value();
    }
    one.device()->register_blocks_blocking(std::move(owned)).value();
    ASSERT_TRUE(one.drain(kLong));
  }
  auto next = manager();
  const auto run = next.disk()->match_sequence_hashes_blocking(tokens.sequence_hashes()).value();
  ASSERT_EQ(run.size(), 3u);
  for (std::size_t b = 0; b < 3; ++b) EXPECT_EQ(run[b].metadata().priority, 80u);
  const auto loaded = next.onboard(next.lookup(tokens.blocks())).value().get();
  ASSERT_EQ(loaded.valid_prefix(), 3u);
  for (std::size_t b = 0; b < 3; ++b) {
    const auto kept =
        detail::ManagerAccess::core(next).device->set()->tokens_of(loaded.blocks[b]->block_id());
    EXPECT_THAT(std::vector(kept.begin(), kept.end()),
                testing::ElementsAreArray(tokens.blocks()[b].tokens()));
  }
}

TEST_F(SurvivingDiskTest, TokensThatRottedAreUnknownAndStaySo) {
  store().keep_tokens = true;
  const auto tokens = prompt(100, 3);
  live(tokens);
  flip(store::kTokensName, 1 * (4 + 4 * kPage) + 6);
  auto next = manager();
  const auto loaded = next.onboard(next.lookup(tokens.blocks())).value().get();
  ASSERT_EQ(loaded.valid_prefix(), 3u) << "the blocks are right";
  auto& core = detail::ManagerAccess::core(next);
  const auto first_token = [&](std::size_t i) {
    return core.device->set()->tokens_of(loaded.blocks[i]->block_id()).front();
  };
  EXPECT_EQ(first_token(0), tokens.blocks()[0].tokens()[0]);
  EXPECT_EQ(first_token(1), detail::BlockSet::kUnknownToken);

  // Written again, the block brings no tokens rather than wrong ones.
  ASSERT_TRUE(next.disk()->reset().has_value());
  std::vector<detail::OffloadOffer> offers;
  for (const TokenBlock& block : tokens.blocks()) {
    offers.push_back({{block.sequence_hash(), block.digest(), 0}, DEFAULT_PRIORITY});
  }
  core.driver->offered(Tier::Host, std::move(offers));
  ASSERT_TRUE(next.drain(kLong));
  ASSERT_EQ(next.disk()->stats().registered_blocks, 3u);
  next.close();
  const auto files = store::open_store_files_to_read(directory()).value();
  const auto superblock = store::read_manifest(*files.manifest).value()->superblock;
  std::size_t known = 0;
  ASSERT_TRUE(
      store::survey_records(
          *files.index, superblock,
          [&](store::Slot slot, auto state, const auto& record) {
            if (state != store::RecordState::Valid || !is_present(record, superblock)) {
              return;
            }
            known +=
                !store::read_tokens(files.tokens.get(), superblock.shape, slot, record).empty();
          })
          .has_value());
  EXPECT_EQ(known, 2u);
}

TEST_F(SurvivingDiskTest, ADurableStoreSyncsBeforeItTells) {
  store().durable = true;
  store().sync_interval = std::chrono::hours(1);
  const auto tokens = prompt(100, 8);
  {
    auto one = manager();
    const auto before = one.disk_stats()->index_bytes_written;
    compute(one, tokens.blocks());
    ASSERT_TRUE(one.drain(kLong));
    EXPECT_EQ(one.disk()->stats().registered_blocks, 8u);
    EXPECT_GT(one.disk_stats()->index_bytes_written, before) << "there was a sync";
  }
  auto next = manager();
  EXPECT_EQ(served(next, tokens), 8u);
}

TEST_F(SurvivingDiskTest, TheWriteBudgetHolds) {
  store().write_budget_bytes_per_day = 24 * 10 * 4096;  // ten blocks an hour
  auto one = manager();
  compute(one, prompt(100, 12).blocks());
  ASSERT_TRUE(one.drain(kLong));
  const DiskStats stats = *one.disk_stats();
  EXPECT_EQ(one.disk()->stats().registered_blocks, 6u) << "half of the hour's share is kept back";
  EXPECT_EQ(stats.blocks_refused_by_budget, 6u);
  EXPECT_EQ(stats.write_budget_bytes_per_day, store().write_budget_bytes_per_day);
  EXPECT_GE(stats.write_amplification, 1.0);
}

TEST_F(SurvivingDiskTest, EnduranceGivesABudgetAndDaysOfLife) {
  store().rated_endurance_bytes = std::uint64_t{5} * 365 << 30;
  auto one = manager();
  EXPECT_EQ(one.disk_stats()->write_budget_bytes_per_day, std::uint64_t{1} << 30);
  EXPECT_FALSE(one.disk_stats()->days_of_life_left.has_value()) << "nothing was written yet";
  compute(one, prompt(100, 4).blocks());
  ASSERT_TRUE(one.drain(kLong));
  EXPECT_GT(*one.disk_stats()->days_of_life_left, 0.0);
}

TEST_F(SurvivingDiskTest, MetricsCountFromTheStartOfTheProcess) {
  live(prompt(100, 4));
  const auto registry = std::make_shared<MemoryRegistry>();
  config_.runtime.metrics_registry = registry;
  auto next = manager();
  const auto value = [&](const char* name) {
    for (const auto& sample : registry->samples()) {
      if (sample.name == name) return sample.value;
    }
    ADD_FAILURE() << "no metric " << name;
    return -1.0;
  };
  EXPECT_EQ(value("kvbm_disk_restored_blocks"), 4);
  EXPECT_EQ(value("kvbm_disk_blocks_written_total"), 0);
  compute(next, prompt(900, 3).blocks());
  ASSERT_TRUE(next.drain(kLong));
  EXPECT_EQ(value("kvbm_disk_blocks_written_total"), 3);
  EXPECT_EQ(value("kvbm_disk_payload_bytes_written_total"), 3 * 4096);
  EXPECT_EQ(value("kvbm_disk_health"), 0);
  EXPECT_EQ(value("kvbm_disk_days_of_life_left"), -1);
  EXPECT_EQ(served(next, prompt(100, 4)), 4u);
  EXPECT_EQ(value("kvbm_disk_bytes_served_total"), 4 * 2048);
}

TEST_F(SurvivingDiskTest, ScrubbingFindsWhatRotted) {
  const auto tokens = prompt(100, 6);
  live(tokens);
  flip(store::kBlocksName, 5 * 4096 + 100);
  store().scrub_bytes_per_second = 1 << 30;
  store().sync_interval = std::chrono::milliseconds(10);
  auto next = manager();
  ASSERT_TRUE(log_.wait_for("not what was written"));
  EXPECT_EQ(next.lookup(tokens.blocks()).size(), 5u);
  EXPECT_EQ(next.disk_stats()->scrub_mismatches, 1u);
  EXPECT_EQ(served(next, tokens), 5u);
}

TEST_F(SurvivingDiskTest, BadOptionsAreNamed) {
  store().directory = "";
  store().rated_years = 0;
  store().sync_interval = std::chrono::milliseconds(1);
  config_.host_layout->store = DiskStoreConfig{.directory = "x"};
  config_.model.name = std::string(300, 'x');
  const auto problems = config_.problems();
  const auto has = [&](const char* part) {
    EXPECT_THAT(problems, testing::Contains(HasSubstr(part)));
  };
  has("disk_layout.store.directory is empty");
  has("disk_layout.store.rated_years is 0; it must be 1 .. 100");
  has("disk_layout.store.sync_interval in ms is 1; it must be 10 .. 3600000");
  has("host_layout.store must be empty");
  has("model.name is 300; it must be 0 .. 256");
}

}  // namespace
}  // namespace kvbm
