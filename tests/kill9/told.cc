#include "told.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace kvbm::kill9 {

// --- the log ---------------------------------------------------------------------------------

Log& Log::create() {
  void* memory =
      ::mmap(nullptr, sizeof(Log), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) std::abort();
  return *new (memory) Log;
}

void Log::append(const Entry& entry) {
  const std::size_t at = appended_.fetch_add(1);
  if (at >= kCapacity) fail("the log is full");
  lines_[at].entry = entry;
  lines_[at].is_whole.store(true, std::memory_order_release);
}

void Log::fail(const std::string& what) {
  if (!has_failed_.exchange(true))
    std::snprintf(failure_.data(), failure_.size(), "%s", what.c_str());
  ::_exit(1);
}

std::string Log::failure() const { return failure_.data(); }

// --- what follows ----------------------------------------------------------------------------

void Told::take_in(Log& log) {
  log.take_all([this](const Entry& entry) { take_in(entry, ++entries_); });
  for (const auto& [name_space, number] : resetting_) forget_slots_of(name_space);
  resetting_.clear();
}

void Told::take_in(const Entry& entry, std::uint64_t number) {
  switch (entry.kind) {
    case Entry::Kind::Writes:
      slots_[entry.slot] = {entry.name, entry.write, false};
      put_[entry.name] = number;
      break;
    case Entry::Kind::Has: {
      const auto held = slots_.find(entry.slot);
      if (held != slots_.end() && held->second.write == entry.write) {
        held->second.can_be_matched = true;
      }
      break;
    }
    case Entry::Kind::Resets:
      forget_slots_of(entry.name.name_space);
      resetting_[entry.name.name_space] = number;
      break;
    case Entry::Kind::HasReset:
      // What was written meanwhile may have been named before or after.
      forget_slots_of(entry.name.name_space);
      std::erase_if(put_, [&](const auto& put) {
        return put.first.name_space == entry.name.name_space &&
               put.second < resetting_.at(entry.name.name_space);
      });
      resetting_.erase(entry.name.name_space);
      break;
  }
}

void Told::forget_slots_of(NamespaceId name_space) {
  std::erase_if(slots_,
                [&](const auto& slot) { return slot.second.name.name_space == name_space; });
}

std::map<BlockId, Name> Told::due() const {
  std::map<BlockId, Name> due;
  for (const auto& [slot, held] : slots_) {
    if (held.can_be_matched) due.emplace(slot, held.name);
  }
  return due;
}

}  // namespace kvbm::kill9
