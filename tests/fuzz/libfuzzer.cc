// One target as libFuzzer calls it: KVBM_FUZZ_TARGET.
#include <cstdint>

#include "tests/fuzz/targets.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  kvbm::fuzz::KVBM_FUZZ_TARGET(std::as_bytes(std::span(data, size)));
  return 0;
}
