// A rank with a manager of its own, or a leader of such ranks, that does what it is told on
// standard input, line by line, answers each line with one, and ends with its input.
//
//   kvbm_manager_process rank SOCKET WORKER BLOCKS: has computed so many blocks of the prompt; the
//   last two are on the device, all in the tiers below.
//     onboard ID      blocks of the plan that come to the device with the right bytes; 0 if there
//                     is no such plan
//     plans           number of plans that are kept
//     await-plans N   waits until there are N
//     await-free      waits until every device and host block is free or evictable
//     reset           forgets all blocks
//   kvbm_manager_process leader LEASE_MS SOCKET...
//     lookup BLOCKS   blocks of the plan, which is kept open
#include <cstdio>
#include <thread>

#include "manager/test_manager.h"
#include "obey_lines.h"

namespace kvbm::leader {
namespace {

using detail::ManagerAccess;

std::uint64_t onboard(ReferenceBlockManager& manager, PlanId id) {
  auto plan = manager.take_plan(id);
  if (!plan) return plan.error().code == ErrorCode::PlanExpired ? 0 : 999;
  const auto loaded = manager.onboard(std::move(*plan)).value().get();
  for (const auto& block : loaded.blocks) {
    if (block && !detail::is_right(*block)) return 998;
  }
  return loaded.valid_prefix();
}

int be_rank(const std::string& socket, WorkerID worker, std::size_t blocks) {
  KvBlockManagerConfig config = detail::test_config();
  config.runtime.leader_socket = socket;
  config.runtime.worker_id = worker;
  auto made = ReferenceBlockManager::create(config);
  if (!made) {
    answer(made.error().to_string());
    return 1;
  }
  ReferenceBlockManager& manager = *made;
  const auto tokens = detail::test_prompt(0, blocks);
  detail::compute_and_drain(manager, tokens.blocks());
  // A chain leaves the device from its end.
  manager.device()->allocate_blocks_blocking(manager.device()->total_blocks() - 2).value();
  answer("ready");
  const auto& plans = *ManagerAccess::core(manager).driver->plans();
  obey_lines([&](const std::string& command, std::uint64_t number) -> std::uint64_t {
    if (command == "onboard") return onboard(manager, number);
    if (command == "plans") return plans.size();
    if (command == "reset") manager.reset().value();
    while (command == "await-plans" && plans.size() != number) std::this_thread::yield();
    while (command == "await-free" &&
           (manager.device()->available_blocks() < manager.device()->total_blocks() ||
            manager.host()->available_blocks() < manager.host()->total_blocks())) {
      std::this_thread::yield();
    }
    return 0;
  });
  return 0;
}

int be_leader(std::chrono::milliseconds lease, std::vector<std::string> sockets) {
  auto leader = Leader::create({.sockets = std::move(sockets),
                                .lookup_timeout = std::chrono::milliseconds(60'000),
                                .lease = lease});
  if (!leader) {
    answer(leader.error().to_string());
    return 1;
  }
  answer("ready");
  std::vector<LeaderPlan> plans;
  obey_lines([&](const std::string&, std::uint64_t blocks) {
    plans.push_back(leader->lookup(detail::test_prompt(0, blocks).blocks()).value());
    return plans.back().blocks();
  });
  return 0;
}

}  // namespace
}  // namespace kvbm::leader

int main(int count, char** words) {
  const std::vector<std::string> arguments(words + 1, words + count);
  if (arguments.size() == 4 && arguments[0] == "rank") {
    return kvbm::leader::be_rank(arguments[1], std::stoull(arguments[2]),
                                 std::stoull(arguments[3]));
  }
  if (arguments.size() >= 3 && arguments[0] == "leader") {
    return kvbm::leader::be_leader(std::chrono::milliseconds(std::stoul(arguments[1])),
                                   {arguments.begin() + 2, arguments.end()});
  }
  std::fprintf(stderr, "usage: rank SOCKET WORKER BLOCKS | leader LEASE_MS SOCKET...\n");
  return 2;
}
