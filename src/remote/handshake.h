// How two workers get to know each other at the beginning of a connection: a challenge, a proof of
// the secret, and an introduction, each sent by the reader and answered by the server.
#pragma once

#include <string>

#include "kvbm/result.h"
#include "remote/frame_stream.h"
#include "remote/sharing_service.h"

namespace kvbm::remote {

// What one end brings to a handshake. Both must outlive it.
struct LocalEnd {
  LocalWorker& worker;
  const std::string& secret;  // empty: none, which only connections within a machine may have
};

// Each returns what the other end is, which has proved the secret, agrees with this worker and was
// accepted by it. Errors: InvalidConfig if the two ends do not fit together: another protocol
// version, secret, model, block size, hash profile, key or content digest, each with both values,
// or this worker itself; those of LocalWorker::accept(); those of the connection.
Result<Introduction> greet(FrameStream& server, const LocalEnd& self, const Until& until);
// The reader is not told of an error; that is left to the caller.
Result<Introduction> answer_greeting(FrameStream& reader, const LocalEnd& self, const Until& until);

struct GreetedPeer {
  FrameStream stream;
  Introduction peer;
};
// Connects to "host:port" and greets. Errors: those of resolve(), connect_tcp() and greet();
// InvalidConfig for another machine without a secret.
Result<GreetedPeer> connect_and_greet(const std::string& address, const LocalEnd& self,
                                      const Until& until);

}  // namespace kvbm::remote
