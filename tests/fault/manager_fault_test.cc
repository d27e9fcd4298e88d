// The whole manager on real files while its transfers fail, fall short, hang and turn bytes:
// threads find, load, compute, offload, cancel and forget. No wrong byte is served, every request
// ends, and nothing is left.
//
// KVBM_SEED repeats a run, as far as threads and clocks do; KVBM_FAULTS is how many there are.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>
#include <thread>

#include "apps/kvbm/pattern.h"
#include "kvbm/kvbm.h"
#include "manager/manager_core.h"
#include "simulator/faulty_executor.h"
#include "tests/e2e/program.h"

namespace kvbm::fault {
namespace {

using app::RegionName;
using simulator::FaultCounts;
using simulator::FaultInjector;
using simulator::FaultKind;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using DeviceBlock = ImmutableBlock<DeviceStorage>;

constexpr std::uint64_t kFaults = 10'000;
constexpr std::uint64_t kFaultsOfALife = 1'000;
constexpr std::size_t kThreads = 3;
constexpr std::size_t kPage = 4;
constexpr std::size_t kLayers = 3;
constexpr std::size_t kOuter = 2;
constexpr std::size_t kRegionBytes = kPage * 40;
constexpr std::size_t kNamespaces = 2;
constexpr std::size_t kLongest = 6;  // blocks of a prompt
constexpr BlockId kExternals = 40;
// When nobody believes any more that a request ends.
constexpr minutes kForEver{2};

std::uint64_t number_from(const char* variable, std::uint64_t otherwise) {
  const char* given = std::getenv(variable);
  return given ? std::strtoull(given, nullptr, 10) : otherwise;
}

TokenBlockSequence prompt(Token conversation, std::size_t blocks) {
  std::vector<Token> tokens(blocks * kPage);
  std::iota(tokens.begin(), tokens.end(), conversation * 1000);
  return TokenBlockSequence::create(tokens, kPage).value();
}

// What a manager's disk tier is, and who hands out its device blocks.
enum class Shape { File, External, Store };

KvBlockManagerConfig config_of(Shape shape, const std::string& folder) {
  KvBlockManagerConfig config;
  config.model = {.num_layers = kLayers,
                  .outer_dim = kOuter,
                  .page_size = kPage,
                  .inner_dim = kRegionBytes / kPage,
                  .dtype = DType::INT8};
  config.runtime.log = [](const std::string&) {};  // the disk tier complains, and rightly
  config.device_layout = {.num_blocks = shape == Shape::External ? kExternals : 24,
                          .allocator = std::make_shared<HostBackedDeviceAllocator>(),
                          .external = shape == Shape::External,
                          .layout_type = LayoutType::LayerSeparateOuterContiguous};
  config.host_layout = {.num_blocks = 14, .allocator = std::make_shared<PinnedAllocator>()};
  config.disk_layout = {.num_blocks = 40};
  if (shape == Shape::Store) {
    config.disk_layout->store = DiskStoreConfig{.directory = folder};
  } else {
    config.disk_layout->allocator = std::make_shared<DiskAllocator>(folder);
  }
  return config;
}

// One manager, its users and what they have seen.
class Life {
 public:
  Life(Shape shape, const std::string& folder, const FaultInjector::Options& options)
      : shape_(shape),
        faults_(std::make_shared<FaultInjector>(options)),
        manager_(detail::ManagerAccess::create(config_of(shape, folder), [this](auto inner) {
                   return std::make_unique<simulator::FaultyExecutor>(std::move(inner), faults_);
                 }).value()) {
    free_.resize(kExternals);
    std::iota(free_.begin(), free_.end(), 0);
  }

  void run(std::uint64_t faults) {
    std::vector<std::jthread> threads;
    for (std::size_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([this, faults, seed = faults_->options().seed + t] {
        std::mt19937_64 random(seed);
        while (faults_->total() < faults && !testing::Test::HasFailure()) act(random);
      });
    }
  }
  // When the threads are gone.
  void expect_nothing_left();

  FaultCounts faults() const { return faults_->counts(); }
  std::uint64_t served() const { return served_; }
  std::uint64_t mismatches() const { return manager_.transfer_stats().checksum_mismatches; }

 private:
  using Random = std::mt19937_64;

