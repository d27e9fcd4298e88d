// How stores and their blocks are told: as JSON and as tables.
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <string_view>

#include "apps/kvbm/store_check.h"
#include "apps/kvbm/store_copy.h"
#include "apps/kvbm/store_inspect.h"
#include "apps/kvbm/text.h"

namespace kvbm::app {
namespace {

// Numbers of 64 bits, which not every reader of JSON takes whole.
std::string hex(std::uint64_t value) { return fmt::format("0x{:016x}", value); }

std::string time_text(std::uint64_t seconds) {
  constexpr std::uint64_t kEndOf9999 = 253'402'300'799;
  const auto time = static_cast<std::time_t>(std::min(seconds, kEndOf9999));
  return fmt::format("{:%Y-%m-%d %H:%M:%S} UTC", fmt::gmtime(time));
}

class Table {
 public:
  void row(std::string_view name, const std::string& value) {
    text_ += fmt::format("{:<24}{}\n", name, value);
  }
  void line(const std::string& text = {}) { text_ += text + "\n"; }
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
};

std::string owner_text(const StoreOwner& owner) {
  const char* state = !owner.alive         ? "gone"
                      : !owner.has_it_open ? "alive"
                      : *owner.has_it_open ? "alive, has it open"
                                           : "alive, but has it not open";
  return fmt::format("process {} ({})", owner.pid, state);
}

}  // namespace

nlohmann::json to_json(const StoreView& view) {
  const store::StoreShape& shape = view.superblock.shape;
  const store::StoreCounters& counters = view.superblock.counters;
  nlohmann::json namespaces = nlohmann::json::array();
  for (const auto& [id, use] : view.namespaces) {
    namespaces.push_back({{"namespace", id},
                          {"blocks", use.blocks},
                          {"bytes", use.blocks * shape.block_bytes()},
                          {"oldest_put", use.oldest_put},
                          {"newest_put", use.newest_put}});
  }
  nlohmann::json ages = nlohmann::json::array();
  for (std::size_t i = 0; i < kAges.size(); ++i) {
    ages.push_back({{"up_to", kAges[i].name}, {"blocks", view.ages[i]}});
  }
  nlohmann::json owner = {{"pid", view.owner.pid}, {"alive", view.owner.alive}};
  nlohmann::json days_left;
  if (const auto days = view.days_of_life_left()) days_left = *days;
  owner["has_it_open"] = nullptr;
  if (view.owner.has_it_open) owner["has_it_open"] = *view.owner.has_it_open;
  return {{"directory", view.directory},
          {"store_id", hex(view.superblock.store_id)},
          {"format_version", store::kFormatVersion},
          {"created", view.superblock.created},
          {"owner", std::move(owner)},
          {"damaged_superblock", view.damaged_superblock},
          {"model", shape.model},
          {"layout", shape.layout},
          {"layout_digest", hex(shape.layout_digest)},
          {"block_bytes", shape.block_bytes()},
          {"region_bytes", shape.region_bytes},
          {"page_size", shape.page_size},
          {"hash_profile", shape.hash_profile},
          {"key_fingerprint", hex(shape.key_fingerprint)},
          {"keeps_tokens", shape.keeps_tokens},
          {"slots",
           {{"all", shape.num_slots},
            {"used", view.used},
            {"free", view.free},
            {"forgotten", view.forgotten},
            {"damaged", view.damaged}}},
          {"namespaces", std::move(namespaces)},
          {"ages", std::move(ages)},
          {"blocks_written", counters.blocks_written},
          {"payload_bytes_written", counters.payload_bytes_written},
          {"index_bytes_written", counters.index_bytes_written},
          {"bytes_served", counters.bytes_served},
          {"write_amplification", view.write_amplification()},
          {"bytes_written_per_day", view.bytes_written_per_day()},
          {"days_of_life_left", std::move(days_left)}};
}

std::string to_table(const StoreView& view) {
  const store::StoreShape& shape = view.superblock.shape;
  const store::StoreCounters& counters = view.superblock.counters;
  Table table;
  table.row("store", view.directory);
  table.row("id", hex(view.superblock.store_id));
  table.row("created", time_text(view.superblock.created));
  table.row("owner", owner_text(view.owner));
  if (!view.damaged_superblock.empty()) table.row("one superblock", view.damaged_superblock);
  table.row("model", shape.model.empty() ? "(none given)" : shape.model);
  table.row("layout", fmt::format("{} ({})", shape.layout, hex(shape.layout_digest)));
  table.row("block", fmt::format("{} in {} regions, {} tokens", size_text(shape.block_bytes()),
                                 shape.region_bytes.size(), shape.page_size));
  table.row("hash profile", shape.hash_profile);
  table.row("key fingerprint", shape.key_fingerprint == 0 ? "none" : hex(shape.key_fingerprint));
  table.row("tokens", shape.keeps_tokens ? "kept" : "not kept");
  table.row("slots", fmt::format("{}: {} used, {} free, {} forgotten, {} damaged",
                                 grouped(shape.num_slots), grouped(view.used), grouped(view.free),
                                 grouped(view.forgotten), grouped(view.damaged)));
  table.row("blocks written", grouped(counters.blocks_written));
  table.row("bytes written",
            fmt::format("{} of blocks, {} of index", size_text(counters.payload_bytes_written),
                        size_text(counters.index_bytes_written)));
  table.row("write amplification", fmt::format("{:.3f}", view.write_amplification()));
  table.row("written per day", size_text(static_cast<std::uint64_t>(view.bytes_written_per_day())));
  if (const auto days = view.days_of_life_left()) {
    table.row("days of life left", fmt::format("{:.0f}", *days));
  }
  table.row("bytes that served hits", size_text(counters.bytes_served));
  table.line();
  table.line(fmt::format("{:<10}{:>14}{:>13}  {:<25}{}", "namespace", "blocks", "bytes",
                         "oldest put", "newest put"));
  for (const auto& [id, use] : view.namespaces) {
    table.line(fmt::format("{:<10}{:>14}{:>13}  {:<25}{}", id, grouped(use.blocks),
                           size_text(use.blocks * shape.block_bytes()), time_text(use.oldest_put),
                           time_text(use.newest_put)));
  }
  table.line();
  table.line(fmt::format("{:<10}{:>14}", "put within", "blocks"));
  for (std::size_t i = 0; i < kAges.size(); ++i) {
    constexpr std::uint64_t kWidth = 40;
    const auto width = static_cast<std::size_t>(
        view.used == 0 ? 0 : (view.ages[i] * kWidth + view.used - 1) / view.used);
    std::string line = fmt::format("{:<10}{:>14}", kAges[i].name, grouped(view.ages[i]));
    if (width > 0) line += "  " + std::string(width, '#');
    table.line(line);
  }
  return table.take();
}

nlohmann::json to_json(std::span<const StoredBlock> blocks) {
  nlohmann::json list = nlohmann::json::array();
  for (const StoredBlock& block : blocks) {
    const store::SlotRecord& record = block.record;
    nlohmann::json parent = nullptr;
    if (record.position > 0) parent = hex(record.parent_hash.value());
    nlohmann::json parent_slot = nullptr;
    if (record.parent_slot != kNoBlock) parent_slot = record.parent_slot;
    list.push_back({{"slot", block.slot},
                    {"sequence_hash", hex(record.sequence_hash.value())},
                    {"parent_hash", std::move(parent)},
                    {"digest", hex(record.digest)},
                    {"position", record.position},
                    {"token_count", record.token_count},
                    {"namespace", record.name_space},
                    {"epoch", record.epoch},
                    {"forgotten", block.forgotten},
                    {"priority", record.priority},
                    {"put_sequence", record.put_sequence},
                    {"put_time", record.put_time},
                    {"parent_slot", std::move(parent_slot)},
                    {"sealed_sum", hex(record.sealed_sum)},
                    {"payload_sum", hex(block.payload_sum)},
                    {"tokens", block.tokens}});
  }
  return {{"blocks", std::move(list)}};
}

std::string to_table(std::span<const StoredBlock> blocks) {
  Table table;
  if (blocks.empty()) table.line("no block of the store has this hash");
  for (const StoredBlock& block : blocks) {
    const store::SlotRecord& record = block.record;
    if (&block != blocks.data()) table.line();
    table.row("slot", grouped(block.slot));
    table.row("sequence hash", hex(record.sequence_hash.value()));
    table.row("parent", record.position > 0 ? hex(record.parent_hash.value()) : "none");
    table.row("parent's slot, a hint",
              record.parent_slot == kNoBlock ? "unknown" : grouped(record.parent_slot));
    table.row("digest", hex(record.digest));
    table.row("position", grouped(record.position));
    table.row("tokens", grouped(record.token_count));
    table.row("namespace", fmt::format("{}", record.name_space));
    table.row("epoch", fmt::format("{}{}", record.epoch, block.forgotten ? ", forgotten" : ""));
    table.row("priority", fmt::format("{}", record.priority));
    table.row("put",
              fmt::format("{}, {}", grouped(record.put_sequence), time_text(record.put_time)));
    table.row("sealed sum", hex(record.sealed_sum));
    table.row("payload sum", hex(block.payload_sum));
    table.row("token ids",
              block.tokens.empty() ? "not kept" : fmt::format("{}", fmt::join(block.tokens, " ")));
  }
  return table.take();
}

nlohmann::json to_json(const StoreCheck& check) {
  const store::CheckReport& report = check.report;
  return {{"directory", check.directory},
          {"deep", check.deep},
          {"damage", report.damage()},
          {"repaired", report.repaired},
          {"damaged_superblock", report.damaged_superblock},
          {"damaged_records", report.damaged_records},
          {"damaged_payloads", report.damaged_payloads},
          {"repeated_puts", report.repeated_puts},
          {"slots", report.slots},
          {"valid", report.valid},
          {"empty", report.empty},
          {"forgotten", report.forgotten},
          {"stale", report.stale},
          {"orphans", report.orphans},
          {"without_tokens", report.without_tokens},
          {"checked_payload_bytes", report.checked_payload_bytes},
          {"last_put", report.last_put}};
}

std::string to_table(const StoreCheck& check) {
  const store::CheckReport& report = check.report;
  Table table;
  table.row("store", check.directory);
  table.row("superblocks", report.damaged_superblock.empty()
                               ? "both whole"
                               : "one is not: " + report.damaged_superblock);
  table.row("slots",
            fmt::format("{}: {} valid, {} empty, {} forgotten, {} damaged", grouped(report.slots),
                        grouped(report.valid), grouped(report.empty), grouped(report.forgotten),
                        grouped(report.damaged_records.size())));
  table.row("blocks read",
            check.deep ? fmt::format("{}, {} damaged", size_text(report.checked_payload_bytes),
                                     grouped(report.damaged_payloads.size()))
                       : "none (see --deep)");
  if (report.without_tokens > 0) table.row("without tokens", grouped(report.without_tokens));
  if (!report.repeated_puts.empty()) {
    table.row("puts that came twice", grouped(report.repeated_puts.size()));
  }
  table.row("stale blocks", grouped(report.stale));
  table.row("orphans", grouped(report.orphans));
  table.row("last put", grouped(report.last_put));
  if (report.damage() == 0) {
    table.line("clean");
  } else if (report.repaired == 0) {
    table.line(fmt::format("damage: {}; --repair takes it out", grouped(report.damage())));
  } else {
    table.line(fmt::format("damage: {}, all of it taken out", grouped(report.damage())));
  }
  return table.take();
}

std::string to_table(const store::ExportReport& report) {
  Table table;
  table.row("exported",
            fmt::format("{} blocks, {}", grouped(report.blocks), size_text(report.bytes)));
  if (report.damaged > 0) table.row("left out: damaged", grouped(report.damaged));
  if (report.gone > 0) table.row("left out: overwritten", grouped(report.gone));
  return table.take();
}

std::string to_table(const store::ImportReport& report) {
  Table table;
  table.row("imported",
            fmt::format("{} of {} blocks", grouped(report.imported), grouped(report.blocks)));
  if (report.present > 0) table.row("there already", grouped(report.present));
  if (report.did_not_fit > 0) table.row("left out: no free slot", grouped(report.did_not_fit));
  if (report.damaged > 0) table.row("left out: damaged", grouped(report.damaged));
  return table.take();
}

}  // namespace kvbm::app
