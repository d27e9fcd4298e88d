// Where scripts/bootstrap installs NIXL.
#pragma once

#include <filesystem>

namespace kvbm::nixl {
inline constexpr const char* kLibrary = KVBM_NIXL_WHEEL "/.nixl_cu12.mesonpy.libs/libnixl_capi.so";
}  // namespace kvbm::nixl

// Skips a test only where nobody could have installed NIXL.
#if defined(__x86_64__)
#define KVBM_NEED_NIXL()                                       \
  ASSERT_TRUE(std::filesystem::exists(::kvbm::nixl::kLibrary)) \
      << ::kvbm::nixl::kLibrary << " is missing: run scripts/bootstrap"
#else
#define KVBM_NEED_NIXL() GTEST_SKIP() << "SKIPPED: scripts/bootstrap installs NIXL for x86-64 only"
#endif
