#include "tiers/write_budget.h"

namespace kvbm::detail {
namespace {

constexpr double kSecondsPerDay = 86400;
constexpr double kHoursPerDay = 24;

}  // namespace

std::uint64_t write_budget(const DiskStoreConfig& config) noexcept {
  if (config.write_budget_bytes_per_day > 0) return config.write_budget_bytes_per_day;
  return config.rated_endurance_bytes / (std::uint64_t{config.rated_years} * 365);
}

WriteBudget::WriteBudget(std::uint64_t bytes_per_day)
    : bucket_(static_cast<double>(bytes_per_day) / kSecondsPerDay,
              static_cast<double>(bytes_per_day) / kHoursPerDay),
      refused_(kRemembered) {}

bool WriteBudget::admit(SequenceHash hash, std::uint64_t bytes, TimePoint now) noexcept {
  const double left = bucket_.left(now);
  const bool is_second = refused_.take(hash).has_value();
  const auto size = static_cast<double>(bytes);
  if (left < size || (left < bucket_.capacity() / 2 && !is_second)) {
    refused_.add(hash, {});
    return false;
  }
  bucket_.take(size);
  return true;
}

}  // namespace kvbm::detail
