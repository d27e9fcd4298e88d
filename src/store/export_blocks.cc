#include "store/export_blocks.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <set>
#include <utility>

#include "store/payload.h"
#include "store/survey.h"
#include "store/token_entry.h"

namespace kvbm::store {
namespace {

struct Found {
  Slot slot;
  SlotRecord record;
};

auto name_of(const SlotRecord& record) {
  return std::pair(record.name_space, record.sequence_hash);
}

std::uint64_t unix_seconds() {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::seconds>(
                                        std::chrono::system_clock::now().time_since_epoch())
                                        .count());
}

std::string hex(SequenceHash hash) {
  char text[19];
  std::snprintf(text, sizeof text, "0x%016llx", static_cast<unsigned long long>(hash.value()));
  return text;
}

// What counts, in the order of names.
Result<std::vector<Found>> find_blocks(const StoreFiles& files, const Superblock& superblock,
                                       std::optional<NamespaceId> name_space) {
  std::vector<Found> found;
  KVBM_CHECK_OK(survey_records(*files.index, superblock,
                               [&](Slot slot, RecordState state, const SlotRecord& record) {
                                 if (state != RecordState::Valid || !is_present(record, superblock))
                                   return;
                                 if (name_space.value_or(record.name_space) == record.name_space) {
                                   found.push_back({slot, record});
                                 }
                               }));
  const auto later_first = [](const Found& a, const Found& b) {
    return std::pair(name_of(a.record), b.record.put_sequence) <
           std::pair(name_of(b.record), a.record.put_sequence);
  };
  std::sort(found.begin(), found.end(), later_first);
  const auto same = [](const Found& a, const Found& b) {
    return name_of(a.record) == name_of(b.record);
  };
  found.erase(std::unique(found.begin(), found.end(), same), found.end());
  return found;
}

// Of these, in the order of names, the chains that end so.
class ChainFinder {
 public:
  explicit ChainFinder(const std::vector<Found>& found) : found_(found) {}

  Result<void> add(SequenceHash end) {
    bool is_there = false;
    for (unsigned name_space = 0; name_space <= 255; ++name_space) {
      const Found* block = find(static_cast<NamespaceId>(name_space), end);
      if (!block) continue;
      is_there = true;
      KVBM_CHECK_OK(add_chain(*block));
    }
    if (is_there) return {};
    return Error{ErrorCode::InvalidConfig, 0, 0, 0, "no block has the hash " + hex(end)};
  }
  std::vector<Found> take() {
    std::vector<Found> chains;
    for (const std::size_t index : taken_) chains.push_back(found_[index]);
    return chains;
  }

 private:
  const Found* find(NamespaceId name_space, SequenceHash hash) const {
    const auto at = std::lower_bound(
        found_.begin(), found_.end(), std::pair(name_space, hash),
        [](const Found& each, const auto& name) { return name_of(each.record) < name; });
    const bool is_it = at != found_.end() && name_of(at->record) == std::pair(name_space, hash);
    return is_it ? &*at : nullptr;
  }

  // Positions fall on the way, so it ends.
  Result<void> add_chain(const Found& end) {
    const Found* block = &end;
    while (taken_.insert(static_cast<std::size_t>(block - found_.data())).second &&
           block->record.position > 0) {
      const Found* parent = find(block->record.name_space, block->record.parent_hash);
      if (!parent || parent->record.position + 1 != block->record.position) {
        return Error{ErrorCode::InvalidConfig, 0, 0, 0,
                     "the chain of " + hex(end.record.sequence_hash) + " is not whole: block " +
                         hex(block->record.parent_hash) + " at position " +
                         std::to_string(block->record.position - 1) + " is missing"};
      }
      block = parent;
    }
    return {};
  }

  const std::vector<Found>& found_;
  std::set<std::size_t> taken_;
};

Result<std::vector<Found>> select(const StoreFiles& files, const Superblock& superblock,
                                  const ExportOptions& options) {
  KVBM_TRY(std::vector<Found> found, find_blocks(files, superblock, options.name_space));
  if (!options.ends.empty()) {
    ChainFinder chains(found);
    for (const SequenceHash end : options.ends) KVBM_CHECK_OK(chains.add(end));
    found = chains.take();
  }
  // If a store has too little room for all, it gets whole chains as far as they go.
  std::sort(found.begin(), found.end(), [](const Found& a, const Found& b) {
    return std::pair(a.record.position, a.record.put_sequence) <
           std::pair(b.record.position, b.record.put_sequence);
  });
  return found;
}

// Whether the slot still has that record.
bool is_still_there(const StoreFiles& files, const Superblock& superblock, const Found& block) {
  RecordBytes bytes;
  SlotRecord now;
  return files.index->read(bytes, std::uint64_t{block.slot} * kRecordBytes) &&
         decode(bytes, block.slot, superblock.store_id, now) == RecordState::Valid &&
         now.put_sequence == block.record.put_sequence;
}

}  // namespace

Result<ExportReport> export_blocks(const StoreFiles& files, const ExportOptions& options,
                                   ExportWriter::Sink sink) {
  KVBM_TRY(const Manifest manifest, survey_manifest(files));
  const Superblock& superblock = manifest.superblock;
  const StoreShape& shape = superblock.shape;
  KVBM_TRY(const std::vector<Found> blocks, select(files, superblock, options));
  KVBM_TRY(ExportWriter writer, ExportWriter::create({.shape = shape,
                                                      .store_id = superblock.store_id,
                                                      .num_blocks = blocks.size(),
                                                      .exported = unix_seconds()},
                                                     std::move(sink)));
  PayloadReader reader(*files.blocks, shape);
  std::vector<std::byte> payload;
  payload.reserve(shape.block_bytes());
  ExportReport report;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const auto& [slot, record] = blocks[i];
    payload.clear();
    const auto sum = reader.read(slot, [&payload](std::span<const std::byte> piece) {
      payload.insert(payload.end(), piece.begin(), piece.end());
    });
    if (sum && verifies(*sum, record, slot, shape)) {
      KVBM_CHECK_OK(writer.add({.sequence_hash = record.sequence_hash,
                                .parent_hash = record.parent_hash,
                                .digest = record.digest,
                                .payload_sum = *sum,
                                .position = record.position,
                                .token_count = record.token_count,
                                .name_space = record.name_space,
                                .priority = record.priority,
                                .tokens = read_tokens(files.tokens.get(), shape, slot, record)},
                               payload));
      ++report.blocks;
      report.bytes += payload.size();
    } else if (is_still_there(files, superblock, blocks[i])) {
      ++report.damaged;
    } else {
      ++report.gone;
    }
    if (options.progress) options.progress(i + 1, blocks.size());
  }
  KVBM_CHECK_OK(writer.finish());
  return report;
}

}  // namespace kvbm::store
