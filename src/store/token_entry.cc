#include "store/token_entry.h"

#include <cstring>

#include "base/xxh3.h"

namespace kvbm::store {

std::uint64_t token_entry_bytes(const StoreShape& shape) noexcept {
  return sizeof(std::uint32_t) + sizeof(Token) * std::uint64_t{shape.page_size};
}

std::vector<Token> read_tokens(File* tokens, const StoreShape& shape, Slot slot,
                               const SlotRecord& record) {
  if (!tokens || !shape.keeps_tokens || record.token_count > shape.page_size) return {};
  std::vector<std::byte> entry(sizeof(std::uint32_t) + record.token_count * sizeof(Token));
  if (!tokens->read(entry, slot * token_entry_bytes(shape))) return {};
  std::uint32_t sum = 0;
  std::memcpy(&sum, entry.data(), sizeof sum);
  std::vector<Token> found(record.token_count);
  std::memcpy(found.data(), entry.data() + sizeof sum, entry.size() - sizeof sum);
  const std::uint64_t seed = record.sequence_hash.value() ^ record.put_sequence;
  const auto expected =
      static_cast<std::uint32_t>(xxh3(found.data(), found.size() * sizeof(Token), seed));
  return sum == expected ? found : std::vector<Token>();
}

}  // namespace kvbm::store
