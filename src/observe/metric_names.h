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

// Of a disk tier that survives.
inline constexpr const char* kDiskHealth = "kvbm_disk_health";
inline constexpr const char* kDiskBlocksWritten = "kvbm_disk_blocks_written_total";
inline constexpr const char* kDiskPayloadBytes = "kvbm_disk_payload_bytes_written_total";
inline constexpr const char* kDiskIndexBytes = "kvbm_disk_index_bytes_written_total";
inline constexpr const char* kDiskServedBytes = "kvbm_disk_bytes_served_total";
inline constexpr const char* kDiskWriteErrors = "kvbm_disk_write_errors_total";
inline constexpr const char* kDiskReadErrors = "kvbm_disk_read_errors_total";
inline constexpr const char* kDiskScrubbed = "kvbm_disk_scrubbed_blocks_total";
inline constexpr const char* kDiskScrubMismatches = "kvbm_disk_scrub_mismatches_total";
inline constexpr const char* kDiskRestored = "kvbm_disk_restored_blocks";
inline constexpr const char* kDiskDamaged = "kvbm_disk_damaged_records";
inline constexpr const char* kDiskBudget = "kvbm_disk_write_budget_bytes_per_day";
inline constexpr const char* kDiskAmplification = "kvbm_disk_write_amplification_ratio";
inline constexpr const char* kDiskDaysLeft = "kvbm_disk_days_of_life_left";

}  // namespace kvbm::metric_names
