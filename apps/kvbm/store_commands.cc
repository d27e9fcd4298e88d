#include "apps/kvbm/store_commands.h"

#include <fmt/format.h>

#include <charconv>
#include <chrono>
#include <limits>
#include <stdexcept>

#include "apps/kvbm/command.h"
#include "apps/kvbm/store_check.h"
#include "apps/kvbm/store_copy.h"
#include "apps/kvbm/store_inspect.h"

namespace kvbm::app {
namespace {

// A sequence hash as inspect prints it, or as a decimal number.
std::uint64_t parse_hash(const std::string& text) {
  const bool is_hex = text.starts_with("0x");
  const char* const begin = text.data() + (is_hex ? 2 : 0);
  const char* const end = text.data() + text.size();
  std::uint64_t value = 0;
  const auto [stopped, error] = std::from_chars(begin, end, value, is_hex ? 16 : 10);
  if (error != std::errc() || stopped != end) {
    throw CLI::ValidationError(
        "--hash",
        fmt::format("'{}' is no sequence hash: it is a number of 64 bits, in decimal or 0x...",
                    text));
  }
  return value;
}

void add_path(CLI::App& command, const char* name, std::string& path, const std::string& help) {
  const auto check = [](std::string& text) {
    return text.empty() ? std::string("the name is empty") : std::string();
  };
  command.add_option(name, path, help)->required()->check(CLI::Validator(check, ""))->type_name("");
}

std::uint64_t unix_seconds() {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::seconds>(
                                        std::chrono::system_clock::now().time_since_epoch())
                                        .count());
}

}  // namespace

void InspectCommand::add_to(CLI::App& parent, std::function<int()>& chosen) {
  CLI::App& command = *parent.add_subcommand("inspect", "Tell what is in a disk tier's store");
  command.footer(
      "Reads the store without locking it, so its owner may be at work; then the numbers are of a\n"
      "moment. Forgotten slots hold blocks of before a reset; they and damaged ones are used "
      "again.\n"
      "Bytes written count since the store was made.\n\n"
      "Exit codes: 0 the store was read; 1 no block has the hash that was asked for; 2 bad input, "
      "no\n"
      "store, or a failure of the system.");
  add_path(command, "DIR", directory, "Directory of the store");
  command
      .add_option_function<std::string>(
          "--hash", [this](const std::string& text) { hash = parse_hash(text); },
          "Tell all about the blocks of this sequence hash, in decimal or 0x...")
      ->type_name("H");
  command
      .add_option("--rated-endurance-bytes", rated_endurance_bytes,
                  "What the disk is rated for, in bytes ever written (its TBW): tells how long\n"
                  "it will last at the pace so far")
      ->transform(whole_number(1, std::numeric_limits<std::int64_t>::max()))
      ->type_name("N");
  output.add_option(command);
  command.callback([this, &chosen] { chosen = [this] { return run(); }; });
}

int InspectCommand::run() const {
  if (const auto writable = output.check(); !writable) return fail(writable.error());
  if (hash) {
    const auto blocks = find_blocks(directory, SequenceHash(*hash));
    if (!blocks) return fail(blocks.error());
    const auto written = output.write(to_json(*blocks), to_table(*blocks));
    if (!written) return fail(written.error());
    return blocks->empty() ? kWrong : kOk;
  }
  auto view = view_store(directory, unix_seconds());
  if (!view) return fail(view.error());
  view->rated_endurance_bytes = rated_endurance_bytes;
  const auto written = output.write(to_json(*view), to_table(*view));
  return written ? kOk : fail(written.error());
}

void FsckCommand::add_to(CLI::App& parent, std::function<int()>& chosen) {
  CLI::App& command = *parent.add_subcommand("fsck", "Check a disk tier's store, and repair it");
  command.footer(
      "Checks both superblocks, the sizes of the files and every record. Stale blocks, whose name\n"
      "was put again later, and orphans, whose parent is gone, are counted; they are no damage.\n"
      "The store is locked meanwhile, so its owner must have ended.\n\n"
      "Exit codes: 0 nothing is damaged; 1 something is, or was and has been taken out; 2 bad "
      "input,\n"
      "no store, one that is in use or cannot be used, or a failure of the system.");
  add_path(command, "DIR", directory, "Directory of the store");
  command.add_flag("--repair", repair,
                   "Empty the slots whose record or block is damaged, and replace a damaged\n"
                   "superblock by the other one");
  command.add_flag("--deep", deep, "Read every block, and compare its checksum");
  output.add_option(command);
  command.callback([this, &chosen] { chosen = [this] { return run(); }; });
}

