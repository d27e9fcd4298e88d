#include "remote/handshake.h"

#include <cstdint>
#include <utility>

#include "leader/agreement.h"
#include "remote/auth.h"

namespace kvbm::remote {
namespace {

Error disagree(std::string what) {
  return Error{ErrorCode::InvalidConfig, 0, 0, 0, std::move(what)};
}

std::string hex(std::uint64_t value) {
  std::string text = "0x";
  for (int shift = 60; shift >= 0; shift -= 4) text += "0123456789abcdef"[value >> shift & 15];
  return text;
}

Result<void> check_agreement(const WorkerInfo& self, const WorkerInfo& peer) {
  if (const auto about = leader::difference(self.rank, peer.rank); !about.empty()) {
    return disagree("this worker and the peer disagree about " + about);
  }
  if (self.content_digest != peer.content_digest) {
    return disagree("this worker and the peer disagree about the content digest of blocks: " +
                    hex(self.content_digest) + " and " + hex(peer.content_digest));
  }
  return {};
}

Result<void> check_not_self(const Challenge& self, const Challenge& peer) {
  if (self.worker_id != peer.worker_id) return {};
  return disagree("the peer has this worker's own id, " + std::to_string(self.worker_id) +
                  "; each worker needs one of its own");
}

// The introduction of an end that has proved the worker id of its challenge.
Result<void> check_introduction(const Introduction& introduction, const Challenge& challenge,
                                LocalWorker& worker) {
  const WorkerInfo& peer = introduction.info;
  if (peer.rank.worker_id != challenge.worker_id) {
    return disagree("the peer introduces itself as worker " + std::to_string(peer.rank.worker_id) +
                    " and proved to be worker " + std::to_string(challenge.worker_id));
  }
  KVBM_CHECK_OK(check_agreement(worker.info(), peer));
  return worker.accept(peer, introduction.blockset);
}

Result<Challenge> new_challenge(LocalWorker& worker) {
  KVBM_TRY(const Nonce nonce, fresh_nonce());
  return Challenge{.nonce = nonce, .worker_id = worker.info().rank.worker_id};
}

Introduction introduction_of(LocalWorker& worker) {
  return {.info = worker.info(), .blockset = worker.blockset()};
}

// The body of this type that must come now.
template <class Body>
Result<Body> receive_request(FrameStream& reader, std::uint64_t& request, const Until& until,
                             std::size_t max_bytes) {
  KVBM_TRY(const Frame frame, reader.receive(until, max_bytes));
  KVBM_TRY(PeerRequest body, decode_peer_request(frame));
  request = frame.request;
  if (auto* const wanted = std::get_if<Body>(&body)) return std::move(*wanted);
  return leader::garbage("the steps of a handshake come in another order");
}

// Sends one step and returns the server's answer to it.
template <class Body>
Result<Body> ask(FrameStream& server, const Body& body, const Until& until, std::size_t max_bytes) {
  const std::uint64_t request = server.next_request();
  KVBM_CHECK_OK(server.send(encode_peer_request(request, body), until));
  KVBM_TRY(const Frame frame, server.receive(until, max_bytes));
  KVBM_TRY(PeerReply reply, decode_peer_reply(frame));
  if (auto* const error = std::get_if<Error>(&reply)) {
    error->message = "the peer says: " + error->message;
    return std::move(*error);
  }
  auto* const wanted = std::get_if<Body>(&reply);
  if (wanted && frame.request == request) return std::move(*wanted);
  return leader::garbage("the peer answers what was not asked");
}

}  // namespace

Result<Introduction> greet(FrameStream& server, const LocalEnd& self, const Until& until) {
  KVBM_TRY(const Challenge own, new_challenge(self.worker));
  KVBM_TRY(const Challenge challenge, ask(server, own, until, kMaxUnprovenBodyBytes));
  KVBM_CHECK_OK(check_not_self(own, challenge));
  const Handshake handshake{.reader = own, .server = challenge};
  KVBM_TRY(const Proof own_proof, make_proof(self.secret, Role::Reader, handshake));
  KVBM_TRY(const Proof proof, ask(server, own_proof, until, kMaxUnprovenBodyBytes));
  KVBM_CHECK_OK(check_proof(proof, self.secret, Role::Server, handshake));
  KVBM_TRY(Introduction peer,
           ask(server, introduction_of(self.worker), until, leader::kMaxBodyBytes));
  KVBM_CHECK_OK(check_introduction(peer, challenge, self.worker));
  return peer;
}

Result<Introduction> answer_greeting(FrameStream& reader, const LocalEnd& self,
                                     const Until& until) {
  std::uint64_t request = 0;
  const auto answer = [&](const PeerReply& reply) {
    return reader.send(encode_peer_reply(request, reply), until);
  };
  KVBM_TRY(const auto challenge,
           receive_request<Challenge>(reader, request, until, kMaxUnprovenBodyBytes));
  KVBM_TRY(const Challenge own, new_challenge(self.worker));
  KVBM_CHECK_OK(check_not_self(own, challenge));
  KVBM_CHECK_OK(answer(own));
  const Handshake handshake{.reader = challenge, .server = own};
  // The reader proves itself first: who only connects learns nothing to try secrets on.
  KVBM_TRY(const auto proof, receive_request<Proof>(reader, request, until, kMaxUnprovenBodyBytes));
  KVBM_CHECK_OK(check_proof(proof, self.secret, Role::Reader, handshake));
  KVBM_TRY(const Proof own_proof, make_proof(self.secret, Role::Server, handshake));
  KVBM_CHECK_OK(answer(own_proof));
  KVBM_TRY(Introduction peer,
           receive_request<Introduction>(reader, request, until, leader::kMaxBodyBytes));
  KVBM_CHECK_OK(check_introduction(peer, challenge, self.worker));
  KVBM_CHECK_OK(answer(introduction_of(self.worker)));
  return peer;
}

Result<GreetedPeer> connect_and_greet(const std::string& address, const LocalEnd& self,
                                      const Until& until) {
  KVBM_TRY(const auto candidates, resolve(address, until));
  Result<Descriptor> connected = Descriptor();
  for (const SocketAddress& candidate : candidates) {
    if (self.secret.empty() && !candidate.is_loopback()) {
      return disagree(candidate.to_string() +
                      " is another machine's address, for which workers need a shared secret");
    }
    connected = connect_tcp(candidate, until);
    if (connected) break;
  }
  if (!connected) return std::move(connected).error();
  FrameStream stream(*std::move(connected));
  KVBM_TRY(Introduction peer, greet(stream, self, until));
  return GreetedPeer{.stream = std::move(stream), .peer = std::move(peer)};
}

}  // namespace kvbm::remote
