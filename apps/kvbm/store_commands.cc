#include "apps/kvbm/store_commands.h"

#include <fmt/format.h>

#include <charconv>
#include <chrono>
#include <stdexcept>

#include "apps/kvbm/command.h"
#include "apps/kvbm/store_check.h"
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

void add_directory(CLI::App& command, std::string& directory) {
  const auto check = [](std::string& text) {
    return text.empty() ? std::string("the name is empty") : std::string();
  };
  command.add_option("DIR", directory, "Directory of the store")
      ->required()
      ->check(CLI::Validator(check, ""))
      ->type_name("");
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
  add_directory(command, directory);
  command
      .add_option_function<std::string>(
          "--hash", [this](const std::string& text) { hash = parse_hash(text); },
          "Tell all about the blocks of this sequence hash, in decimal or 0x...")
      ->type_name("H");
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
  const auto view = view_store(directory, unix_seconds());
  if (!view) return fail(view.error());
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
  add_directory(command, directory);
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

}  // namespace kvbm::app
