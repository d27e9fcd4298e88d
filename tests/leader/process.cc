// A rank or a leader that does what it is told on standard input, line by line, answers each line
// with one, and ends with its input.
//
//   kvbm_leader_process rank SOCKET BLOCKS EPOCH
//     plans           number of plans
//     plan ID         blocks of a plan, 0 if there is none
//     await-plans N   waits until there are N plans
//     await-lookups N waits until there were N lookups
//     hold            lookups do not return from now on
//     advance MS      time passes for leases
//   kvbm_leader_process leader SOCKET...
//     lookup BLOCKS   blocks of the plan, which is kept open
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "kvbm/leader.h"
#include "leader/rank_server.h"
#include "leader/test_service.h"
#include "obey_lines.h"

namespace kvbm::leader {
namespace {

int be_rank(const std::string& socket, std::uint32_t blocks, std::uint64_t epoch) {
  TestService service(blocks, epoch);
  const auto server = RankServer::start(service, {.socket = socket});
  if (!server) {
    answer(server.error().to_string());
    return 1;
  }
  answer("ready");
  obey_lines([&](const std::string& command, std::uint64_t number) -> std::uint64_t {
    if (command == "plans") return service.plans().size();
    if (command == "plan") {
      const auto plans = service.plans();
      const auto found = plans.find(number);
      return found == plans.end() ? 0 : found->second.hashes.size();
    }
    if (command == "await-plans") service.wait_for_plans(number);
    if (command == "await-lookups") service.wait_for_lookups(number);
    if (command == "hold") service.hold(true);
    if (command == "advance") service.advance(std::chrono::milliseconds(number));
    return 0;
  });
  service.hold(false);
  return 0;
}

int be_leader(std::vector<std::string> sockets) {
  auto leader = Leader::create(
      {.sockets = std::move(sockets), .lookup_timeout = std::chrono::milliseconds(60'000)});
  if (!leader) {
    answer(leader.error().to_string());
    return 1;
  }
  answer("ready");
  std::vector<LeaderPlan> plans;
  obey_lines([&](const std::string&, std::uint64_t blocks) {
    plans.push_back(leader->lookup(prefix(blocks)).value());
    return plans.back().blocks();
  });
  return 0;
}

}  // namespace
}  // namespace kvbm::leader

int main(int count, char** words) {
  const std::vector<std::string> arguments(words + 1, words + count);
  if (arguments.size() == 4 && arguments[0] == "rank") {
    return kvbm::leader::be_rank(arguments[1], static_cast<std::uint32_t>(std::stoul(arguments[2])),
                                 std::stoull(arguments[3]));
  }
  if (arguments.size() >= 2 && arguments[0] == "leader") {
    return kvbm::leader::be_leader({arguments.begin() + 1, arguments.end()});
  }
  std::fprintf(stderr, "usage: rank SOCKET BLOCKS EPOCH | leader SOCKET...\n");
  return 2;
}
