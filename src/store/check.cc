#include "store/check.h"

#include <algorithm>
#include <tuple>

#include "store/payload.h"
#include "store/survey.h"
#include "store/token_entry.h"

namespace kvbm::store {
namespace {

constexpr std::uint64_t kSlotsPerReport = 64;

struct Name {
  std::uint64_t hash;
  NamespaceId name_space;
  auto operator<=>(const Name&) const = default;
};

class Checker {
 public:
  Checker(const StoreFiles& files, const Manifest& manifest, const CheckOptions& options)
      : files_(files),
        manifest_(manifest),
        shape_(manifest.superblock.shape),
        options_(options),
        reader_(*files.blocks, shape_) {
    report_.damaged_superblock = manifest.damage;
    report_.slots = shape_.num_slots;
  }

  Result<CheckReport> run() {
    KVBM_CHECK_OK(survey_records(*files_.index, manifest_.superblock,
                                 [this](Slot slot, RecordState state, const SlotRecord& record) {
                                   look_at(slot, state, record);
                                 }));
    count_names();
    find_repeated_puts();
    if (options_.repair) KVBM_CHECK_OK(repair());
    if (options_.progress) options_.progress(report_.slots, report_.slots);
    return std::move(report_);
  }

 private:
  struct Put {
    std::uint64_t sequence;
    Slot slot;
    auto operator<=>(const Put&) const = default;
  };

  void look_at(Slot slot, RecordState state, const SlotRecord& record) {
    const bool reports = options_.progress && slot % kSlotsPerReport == 0;
    if (reports) options_.progress(slot, report_.slots);
    if (state == RecordState::Empty) {
      ++report_.empty;
      return;
    }
    if (state == RecordState::Damaged) {
      report_.damaged_records.push_back(slot);
      return;
    }
    report_.last_put = std::max(report_.last_put, record.put_sequence);
    puts_.push_back({record.put_sequence, slot});
    if (!is_present(record, manifest_.superblock)) {
      ++report_.forgotten;
      return;
    }
    ++report_.valid;
    names_.push_back({record.sequence_hash.value(), record.name_space});
    if (record.position > 0) parents_.push_back({record.parent_hash.value(), record.name_space});
    if (options_.deep) read_block(slot, record);
  }

  void read_block(Slot slot, const SlotRecord& record) {
    report_.checked_payload_bytes += shape_.block_bytes();
    const auto sum = reader_.sum(slot);
    if (!sum || !verifies(*sum, record, slot, shape_)) report_.damaged_payloads.push_back(slot);
    if (shape_.keeps_tokens && record.token_count > 0 &&
        read_tokens(files_.tokens.get(), shape_, slot, record).empty()) {
      ++report_.without_tokens;
    }
  }

  void count_names() {
    std::sort(names_.begin(), names_.end());
    const auto last = std::unique(names_.begin(), names_.end());
    report_.stale = static_cast<std::uint64_t>(names_.end() - last);
    for (const Name& parent : parents_) {
      if (!std::binary_search(names_.begin(), last, parent)) ++report_.orphans;
    }
  }

  // A put sequence that comes twice was not given by one owner: which block came later cannot be
  // told, so neither is wrong alone, and the later slot is the one that goes.
  void find_repeated_puts() {
    std::sort(puts_.begin(), puts_.end());
    for (std::size_t i = 1; i < puts_.size(); ++i) {
      if (puts_[i].sequence == puts_[i - 1].sequence) {
        report_.repeated_puts.push_back(puts_[i].slot);
      }
    }
  }

  Result<void> repair() {
    static constexpr RecordBytes kNothing{};
    for (const auto* slots :
         {&report_.damaged_records, &report_.damaged_payloads, &report_.repeated_puts}) {
      for (const Slot slot : *slots) {
        KVBM_CHECK_OK(files_.index->write(kNothing, std::uint64_t{slot} * kRecordBytes));
        ++report_.repaired;
      }
    }
    if (report_.repaired > 0) KVBM_CHECK_OK(files_.index->sync());
    if (report_.damaged_superblock.empty()) return {};
    const std::size_t damaged = 1 - manifest_.place;
    KVBM_CHECK_OK(files_.manifest->write(encode(manifest_.superblock), damaged * kSuperblockBytes));
    KVBM_CHECK_OK(files_.manifest->sync());
    ++report_.repaired;
    return {};
  }

  const StoreFiles& files_;
  const Manifest& manifest_;
  const StoreShape& shape_;
  const CheckOptions& options_;
  PayloadReader reader_;
  CheckReport report_;
  std::vector<Name> names_;    // of valid records
  std::vector<Name> parents_;  // of those, likewise
  std::vector<Put> puts_;      // of all records that are whole
};

}  // namespace

Result<CheckReport> check(const StoreFiles& files, const CheckOptions& options) {
  KVBM_TRY(const Manifest manifest, survey_manifest(files));
  return Checker(files, manifest, options).run();
}

}  // namespace kvbm::store
