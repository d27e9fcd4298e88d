// What is done with bytes that anybody may have made. Each takes all that can be said, and
// aborts with a message if the answer breaks a promise; sanitizers see the rest.
#pragma once

#include <cstddef>
#include <span>

namespace kvbm::fuzz {

using Bytes = std::span<const std::byte>;

// A manifest: decodes it, and checks the store that it would make of a few small files. If the
// first byte is odd, the checksums are made right, so that what is behind them is reached.
void fuzz_manifest(Bytes input);
// An index and what lies where it says: checks the store, repairs it, opens it, exports it. If the
// first byte is odd, the bytes are the fields of records whose checksums are right; with its next
// bit the sums of their blocks are, too.
void fuzz_records(Bytes input);
// A file of exported blocks: reads it, and imports it. If the first byte is odd, the checksums
// behind the header are made right.
void fuzz_export(Bytes input);
// What a rank, or if the first byte is odd a leader, may be sent: reads frame by frame. With the
// next bit the header of the first one is made right for the length of all.
void fuzz_frames(Bytes input);
// The same for what peers may be sent: requests, or if the first byte is odd replies.
void fuzz_peer_frames(Bytes input);
// What a worker says of its memory. If the first byte is odd, length and checksum are made right.
void fuzz_blockset(Bytes input);

struct Target {
  const char* name;  // of its corpus, too
  void (*run)(Bytes input);
};
inline constexpr Target kTargets[] = {
    {"manifest", fuzz_manifest}, {"records", fuzz_records},         {"export", fuzz_export},
    {"frames", fuzz_frames},     {"peer_frames", fuzz_peer_frames}, {"blockset", fuzz_blockset}};

}  // namespace kvbm::fuzz
