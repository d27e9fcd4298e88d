#include "kvbm/vllm_hash.h"

#include <string>
#include <utility>

#include "logical/tokens/cbor.h"
#include "logical/tokens/sha256.h"

namespace kvbm {
namespace {

Error bad_keys(std::string message, std::size_t requested, std::size_t available) {
  return {ErrorCode::InvalidConfig, 0, requested, available, std::move(message)};
}

Result<void> check_prompt(std::size_t tokens, std::size_t block_size, const VllmPromptKeys& keys) {
  if (block_size == 0 || block_size > MAX_PAGE_SIZE) {
    return bad_keys("block_size must be 1 .. 1024 tokens", block_size, MAX_PAGE_SIZE);
  }
  const std::size_t blocks = tokens / block_size;
  if (!keys.prompt_embeds.empty() && keys.prompt_embeds.size() != blocks) {
    return bad_keys("prompt_embeds must have none or one for each full block",
                    keys.prompt_embeds.size(), blocks);
  }
  for (std::size_t i = 1; i < keys.multimodal.size(); ++i) {
    if (keys.multimodal[i].offset < keys.multimodal[i - 1].offset) {
      return bad_keys(
          "multimodal object " + std::to_string(i) + " begins before the one in front of it",
          keys.multimodal[i].offset, keys.multimodal[i - 1].offset);
    }
  }
  return {};
}

void write_keys(CborWriter& cbor, const VllmBlockKeys& keys) {
  const std::size_t count = std::size_t{!keys.lora_name.empty()} + keys.multimodal.size() +
                            std::size_t{!keys.cache_salt.empty()} +
                            std::size_t{keys.prompt_embeds != nullptr};
  if (count == 0) return cbor.null();
  cbor.array(count);
  if (!keys.lora_name.empty()) cbor.text(keys.lora_name);
  for (const VllmBlockKeys::Multimodal& object : keys.multimodal) {
    cbor.array(2);
    cbor.text(object.identifier);
    cbor.integer(object.offset);
  }
  if (!keys.cache_salt.empty()) cbor.text(keys.cache_salt);
  if (keys.prompt_embeds) cbor.byte_string(*keys.prompt_embeds);
}

}  // namespace

struct VllmHasher::State {
  Sha256 sha256;
  DigestKey key;
  VllmHash none_hash = {};
  CborWriter cbor = {};
};

SequenceHash vllm_sequence_hash(const VllmHash& hash) noexcept {
  std::uint64_t low = 0;
  for (std::size_t i = hash.size() - sizeof low; i < hash.size(); ++i) {
    low = low << 8 | std::to_integer<std::uint64_t>(hash[i]);
  }
  return SequenceHash(low);
}

VllmHasher::VllmHasher(std::unique_ptr<State> state) : state_(std::move(state)) {}
VllmHasher::~VllmHasher() = default;
VllmHasher::VllmHasher(VllmHasher&&) noexcept = default;
VllmHasher& VllmHasher::operator=(VllmHasher&&) noexcept = default;

Result<VllmHasher> VllmHasher::create(std::string_view seed, DigestKey key) {
  KVBM_TRY(Sha256 sha256, Sha256::create());
  auto state = std::make_unique<State>(State{std::move(sha256), std::move(key)});
  state->cbor.text(seed);
  KVBM_TRY(state->none_hash, state->sha256.hash(state->cbor.bytes()));
  return VllmHasher(std::move(state));
}

const VllmHash& VllmHasher::none_hash() const noexcept { return state_->none_hash; }

Result<VllmHash> VllmHasher::hash_block(const VllmHash& parent, std::span<const Token> tokens,
                                        const VllmBlockKeys& keys) {
  if (tokens.empty() || tokens.size() > MAX_PAGE_SIZE) {
    return bad_keys("a block must have 1 .. 1024 tokens", tokens.size(), MAX_PAGE_SIZE);
  }
  CborWriter& cbor = state_->cbor;
  cbor.clear();
  cbor.array(3);
  cbor.byte_string(parent);
  cbor.token_array(tokens);
  write_keys(cbor, keys);
  return state_->sha256.hash(cbor.bytes());
}

Result<std::vector<TokenBlock>> VllmHasher::hash_prompt(std::span<const Token> tokens,
                                                        std::size_t block_size,
                                                        const VllmPromptKeys& keys) {
  KVBM_CHECK_OK(check_prompt(tokens.size(), block_size, keys));
  const std::size_t count = tokens.size() / block_size;
  std::vector<TokenBlock> blocks;
  blocks.reserve(count);  // blocks refer to their parents while they are made
  std::vector<VllmBlockKeys::Multimodal> in_block;
  VllmHash hash = none_hash();
  std::size_t passed = 0;  // objects that end before the block
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t begin = i * block_size;
    const std::size_t end = begin + block_size;
    in_block.clear();
    for (std::size_t m = passed; m < keys.multimodal.size(); ++m) {
      const auto& object = keys.multimodal[m];
      if (object.offset >= end) break;
      if (begin >= object.offset && begin - object.offset >= object.length) {
        if (m == passed) ++passed;
        continue;
      }
      in_block.push_back({object.identifier, static_cast<std::int64_t>(object.offset) -
                                                 static_cast<std::int64_t>(begin)});
    }
    const VllmBlockKeys block_keys = {
        keys.lora_name, in_block, i == 0 ? std::string_view(keys.cache_salt) : std::string_view(),
        keys.prompt_embeds.empty() ? nullptr : &keys.prompt_embeds[i]};
    const auto block_tokens = tokens.subspan(begin, block_size);
    KVBM_TRY(hash, hash_block(hash, block_tokens, block_keys));
    KVBM_TRY(TokenBlock block,
             TokenBlock::create_external(block_tokens, vllm_sequence_hash(hash),
                                         blocks.empty() ? nullptr : &blocks.back(),
                                         state_->key.digest(hash)));
    blocks.push_back(std::move(block));
  }
  return blocks;
}

}  // namespace kvbm