int FsckCommand::run() const {
  if (const auto writable = output.check(); !writable) return fail(writable.error());
  const auto checked = [&] {
    std::optional<ProgressBar> bar;
    const auto show = [&bar](std::uint64_t done, std::uint64_t total) {
      if (!bar) bar.emplace("fsck", total);
      bar->update(done);
    };
    return check_store(directory, {.deep = deep, .repair = repair, .progress = show});
  }();
  if (!checked) return fail(checked.error());
  const auto written = output.write(to_json(*checked), to_table(*checked));
  if (!written) return fail(written.error());
  return checked->report.damage() == 0 ? kOk : kWrong;
}

void ExportCommand::add_to(CLI::App& parent, std::function<int()>& chosen) {
  CLI::App& command =
      *parent.add_subcommand("export", "Write a store's blocks to one portable file");
  command.footer(
      "Every block is compared with its checksum first. The store is only read, so its owner may "
      "be\n"
      "at work. FILE has its name when it is whole, not before.\n\n"
      "Exit codes: 0 the blocks were written; 1 some were damaged and are left out; 2 bad input, "
      "no\n"
      "store, or a failure of the system.");
  add_path(command, "DIR", directory, "Directory of the store");
  add_path(command, "FILE", file, "File to write; - for standard output");
  command.add_option("--namespace", name_space, "Only the blocks of this namespace, 0 .. 255")
      ->transform(whole_number(0, 255))
      ->type_name("N");
  const auto parse = [this](const std::vector<std::string>& texts) {
    for (const std::string& text : texts) ends.push_back(parse_hash(text));
  };
  command
      .add_option_function<std::vector<std::string>>(
          "--hash", parse,
          "Only the chain from its first block to the one of this sequence hash, in\n"
          "decimal or 0x...; may be given more than once")
      ->allow_extra_args(false)
      ->type_name("H");
  command.callback([this, &chosen] { chosen = [this] { return run(); }; });
}

int ExportCommand::run() const {
  store::ExportOptions options{.name_space = name_space};
  for (const std::uint64_t end : ends) options.ends.emplace_back(end);
  const auto report = [&] {
    std::optional<ProgressBar> bar;
    options.progress = [&bar](std::uint64_t done, std::uint64_t total) {
      if (!bar) bar.emplace("export", total);
      bar->update(done);
    };
    return export_store(directory, file, options);
  }();
  if (!report) return fail(report.error());
  if (file != "-") {
    const auto written = write_file("-", to_table(*report));
    if (!written) return fail(written.error());
  }
  return report->damaged == 0 ? kOk : kWrong;
}

void ImportCommand::add_to(CLI::App& parent, std::function<int()>& chosen) {
  CLI::App& command =
      *parent.add_subcommand("import", "Read exported blocks into a store that exists");
  command.footer(
      "The store must be of the same model, layout, page size, hash profile and digest key. "
      "Blocks\n"
      "that it has already are passed over; others go to free slots, and nothing is evicted for "
      "them.\n"
      "The store is locked meanwhile, so its owner must have ended.\n\n"
      "Exit codes: 0 the store has all blocks of the file; 1 some were damaged or did not fit; 2 "
      "bad\n"
      "input, no store, one that is in use, or a failure of the system.");
  add_path(command, "FILE", file, "File to read; - for standard input");
  add_path(command, "DIR", directory, "Directory of the store");
  command.callback([this, &chosen] { chosen = [this] { return run(); }; });
}

int ImportCommand::run() const {
  const auto report = [&] {
    std::optional<ProgressBar> bar;
    return import_store(file, directory, [&bar](std::uint64_t done, std::uint64_t total) {
      if (!bar) bar.emplace("import", total);
      bar->update(done);
    });
  }();
  if (!report) return fail(report.error());
  const auto written = write_file("-", to_table(*report));
  if (!written) return fail(written.error());
  return report->damaged + report->did_not_fit == 0 ? kOk : kWrong;
}

}  // namespace kvbm::app
