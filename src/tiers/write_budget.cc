#include "tiers/write_budget.h"

#include <algorithm>

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
    : bytes_per_second_(static_cast<double>(bytes_per_day) / kSecondsPerDay),
      capacity_(static_cast<double>(bytes_per_day) / kHoursPerDay),
      left_(capacity_),
      refused_(kRemembered) {}

bool WriteBudget::admit(SequenceHash hash, std::uint64_t bytes, TimePoint now) noexcept {
  if (begun_ && now > filled_) {
    const double seconds = std::chrono::duration<double>(now - filled_).count();
    left_ = std::min(left_ + seconds * bytes_per_second_, capacity_);
  }
  if (!begun_ || now > filled_) filled_ = now;
  begun_ = true;
  const bool is_second = refused_.take(hash).has_value();
  const auto size = static_cast<double>(bytes);
  if (left_ < size || (left_ < capacity_ / 2 && !is_second)) {
    refused_.add(hash, {});
    return false;
  }
  left_ -= size;
  return true;
}

}  // namespace kvbm::detail
