#include "benchmarks/pool_bench.h"

#include <fmt/format.h>
#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <boost/unordered/unordered_flat_map.hpp>
#include <chrono>
#include <mutex>
#include <thread>

#include "base/mutex.h"
#include "benchmarks/pool_fixture.h"
#include "logical/pool/block_store.h"

namespace kvbm::bench {
namespace {

constexpr std::size_t kBlocks = 1'000'000;
constexpr std::size_t kBatch = 64;

// The work of a pool without the pool: a list of numbers behind a mutex.
class PlainList {
 public:
  explicit PlainList(std::size_t count) : next_(count) {
    for (std::size_t i = 0; i < count; ++i) next_[i] = static_cast<std::uint32_t>(i + 1);
  }
  std::uint32_t take() {
    const std::lock_guard lock(mutex_);
    return take_locked();
  }
  void give(std::uint32_t id) {
    const std::lock_guard lock(mutex_);
    give_locked(id);
  }
  void take(std::span<std::uint32_t> ids) {
    const std::lock_guard lock(mutex_);
    for (std::uint32_t& id : ids) id = take_locked();
  }
  void give(std::span<const std::uint32_t> ids) {
    const std::lock_guard lock(mutex_);
    for (const std::uint32_t id : ids) give_locked(id);
  }

