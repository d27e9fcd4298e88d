#include "logical/tokens/digest.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "base/xxh3.h"
#include "kvbm/tokens.h"
#include "logical/tokens/sha256.h"

namespace kvbm {
namespace {

// SHA-256 of {label, 0, number, secret}. Labels differ before any of them ends, so no message of
// one use is a message of another.
Result<Sha256Hash> derive(Sha256& sha256, std::string_view label, std::uint8_t number,
                          std::span<const std::byte> secret) {
  const auto text = std::as_bytes(std::span(label));
  std::vector<std::byte> message(text.begin(), text.end());
  message.push_back(std::byte{0});
  message.push_back(std::byte{number});
  message.insert(message.end(), secret.begin(), secret.end());
  return sha256.hash(message);
}

}  // namespace

struct DigestKey::Expanded {
  std::byte secret[192];
  std::uint64_t fingerprint;
};

Result<DigestKey> DigestKey::create(std::span<const std::byte> secret) {
  if (secret.size() < kMinBytes || secret.size() > kMaxBytes) {
    return Error{ErrorCode::InvalidConfig, 0, secret.size(), kMaxBytes,
                 "a digest key must have 16 .. 64 bytes"};
  }
  KVBM_TRY(Sha256 sha256, Sha256::create());
  auto expanded = std::make_shared<Expanded>();
  for (std::size_t at = 0; at < sizeof expanded->secret; at += sizeof(Sha256Hash)) {
    const auto number = static_cast<std::uint8_t>(at / sizeof(Sha256Hash));
    KVBM_TRY(const Sha256Hash part, derive(sha256, "kvbm digest secret", number, secret));
    std::memcpy(expanded->secret + at, part.data(), part.size());
  }
  KVBM_TRY(const Sha256Hash name, derive(sha256, "kvbm digest fingerprint", 0, secret));
  std::memcpy(&expanded->fingerprint, name.data(), sizeof expanded->fingerprint);
  DigestKey key;
  key.expanded_ = std::move(expanded);
  return key;
}

std::uint64_t DigestKey::fingerprint() const noexcept {
  return expanded_ ? expanded_->fingerprint : 0;
}

std::uint64_t DigestKey::digest(std::span<const std::byte> bytes) const noexcept {
  if (!expanded_) return 0;
  const std::uint64_t hash = XXH3_64bits_withSecret(bytes.data(), bytes.size(), expanded_->secret,
                                                    sizeof expanded_->secret);
  return std::max(hash, std::uint64_t{1});
}

std::uint64_t digest_block(const HashSeeds& seeds, std::uint64_t parent_digest,
                           const BlockContent& content) noexcept {
  const std::uint64_t shape = content.tokens | std::uint64_t{content.has_frames} << 32;
  constexpr std::size_t kHeadBytes = 4 * sizeof(std::uint64_t);
  std::byte bytes[kHeadBytes + MAX_PAGE_SIZE * kFrameBytes];
  // One by one: a copy of an array of them would wait for the stores that filled it.
  std::memcpy(bytes, &parent_digest, sizeof parent_digest);
  std::memcpy(bytes + 8, &seeds.salt, sizeof seeds.salt);
  std::memcpy(bytes + 16, &seeds.chain, sizeof seeds.chain);
  std::memcpy(bytes + 24, &shape, sizeof shape);
  std::memcpy(bytes + kHeadBytes, content.bytes.data(), content.bytes.size());
  return seeds.key.digest({bytes, kHeadBytes + content.bytes.size()});
}

}  // namespace kvbm
