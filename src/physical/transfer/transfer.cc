#include "physical/transfer/transfer.h"

namespace kvbm {

Result<TransferToken> TransferExecutor::run(const TransferRequest& request, const BlockCopy& copy) {
  KVBM_TRY(const std::uint64_t sum, copy_block(*request.plan, copy));
  return token(*request.plan, copy.target, sum);
}

}  // namespace kvbm