  void act(Random& random);
  void serve(Random& random);
  void serve_external(Random& random);
  void prefetch(Random& random);
  void leave_plan(Random& random);
  void reset(Random& random);
  std::vector<DeviceBlock> load(Lookup found, Random& random, NamespaceId space);
  std::vector<DeviceBlock> compute(std::span<const TokenBlock> missing, NamespaceId space);
  Lookup find(std::span<const TokenBlock> tokens, NamespaceId space) {
    return manager_.lookup(tokens, space, {.lease = milliseconds(5)});
  }
  template <class T>
  T ended(Completion<T> completion) {
    EXPECT_TRUE(completion.wait_for(kForEver)) << "a request does not end";
    return std::move(completion).get();
  }

  std::vector<BlockId> take_externals(std::size_t count);
  void give_externals(const std::vector<BlockId>& ids);

  static RegionName name_of(const TokenBlock& tokens, NamespaceId space, std::size_t region) {
    return name_of(tokens.sequence_hash(), space, region);
  }
  static RegionName name_of(SequenceHash hash, NamespaceId space, std::size_t region) {
    return {SequenceHash(hash.value() + space), region / kOuter, region % kOuter};
  }
  std::span<std::byte> bytes_of(BlockId device_block, std::size_t region) const {
    const detail::ManagerCore& core = detail::ManagerAccess::core(manager_);
    const Region found =
        core.device->layout()->region(device_block, region / kOuter, region % kOuter).value();
    return {found.data(), found.bytes};
  }
  void fill(BlockId device_block, const TokenBlock& tokens, NamespaceId space) const {
    for (std::size_t i = 0; i < kLayers * kOuter; ++i) {
      app::fill_pattern(bytes_of(device_block, i), name_of(tokens, space, i));
    }
  }
  void expect_right(BlockId device_block, SequenceHash hash, NamespaceId space) {
    ++served_;
    for (std::size_t i = 0; i < kLayers * kOuter; ++i) {
      ASSERT_TRUE(app::has_pattern(bytes_of(device_block, i), name_of(hash, space, i)))
          << "a wrong block was served";
    }
  }

