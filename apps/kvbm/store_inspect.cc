#include "apps/kvbm/store_inspect.h"

#include <signal.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>

#include "store/payload.h"
#include "store/token_entry.h"

namespace kvbm::app {
namespace {

namespace fs = std::filesystem;

// Whether the process has this very file open; nothing if its files cannot be seen.
std::optional<bool> has_open(std::uint64_t pid, const std::string& path) {
  struct stat wanted{};
  if (::stat(path.c_str(), &wanted) != 0) return std::nullopt;
  std::error_code error;
  for (fs::directory_iterator it("/proc/" + std::to_string(pid) + "/fd", error), end;
       !error && it != end; it.increment(error)) {
    struct stat found{};
    if (::stat(it->path().c_str(), &found) != 0) continue;
    if (found.st_dev == wanted.st_dev && found.st_ino == wanted.st_ino) return true;
  }
  return error ? std::nullopt : std::optional(false);
}

StoreOwner owner_of(const store::Superblock& superblock, const std::string& directory) {
  StoreOwner owner{.pid = superblock.owner, .alive = false, .has_it_open = false};
  const auto pid = static_cast<pid_t>(owner.pid);
  if (pid <= 0 || static_cast<std::uint64_t>(pid) != owner.pid) return owner;
  owner.alive = ::kill(pid, 0) == 0 || errno == EPERM;
  if (owner.alive) owner.has_it_open = has_open(owner.pid, directory + "/" + store::kBlocksName);
  return owner;
}

void count(StoreView& view, store::RecordState state, const store::SlotRecord& record) {
  if (state == store::RecordState::Empty) {
    ++view.free;
  } else if (state == store::RecordState::Damaged) {
    ++view.damaged;
  } else if (!is_present(record, view.superblock)) {
    ++view.forgotten;
  } else {
    ++view.used;
    NamespaceUse& use = view.namespaces[record.name_space];
    use.oldest_put = use.blocks == 0 ? record.put_time : std::min(use.oldest_put, record.put_time);
    use.newest_put = std::max(use.newest_put, record.put_time);
    ++use.blocks;
    const std::uint64_t age = view.now > record.put_time ? view.now - record.put_time : 0;
    const auto fits = [age](const AgeClass& each) { return age <= each.max_seconds; };
    ++view.ages[static_cast<std::size_t>(std::find_if(kAges.begin(), kAges.end(), fits) -
                                         kAges.begin())];
  }
}

}  // namespace

double StoreView::write_amplification() const noexcept {
  return superblock.counters.write_amplification(superblock.shape.block_bytes());
}

double StoreView::bytes_written_per_day() const noexcept {
  return superblock.counters.bytes_written_per_day(age_seconds());
}

std::optional<double> StoreView::days_of_life_left() const noexcept {
  return superblock.counters.days_of_life_left(rated_endurance_bytes, age_seconds());
}

double StoreView::age_seconds() const noexcept {
  return static_cast<double>(now) - static_cast<double>(superblock.created);
}

Result<store::StoreFiles> open_to_look(const std::string& directory) {
  auto files = store::open_store_files_to_read(directory);
  if (files || (files.error().native != ENOENT && files.error().native != ENOTDIR)) return files;
  Error error = std::move(files).error();
  error.message = directory + " is no store of kvbm: " + error.message;
  return error;
}

Result<StoreView> view_store(const std::string& directory, std::uint64_t now) {
  KVBM_TRY(const store::StoreFiles files, open_to_look(directory));
  KVBM_TRY(store::Manifest manifest, survey_manifest(files));
  StoreView view;
  view.directory = directory;
  view.superblock = std::move(manifest.superblock);
  view.damaged_superblock = std::move(manifest.damage);
  view.owner = owner_of(view.superblock, directory);
  view.now = now;
  KVBM_CHECK_OK(store::survey_records(
      *files.index, view.superblock,
      [&view](store::Slot, store::RecordState state, const store::SlotRecord& record) {
        count(view, state, record);
      }));
  return view;
}

Result<std::vector<StoredBlock>> find_blocks(const std::string& directory, SequenceHash hash) {
  KVBM_TRY(const store::StoreFiles files, open_to_look(directory));
  KVBM_TRY(const store::Manifest manifest, survey_manifest(files));
  const store::Superblock& superblock = manifest.superblock;
  std::vector<StoredBlock> blocks;
  const auto take = [&](store::Slot slot, store::RecordState state,
                        const store::SlotRecord& record) {
    if (state != store::RecordState::Valid || record.sequence_hash != hash) return;
    const std::uint64_t seal = store::seal(record, slot, superblock.shape.layout_digest);
    blocks.push_back({.slot = slot,
                      .record = record,
                      .payload_sum = record.sealed_sum ^ seal,
                      .forgotten = !is_present(record, superblock),
                      .tokens = read_tokens(files.tokens.get(), superblock.shape, slot, record)});
  };
  KVBM_CHECK_OK(store::survey_records(*files.index, superblock, take));
  return blocks;
}

}  // namespace kvbm::app
