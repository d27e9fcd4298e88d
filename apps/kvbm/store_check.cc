#include "apps/kvbm/store_check.h"

#include "apps/kvbm/store_inspect.h"

namespace kvbm::app {

Result<StoreCheck> check_store(const std::string& directory, const store::CheckOptions& options) {
  // First, because opening to write makes the files that are not there.
  KVBM_CHECK_OK(open_to_look(directory));
  KVBM_TRY(const store::StoreFiles files, store::open_store_files(directory, false));
  KVBM_TRY(store::CheckReport report, store::check(files, options));
  return StoreCheck{directory, options.deep, std::move(report)};
}

}  // namespace kvbm::app
