#include "kvbm/result.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

namespace kvbm {
namespace {

static_assert(!std::is_convertible_v<Result<int>, bool>, "a Result is not its value");
static_assert(!std::is_copy_constructible_v<Result<std::unique_ptr<int>>>);
static_assert(std::is_nothrow_move_constructible_v<Result<std::unique_ptr<int>>>);

Error refused() { return {ErrorCode::NotEnoughBlocksAvailable, 0, 5, 3, {}}; }

#define CODE(name) \
  std::pair { ErrorCode::name, #name }

constexpr std::pair<ErrorCode, const char*> kAllCodes[] = {
    CODE(BlockNotComplete),
    CODE(NotEnoughBlocksAvailable),
    CODE(InvalidMutableBlock),
    CODE(FailedToRegisterBlock),
    CODE(ProgressEngineShutdown),
    CODE(InvalidBlockIndex),
    CODE(InvalidLayerIndex),
    CODE(InvalidOuterIndex),
    CODE(AllocationFailed),
    CODE(NotAccessible),
    CODE(InvalidConfig),
    CODE(OperationFailed),
    CODE(OutOfBounds),
    CODE(Full),
    CODE(Incomplete),
    CODE(Empty),
    CODE(InsufficientTokens),
    CODE(ChecksumMismatch),
    CODE(TimedOut),
    CODE(Cancelled),
    CODE(SourceGone),
    CODE(PlanExpired),
    CODE(QueueFull),
    CODE(NotAdmitted),
    CODE(CheaperToCompute),
};

TEST(ErrorTest, EveryCodeIsCalledByItsName) {
  for (const auto& [code, name] : kAllCodes) EXPECT_STREQ(to_string(code), name);
  EXPECT_STREQ(to_string(ErrorCode{0}), "unknown");
}

TEST(ErrorTest, TextOfARoutineRefusalIsItsName) {
  EXPECT_EQ((Error{ErrorCode::Empty, 0, 0, 0, {}}.to_string()), "Empty");
}

TEST(ErrorTest, TextGivesNumbersIfThereAreAny) {
  EXPECT_EQ(refused().to_string(), "NotEnoughBlocksAvailable (requested 5, available 3)");
  EXPECT_EQ((Error{ErrorCode::Full, 0, 5, 0, {}}.to_string()), "Full (requested 5, available 0)");
  EXPECT_EQ((Error{ErrorCode::InvalidConfig, 0, 0, 9, "num_blocks must be 1 .. 9"}.to_string()),
            "InvalidConfig: num_blocks must be 1 .. 9 (requested 0, available 9)");
}

TEST(ErrorTest, TextExplainsErrno) {
  EXPECT_EQ((Error{ErrorCode::OperationFailed, EIO, 4096, 512, "read of x"}.to_string()),
            "OperationFailed: read of x (requested 4096, available 512) [" + std::to_string(EIO) +
                ": " + std::strerror(EIO) + "]");
}

TEST(ResultTest, HoldsAValue) {
  Result<std::string> result = std::string("text");
  ASSERT_TRUE(result.has_value());
  EXPECT_TRUE(static_cast<bool>(result));
  EXPECT_EQ(result.value(), "text");
  EXPECT_EQ(*result, "text");
  EXPECT_EQ(result->size(), 4u);
  *result += "s";
  EXPECT_EQ(std::as_const(result).value(), "texts");
}

TEST(ResultTest, HoldsAnError) {
  const Result<std::string> result = refused();
  ASSERT_FALSE(result.has_value());
  EXPECT_FALSE(static_cast<bool>(result));
  EXPECT_EQ(result.error().code, ErrorCode::NotEnoughBlocksAvailable);
  EXPECT_EQ(result.error().requested, 5u);
  EXPECT_EQ(result.error().available, 3u);
}

TEST(ResultTest, VoidIsAValueUntilItIsAnError) {
  Result<void> result;
  EXPECT_TRUE(result.has_value());
  result.value();
  result = refused();
  ASSERT_FALSE(result.has_value());
  EXPECT_FALSE(static_cast<bool>(result));
  EXPECT_EQ(result.error().requested, 5u);
}

TEST(ResultTest, MoveOnlyValuesMoveOut) {
  Result<std::unique_ptr<int>> result = std::make_unique<int>(7);
  const std::unique_ptr<int> out = std::move(result).value();
  EXPECT_EQ(*out, 7);
}

TEST(ResultDeathTest, ValueOfAnErrorDiesWithTheErrorsText) {
  Result<int> number = refused();
  const Result<void> nothing = refused();
  constexpr const char* kText = "NotEnoughBlocksAvailable .requested 5, available 3.";
  EXPECT_DEATH((void)number.value(), kText);
  EXPECT_DEATH((void)*number, kText);
  EXPECT_DEATH((void)std::as_const(number).value(), kText);
  EXPECT_DEATH((void)std::move(number).value(), kText);
  EXPECT_DEATH(nothing.value(), kText);
}

Result<std::unique_ptr<int>> make_or_refuse(int number) {
  if (number < 0) return refused();
  return std::make_unique<int>(number);
}

// Two in one function, so that the macro's hidden names must differ.
Result<int> sum(int a, int b, int& evaluated) {
  KVBM_TRY(const std::unique_ptr<int> first, make_or_refuse((++evaluated, a)));
  KVBM_TRY(auto second, make_or_refuse((++evaluated, b)));
  return *first + *second;
}

TEST(TryTest, BindsValuesAndReturnsTheFirstError) {
  int evaluated = 0;
  EXPECT_EQ(sum(2, 3, evaluated).value(), 5);
  EXPECT_EQ(evaluated, 2);

  evaluated = 0;
  const Result<int> result = sum(-1, 3, evaluated);
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().requested, 5u);
  EXPECT_EQ(evaluated, 1) << "nothing runs after the first error";
  EXPECT_FALSE(sum(2, -3, evaluated).has_value());
}

Result<void> check(bool good, int& after) {
  KVBM_CHECK_OK(good ? Result<void>() : Result<void>(refused()));
  ++after;
  return {};
}

TEST(TryTest, CheckOkReturnsTheErrorOrGoesOn) {
  int after = 0;
  EXPECT_TRUE(check(true, after).has_value());
  EXPECT_EQ(after, 1);
  const Result<void> result = check(false, after);
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, ErrorCode::NotEnoughBlocksAvailable);
  EXPECT_EQ(after, 1);
}

}  // namespace
}  // namespace kvbm
