// What a caller keeps about each block.
#pragma once

#include <compare>
#include <concepts>
#include <cstdint>
#include <new>
#include <optional>

#include "kvbm/types.h"

namespace kvbm {

// A caller's own metadata type. The pool constructs one per block and calls, under its mutex:
//   on_acquired(tick)    the block was allocated; ticks of a pool only grow
//   on_returned(tick)    the block became evictable or free
//   reset_metadata()     the block lost its content
// offload_priority(): blocks of a higher number are offloaded first; nothing means never. The
// functions must not throw, block, or call the pool.
template <class M>
concept BlockMetadata = std::default_initializable<M> && std::copyable<M> &&
                        requires(M& metadata, const M& constant, std::uint64_t tick) {
                          metadata.on_acquired(tick);
                          metadata.on_returned(tick);
                          metadata.reset_metadata();
                          {
                            constant.offload_priority()
                          } -> std::same_as<std::optional<std::uint64_t>>;
                        };

// The default. Lies in the pool's own record of the block and costs no further memory.
struct BasicMetadata {
  std::uint32_t priority = DEFAULT_PRIORITY;  // 0 .. MAX_PRIORITY
  std::uint64_t returned_tick = 0;
  std::uint64_t acquired_tick = 0;

  void on_acquired(std::uint64_t tick) noexcept { acquired_tick = tick; }
  void on_returned(std::uint64_t tick) noexcept { returned_tick = tick; }
  void reset_metadata() noexcept { priority = DEFAULT_PRIORITY; }
  std::optional<std::uint64_t> offload_priority() const noexcept { return priority; }
  friend auto operator<=>(const BasicMetadata&, const BasicMetadata&) = default;
};

namespace detail {

// How the core, which is compiled once, handles metadata of a type that it does not know.
struct MetadataTable {
  std::size_t bytes;
  std::size_t alignment;
  void (*construct)(void* at);
  void (*destroy)(void* at) noexcept;
  void (*copy)(void* to, const void* from);
  void (*on_acquired)(void* at, std::uint64_t tick);
  void (*on_returned)(void* at, std::uint64_t tick);
  void (*reset)(void* at);
  std::optional<std::uint64_t> (*offload_priority)(const void* at);
};

// Null for BasicMetadata, which needs no table.
template <BlockMetadata M>
const MetadataTable* metadata_table() {
  if constexpr (std::same_as<M, BasicMetadata>) {
    return nullptr;
  } else {
    static constexpr MetadataTable kTable{
        sizeof(M),
        alignof(M),
        [](void* at) { new (at) M(); },
        [](void* at) noexcept { static_cast<M*>(at)->~M(); },
        [](void* to, const void* from) { *static_cast<M*>(to) = *static_cast<const M*>(from); },
        [](void* at, std::uint64_t tick) { static_cast<M*>(at)->on_acquired(tick); },
        [](void* at, std::uint64_t tick) { static_cast<M*>(at)->on_returned(tick); },
        [](void* at) { static_cast<M*>(at)->reset_metadata(); },
        [](const void* at) { return static_cast<const M*>(at)->offload_priority(); }};
    return &kTable;
  }
}

}  // namespace detail
}  // namespace kvbm
