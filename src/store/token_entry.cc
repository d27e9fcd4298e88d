#include "store/token_entry.h"

#include <cstring>

#include "base/xxh3.h"

namespace kvbm::store {
namespace {

std::uint32_t checksum(std::span<const Token> tokens, const SlotRecord& record) noexcept {
  // Mixed, not XORed: names that an engine supplies may be as small as put sequences are.
  const std::uint64_t seed =
      xxh3(&record.put_sequence, sizeof record.put_sequence, record.sequence_hash.value());
  return static_cast<std::uint32_t>(xxh3(tokens.data(), tokens.size_bytes(), seed));
}

}  // namespace

std::uint64_t token_entry_bytes(const StoreShape& shape) noexcept {
  return sizeof(std::uint32_t) + sizeof(Token) * std::uint64_t{shape.page_size};
}

std::vector<std::byte> encode_tokens(const SlotRecord& record, std::span<const Token> tokens) {
  std::vector<std::byte> entry(sizeof(std::uint32_t) + tokens.size_bytes());
  const std::uint32_t sum = checksum(tokens, record);
  std::memcpy(entry.data(), &sum, sizeof sum);
  std::memcpy(entry.data() + sizeof sum, tokens.data(), tokens.size_bytes());
  return entry;
}

std::vector<Token> read_tokens(File* tokens, const StoreShape& shape, Slot slot,
                               const SlotRecord& record) {
  if (!tokens || !shape.keeps_tokens) return {};
  if (record.token_count == 0 || record.token_count > shape.page_size) return {};
  std::vector<std::byte> entry(sizeof(std::uint32_t) + record.token_count * sizeof(Token));
  if (!tokens->read(entry, slot * token_entry_bytes(shape))) return {};
  std::uint32_t sum = 0;
  std::memcpy(&sum, entry.data(), sizeof sum);
  std::vector<Token> found(record.token_count);
  std::memcpy(found.data(), entry.data() + sizeof sum, entry.size() - sizeof sum);
  return sum == checksum(found, record) ? found : std::vector<Token>();
}

}  // namespace kvbm::store
