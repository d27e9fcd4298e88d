#include "store/import_blocks.h"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <unordered_map>
#include <utility>
#include <vector>

#include "store/payload.h"

namespace kvbm::store {
namespace {

constexpr std::size_t kMaxPending = 1024;

struct Name {
  SequenceHash hash;
  NamespaceId name_space;
  bool operator==(const Name&) const = default;
};
struct NameHash {
  std::size_t operator()(const Name& name) const noexcept {
    return name.hash.value() * 0x9e3779b97f4a7c15u + name.name_space;
  }
};

class Importer {
 public:
  Importer(DiskStore& store, ExportReader& reader, ImportReport& report)
      : store_(store),
        shape_(store.shape()),
        reader_(reader),
        report_(report),
        used_(shape_.num_slots),
        extent_(static_cast<std::byte*>(std::aligned_alloc(kExtentUnit, shape_.extent_bytes())),
                &std::free) {
    if (!extent_) throw std::bad_alloc();
    std::memset(extent_.get(), 0, shape_.extent_bytes());
  }

  Result<void> run(const std::function<void(std::uint64_t)>& progress) {
    KVBM_CHECK_OK(store_.load([this](Slot slot, const SlotRecord& record) {
      used_[slot] = true;
      slots_.insert_or_assign({record.sequence_hash, record.name_space}, slot);
    }));
    const Result<void> read = read_all(progress);
    // What was whole before an error stays.
    const Result<void> flushed = flush();
    KVBM_CHECK_OK(read);
    KVBM_CHECK_OK(flushed);
    return store_.sync();
  }

 private:
  struct Pending {
    Slot slot;
    SlotRecord record;
    std::vector<Token> tokens;
  };

  Result<void> read_all(const std::function<void(std::uint64_t)>& progress) {
    while (true) {
      KVBM_TRY(std::optional<ExportedBlock> block, reader_.next());
      if (!block) return {};
      ++report_.blocks;
      KVBM_CHECK_OK(take(*std::move(block)));
      if (pending_.size() == kMaxPending) KVBM_CHECK_OK(flush());
      if (progress) progress(report_.blocks);
    }
  }

  Result<void> take(ExportedBlock block) {
    const Name name{block.sequence_hash, block.name_space};
    if (slots_.contains(name)) {
      ++report_.present;
      return {};
    }
    while (next_slot_ < shape_.num_slots && used_[next_slot_]) ++next_slot_;
    if (next_slot_ == shape_.num_slots) {
      ++report_.did_not_fit;
      return {};
    }
    KVBM_TRY(const std::uint64_t sum, read_payload());
    if (sum != block.payload_sum) {
      ++report_.damaged;
      return {};
    }
    const auto slot = static_cast<Slot>(next_slot_);
    KVBM_CHECK_OK(store_.clear(slot));
    KVBM_CHECK_OK(store_.blocks()->write({extent_.get(), shape_.extent_bytes()},
                                         slot * shape_.extent_bytes()));
    store_.count_payload(shape_.extent_bytes());
    pending_.push_back({slot, record_of(block, slot), std::move(block.tokens)});
    slots_.emplace(name, slot);
    ++next_slot_;
    return {};
  }

  // Into extent_. The file's own regions do not count.
  Result<std::uint64_t> read_payload() {
    PayloadSum sum(shape_.region_bytes);
    std::byte* at = extent_.get();
    KVBM_CHECK_OK(reader_.read_payload([&](std::span<const std::byte> piece) {
      std::memcpy(at, piece.data(), piece.size());
      at += piece.size();
      sum.add(piece);
    }));
    return sum.finish();
  }

  SlotRecord record_of(const ExportedBlock& block, Slot slot) const {
    SlotRecord record{.sequence_hash = block.sequence_hash,
                      .parent_hash = block.parent_hash,
                      .digest = block.digest,
                      .position = block.position,
                      .epoch = store_.epoch(block.name_space),
                      .token_count = block.token_count,
                      .name_space = block.name_space,
                      .priority = block.priority};
    record.sealed_sum = block.payload_sum ^ seal(record, slot, shape_.layout_digest);
    const auto parent = slots_.find({block.parent_hash, block.name_space});
    if (block.position > 0 && parent != slots_.end()) record.parent_slot = parent->second;
    return record;
  }

  // A record must not be there before its payload is, whatever happens to the power.
  Result<void> flush() {
    const std::vector<Pending> pending = std::exchange(pending_, {});
    if (pending.empty()) return {};
    KVBM_CHECK_OK(store_.blocks()->sync());
    for (const Pending& each : pending) {
      const std::span tokens(each.tokens);
      KVBM_CHECK_OK(store_.put(each.slot, each.record,
                               shape_.keeps_tokens ? tokens : std::span<const Token>()));
      ++report_.imported;
    }
    return {};
  }

  DiskStore& store_;
  const StoreShape& shape_;
  ExportReader& reader_;
  ImportReport& report_;
  std::vector<bool> used_;                          // by slot: it had a valid record
  std::unordered_map<Name, Slot, NameHash> slots_;  // of the blocks that are there
  std::uint64_t next_slot_ = 0;                     // those before it are taken
  std::vector<Pending> pending_;                    // written, but not yet put
  std::unique_ptr<std::byte, decltype(&std::free)> extent_;
};

}  // namespace

Result<void> check_importable(const StoreShape& file, const StoreShape& store) {
  StoreShape wanted = file;
  wanted.keeps_tokens = store.keeps_tokens;
  return check_same(store, wanted, "the file");
}

Result<void> import_blocks(DiskStore& store, ExportReader& reader, ImportReport& report,
                           const std::function<void(std::uint64_t)>& progress) {
  KVBM_CHECK_OK(check_importable(reader.header().shape, store.shape()));
  return Importer(store, reader, report).run(progress);
}

}  // namespace kvbm::store
