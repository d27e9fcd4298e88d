#include "life.h"

#include <unistd.h>

#include <array>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "kvbm/kvbm.h"
#include "manager/manager_core.h"

namespace kvbm::kill9 {
namespace {

constexpr std::size_t kPage = 4;
constexpr std::size_t kNamespaces = 3;
constexpr std::size_t kConversations = 24;
constexpr std::size_t kLongest = 8;  // blocks; three times as many names as slots in all
constexpr std::size_t kThreads = 3;

// Tells the log of the slots that are written to, before and after.
class TellingExecutor final : public TransferExecutor {
 public:
  TellingExecutor(std::unique_ptr<TransferExecutor> inner, Log& log)
      : inner_(std::move(inner)), log_(log) {}

  // Before anything is registered.
  void set_disk(BlockStore& disk) { disk_ = &disk; }

  void submit(TransferRequest request, Done done) override {
    if (!request.journal || request.priority == TransferPriority::Onboard) {
      return inner_->submit(std::move(request), std::move(done));
    }
    auto entries = std::make_shared<std::vector<Entry>>();
    for (const BlockCopy& copy : request.blocks) {
      const BlockIdentity identity = disk_->identity(copy.target);
      entries->push_back({.kind = Entry::Kind::Writes,
                          .name = {identity.name_space, identity.sequence_hash.value()},
                          .slot = copy.target,
                          .write = log_.next_write()});
      log_.append(entries->back());
    }
    inner_->submit(std::move(request), [this, entries, done = std::move(done)](auto result) {
      done(std::move(result));
      for (const Entry& entry : *entries) tell_if_there(entry);
    });
  }

 private:
  void tell_if_there(Entry entry) {
    const SequenceHash hash(entry.name.hash);
    const auto held = detail::match(*disk_, Names(std::span(&hash, 1), {}, entry.name.name_space));
    if (held.empty() || held.front().id() != entry.slot) return;
    entry.kind = Entry::Kind::Has;
    log_.append(entry);
  }

  std::unique_ptr<TransferExecutor> inner_;
  Log& log_;
  BlockStore* disk_ = nullptr;
};

std::byte expected_byte(const Name& name, std::size_t i) {
  return std::byte(name.hash + name.name_space * 101 + i * 3);
}

class Life {
 public:
  Life(const std::string& directory, Log& log) : log_(log), manager_(open(directory)) {
    for (std::size_t c = 0; c < kConversations; ++c) {
      std::vector<Token> tokens(kLongest * kPage);
      std::iota(tokens.begin(), tokens.end(), static_cast<Token>(c * 1000));
      prompts_.push_back(TokenBlockSequence::create(tokens, kPage).value());
    }
  }

  // Every block that is there is read, and has its bytes.
  void compare(const Told& told) {
    if (manager_.disk_stats()->damaged_records > 0) log_.fail("a record is damaged");
    std::map<Name, bool> there;
    for (std::size_t space = 0; space < kNamespaces; ++space) {
      for (const auto& prompt : prompts_) {
        compare(prompt.blocks(), static_cast<NamespaceId>(space), told, there);
      }
    }
    for (const auto& [slot, name] : told.due()) {
      if (!there[name]) log_.fail("told to be there, and is not: " + spelled(name));
    }
  }

  void work(std::uint64_t seed) {
    std::mt19937_64 random(seed);
    for (;;) {
      const auto space = static_cast<NamespaceId>(random() % kNamespaces);
      const auto& prompt = prompts_[random() % kConversations];
      const std::size_t length = 1 + random() % kLongest;
      if (random() % 100 == 0) reset(space, random() % 2 == 0);
      serve(prompt.blocks().first(length), space);
    }
  }

