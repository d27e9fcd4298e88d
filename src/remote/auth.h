// How two workers prove to each other that they know the same secret: each sends a fresh nonce, and
// then the HMAC-SHA256, under the secret, of all that both have sent and of who is who. What was
// recorded of one handshake is of no use in another, nor can one end's proof be sent back to it.
// Nothing is encrypted, and what is sent after the handshake is not signed. Threads: any.
#pragma once

#include <cstdint>
#include <string>

#include "kvbm/result.h"
#include "remote/frames.h"

namespace kvbm::remote {

// Which end of the connection: a reader asks, a server answers.
enum class Role : std::uint8_t { Reader = 1, Server = 2 };

// What the proofs of one handshake are about.
struct Handshake {
  Challenge reader;
  Challenge server;
};

// Errors: OperationFailed where OpenSSL has no random numbers.
Result<Nonce> fresh_nonce();

// The proof of one end. An empty secret is one like any other: both ends have none. Errors:
// OperationFailed where OpenSSL offers no HMAC-SHA256.
Result<Proof> make_proof(const std::string& secret, Role prover, const Handshake& handshake);

// Takes the same time whatever differs. Errors: InvalidConfig for the proof of another secret, end
// or handshake; those of make_proof().
Result<void> check_proof(const Proof& proof, const std::string& secret, Role prover,
                         const Handshake& handshake);

}  // namespace kvbm::remote
