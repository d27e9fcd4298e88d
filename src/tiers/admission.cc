#include "tiers/admission.h"

#include <algorithm>
#include <limits>

namespace kvbm::detail {
namespace {

constexpr std::uint8_t kMostUses = 3;  // that a Ghost counts
constexpr std::size_t kLeastRemembered = 1024;

std::size_t remembered(const BlockStore& target) {
  return std::clamp<std::size_t>(2 * target.capacity(), kLeastRemembered,
                                 std::numeric_limits<std::uint32_t>::max() / 2);
}

}  // namespace

Admission::Admission(const AdmissionConfig& config, const BlockStore& target)
    : config_(config), target_(target) {
  if (config.rule != AdmissionRule::All) uses_.emplace(remembered(target));
  if (config.bytes_per_second > 0) {
    const auto rate = static_cast<double>(config.bytes_per_second);
    budget_.emplace(rate, rate);  // a second's worth at once
  }
}

void Admission::used(SequenceHash hash) noexcept {
  if (!uses_) return;
  const Ghost before = uses_->take(hash).value_or(Ghost{});
  uses_->add(hash, {std::min<std::uint8_t>(before.uses + 1, kMostUses), 0});
}

Admission::Verdict Admission::admit(SequenceHash hash, std::uint32_t priority, std::uint64_t bytes,
                                    TimePoint now) noexcept {
  if (priority < config_.min_priority) return Verdict::Refused;
  if (uses_) {
    const auto known = uses_->take(hash);
    const std::uint8_t uses = known ? known->uses : 0;
    if (known) uses_->add(hash, *known);
    const bool is_wanted = config_.rule == AdmissionRule::SecondUse
                               ? uses >= 2
                               : target_.is_worth_a_place(uses > 0 ? uses - 1 : 0);
    if (!is_wanted) return Verdict::Refused;
  }
  if (!budget_) return Verdict::Admitted;
  // A block that is larger than the bucket passes when that is full.
  const double needed = std::min(static_cast<double>(bytes), budget_->capacity());
  if (budget_->left(now) < needed) return Verdict::OverBudget;
  budget_->take(static_cast<double>(bytes));
  return Verdict::Admitted;
}

}  // namespace kvbm::detail
