#include "apps/kvbm/store_copy.h"

#include <cerrno>
#include <cstdio>
#include <memory>
#include <span>
#include <utility>

#include "apps/kvbm/output.h"
#include "apps/kvbm/store_inspect.h"
#include "store/survey.h"

namespace kvbm::app {
namespace {

Error read_error(const std::string& file) {
  return Error{ErrorCode::OperationFailed, errno, 0, 0,
               "cannot read " + (file == "-" ? "standard input" : file)};
}

using InputFile = std::shared_ptr<std::FILE>;

Result<InputFile> open_input(const std::string& file) {
  if (file == "-") return InputFile(stdin, [](std::FILE*) {});
  std::FILE* const opened = std::fopen(file.c_str(), "rb");
  if (!opened) return read_error(file);
  return InputFile(opened, [](std::FILE* each) { std::fclose(each); });
}

store::ExportReader::Source source_of(InputFile input, const std::string& file) {
  return [input = std::move(input), file](std::span<std::byte> bytes) -> Result<std::size_t> {
    const std::size_t count = std::fread(bytes.data(), 1, bytes.size(), input.get());
    if (count < bytes.size() && std::ferror(input.get()) != 0) return read_error(file);
    return count;
  };
}

Error in_file(const std::string& file, Error error) {
  if (error.native == 0) error.message = file + ": " + error.message;
  return error;
}

}  // namespace

Result<store::ExportReport> export_store(const std::string& directory, const std::string& file,
                                         const store::ExportOptions& options) {
  KVBM_TRY(const store::StoreFiles files, open_to_look(directory));
  // Before the file is begun, though export_blocks() looks again.
  KVBM_CHECK_OK(store::survey_manifest(files));
  KVBM_TRY(const auto output, NewFile::create(file));
  KVBM_TRY(const store::ExportReport report,
           store::export_blocks(files, options, [&output](std::span<const std::byte> bytes) {
             return output->write(bytes);
           }));
  KVBM_CHECK_OK(output->finish());
  return report;
}

Result<store::ImportReport> import_store(
    const std::string& file, const std::string& directory,
    const std::function<void(std::uint64_t, std::uint64_t)>& progress) {
  KVBM_TRY(auto input, open_input(file));
  auto reader = store::ExportReader::open(source_of(std::move(input), file));
  if (!reader) return in_file(file, std::move(reader).error());
  // Only a look: to make a store where there is none would be wrong.
  KVBM_TRY(const store::StoreFiles files, open_to_look(directory));
  KVBM_TRY(const store::Manifest manifest, store::survey_manifest(files));
  const store::StoreShape& shape = manifest.superblock.shape;
  KVBM_CHECK_OK(store::check_importable(reader->header().shape, shape));
  KVBM_TRY(const auto store, store::open_disk_store(directory, shape));

  store::ImportReport report;
  const std::uint64_t total = reader->header().num_blocks;
  const auto imported = store::import_blocks(*store, *reader, report,
                                             [&](std::uint64_t done) { progress(done, total); });
  if (imported) return report;
  Error error = in_file(file, imported.error());
  if (report.imported > 0) {
    error.message += "; " + std::to_string(report.imported) + " blocks before it were imported";
  }
  return error;
}

}  // namespace kvbm::app
