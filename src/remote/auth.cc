#include "remote/auth.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include <string_view>
#include <vector>

namespace kvbm::remote {
namespace {

// Keeps proofs apart from whatever else the secret may be used for.
constexpr std::string_view kPurpose = "kvbm peer handshake";

Error no_openssl(const char* what) {
  return Error{ErrorCode::OperationFailed, 0, 0, 0, std::string("OpenSSL has no ") + what};
}

// Fields of fixed lengths, one after the other.
std::vector<unsigned char> message_of(Role prover, const Handshake& handshake) {
  std::vector<unsigned char> message(kPurpose.begin(), kPurpose.end());
  message.push_back(leader::kProtocolVersion);
  message.push_back(static_cast<unsigned char>(prover));
  for (const Challenge* end : {&handshake.reader, &handshake.server}) {
    for (const std::byte byte : end->nonce) message.push_back(static_cast<unsigned char>(byte));
    for (int shift = 0; shift < 64; shift += 8) {
      message.push_back(static_cast<unsigned char>(end->worker_id >> shift));
    }
  }
  return message;
}

}  // namespace

Result<Nonce> fresh_nonce() {
  Nonce nonce;
  if (RAND_bytes(reinterpret_cast<unsigned char*>(nonce.data()), static_cast<int>(nonce.size())) !=
      1) {
    return no_openssl("random numbers");
  }
  return nonce;
}

Result<Proof> make_proof(const std::string& secret, Role prover, const Handshake& handshake) {
  const auto message = message_of(prover, handshake);
  Proof proof;
  std::size_t written = 0;
  auto* const to = reinterpret_cast<unsigned char*>(proof.mac.data());
  if (!EVP_Q_mac(nullptr, "HMAC", nullptr, "SHA256", nullptr, secret.c_str(), secret.size(),
                 message.data(), message.size(), to, proof.mac.size(), &written) ||
      written != proof.mac.size()) {
    return no_openssl("HMAC-SHA256");
  }
  return proof;
}

Result<void> check_proof(const Proof& proof, const std::string& secret, Role prover,
                         const Handshake& handshake) {
  KVBM_TRY(const Proof expected, make_proof(secret, prover, handshake));
  if (CRYPTO_memcmp(proof.mac.data(), expected.mac.data(), expected.mac.size()) == 0) return {};
  return Error{ErrorCode::InvalidConfig, 0, 0, 0,
               "the other end does not know this worker's secret"};
}

}  // namespace kvbm::remote
