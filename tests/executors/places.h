// Blocks of every content in every place, and what a copy must do to them, byte by byte.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "physical/layout/layout.h"
#include "platform/os/file.h"

namespace kvbm {

using Bytes = std::vector<std::byte>;

// What blocks hold: layers of outer parts of heads of tokens. `ragged`: each layer has one element
// a token more than the one before.
struct Content {
  std::string name;
  std::size_t layers;
  std::size_t outer;
  std::size_t heads;
  std::size_t tokens;
  std::size_t elements;  // bytes
  bool ragged = false;
};

// Where a block's bytes lie in the memory.
enum class Shape : std::uint8_t {
  Contiguous,   // one extent a block, as in host memory and on disk
  LayersApart,  // [layer][outer][block]...
  BlocksFirst,  // [layer][block][outer]...
  HeadsApart,   // [layer][outer][head][block]...: a run per head
};
enum class Kind : std::uint8_t { Memory, File, Device };

const char* name_of(Shape shape);
const char* name_of(Kind kind);

// How memory of a kind is made, seen and filled: files and devices are the tests' own.
struct Backing {
  std::function<std::shared_ptr<detail::Memory>(std::size_t bytes)> make;
  std::function<Bytes(const detail::Memory&)> read;
  std::function<void(const detail::Memory&, const Bytes&)> write;
};

// A layout in a memory whose bytes are random, those around and between the blocks too.
class Place {
 public:
  static constexpr std::size_t kBlocks = 6;

  Place(const Content& content, Shape shape, const Backing& backing, std::mt19937_64& random);

  const std::shared_ptr<const Layout>& layout() const noexcept { return layout_; }
  // What the memory holds now, and what it must hold.
  Bytes bytes() const { return backing_.read(*memory_); }
  const Bytes& expected() const noexcept { return expected_; }

  // Where the bytes of a region lie, one offset in the memory per byte, in the content's order.
  std::vector<std::size_t> offsets(BlockId block, std::size_t region) const;
  // The definition of a payload sum, over what must be there.
  std::uint64_t sum(BlockId block, std::size_t first_region, std::size_t last_region) const;
  // The oracle: copies the regions byte by byte into what must be there.
  void expect_copy(const Place& source, BlockId from, BlockId to, std::size_t first_region,
                   std::size_t last_region);
  // A block moves to or from a file in whole units: what lies between it and the next one moves
  // along, and belongs to neither. Call it when the copy has ended.
  void expect_padding(const Place& source, BlockId from, BlockId to);
  void expect_zeros(BlockId block);
  // Inverts one byte of a block, behind the oracle's back.
  void damage(BlockId block);

 private:
  Backing backing_;
  std::shared_ptr<detail::Memory> memory_;
  std::shared_ptr<const Layout> layout_;
  Bytes expected_;
};

}  // namespace kvbm
