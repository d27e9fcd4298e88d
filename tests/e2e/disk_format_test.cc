// The tables of docs/disk_store.md, held against what is written.
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <regex>

#include "store/test_export.h"
#include "tests/e2e/store_run.h"

namespace kvbm::e2e {
namespace {

using Bytes = std::vector<std::byte>;

struct Field {
  std::size_t offset;
  std::size_t bytes;
  std::string name;
};

// The first table with this third heading behind this heading of a section.
std::vector<Field> fields(const std::string& section, const std::string& heading) {
  const std::string page = read_file(std::string(KVBM_SOURCE_DIR) + "/docs/disk_store.md");
  std::size_t at = page.find("\n## " + section + "\n");
  EXPECT_NE(at, std::string::npos) << section;
  at = page.find("| offset | bytes | " + heading + " |", at);
  EXPECT_NE(at, std::string::npos) << heading;
  const std::string table = page.substr(at, page.find("\n\n", at) - at);
  const std::regex row(R"(\n\| (\d+) \| (\d+) \| ([^|]+) \|)");
  std::vector<Field> found;
  for (std::sregex_iterator it(table.begin(), table.end(), row), end; it != end; ++it) {
    found.push_back({std::stoul((*it)[1]), std::stoul((*it)[2]), (*it)[3]});
  }
  return found;
}

template <class T>
Bytes bytes_of(T value) {
  Bytes bytes(sizeof value);
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}
Bytes text(const std::string& value, std::size_t size) {
  Bytes bytes(size);
  std::memcpy(bytes.data(), value.data(), value.size());
  return bytes;
}

// Every byte is told once, and the fields have these values; checksums are none of them.
void expect_told(const std::vector<Field>& fields, std::span<const std::byte> written,
                 std::map<std::string, Bytes> values) {
  std::size_t at = 0;
  for (const Field& field : fields) {
    EXPECT_EQ(field.offset, at) << field.name;
    at += field.bytes;
    ASSERT_LE(at, written.size());
    const auto found = values.extract(field.name);
    const Bytes bytes(&written[field.offset], &written[field.offset] + field.bytes);
    if (field.name == "zeros") {
      EXPECT_EQ(bytes, Bytes(field.bytes));
    } else if (field.name == "checksum") {
      EXPECT_NE(bytes, Bytes(field.bytes));
    } else if (found.empty()) {
      ADD_FAILURE() << "'" << field.name << "' is no field";
    } else {
      EXPECT_EQ(bytes, found.mapped()) << field.name;
    }
  }
  EXPECT_EQ(at, written.size());
  for (const auto& [name, value] : values) ADD_FAILURE() << "'" << name << "' is not told";
}

TEST(DiskFormatTest, ARecordIsAsThePageSays) {
  const store::SlotRecord record{.sequence_hash = SequenceHash(0x0101010101010101),
                                 .parent_hash = SequenceHash(0x0202020202020202),
                                 .digest = 0x0303030303030303,
                                 .sealed_sum = 0x0404040404040404,
                                 .put_sequence = 0x0505050505050505,
                                 .position = 0x06060606,
                                 .epoch = 0x07070707,
                                 .put_time = 0x08080808,
                                 .parent_slot = 0x09090909,
                                 .token_count = 0x0102,
                                 .name_space = 11,
                                 .priority = 12};
  expect_told(fields("Record", "field"), encode(record, 3, 77),
              {{"sequence hash", bytes_of(record.sequence_hash.value())},
               {"parent hash", bytes_of(record.parent_hash.value())},
               {"digest", bytes_of(record.digest)},
               {"sealed sum", bytes_of(record.sealed_sum)},
               {"put sequence", bytes_of(record.put_sequence)},
               {"position", bytes_of(record.position)},
               {"epoch", bytes_of(record.epoch)},
               {"put time", bytes_of(record.put_time)},
               {"parent slot", bytes_of(record.parent_slot)},
               {"token count", bytes_of(record.token_count)},
               {"namespace", bytes_of(record.name_space)},
               {"priority", bytes_of(record.priority)}});
}

store::Superblock superblock() {
  store::Superblock superblock{.shape = store::test_shape(),
                               .store_id = 1,
                               .sequence = 2,
                               .created = 3,
                               .owner = 4,
                               .epochs = {},
                               .counters = {.blocks_written = 5,
                                            .payload_bytes_written = 6,
                                            .index_bytes_written = 7,
                                            .bytes_served = 8}};
  superblock.epochs[255] = 10;
  return superblock;
}

TEST(DiskFormatTest, ASuperblockIsAsThePageSays) {
  const store::Superblock block = superblock();
  const store::StoreShape& shape = block.shape;
  Bytes regions(store::kMaxRegions * 4);
  std::memcpy(regions.data(), shape.region_bytes.data(), shape.region_bytes.size() * 4);
  const auto length = [](const std::string& of) {
    return bytes_of(static_cast<std::uint16_t>(of.size()));
  };
  expect_told(fields("Superblock", "field"), encode(block),
              {{"magic", text("kvmstore", 8)},
               {"version", bytes_of(store::kFormatVersion)},
               {"flags", bytes_of(std::uint32_t{1})},
               {"store id", bytes_of(block.store_id)},
               {"sequence", bytes_of(block.sequence)},
               {"created", bytes_of(block.created)},
               {"owner", bytes_of(block.owner)},
               {"layout digest", bytes_of(shape.layout_digest)},
               {"key fingerprint", bytes_of(shape.key_fingerprint)},
               {"slots", bytes_of(shape.num_slots)},
               {"page size", bytes_of(shape.page_size)},
               {"blocks written", bytes_of(block.counters.blocks_written)},
               {"payload bytes written", bytes_of(block.counters.payload_bytes_written)},
               {"index bytes written", bytes_of(block.counters.index_bytes_written)},
               {"bytes served", bytes_of(block.counters.bytes_served)},
               {"epochs", bytes_of(block.epochs)},
               {"regions", bytes_of(std::uint32_t{4})},
               {"region bytes", regions},
               {"model length", length(shape.model)},
               {"model", text(shape.model, 256)},
               {"hash profile length", length(shape.hash_profile)},
               {"hash profile", text(shape.hash_profile, 64)},
               {"layout length", length(shape.layout)},
               {"layout", text(shape.layout, 1000)}});
}

TEST(DiskFormatTest, AnExportIsAsThePageSays) {
  Bytes file;
  auto writer = store::ExportWriter::create(
                    {.shape = store::test_shape(), .store_id = 77, .num_blocks = 5, .exported = 6},
                    store::sink_to(file))
                    .value();
  const store::Superblock of{
      .shape = store::test_shape(), .store_id = 77, .epochs = {}, .counters = {}};
  expect_told(fields("File of exported blocks", "field of the header"), file,
              {{"magic", text("kvmsblks", 8)},
               {"version", bytes_of(store::kExportVersion)},
               {"entry bytes", bytes_of(std::uint32_t{store::kExportEntryBytes})},
               {"blocks", bytes_of(std::uint64_t{5})},
               {"exported", bytes_of(std::uint64_t{6})},
               {"superblock", bytes_of(encode(of))}});

  file.clear();
  const store::ExportedBlock block{.sequence_hash = SequenceHash(1),
                                   .parent_hash = SequenceHash(2),
                                   .digest = 3,
                                   .payload_sum = 4,
                                   .position = 5,
                                   .token_count = 2,
                                   .name_space = 7,
                                   .priority = 8,
                                   .tokens = {9, 10}};
  writer.add(block, {}).value();
  const auto entry = std::span(file).first(store::kExportEntryBytes);
  expect_told(fields("File of exported blocks", "field of an entry"), entry,
              {{"kind", text("BLCK", 4)},
               {"token count", bytes_of(block.token_count)},
               {"namespace", bytes_of(block.name_space)},
               {"priority", bytes_of(block.priority)},
               {"number", bytes_of(std::uint64_t{0})},
               {"sequence hash", bytes_of(std::uint64_t{1})},
               {"parent hash", bytes_of(std::uint64_t{2})},
               {"digest", bytes_of(block.digest)},
               {"payload sum", bytes_of(block.payload_sum)},
               {"position", bytes_of(block.position)},
               {"tokens", bytes_of(std::uint32_t{2})},
               {"tokens sum", bytes_of(xxh3(block.tokens.data(), 8))}});
  EXPECT_EQ(file.size(), store::kExportEntryBytes + 8);
  file.clear();
  writer.finish().value();
  EXPECT_EQ(Bytes(file.begin(), file.begin() + 4), text("END ", 4));
}

TEST(DiskFormatTest, ThePageHasAllOptions) {
  const auto all = [](const std::string& text, const std::regex& pattern) {
    std::vector<std::string> found;
    for (std::sregex_iterator it(text.begin(), text.end(), pattern), end; it != end; ++it) {
      found.push_back((*it)[1]);
    }
    return found;
  };
  const std::string source = KVBM_SOURCE_DIR;
  std::string header = read_file(source + "/include/kvbm/store.h");
  header = header.substr(header.find("struct DiskStoreConfig {"));
  header = header.substr(0, header.find("\n};"));
  const auto options = all(header, std::regex(R"(\n  [\w:]+ (\w+)(?: =|\{))"));
  EXPECT_GE(options.size(), 9u);
  const std::string page = read_file(source + "/docs/disk_store.md");
  const std::string table =
      page.substr(page.find("\n## Options"), page.find("\n## Record") - page.find("\n## Options"));
  EXPECT_EQ(all(table, std::regex(R"(\n\| `(\w+)` \|)")), options);
}

TEST(DiskFormatTest, FilesAreAsLongAsThePageSays) {
  const TemporaryFolder folder;
  make_store(folder / "store");
  EXPECT_EQ(contents(folder / "store"),
            (std::vector<std::string>{"kvbm-blocks 409600", "kvbm-index 6400",
                                      "kvbm-manifest 16384", "kvbm-tokens 2000"}));
}

}  // namespace
}  // namespace kvbm::e2e
