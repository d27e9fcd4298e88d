#include "remote/auth.h"

#include <gtest/gtest.h>

#include <functional>

namespace kvbm::remote {
namespace {

Handshake fixed_handshake() {
  Handshake handshake;
  for (std::size_t i = 0; i < 32; ++i) {
    handshake.reader.nonce[i] = std::byte(i);
    handshake.server.nonce[i] = std::byte(100 + i);
  }
  handshake.reader.worker_id = 7;
  handshake.server.worker_id = 0x0102030405060708;
  return handshake;
}

bool proves(const Proof& proof, const std::string& secret, Role prover,
            const Handshake& handshake) {
  const auto checked = check_proof(proof, secret, prover, handshake);
  if (!checked) {
    EXPECT_EQ(checked.error().code, ErrorCode::InvalidConfig);
  }
  return checked.has_value();
}

TEST(Auth, AProofIsTheHmacOfItsFieldsInOrder) {
  // Computed apart from this code: HMAC-SHA256 under "secret" of the purpose, version 1, role 2,
  // both nonces and worker ids.
  const std::string expected = "62cdb0930880c04c2bb936352c61b391bdce1089c63bc5263600efb9127678d1";
  const Proof proof = make_proof("secret", Role::Server, fixed_handshake()).value();
  std::string hex;
  for (const std::byte byte : proof.mac) {
    constexpr char kDigits[] = "0123456789abcdef";
    hex += kDigits[std::to_integer<unsigned>(byte) >> 4];
    hex += kDigits[std::to_integer<unsigned>(byte) & 15];
  }
  EXPECT_EQ(hex, expected);
}

TEST(Auth, WhoKnowsTheSecretProvesIt) {
  for (const std::string& secret :
       {std::string("a secret"), std::string(), std::string(500, 'x')}) {
    for (const Role role : {Role::Reader, Role::Server}) {
      const Proof proof = make_proof(secret, role, fixed_handshake()).value();
      EXPECT_TRUE(proves(proof, secret, role, fixed_handshake()));
    }
  }
}

TEST(Auth, AnotherSecretIsRefused) {
  const Proof proof = make_proof("a secret", Role::Reader, fixed_handshake()).value();
  for (const char* other : {"", "a secrez", "a secret "}) {
    EXPECT_FALSE(proves(proof, other, Role::Reader, fixed_handshake())) << other;
  }
  EXPECT_FALSE(proves(Proof(), "a secret", Role::Reader, fixed_handshake()));
}

TEST(Auth, AProofThatIsSentBackIsRefused) {
  const Proof proof = make_proof("s", Role::Reader, fixed_handshake()).value();
  EXPECT_FALSE(proves(proof, "s", Role::Server, fixed_handshake()));
  Handshake turned = fixed_handshake();
  std::swap(turned.reader, turned.server);
  EXPECT_FALSE(proves(proof, "s", Role::Server, turned));
}

TEST(Auth, AProofOfAnotherHandshakeIsRefused) {
  const Proof proof = make_proof("s", Role::Reader, fixed_handshake()).value();
  const std::function<void(Handshake&)> changes[] = {
      [](Handshake& other) { other.reader.nonce = fresh_nonce().value(); },
      [](Handshake& other) { other.server.nonce = fresh_nonce().value(); },
      [](Handshake& other) { ++other.reader.worker_id; },
      [](Handshake& other) { ++other.server.worker_id; }};
  for (const auto& change : changes) {
    Handshake other = fixed_handshake();
    change(other);
    EXPECT_FALSE(proves(proof, "s", Role::Reader, other));
  }
}

TEST(Auth, ABitThatDiffersIsSeenWhereverItIs) {
  const Proof proof = make_proof("s", Role::Reader, fixed_handshake()).value();
  for (std::size_t bit = 0; bit < 256; ++bit) {
    Proof other = proof;
    other.mac[bit / 8] ^= std::byte(1u << bit % 8);
    EXPECT_FALSE(proves(other, "s", Role::Reader, fixed_handshake())) << bit;
  }
}

TEST(Auth, NoncesAreFresh) { EXPECT_NE(fresh_nonce().value(), fresh_nonce().value()); }

}  // namespace
}  // namespace kvbm::remote
