// vLLM's names of blocks: its prefix-caching hash `sha256_cbor`, so that a cache under vLLM and one
// beside it call the same block by the same name.
//
// A full block's hash is the SHA-256 of {parent's hash, tokens, extra keys} in canonical CBOR; the
// parent of a first block is the none-hash, that of the seed string. In vLLM's events, and here,
// the sequence hash is the low 64 bits of it. Source: vLLM's kv_cache_utils.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kvbm/result.h"
#include "kvbm/tokens.h"
#include "kvbm/types.h"

namespace kvbm {

using VllmHash = std::array<std::byte, 32>;

// vLLM's seed where its environment has no PYTHONHASHSEED.
inline constexpr std::string_view DEFAULT_VLLM_SEED = "vllm-none-hash";

// The last eight bytes, most significant first.
SequenceHash vllm_sequence_hash(const VllmHash& hash) noexcept;

// What tells a block from another one with the same prefix. Refers to strings of the caller, which
// are UTF-8. An empty string is one that is not there.
struct VllmBlockKeys {
  // An image, recording or video with placeholders in the block.
  struct Multimodal {
    std::string_view identifier;
    std::int64_t offset = 0;  // tokens from the block's first to its first; < 0 if it began before
  };

  std::string_view lora_name = {};
  std::span<const Multimodal> multimodal = {};  // in the order of the prompt
  std::string_view cache_salt = {};             // of a sequence's first block only
  const VllmHash* prompt_embeds = nullptr;      // SHA-256 of the block's embeddings, if it has some
};

// The same for a whole prompt.
struct VllmPromptKeys {
  struct Multimodal {
    std::string identifier;
    std::size_t offset = 0;  // tokens of the prompt before it
    std::size_t length = 0;  // tokens
  };

  std::string lora_name = {};
  std::vector<Multimodal> multimodal = {};  // in the order of their offsets
  std::string cache_salt = {};
  std::vector<VllmHash> prompt_embeds = {};  // one for each full block, or none at all
};

// Computes the hashes. Threads: none; one hasher per thread. Allocates nothing per block once its
// buffer is large enough.
class VllmHasher {
 public:
  // The key makes the digests of the blocks. Errors: OperationFailed where OpenSSL has no SHA-256.
  static Result<VllmHasher> create(std::string_view seed = DEFAULT_VLLM_SEED, DigestKey key = {});
  ~VllmHasher();
  VllmHasher(VllmHasher&&) noexcept;
  VllmHasher& operator=(VllmHasher&&) noexcept;

  const VllmHash& none_hash() const noexcept;

  // The hash of the block behind `parent`, or of the first one, whose parent is none_hash().
  // Errors: InvalidConfig unless there are 1 .. MAX_PAGE_SIZE tokens; OperationFailed where OpenSSL
  // fails. Cost: some 250 ns for 16 tokens.
  Result<VllmHash> hash_block(const VllmHash& parent, std::span<const Token> tokens,
                              const VllmBlockKeys& keys = {});

  // The full blocks of a prompt, ready for a pool. Their digests are the key's over the whole hash.
  // Errors: those of hash_block; InvalidConfig unless block_size is 1 .. MAX_PAGE_SIZE, the
  // multimodal objects are in order, and prompt_embeds has none or one for each full block.
  Result<std::vector<TokenBlock>> hash_prompt(std::span<const Token> tokens, std::size_t block_size,
                                              const VllmPromptKeys& keys = {});

 private:
  struct State;
  explicit VllmHasher(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace kvbm
