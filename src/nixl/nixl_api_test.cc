#include "nixl/nixl_api.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace kvbm::nixl {
namespace {

TEST(NixlApiTest, ALibraryThatIsNotThereIsNamed) {
  const auto refused = load_library("/no/such/libnixl_capi.so");
  EXPECT_EQ(refused.error().code, ErrorCode::NixlError);
  EXPECT_EQ(refused.error().native, 0) << "no NIXL, so no status of its own";
  EXPECT_NE(refused.error().message.find("/no/such/libnixl_capi.so"), std::string::npos)
      << refused.error().message;
}

TEST(NixlApiTest, ALibraryThatIsNoNixlIsRefusedByTheFirstFunctionThatItLacks) {
  const auto refused = load_library("libc.so.6");
  EXPECT_EQ(refused.error().code, ErrorCode::NixlError);
  EXPECT_NE(refused.error().message.find("libc.so.6 has no nixl_capi_is_stub"), std::string::npos)
      << refused.error().message;
}

TEST(NixlApiTest, TheVariableDecidesWhereNoPathIsGiven) {
  ::setenv("KVBM_NIXL_LIBRARY", "/told/by/the/variable.so", 1);
  const auto by_variable = load_library();
  EXPECT_NE(by_variable.error().message.find("/told/by/the/variable.so"), std::string::npos);
  const auto by_path = load_library("/told/by/the/path.so");
  EXPECT_NE(by_path.error().message.find("/told/by/the/path.so"), std::string::npos);
  ::unsetenv("KVBM_NIXL_LIBRARY");
}

TEST(NixlApiTest, TheEnvironmentIsSetWhereItIsNot) {
  ::unsetenv("UCX_MODULES");
  ::setenv("UCX_LOG_LEVEL", "info", 1);
  EXPECT_FALSE(load_library("/no/such/libnixl_capi.so"));
  EXPECT_STREQ(std::getenv("UCX_MODULES"), "^efa");
  EXPECT_STREQ(std::getenv("UCX_LOG_LEVEL"), "info");
  EXPECT_STREQ(std::getenv("UCX_WARN_UNUSED_ENV_VARS"), "n");
}

TEST(NixlApiTest, AFailureTellsTheFunctionAndNixlsStatus) {
  const Error error = failed(kNotFound, "make_xfer_req");
  EXPECT_EQ(error.code, ErrorCode::NixlError);
  EXPECT_EQ(error.native, kNotFound);
  EXPECT_NE(error.message.find("make_xfer_req"), std::string::npos);
}

}  // namespace
}  // namespace kvbm::nixl
