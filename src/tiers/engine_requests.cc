// The tier engine's requests: how they begin, wait and end.
#include <algorithm>
#include <utility>

#include "tiers/engine.h"

namespace kvbm::detail {

void TierEngine::on(RequestStarted& event) {
  Request request{.kind = event.kind,
                  .deadline = event.deadline,
                  .layerwise = event.layerwise,
                  .admission = event.admission,
                  .order = event.order,
                  .items = std::move(event.items),
                  .outcomes = {},
                  .watch = {}};
  const std::size_t count_of_items = request.items.size();
  request.outcomes.resize(count_of_items);
  request.open = count_of_items;
  open_items_ += count_of_items;
  deadlines_.emplace(event.deadline, event.id);
  requests_.emplace(event.id, std::move(request));
  if (count_of_items == 0) {
    return end_request(event.id, ErrorCode::Cancelled, Transition::RequestEmpty);
  }
  if (closed_) {
    return refuse_request(event.id, ErrorCode::ProgressEngineShutdown, Transition::RequestLate);
  }
  if (open_items_ > options_.request_queue_blocks) {
    return refuse_request(event.id, ErrorCode::QueueFull, Transition::RequestRefused);
  }
  const std::size_t to_load = blocks_to_load(event.id, event.prefill_tokens_per_second);
  for (std::size_t i = 0; i < count_of_items; ++i) {
    if (i < to_load) {
      queue_item({event.id, i});
    } else {
      leave_to_compute({event.id, i});
    }
  }
  const auto queued = requests_.find(event.id);
  if (queued == requests_.end()) return;  // every item has failed at once
  queued->second.all_queued = true;
  begin_layers_if_staged(event.id);
}

// Before any of its items was queued.
void TierEngine::refuse_request(RequestId id, ErrorCode code, Transition how) {
  for (RequestItem& item : requests_.at(id).items) item.external = kNoBlock;  // not claimed
  end_request(id, code, how);
}

void TierEngine::queue_item(ItemRef ref) {
  Request& request = requests_.at(ref.request);
  RequestItem& item = request.items[ref.index];
  if (item.external != kNoBlock && !claim_external(request, item)) {
    count(Transition::ExternalRefused);
    const BlockId id = std::exchange(item.external, kNoBlock);
    return settle(ref, Error{ErrorCode::InvalidMutableBlock, 0, id, 0,
                             "a copy still uses this external block"});
  }
  switch (item.at) {
    case Tier::Device:
      // What is offloaded is of the time of its request, however long that waits.
      if (item.identity) {
        item.identity->epoch = pools_.host->store().epoch(item.identity->name_space);
      }
      offloads_.push(ref);
      break;
    case Tier::Host: arrived_in_host(ref, std::move(item.source)); break;
    case Tier::Disk: stages_.push(ref); break;
    case Tier::Remote: pulls_.push(ref); break;
  }
}

// --- external blocks -------------------------------------------------------------------------

// Any number of copies may read a block; one that is written is nobody else's.
bool TierEngine::claim_external(const Request& request, const RequestItem& item) {
  const bool is_target = request.kind == RequestKind::Onboard;
  const auto [use, is_free] = externals_.try_emplace(item.external);
  if (!is_free && (is_target || use->second.is_target)) return false;
  use->second.is_target = is_target;
  if (!is_target) ++use->second.readers;
  return true;
}

void TierEngine::release_external(BlockId id) {
  const auto use = externals_.find(id);
  if (use == externals_.end()) return;
  if (use->second.readers > 1) {
    --use->second.readers;
  } else {
    externals_.erase(use);
  }
}

// --- ends ------------------------------------------------------------------------------------

// Ends a request now; items without an outcome get `code`. Copies that still run for it keep their
// blocks until they have ended.
void TierEngine::end_request(RequestId id, ErrorCode code, Transition how) {
  auto ended = requests_.extract(id);
  if (!ended) return;
  Request& request = ended.mapped();
  deadlines_.erase({request.deadline, id});
  if (request.watch) checks_.erase({request.watch->next_check, id});
  open_items_ -= request.open;
  count(how);
  if (how == Transition::RequestExpired) ++stats_.requests_timed_out;

  FinishRequest finish{id, {}};
  finish.blocks.reserve(request.outcomes.size());
  for (std::size_t i = 0; i < request.outcomes.size(); ++i) {
    auto& outcome = request.outcomes[i];
    if (request.items[i].external != kNoBlock) release_external(request.items[i].external);
    finish.blocks.push_back(outcome ? std::move(*outcome)
                                    : Result<ImmutableHold>(Error{code, 0, 0, 0, {}}));
  }
  commands_.push_back(std::move(finish));
  if (request.open > 0) cancel_unwanted_transfers();
}

bool TierEngine::is_wanted(const Move& move) const {
  return move.is_offer || std::ranges::any_of(move.wanted_by, [this](const ItemRef& item) {
           return requests_.contains(item.request);
         });
}

void TierEngine::cancel_unwanted_transfers() {
  for (auto& [id, transfer] : transfers_) {
    if (transfer.cancelled->load(std::memory_order_relaxed)) continue;
    const bool wanted =
        transfer.run ? requests_.contains(*transfer.run)
                     : std::ranges::any_of(transfer.moves,
                                           [this](const Move& move) { return is_wanted(move); });
    if (wanted) continue;
    transfer.cancelled->store(true, std::memory_order_relaxed);
    count(Transition::TargetQuarantined);
  }
  std::erase_if(runs_, [this](const auto& run) { return drop_if_over(run.first, run.second); });
}

RequestItem* TierEngine::find(ItemRef item) {
  const auto found = requests_.find(item.request);
  return found == requests_.end() ? nullptr : &found->second.items[item.index];
}

void TierEngine::settle(ItemRef item, Result<ImmutableHold> outcome) {
  Request& request = requests_.at(item.request);
  if (!outcome) ++request.failed;
  if (const BlockId external = request.items[item.index].external; external != kNoBlock) {
    release_external(external);
  }
  if (request.watch) note_arrival(item.request, step_of(request.items[item.index]));
  request.outcomes[item.index] = std::move(outcome);
  request.items[item.index] = {};
  --open_items_;
  if (--request.open == 0) {
    end_request(item.request, ErrorCode::Cancelled,
                request.failed > 0 ? Transition::RequestFailed : Transition::RequestDone);
  } else {
    begin_layers_if_staged(item.request);
  }
}

// An item that is now in the host tier: the end of a stage, or ready to be loaded.
void TierEngine::arrived_in_host(ItemRef ref, ImmutableHold hold) {
  Request& request = requests_.at(ref.request);
  if (request.kind == RequestKind::Stage) return settle(ref, std::move(hold));
  RequestItem& item = request.items[ref.index];
  item.source = std::move(hold);
  item.remote = nullptr;
  if (request.watch && item.at != Tier::Host) {
    Governor::LoadStep arrived = step_of(item);
    arrived.tokens = 0;
    note_arrival(ref.request, arrived);
    request.watch->rest.bytes_from_host += block_bytes();
  }
  item.at = Tier::Host;
  if (request.layerwise) {
    begin_layers_if_staged(ref.request);
  } else {
    loads_.push(ref);
  }
}

}  // namespace kvbm::detail
