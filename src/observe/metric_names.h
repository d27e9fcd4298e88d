// Every metric name of the library, in one place.
#pragma once

namespace kvbm::metric_names {

inline constexpr const char* kAllocations = "kvbm_allocations_total";
inline constexpr const char* kRegistrations = "kvbm_registrations_total";
inline constexpr const char* kMatches = "kvbm_match_blocks_returned_total";
inline constexpr const char* kEvictions = "kvbm_evictions_total";
inline constexpr const char* kTotalBlocks = "kvbm_total_blocks";
inline constexpr const char* kAvailableBlocks = "kvbm_available_blocks";
inline constexpr const char* kAllocationSeconds = "kvbm_allocation_duration_seconds";
inline constexpr const char* kRegistrationSeconds = "kvbm_registration_duration_seconds";
inline constexpr const char* kMatchSeconds = "kvbm_match_duration_seconds";

}  // namespace kvbm::metric_names
