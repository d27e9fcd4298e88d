#include "kvbm/offload.h"

namespace kvbm {
namespace {

template <class E, std::size_t kCount>
std::optional<E> named(const E (&all)[kCount], std::string_view name) noexcept {
  for (const E each : all) {
    if (name == to_string(each)) return each;
  }
  return std::nullopt;
}

}  // namespace

const char* to_string(OffloadMode mode) noexcept {
  switch (mode) {
    case OffloadMode::WriteThrough: return "write-through";
    case OffloadMode::OnEviction: return "on-eviction";
    case OffloadMode::Selective: return "selective";
  }
  return "unknown";
}

std::optional<OffloadMode> offload_mode(std::string_view name) noexcept {
  constexpr OffloadMode kAll[] = {OffloadMode::WriteThrough, OffloadMode::OnEviction,
                                  OffloadMode::Selective};
  return named(kAll, name);
}

const char* to_string(AdmissionRule rule) noexcept {
  switch (rule) {
    case AdmissionRule::All: return "all";
    case AdmissionRule::SecondUse: return "second-use";
    case AdmissionRule::WorthMore: return "worth-more";
  }
  return "unknown";
}

std::optional<AdmissionRule> admission_rule(std::string_view name) noexcept {
  constexpr AdmissionRule kAll[] = {AdmissionRule::All, AdmissionRule::SecondUse,
                                    AdmissionRule::WorthMore};
  return named(kAll, name);
}

}  // namespace kvbm
