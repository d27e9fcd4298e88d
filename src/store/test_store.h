// Small stores whose blocks have real bytes, for tests.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "platform/os/fake_file.h"
#include "store/disk_store.h"
#include "store/payload.h"

namespace kvbm::store {

inline StoreShape test_shape(std::uint32_t slots = 100) {
  return {.model = "a model",
          .layout = "2x(2xN4C8:fp16)",
          .layout_digest = 5,
          .region_bytes = {64, 64, 64, 72},
          .page_size = 4,
          .hash_profile = "kvbm",
          .key_fingerprint = 9,
          .num_slots = slots,
          .keeps_tokens = true};
}

// Files in memory that outlive the stores that are opened on them.
struct MemoryFiles {
  std::shared_ptr<FakeFile> manifest = std::make_shared<FakeFile>(0);
  std::shared_ptr<FakeFile> index = std::make_shared<FakeFile>(0);
  std::shared_ptr<FakeFile> tokens = std::make_shared<FakeFile>(0);
  std::shared_ptr<FakeFile> blocks = std::make_shared<FakeFile>(0);
  StoreFiles files() const { return {manifest, index, tokens, blocks}; }
};

// Opens it and loads its records. Whatever goes wrong ends the test.
inline std::unique_ptr<DiskStore> open_loaded(const StoreFiles& files, const StoreShape& shape) {
  auto store = DiskStore::open(files, shape).value();
  store->load([](Slot, const SlotRecord&) {}).value();
  return store;
}

// A block of a chain: its bytes and tokens follow from its hash.
struct TestBlock {
  std::uint64_t hash = 1;
  std::uint64_t parent = 0;  // 0: the block is the first of its chain
  std::uint32_t position = 0;
  NamespaceId name_space = 0;

  std::vector<std::byte> bytes(const StoreShape& shape) const {
    std::vector<std::byte> result(shape.block_bytes());
    std::uint64_t state = hash * 0x9e3779b97f4a7c15u + name_space;
    for (std::byte& byte : result) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      byte = std::byte(state >> 56);
    }
    return result;
  }
  std::vector<Token> tokens(const StoreShape& shape) const {
    std::vector<Token> result(shape.page_size);
    for (std::size_t i = 0; i < result.size(); ++i) result[i] = static_cast<Token>(hash * 100 + i);
    return result;
  }
  // As whoever wrote the payload into the slot would seal it.
  SlotRecord record(const StoreShape& shape, Slot slot, std::uint32_t epoch) const {
    SlotRecord record{.sequence_hash = SequenceHash(hash),
                      .parent_hash = SequenceHash(parent),
                      .digest = hash + 1,
                      .position = position,
                      .epoch = epoch,
                      .token_count = static_cast<std::uint16_t>(shape.page_size),
                      .name_space = name_space,
                      .priority = 35};
    PayloadSum sum(shape.region_bytes);
    sum.add(bytes(shape));
    record.sealed_sum = sum.finish() ^ seal(record, slot, shape.layout_digest);
    return record;
  }
};

// Writes the block into the slot as the disk tier does. Whatever goes wrong ends the test.
inline void put_block(DiskStore& store, Slot slot, const TestBlock& block) {
  const StoreShape& shape = store.shape();
  store.clear(slot).value();
  const std::size_t unit = store.blocks()->io_alignment();
  const std::size_t bytes = (shape.block_bytes() + unit - 1) / unit * unit;
  const std::unique_ptr<void, decltype(&std::free)> memory(
      std::aligned_alloc(kExtentUnit, (bytes + kExtentUnit - 1) / kExtentUnit * kExtentUnit),
      &std::free);
  std::memset(memory.get(), 0, bytes);
  std::memcpy(memory.get(), block.bytes(shape).data(), shape.block_bytes());
  const std::span payload(static_cast<const std::byte*>(memory.get()), bytes);
  store.blocks()->write(payload, slot * shape.extent_bytes()).value();
  store.count_payload(bytes);
  const auto record = block.record(shape, slot, store.epoch(block.name_space));
  const auto tokens = shape.keeps_tokens ? block.tokens(shape) : std::vector<Token>();
  store.put(slot, record, tokens).value();
}

}  // namespace kvbm::store
