#include "physical/transfer/transfer.h"

namespace kvbm {

using Side = CopyPlan::Side;

Result<void> journal_begin(const TransferRequest& request, const BlockCopy& copy) {
  if (!request.journal) return {};
  if (request.plan->target_side() == Side::File) return request.journal->before_write(copy);
  if (request.plan->source_side() == Side::File) request.journal->before_read(copy);
  return {};
}

Result<std::uint64_t> journal_end(const TransferRequest& request, const BlockCopy& copy,
                                  Result<std::uint64_t> sum) {
  if (!request.journal) return sum;
  if (request.plan->target_side() == Side::File) {
    if (sum) {
      KVBM_CHECK_OK(request.journal->after_write(copy, *sum));
    } else {
      request.journal->write_failed(copy, sum.error());
    }
  } else if (request.plan->source_side() == Side::File) {
    request.journal->after_read(copy, sum);
  }
  return sum;
}

Result<TransferToken> TransferExecutor::run(const TransferRequest& request, const BlockCopy& copy) {
  KVBM_CHECK_OK(check_copy(*request.plan, copy));
  KVBM_CHECK_OK(journal_begin(request, copy));
  KVBM_TRY(const std::uint64_t sum, journal_end(request, copy, copy_block(*request.plan, copy)));
  return token(*request.plan, copy.target, sum);
}

}  // namespace kvbm
