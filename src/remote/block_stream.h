// Blocks over a connected stream socket: their bytes in the order of their content, nothing else.
// Whoever has a block in one piece sends it with send_all().
#pragma once

#include <chrono>
#include <cstdint>

#include "kvbm/result.h"
#include "physical/layout/layout.h"
#include "physical/transfer/copy_plan.h"
#include "platform/os/tcp.h"
#include "remote/block_sink.h"

namespace kvbm::remote {

// How long a block may take.
struct BlockPatience {
  Until until;
  std::chrono::milliseconds silence;  // without one byte that comes
};

// Receives a block straight into copy.target, sums it as the bytes come and verifies it; returns
// its payload sum. The caller holds the target, which is zeroed unless this succeeds. Reads nothing
// behind the block; copy.source is not looked at.
// Errors: ChecksumMismatch, after which the next block can be received. After any other one nobody
// knows what is still to come, so the connection has been shut down: InvalidBlockIndex;
// NotAccessible if the CPU cannot address the target; InvalidConfig without a sum;
// TimedOut{bytes, bytes that came}; Cancelled; OperationFailed with errno, or {bytes, bytes that
// came} if the other end has closed.
Result<std::uint64_t> receive_block(const Descriptor& socket, const Layout& target,
                                    const BlockCopy& copy, Staging& staging,
                                    const BlockPatience& patience);

}  // namespace kvbm::remote