 private:
  std::uint32_t take_locked() {
    const std::uint32_t id = head_;
    head_ = next_[id];
    return id;
  }
  void give_locked(std::uint32_t id) {
    next_[id] = head_;
    head_ = id;
  }
  std::mutex mutex_;
  std::vector<std::uint32_t> next_;
  std::uint32_t head_ = 0;
};

// --- allocate and free -----------------------------------------------------------------------

Result<void> allocation_rows(std::vector<Row>& rows) {
  KVBM_TRY(const Pool pool, make_bench_pool(kBlocks, std::make_shared<MemoryRegistry>()));
  KVBM_TRY(const auto most, pool.allocate_blocks_blocking(kBlocks / 100 * 95));
  PlainList list(kBlocks);
  std::vector<std::uint32_t> ids(kBatch);

  rows.push_back(measure({"allocate_free",
                          [&](std::uint64_t count) {
                            for (; count > 0; --count) keep(pool.allocate_block());
                          }},
                         {{"two lock pairs and a list",
                           [&](std::uint64_t count) {
                             for (; count > 0; --count) {
                               const std::uint32_t id = list.take();
                               keep(id);
                               list.give(id);
                             }
                           }}},
                         "ratio >= 0.77"));
  rows.push_back(measure({"allocate_free_batch64",
                          [&](std::uint64_t count) {
                            for (std::uint64_t done = 0; done < count; done += kBatch) {
                              Pool::return_blocks(pool.allocate_blocks_blocking(kBatch).value());
                            }
                          },
                          {},
                          kBatch * 1024},
                         {{"two lock pairs and 64 list entries",
                           [&](std::uint64_t count) {
                             for (std::uint64_t done = 0; done < count; done += kBatch) {
                               list.take(ids);
                               keep(ids.data());
                               list.give(ids);
                             }
                           },
                           {},
                           kBatch * 1024}},
                         "<= 5"));
  return {};
}

// --- matching --------------------------------------------------------------------------------

// One chain per thousand operations or so; rows count blocks.
template <class Visit>
Work per_chain(std::string name, const Chains& chains, Visit visit) {
  const std::uint64_t visits = std::max<std::uint64_t>(1, 64'000 / chains.length());
  return {std::move(name),
          [&chains, visit](std::uint64_t blocks) {
            for (std::uint64_t done = 0; done < blocks; done += chains.length()) {
              visit(chains.next());
            }
          },
          {},
          visits * chains.length()};
}

// Compares the asked names with names that lie as they were stored, 16 bytes apart: no lookup, no
// hold. Nobody can match faster.
class PlainNames {
 public:
  explicit PlainNames(const Chains& chains) : chains_(chains) {
    for (std::size_t i = 0; i < chains.count(); ++i) {
      for (const SequenceHash hash : chains.chain(i)) stored_.push_back({hash.value(), i});
    }
  }
  void compare(std::size_t i) const {
    const auto asked = chains_.chain(i);
    const Stored* const stored = &stored_[i * chains_.length()];
    std::size_t equal = 0;
    for (std::size_t k = 0; k < asked.size(); ++k) {
      if (stored[k].hash != asked[k].value() || stored[k].chain != i) break;
      ++equal;
    }
    keep(equal);
  }

 private:
  struct Stored {
    std::uint64_t hash;
    std::uint64_t chain;
  };
  const Chains& chains_;
  std::vector<Stored> stored_;
};

Row run_row(const char* name, const char* aim, const Pool& pool, const Chains& chains,
            const PlainNames& plain) {
  return measure(
      per_chain(name, chains, [&](std::size_t i) { keep(pool.match_run(chains.chain(i))); }),
      {per_chain("compare the names only", chains, [&](std::size_t i) { plain.compare(i); })}, aim);
}

std::vector<BlockRun<DeviceStorage, locality::Logical>> hold_all(const Pool& pool,
                                                                 const Chains& chains) {
  std::vector<BlockRun<DeviceStorage, locality::Logical>> held;
  for (std::size_t i = 0; i < chains.count(); ++i) {
    held.push_back(pool.match_run(chains.chain(i)).value());
  }
  return held;
}

// One counter per block, 16 bytes apart, up and down: what one hold for each block costs at least.
struct alignas(16) PlainCount {
  std::atomic<std::uint32_t> holds{1};
};

Row vector_row(const Pool& pool, const Chains& chains) {
  std::vector<std::vector<Pool::Immutable>> held;
  for (std::size_t i = 0; i < chains.count(); ++i) {
    held.push_back(pool.match_sequence_hashes_blocking(chains.chain(i)).value());
  }
  std::vector<PlainCount> counts(chains.count() * chains.length());
  return measure(
      per_chain("match_held", chains,
                [&](std::size_t i) { keep(pool.match_sequence_hashes_blocking(chains.chain(i))); }),
      {per_chain("bare atomics, up and down", chains,
                 [&](std::size_t i) {
                   PlainCount* const first = &counts[i * chains.length()];
                   for (std::size_t k = 0; k < chains.length(); ++k) {
                     first[k].holds.fetch_add(1, std::memory_order_relaxed);
                   }
                   for (std::size_t k = 0; k < chains.length(); ++k) {
                     first[k].holds.fetch_sub(1, std::memory_order_release);
                   }
                 })},
      "ratio >= 0.77");
}

Result<void> match_rows(std::vector<Row>& rows, std::size_t length, Slots slots,
                        std::uint64_t seed) {
  const bool is_long = length == 1000 && slots == Slots::InOrder;
  const Chains chains(kBlocks / length, length, seed);
  const PlainNames plain(chains);
  KVBM_TRY(const Pool pool, make_bench_pool(kBlocks, std::make_shared<MemoryRegistry>()));
  if (slots == Slots::Shuffled) shuffle_slots(pool, seed);
  fill(pool, chains);
  const char* const evictable = is_long                    ? "match_run_evictable"
                                : slots == Slots::Shuffled ? "match_run_shuffled_evictable"
                                                           : "match_run_short_evictable";
  rows.push_back(run_row(evictable, is_long ? "<= 12" : "", pool, chains, plain));
  {
    const auto held = hold_all(pool, chains);
    const char* const name = is_long                    ? "match_run_held"
                             : slots == Slots::Shuffled ? "match_run_shuffled"
                                                        : "match_run_short";
    const char* const aim = is_long ? "<= 5" : slots == Slots::Shuffled ? "<= 20" : "<= 30";
    rows.push_back(run_row(name, aim, pool, chains, plain));
  }
  if (is_long) rows.push_back(vector_row(pool, chains));
  return {};
}

// --- registration and eviction ---------------------------------------------------------------

// Fresh chains are put in the place of the coldest ones, again and again; one part of that is
// timed.
class Turnover {
 public:
  static constexpr std::size_t kLength = 1000;
  static constexpr std::size_t kPerRun = 50;
  static constexpr std::uint64_t kOperations = kPerRun * kLength;

  Turnover(Pool pool, std::uint64_t seed)
      : pool_(std::move(pool)),
        resident_(kBlocks / kLength, kLength, seed),
        fresh_(20 * kPerRun, kLength, seed + 1) {
    fill(pool_, resident_);
  }
  const Chains& resident() const { return resident_; }
  const Chains& fresh() const { return fresh_; }

  void name_fresh() {
    named_.clear();
    for (std::size_t i = 0; i < kPerRun; ++i, next_ = (next_ + 1) % fresh_.count()) {
      named_.push_back(name_chain(pool_, fresh_.chain(next_)));
    }
  }
  void register_named() {
    for (auto& chain : named_) {
      registered_.push_back(pool_.register_blocks_blocking(std::move(chain)).value());
    }
    named_.clear();
  }
  void evict() {
    for (std::size_t i = 0; i < kPerRun; ++i) {
      taken_.push_back(pool_.allocate_blocks_blocking(kLength).value());
    }
  }
  void drop_all() {
    for (auto& chain : registered_) Pool::return_blocks(std::move(chain));
    for (auto& chain : taken_) Pool::return_blocks(std::move(chain));
    registered_.clear();
    taken_.clear();
  }

 private:
  const Pool pool_;
  const Chains resident_;
  const Chains fresh_;
  std::size_t next_ = 0;
  std::vector<std::vector<Pool::Complete>> named_;
  std::vector<std::vector<Pool::Immutable>> registered_;
  std::vector<std::vector<Pool::Mutable>> taken_;
};

// A library's map with the same names, and room for more.
class PlainMap {
 public:
  explicit PlainMap(const Turnover& turnover) : fresh_(turnover.fresh()) {
    map_.reserve(kBlocks + Turnover::kOperations);
    const Chains& resident = turnover.resident();
    for (std::size_t i = 0; i < resident.count(); ++i) {
      for (const SequenceHash hash : resident.chain(i)) map_.emplace(hash.value(), 0);
    }
  }
  void insert_fresh() {
    for (std::size_t i = 0; i < Turnover::kPerRun; ++i) {
      for (const SequenceHash hash : fresh_.chain(i)) map_.emplace(hash.value(), 1);
    }
  }
  void erase_fresh() {
    for (std::size_t i = 0; i < Turnover::kPerRun; ++i) {
      for (const SequenceHash hash : fresh_.chain(i)) map_.erase(hash.value());
    }
  }

 private:
  const Chains& fresh_;
  boost::unordered_flat_map<std::uint64_t, std::uint32_t> map_;
};

Result<void> turnover_rows(std::vector<Row>& rows, std::uint64_t seed) {
  KVBM_TRY(Pool pool, make_bench_pool(kBlocks, std::make_shared<MemoryRegistry>()));
  Turnover turnover(std::move(pool), seed);
  PlainMap map(turnover);
  const Rounds rounds{.count = 21};
  rows.push_back(measure({"register", [&](std::uint64_t) { turnover.register_named(); },
                          [&] {
                            turnover.drop_all();
                            turnover.name_fresh();
                          },
                          Turnover::kOperations},
                         {{"insert into a flat map", [&](std::uint64_t) { map.insert_fresh(); },
                           [&] { map.erase_fresh(); }, Turnover::kOperations}},
                         "ratio >= 0.5", rounds));
  rows.push_back(measure({"evict_mean", [&](std::uint64_t) { turnover.evict(); },
                          [&] {
                            turnover.drop_all();
                            turnover.name_fresh();
                            turnover.register_named();
                            turnover.drop_all();
                          },
                          Turnover::kOperations},
                         {}, "<= 60", rounds));
  turnover.drop_all();
  return {};
}

// Single evictions, each timed, in a pool of short chains. The clock's own time is in the number.
Result<Row> eviction_row(std::size_t blocks, const char* name, std::uint64_t seed) {
  constexpr std::size_t kLength = 100;
  constexpr std::size_t kEvictions = 20'000;
  {
    const Chains chains(blocks / kLength, kLength, seed);
    KVBM_TRY(const Pool pool, make_bench_pool(blocks, std::make_shared<MemoryRegistry>()));
    fill(pool, chains);
    std::vector<Pool::Mutable> taken;
    std::vector<double> ns;
    taken.reserve(kEvictions);
    for (std::size_t i = 0; i < kEvictions; ++i) {
      const auto begin = std::chrono::steady_clock::now();
      taken.push_back(pool.allocate_block().value());
      const std::chrono::duration<double, std::nano> time =
          std::chrono::steady_clock::now() - begin;
      ns.push_back(time.count());
    }
    Pool::return_blocks(std::move(taken));
    std::nth_element(ns.begin(), ns.begin() + kEvictions / 100 * 99, ns.end());
    return Row{.name = name, .value = ns[kEvictions / 100 * 99], .n = kEvictions, .aim = "< 1000"};
  }
}

// --- memory and threads ----------------------------------------------------------------------

Result<void> memory_rows(std::vector<Row>& rows) {
  const auto in_use = [] {
    const struct mallinfo2 info = mallinfo2();
    return static_cast<double>(info.uordblks + info.hblkhd);
  };
  const double before = in_use();
  KVBM_TRY(const Pool pool, make_bench_pool(kBlocks, std::make_shared<MemoryRegistry>()));
  const double per_block = (in_use() - before) / static_cast<double>(kBlocks);
  // BasicMetadata lies in the rows but for the tick of the allocation.
  const double metadata = sizeof(std::uint32_t);
  rows.push_back({.name = "bytes_per_block",
                  .value = per_block - metadata,
                  .unit = "bytes",
                  .n = kBlocks,
                  .aim = "<= 64"});
  rows.push_back(
      {.name = "metadata_bytes_per_block", .value = metadata, .unit = "bytes", .n = kBlocks});
  rows.push_back({.name = "token_bytes_per_block", .value = 0, .unit = "bytes", .n = kBlocks});
  return {};
}

// Two threads that do the same at once.
template <class Body>
void in_two_threads(const Body& body) {
  std::thread other(body);
  body();
  other.join();
}

// An empty loop that the compiler must keep.
void spin(std::uint64_t turns) {
  for (; turns > 0; --turns) keep(turns);
}

// The second of two runs.
template <class Body>
double nanoseconds_of(const Body& body) {
  body();
  const auto begin = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - begin).count();
}

Result<Row> threads_row() {
  constexpr std::uint64_t kRounds = 2000;
  KVBM_TRY(const Pool pool, make_bench_pool(kBlocks, std::make_shared<MemoryRegistry>()));
  const auto batches = [&] {
    for (std::uint64_t i = 0; i < kRounds; ++i) {
      Pool::return_blocks(pool.allocate_blocks_blocking(kBatch).value());
    }
  };
  // How long a batch is, and how long the mutex is held in it: the store alone does little else.
  KVBM_TRY(const auto store, BlockStore::create({.capacity = kBlocks}));
  std::vector<BlockId> ids(kBatch);
  const double batch_ns = nanoseconds_of(batches) / kRounds;
  const double section_ns = nanoseconds_of([&] {
                              for (std::uint64_t i = 0; i < kRounds; ++i) {
                                if (store->allocate(ids)) store->release(ids);
                              }
                            }) /
                            kRounds;
  // The same as turns of an empty loop; a batch has two sections.
  const double turn_ns = nanoseconds_of([] { spin(1'000'000); }) / 1'000'000;
  const auto inside = static_cast<std::uint64_t>(section_ns / 2 / turn_ns);
  const auto outside =
      static_cast<std::uint64_t>(std::max(0.0, batch_ns - section_ns) / 2 / turn_ns);

  const std::uint64_t blocks = 2 * kRounds * kBatch;
  std::mutex standard;
  Mutex inlined;
  const auto probe = [&](const char* name, auto& mutex) {
    return Work{name,
                [&mutex, inside, outside](std::uint64_t) {
                  in_two_threads([&mutex, inside, outside] {
                    for (std::uint64_t i = 0; i < 2 * kRounds; ++i) {
                      mutex.lock();
                      spin(inside);
                      mutex.unlock();
                      spin(outside);
                    }
                  });
                },
                {},
                blocks};
  };
  return measure({"threads2_vs_mutex", [&](std::uint64_t) { in_two_threads(batches); }, {}, blocks},
                 {probe("std::mutex, empty sections as long", standard),
                  probe("the pool's kind of mutex, the same", inlined)},
                 "ratio >= 0.8", {.count = 21});
}

}  // namespace

Result<Report> pool_bench(const Options& options) {
  Report report{{}, options.seed};
  std::vector<Row>& rows = report.rows;
  KVBM_CHECK_OK(allocation_rows(rows));
  KVBM_CHECK_OK(match_rows(rows, 1000, Slots::InOrder, options.seed));
  KVBM_CHECK_OK(match_rows(rows, 1000, Slots::Shuffled, options.seed));
  KVBM_CHECK_OK(match_rows(rows, 16, Slots::InOrder, options.seed));
  KVBM_CHECK_OK(turnover_rows(rows, options.seed));
  KVBM_TRY(Row small, eviction_row(100'000, "evict_p99_1e5", options.seed));
  KVBM_TRY(Row middle, eviction_row(1'000'000, "evict_p99_1e6", options.seed));
  KVBM_TRY(Row large, eviction_row(10'000'000, "evict_p99_1e7", options.seed));
  rows.insert(rows.end(), {std::move(small), std::move(middle), std::move(large)});
  KVBM_CHECK_OK(memory_rows(rows));
  KVBM_TRY(Row threads, threads_row());
  rows.push_back(std::move(threads));
  return report;
}

}  // namespace kvbm::bench
