#include "block_store_history.h"

#include <array>
#include <random>

#include "block_store_world.h"

namespace kvbm::model {

std::span<const World::Kind> World::kinds() {
  static constexpr std::array kKinds{
      Kind{&World::grow, 24, true},
      Kind{&World::allocate, 6, true},
      Kind{&World::complete, 8, true},
      Kind{&World::rename, 1, true},
      Kind{&World::uncomplete, 1, true},
      Kind{&World::register_some, 8, true},
      Kind{&World::register_wrong, 1, true},
      Kind{&World::match, 5, true},
      Kind{&World::match_run, 5, true},
      Kind{&World::scan, 3, true},
      Kind{&World::borrow, 4, true},
      Kind{&World::give_back, 4, true},
      Kind{&World::touch, 5, true},
      Kind{&World::contains, 2, true},
      Kind{&World::share, 3, true},
      Kind{&World::split, 2, true},
      Kind{&World::downgrade, 2, true},
      Kind{&World::upgrade, 2, true},
      Kind{&World::forget_weak, 2, true},
      Kind{&World::release_one, 12, true},
      Kind{&World::release_run, 10, true},
      Kind{&World::release_many, 8, true},
      Kind{&World::release_unregistered, 4, true},
      Kind{&World::detach, 1, true},
      Kind{&World::reset, 1, false},
      Kind{&World::reset_namespace, 1, false},
      Kind{&World::retain, 5, true},
      Kind{&World::set_priority, 2, true},
      Kind{&World::protect, 3, false},
      Kind{&World::lease, 2, true},
      Kind{&World::release_lease, 2, true},
      Kind{&World::advance, 3, true},
      Kind{&World::copy_metadata, 1, false},
      Kind{&World::add_blocks, 2, true},
      Kind{&World::close, 1, true},
      Kind{&World::restart, 1, true},
  };
  return kKinds;
}

void World::apply(const Operation& operation) {
  (this->*kinds()[operation.kind].apply)(operation);
  if (!failure_) collect_closed();
}

std::vector<Operation> draw_operations(const HistoryOptions& options) {
  std::mt19937_64 random(options.seed);
  std::vector<std::uint8_t> hat;
  for (std::size_t kind = 0; kind < World::kinds().size(); ++kind) {
    const World::Kind& drawn = World::kinds()[kind];
    if (options.is_calm && !drawn.is_calm) continue;
    hat.insert(hat.end(), drawn.weight, static_cast<std::uint8_t>(kind));
  }
  std::vector<Operation> operations(options.operations);
  for (Operation& op : operations) {
    const auto draw = [&random] { return static_cast<std::uint32_t>(random() >> 32); };
    op = {hat[draw() % hat.size()], draw(), draw(), draw(), draw()};
  }
  return operations;
}

std::optional<std::string> run_history(const HistoryOptions& options,
                                       std::span<const Operation> operations,
                                       std::ostream* spelling) {
  constexpr std::size_t kAuditEvery = 32;
  World world(options, spelling);
  for (std::size_t i = 0; i < operations.size() && !world.failure(); ++i) {
    world.apply(operations[i]);
    if (spelling) *spelling << "\n";
    const bool is_last = i + 1 == operations.size();
    if (i % options.check_every == 0 || is_last) world.check_invariants();
    const bool is_big = options.check_every > 1;
    if (!is_big || i % 16 == 0)
      world.audit(is_last || i % (is_big ? options.check_every : kAuditEvery) == 0);
  }
  return world.failure();
}

}  // namespace kvbm::model
