#include "manager/tier_sharing.h"

#include <future>
#include <utility>

namespace kvbm::detail {

std::vector<Result<remote::SharedBlock>> TierSharing::fetch(std::uint64_t plan,
                                                            std::span<const std::uint32_t> indexes,
                                                            TimePoint deadline,
                                                            std::stop_token stop) {
  auto placed = driver_.plans()->blocks(plan, indexes);
  if (!placed) return std::vector<Result<remote::SharedBlock>>(indexes.size(), placed.error());

  std::vector<Result<ImmutableHold>> in_host;
  std::vector<RequestItem> on_disk, in_device;
  for (auto& block : *placed) {
    in_host.push_back(block ? Result<ImmutableHold>(ImmutableHold())
                            : Result<ImmutableHold>(block.error()));
    if (!block) continue;
    switch (block->tier) {
      case Tier::Device:
        in_device.push_back({.source = std::move(block->block), .at = Tier::Device});
        break;
      case Tier::Disk:
        on_disk.push_back({.source = std::move(block->block), .at = Tier::Disk});
        break;
      default: in_host.back() = std::move(block->block);
    }
  }
  auto staged = bring(RequestKind::Stage, std::move(on_disk), deadline, stop);
  auto offloaded = bring(RequestKind::Offload, std::move(in_device), deadline, stop);

  std::vector<Result<remote::SharedBlock>> shared_blocks;
  auto next_staged = staged.begin();
  auto next_offloaded = offloaded.begin();
  for (std::size_t i = 0; i < in_host.size(); ++i) {
    if ((*placed)[i] && (*placed)[i]->tier != Tier::Host) {
      auto& next = (*placed)[i]->tier == Tier::Disk ? next_staged : next_offloaded;
      in_host[i] = std::move(*next++);
      if (in_host[i]) driver_.plans()->keep(plan, indexes[i], share(*in_host[i]));
    }
    if (in_host[i]) {
      shared_blocks.push_back(shared(std::move(*in_host[i])));
    } else {
      shared_blocks.push_back(std::move(in_host[i]).error());
    }
  }
  return shared_blocks;
}

// Into the host tier, whose copies are held; ends when all have come, or cannot.
std::vector<Result<ImmutableHold>> TierSharing::bring(RequestKind kind,
                                                      std::vector<RequestItem> items,
                                                      TimePoint deadline,
                                                      const std::stop_token& stop) {
  if (items.empty()) return {};
  auto ended = std::make_shared<std::promise<std::vector<Result<ImmutableHold>>>>();
  auto answer = ended->get_future();
  const RequestId id =
      driver_.start({.kind = kind, .items = std::move(items), .deadline = deadline},
                    {.finished = [ended](std::vector<Result<ImmutableHold>> blocks) {
                      ended->set_value(std::move(blocks));
                    }});
  const std::stop_callback cancel(stop, [this, id] { driver_.cancel(id); });
  return answer.get();
}

remote::SharedBlock TierSharing::shared(ImmutableHold block) const {
  TierPool& host = *driver_.pools().host;
  const Region extent = host.layout()->extent(block.id());
  return {.block = block.id(),
          .payload_sum = *host.payload_sum(block),
          .bytes = {extent.data(), extent.bytes},
          .hold = std::make_shared<const ImmutableHold>(std::move(block))};
}

}  // namespace kvbm::detail