 private:
  ReferenceBlockManager open(const std::string& directory) {
    KvBlockManagerConfig config;
    config.model = {.num_layers = 2,
                    .outer_dim = 2,
                    .page_size = kPage,
                    .inner_dim = 64,
                    .dtype = DType::FP16,
                    .name = "a model"};
    config.runtime.transfer_threads = 2;
    config.device_layout = {.num_blocks = 24,
                            .allocator = std::make_shared<HostBackedDeviceAllocator>()};
    config.host_layout = {.num_blocks = 24, .allocator = std::make_shared<PinnedAllocator>()};
    config.disk_layout = {.num_blocks = kDiskBlocks,
                          .store = DiskStoreConfig{.directory = directory,
                                                   .sync_interval = std::chrono::milliseconds(20),
                                                   .keep_tokens = true}};
    TellingExecutor* telling = nullptr;
    auto made = detail::ManagerAccess::create(config, [&](auto inner) {
      auto executor = std::make_unique<TellingExecutor>(std::move(inner), log_);
      telling = executor.get();
      return executor;
    });
    if (!made) log_.fail("the manager does not open: " + made.error().to_string());
    telling->set_disk(detail::ManagerAccess::core(*made).disk->store());
    return std::move(*made);
  }

  static std::string spelled(const Name& name) {
    return "block " + std::to_string(name.hash) + " of namespace " +
           std::to_string(name.name_space);
  }

  void compare(std::span<const TokenBlock> blocks, NamespaceId space, const Told& told,
               std::map<Name, bool>& there) {
    std::vector<SequenceHash> hashes;
    for (const TokenBlock& block : blocks) hashes.push_back(block.sequence_hash());
    const auto present = manager_.disk()->contains_blocks(hashes, space).value();
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      if (!present[i]) continue;
      const Name name{space, hashes[i].value()};
      there[name] = true;
      if (!told.may_be_there(name)) log_.fail("reset, and back again: " + spelled(name));
      const auto loaded =
          manager_.onboard(manager_.lookup(blocks.subspan(i, 1), space)).value().get();
      if (loaded.valid_prefix() != 1) log_.fail("there, and cannot be read: " + spelled(name));
      check(*loaded.blocks.front(), space);
    }
  }

  void check(const ImmutableBlock<DeviceStorage>& block, NamespaceId space) {
    const Name name{space, block.sequence_hash().value()};
    const auto bytes = block.block_view().value().bytes();
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      if (bytes[i] != expected_byte(name, i)) log_.fail("wrong bytes are served: " + spelled(name));
    }
  }

  void serve(std::span<const TokenBlock> blocks, NamespaceId space) {
    std::size_t present = 0;
    OnboardResult<> loaded;
    if (auto completion = manager_.onboard(manager_.lookup(blocks, space))) {
      loaded = std::move(*completion).get();
      present = loaded.valid_prefix();
      for (std::size_t i = 0; i < present; ++i) check(*loaded.blocks[i], space);
    }
    compute(blocks.subspan(present), space);
  }

  void compute(std::span<const TokenBlock> blocks, NamespaceId space) {
    auto owned = manager_.device()->allocate_blocks_blocking(blocks.size());
    if (!owned) return;  // others hold the rest
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      const Name name{space, blocks[b].sequence_hash().value()};
      const auto bytes = (*owned)[b].block_view_mut().value().bytes();
      for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = expected_byte(name, i);
      (*owned)[b].apply_token_block(blocks[b], space).value();
    }
    manager_.device()->register_blocks_blocking(std::move(*owned)).value();
  }

  void reset(NamespaceId space, bool of_all_tiers) {
    const std::lock_guard one_at_a_time(resetting_);
    log_.append({.kind = Entry::Kind::Resets, .name = {space, 0}});
    if (of_all_tiers) {
      manager_.reset(space).value();
    } else {
      manager_.disk()->reset(space).value();
    }
    log_.append({.kind = Entry::Kind::HasReset, .name = {space, 0}});
  }

  Log& log_;
  ReferenceBlockManager manager_;
  std::vector<TokenBlockSequence> prompts_;
  std::mutex resetting_;
};

}  // namespace

void live(const std::string& directory, const Told& told, Log& log, int at_work,
          std::uint64_t seed) {
  Life life(directory, log);
  life.compare(told);
  if (::write(at_work, "w", 1) != 1) log.fail("the pipe is broken");
  std::vector<std::jthread> threads;
  for (std::size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] { life.work(seed + t); });
  }
  threads.clear();  // never returns
  log.fail("the threads have ended");
}

}  // namespace kvbm::kill9
