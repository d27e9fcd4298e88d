#include "logical/tokens/sha256.h"

#include <openssl/evp.h>

#include <utility>

namespace kvbm {
namespace {

Error failed() { return {ErrorCode::OperationFailed, 0, 0, 0, "OpenSSL cannot compute SHA-256"}; }

}  // namespace

void Sha256::Free::operator()(void* context) const noexcept {
  EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(context));
}

Result<Sha256> Sha256::create() {
  Context context(EVP_MD_CTX_new());
  // Looked up once: a look-up for each message takes longer than a short message.
  EVP_MD* algorithm = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  auto* raw = static_cast<EVP_MD_CTX*>(context.get());
  const bool ready = raw && algorithm && EVP_DigestInit_ex2(raw, algorithm, nullptr) == 1;
  EVP_MD_free(algorithm);  // the context keeps its own reference
  if (!ready) return failed();
  return Sha256(std::move(context));
}

Result<Sha256Hash> Sha256::hash(std::span<const std::byte> message) {
  auto* context = static_cast<EVP_MD_CTX*>(context_.get());
  Sha256Hash hash;
  const bool done =
      EVP_DigestInit_ex2(context, nullptr, nullptr) == 1 &&
      EVP_DigestUpdate(context, message.data(), message.size()) == 1 &&
      EVP_DigestFinal_ex(context, reinterpret_cast<unsigned char*>(hash.data()), nullptr) == 1;
  if (!done) return failed();
  return hash;
}

}  // namespace kvbm
