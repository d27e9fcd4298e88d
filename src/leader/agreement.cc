#include "leader/agreement.h"

namespace kvbm::leader {

std::string difference(const RankInfo& a, const RankInfo& b) {
  const auto both = [](const char* what, const std::string& x, const std::string& y) {
    return std::string(what) + ": '" + x + "' and '" + y + "'";
  };
  if (a.model != b.model) return both("the model", a.model, b.model);
  if (a.block_size != b.block_size) {
    return both("the block size in tokens", std::to_string(a.block_size),
                std::to_string(b.block_size));
  }
  if (a.hash_profile != b.hash_profile) {
    return both("the hash profile", a.hash_profile, b.hash_profile);
  }
  if (a.key_fingerprint != b.key_fingerprint) {
    return both("the fingerprint of the digest key", std::to_string(a.key_fingerprint),
                std::to_string(b.key_fingerprint));
  }
  return {};
}

}  // namespace kvbm::leader