  const Shape shape_;
  const std::shared_ptr<FaultInjector> faults_;
  mutable ReferenceBlockManager manager_;
  std::atomic<std::uint64_t> served_{0};  // blocks
  std::mutex free_mutex_;
  std::vector<BlockId> free_;  // external blocks that nobody uses, as far as their users know
};

// --- what users do ---------------------------------------------------------------------------

void Life::act(Random& random) {
  const std::uint64_t what = random() % 100;
  if (what < 2) return reset(random);
  if (what < 10) return prefetch(random);
  if (what < 14) return leave_plan(random);
  return shape_ == Shape::External ? serve_external(random) : serve(random);
}

OnboardOptions some_options(std::mt19937_64& random) {
  OnboardOptions options{.timeout = seconds(10)};
  if (random() % 4 == 0) options.timeout = microseconds(random() % 5000);
  if (random() % 3 == 0) options.layers = std::make_shared<LayerProgress>();
  return options;
}

void Life::serve(Random& random) {
  const auto space = static_cast<NamespaceId>(random() % kNamespaces);
  const auto tokens = prompt(static_cast<Token>(random() % 12), 1 + random() % kLongest);
  auto blocks = load(find(tokens.blocks(), space), random, space);
  for (auto& block : compute(tokens.blocks().subspan(blocks.size()), space)) {
    blocks.push_back(std::move(block));
  }
  if (random() % 4 != 0 || blocks.empty()) return;
  auto offloaded = manager_.offload(std::move(blocks), {.timeout = milliseconds(random() % 20)});
  ASSERT_TRUE(offloaded) << offloaded.error().to_string();
  ended(std::move(*offloaded));
}

std::vector<DeviceBlock> Life::load(Lookup found, Random& random, NamespaceId space) {
  const OnboardOptions options = some_options(random);
  std::vector<MutableBlock<DeviceStorage>> targets;
  const std::size_t missing = found.size() - found.count(Tier::Device);
  const bool into_given = random() % 3 == 0;
  if (into_given) {
    auto blocks = manager_.device()->allocate_blocks_blocking(missing);
    if (!blocks) return {};
    targets = std::move(*blocks);
  }
  auto completion = into_given ? manager_.onboard(std::move(found), std::move(targets), options)
                               : manager_.onboard(std::move(found), options);
  if (!completion) {  // there is no room, or the plan was too old
    const ErrorCode code = completion.error().code;
    EXPECT_TRUE(code == ErrorCode::NotEnoughBlocksAvailable || code == ErrorCode::PlanExpired)
        << completion.error().to_string();
    return {};
  }
  if (random() % 6 == 0) completion->cancel();
  if (random() % 8 == 0) return {};  // drops it while blocks move
  if (options.layers) options.layers->wait(1 + random() % kLayers);
  OnboardResult<> loaded = ended(std::move(*completion));
  for (const auto& block : loaded.blocks) {
    if (block) expect_right(block->block_id(), block->sequence_hash(), space);
  }
  std::vector<DeviceBlock> valid;
  const std::size_t count = loaded.valid_prefix();
  for (std::size_t i = 0; i < count; ++i) valid.push_back(std::move(*loaded.blocks[i]));
  return valid;
}

std::vector<DeviceBlock> Life::compute(std::span<const TokenBlock> missing, NamespaceId space) {
  auto blocks = manager_.device()->allocate_blocks_blocking(missing.size());
  if (!blocks) return {};  // others hold the rest
  for (std::size_t i = 0; i < missing.size(); ++i) {
    fill((*blocks)[i].block_id(), missing[i], space);
    (*blocks)[i].apply_token_block(missing[i], space).value();
  }
  return manager_.device()->register_blocks_blocking(std::move(*blocks)).value();
}

// The engine's own blocks: what is found is loaded into some, the rest is computed into others and
// offloaded.
void Life::serve_external(Random& random) {
  const auto space = static_cast<NamespaceId>(random() % kNamespaces);
  const auto tokens = prompt(static_cast<Token>(random() % 12), 1 + random() % kLongest);
  const std::vector<BlockId> ids = take_externals(tokens.blocks().size());
  if (ids.empty()) return;
  Lookup found = find(tokens.blocks(), space);
  std::size_t valid = 0;
  if (found.size() > 0) {
    const ExternalBlocks targets{{ids.begin(), ids.begin() + std::ptrdiff_t(found.size())}};
    auto completion = manager_.onboard(std::move(found), targets, some_options(random));
    if (completion) {
      if (random() % 6 == 0) completion->cancel();
      const ExternalResult loaded = ended(std::move(*completion));
      for (std::size_t i = 0; i < loaded.blocks.size(); ++i) {
        if (loaded.blocks[i]) expect_right(ids[i], tokens.blocks()[i].sequence_hash(), space);
      }
      valid = loaded.valid_prefix();
    } else {
      EXPECT_EQ(completion.error().code, ErrorCode::PlanExpired);
    }
  }
  const auto missing = tokens.blocks().subspan(valid);
  std::vector<BlockId> computed;
  for (std::size_t i = valid; i < ids.size(); ++i) {
    if (manager_.is_external_busy(ids[i])) break;  // a load that was given up still writes it
    fill(ids[i], tokens.blocks()[i], space);
    computed.push_back(ids[i]);
  }
  if (!computed.empty()) {
    auto offloaded = manager_.offload({computed}, missing.first(computed.size()), space,
                                      {.timeout = milliseconds(random() % 20), .admission = true});
    ASSERT_TRUE(offloaded) << offloaded.error().to_string();
    ended(std::move(*offloaded));
  }
  give_externals(ids);
}

std::vector<BlockId> Life::take_externals(std::size_t count) {
  const std::lock_guard lock(free_mutex_);
  std::vector<BlockId> taken;
  for (auto id = free_.begin(); id != free_.end() && taken.size() < count;) {
    if (manager_.is_external_busy(*id)) {
      ++id;
    } else {
      taken.push_back(*id);
      id = free_.erase(id);
    }
  }
  if (taken.size() == count) return taken;
  free_.insert(free_.end(), taken.begin(), taken.end());
  return {};
}

void Life::give_externals(const std::vector<BlockId>& ids) {
  const std::lock_guard lock(free_mutex_);
  free_.insert(free_.end(), ids.begin(), ids.end());
}

void Life::prefetch(Random& random) {
  const auto space = static_cast<NamespaceId>(random() % kNamespaces);
  const auto tokens = prompt(static_cast<Token>(random() % 12), kLongest);
  auto staged = manager_.prefetch(
      find(tokens.blocks(), space),
      {.timeout = milliseconds(random() % 20), .hold_for = milliseconds(random() % 3)});
  if (staged) ended(std::move(*staged));
}

// A scheduler that asks, and may never come back.
void Life::leave_plan(Random& random) {
  const auto tokens = prompt(static_cast<Token>(random() % 12), kLongest);
  const PlanId plan = find(tokens.blocks(), 0).leave();
  if (random() % 2 == 0 || plan == 0 || shape_ == Shape::External) return;
  if (auto taken = manager_.take_plan(plan)) load(std::move(*taken), random, 0);
}

void Life::reset(Random& random) {
  const auto space = static_cast<NamespaceId>(random() % kNamespaces);
  const auto done = random() % 3 == 0   ? manager_.reset()
                    : random() % 2 == 0 ? manager_.reset(space)
                                        : manager_.reset(static_cast<Tier>(random() % kTierCount));
  EXPECT_TRUE(done) << done.error().to_string();
}

// --- how it ends -----------------------------------------------------------------------------

void Life::expect_nothing_left() {
  ASSERT_TRUE(manager_.drain(kForEver)) << "something moves for ever";
  detail::ManagerCore& core = detail::ManagerAccess::core(manager_);
  const TimePoint later = std::chrono::steady_clock::now() + minutes(60);
  core.driver->plans()->expire(later);
  EXPECT_EQ(core.driver->plans()->size(), 0u);
  ASSERT_TRUE(manager_.reset());
  core.driver->check_invariants();
  for (BlockId id = 0; id < kExternals; ++id) EXPECT_FALSE(manager_.is_external_busy(id));
  for (detail::TierPool* pool : {core.device.get(), core.host.get(), core.disk.get()}) {
    SCOPED_TRACE(to_string(pool->tier()));
    pool->store().advance(later);
    pool->store().check_invariants();
    EXPECT_EQ(pool->store().available_blocks(), pool->store().total_blocks()) << "a hold leaked";
    EXPECT_TRUE(detail::allocate(pool->store(), pool->store().total_blocks()));
    for (Token conversation = 0; conversation < 12; ++conversation) {
      const SequenceHash first = prompt(conversation, 1).sequence_hashes().front();
      EXPECT_FALSE(pool->store().contains(first, 0)) << "what was reset is found";
    }
  }
}

TEST(ManagerFaultTest, NoWrongBlockIsServedAndEverythingEnds) {
  const std::uint64_t seed = number_from("KVBM_SEED", std::random_device()());
  const std::uint64_t faults = number_from("KVBM_FAULTS", kFaults);
  SCOPED_TRACE(testing::Message() << "KVBM_SEED=" << seed);
  std::mt19937_64 random(seed);
  FaultCounts counts{};
  std::uint64_t injected = 0;
  std::uint64_t served = 0;
  std::uint64_t mismatches = 0;
  for (std::uint64_t i = 0; injected < faults && !HasFailure(); ++i) {
    const e2e::TemporaryFolder folder;
    const double rates[] = {0.02, 0.1, 0.4};
    Life life(static_cast<Shape>(i % 3), folder.path(),
              {.seed = random(),
               .rate = rates[random() % 3],
               .late = microseconds(300),
               .never = milliseconds(5)});
    life.run(std::min(kFaultsOfALife, faults - injected));
    life.expect_nothing_left();
    served += life.served();
    mismatches += life.mismatches();
    for (std::size_t kind = 0; kind < counts.size(); ++kind) {
      for (std::size_t edge = 0; edge < counts[kind].size(); ++edge) {
        counts[kind][edge] += life.faults()[kind][edge];
        injected += life.faults()[kind][edge];
      }
    }
  }
  std::printf("KVBM_SEED=%" PRIu64 ": %" PRIu64 " faults, %" PRIu64 " blocks compared, %" PRIu64
              " mismatches found\n",
              seed, injected, served, mismatches);
  EXPECT_GT(served, injected / 10);
  EXPECT_GT(mismatches, injected / 100);
  for (std::size_t i = 0; i < simulator::kCopyFaultKinds; ++i) {
    const auto kind = static_cast<FaultKind>(i);
    for (std::size_t edge = 0; edge < kEdgeCount; ++edge) {
      if (Edge(edge) == Edge::PeerToHost) continue;  // these managers have no peers
      std::printf("%-12s %-15s %" PRIu64 "\n", to_string(kind), to_string(Edge(edge)),
                  counts[i][edge]);
      EXPECT_EQ(counts[i][edge] > 0, exists(kind, edge))
          << to_string(kind) << " " << to_string(Edge(edge));
    }
  }
}

}  // namespace
}  // namespace kvbm::fault
