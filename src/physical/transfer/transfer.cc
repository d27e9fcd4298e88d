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

Result<TransferToken> TransferToken::join(TransferToken first, TransferToken next) {
  if (first.target_layout_ != next.target_layout_ || first.target_ != next.target_) {
    return Error{ErrorCode::FailedToRegisterBlock, 0, first.target_, next.target_,
                 "proofs of two blocks do not make one of a whole block"};
  }
  const std::size_t end = first.layers_.first + first.layers_.count;
  if (next.layers_.first != end || next.layers_.count == 0) {
    return Error{ErrorCode::FailedToRegisterBlock, 0, end, next.layers_.first,
                 "layers of a block must be copied one after the other"};
  }
  first.layers_.count += next.layers_.count;
  return first;
}

Result<TransferToken> TransferExecutor::run(const TransferRequest& request, const BlockCopy& copy) {
  if (request.step == TransferStep::Verify) {
    KVBM_TRY(const std::uint64_t sum, verify_source(*request.plan, copy));
    return TransferToken(*request.plan, copy.target, sum, false);
  }
  KVBM_CHECK_OK(check_copy(*request.plan, copy));
  KVBM_CHECK_OK(journal_begin(request, copy));
  KVBM_TRY(const std::uint64_t sum, journal_end(request, copy, copy_block(*request.plan, copy)));
  return token(*request.plan, copy.target, sum);
}

}  // namespace kvbm
