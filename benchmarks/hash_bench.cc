#include "benchmarks/hash_bench.h"

#include <openssl/evp.h>

#include <cstring>
#include <memory>
#include <random>

#include "base/xxh3.h"
#include "kvbm/tokens.h"
#include "kvbm/vllm_hash.h"
#include "logical/tokens/digest.h"

namespace kvbm::bench {
namespace {

// A prompt that is cut into blocks again and again, each named behind the one before it.
class Prompt {
 public:
  Prompt(std::uint64_t seed, std::size_t blocks, std::size_t block_size)
      : block_size_(block_size), tokens_(blocks * block_size) {
    std::mt19937_64 random(seed);
    for (Token& token : tokens_) token = static_cast<Token>(random() % 128'000);
  }

  std::span<const Token> tokens() const { return tokens_; }
  std::size_t block_size() const { return block_size_; }
  std::size_t blocks() const { return tokens_.size() / block_size_; }

  // Calls visit(first token of a block) so many times.
  template <class Visit>
  void for_blocks(std::uint64_t count, Visit visit) const {
    std::size_t at = 0;
    for (; count > 0; --count) {
      visit(&tokens_[at]);
      at += block_size_;
      if (at == tokens_.size()) at = 0;
    }
  }

 private:
  std::size_t block_size_;
  std::vector<Token> tokens_;
};

// Values that the compiler must not know, as it does not know them in the library.
struct Seeds {
  SaltHash salt = 7;
  std::uint64_t chain = DEFAULT_CHAIN_SEED;
  std::size_t block_bytes = 0;
};

Seeds seeds_of(const Prompt& prompt) {
  Seeds seeds{.block_bytes = prompt.block_size() * sizeof(Token)};
  keep(&seeds);
  return seeds;
}

// What a name costs at least: one hash over the tokens, one over {parent, block hash}. With
// kTokens > 0 the compiler knows the length of a block.
template <std::size_t kTokens>
Work bare_chain(const char* name, const Prompt& prompt) {
  return {name, [&prompt](std::uint64_t blocks) {
            const Seeds seeds = seeds_of(prompt);
            const std::size_t bytes = kTokens > 0 ? kTokens * sizeof(Token) : seeds.block_bytes;
            const auto* const begin = reinterpret_cast<const std::byte*>(prompt.tokens().data());
            const std::byte* const end = begin + prompt.tokens().size_bytes();
            std::uint64_t parent = 0;
            for (std::uint64_t done = 0; done < blocks; done += prompt.blocks()) {
              for (const std::byte* tokens = begin; tokens != end; tokens += bytes) {
                const std::uint64_t link[2] = {parent,
                                               XXH3_64bits_withSeed(tokens, bytes, seeds.salt)};
                parent = XXH3_64bits_withSeed(link, sizeof link, seeds.chain);
              }
            }
            keep(parent);
          }};
}

template <std::size_t kTokens>
std::vector<Work> bare_chains(const Prompt& prompt) {
  return {bare_chain<0>("XXH3, length at run time", prompt),
          bare_chain<kTokens>("XXH3, length constant", prompt)};
}

// The same with a third hash, under a secret, over the tokens behind 32 bytes.
Work bare_keyed_chain(const Prompt& prompt) {
  return {"XXH3, three times", [&prompt](std::uint64_t blocks) {
            const Seeds seeds = seeds_of(prompt);
            std::byte secret[192] = {};
            std::uint64_t parent = 0;
            std::uint64_t bytes[4 + 8] = {};
            prompt.for_blocks(blocks, [&](const Token* tokens) {
              const std::uint64_t block = XXH3_64bits_withSeed(tokens, 64, seeds.salt);
              const std::uint64_t link[2] = {parent, block};
              parent = XXH3_64bits_withSeed(link, sizeof link, seeds.chain);
              std::memcpy(bytes + 4, tokens, 64);
              bytes[0] = XXH3_64bits_withSecret(bytes, sizeof bytes, secret, sizeof secret);
            });
            keep(parent);
            keep(bytes);
          }};
}

// A Work that does whole prompts, counted in blocks. Operations are powers of two, and so are the
// blocks of a prompt, so that no part of one is left over.
template <class DoPrompt>
Work whole_prompts(const char* name, const Prompt& prompt, DoPrompt do_prompt) {
  return {name, [&prompt, do_prompt](std::uint64_t blocks) {
            for (std::uint64_t done = 0; done < blocks; done += prompt.blocks()) do_prompt(prompt);
          }};
}

Work names(const char* name, const Prompt& prompt) {
  return whole_prompts(name, prompt, [](const Prompt& all) {
    keep(sequence_hashes(all.tokens(), all.block_size(), {.salt = 7}).value().back());
  });
}

Work keyed_names(const Prompt& prompt, const HashSeeds& seeds) {
  return {"hash_16_keyed", [&prompt, &seeds](std::uint64_t blocks) {
            SequenceHash parent(0);
            std::uint64_t digest = 0;
            prompt.for_blocks(blocks, [&](const Token* first) {
              const std::span tokens(first, prompt.block_size());
              parent = chain_hash(parent, hash_block(tokens, seeds.salt), seeds.chain);
              digest = digest_block(seeds, digest, {std::as_bytes(tokens), tokens.size(), false});
            });
            keep(parent);
            keep(digest);
          }};
}

Work sequence(const Prompt& prompt) {
  return whole_prompts("token_sequence_16", prompt, [](const Prompt& all) {
    keep(TokenBlockSequence::create(all.tokens(), all.block_size(), {.salt = 7}).value());
  });
}

Work vllm_blocks(VllmHasher& hasher, const Prompt& prompt) {
  return {"sha256_cbor_16", [&](std::uint64_t blocks) {
            VllmHash parent = hasher.none_hash();
            prompt.for_blocks(blocks, [&](const Token* first) {
              parent = hasher.hash_block(parent, {first, prompt.block_size()}).value();
            });
            keep(parent);
          }};
}

// SHA-256 of a chain of messages of one length, each with the hash of the one before in it.
// hash(message, bytes, out) is the hash function.
template <class Hash>
Work bare_sha256(const char* name, std::size_t message_bytes, Hash hash) {
  return {name, [message_bytes, hash](std::uint64_t blocks) {
            std::vector<unsigned char> message(message_bytes);
            for (; blocks > 0; --blocks) hash(message.data(), message.size(), message.data());
            keep(message[0]);
          }};
}

// Bytes of a block in CBOR, on average: heads, the parent and a null, and tokens as they come.
std::size_t cbor_bytes(const Prompt& prompt) {
  std::size_t bytes = 0;
  for (const Token token : prompt.tokens()) {
    bytes += token < 24 ? 1 : token < 256 ? 2 : token < 65536 ? 3 : 5;
  }
  return 1 + 34 + 1 + bytes / prompt.blocks() + 1;
}

Row vllm_row(VllmHasher& hasher, const Prompt& prompt) {
  const std::unique_ptr<EVP_MD, decltype(&EVP_MD_free)> sha256(
      EVP_MD_fetch(nullptr, "SHA256", nullptr), EVP_MD_free);
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(),
                                                                        EVP_MD_CTX_free);
  const std::size_t bytes = cbor_bytes(prompt);
  return measure(
      vllm_blocks(hasher, prompt),
      {bare_sha256("SHA-256, context kept", bytes,
                   [&](const unsigned char* message, std::size_t size, unsigned char* out) {
                     EVP_DigestInit_ex2(context.get(), sha256.get(), nullptr);
                     EVP_DigestUpdate(context.get(), message, size);
                     EVP_DigestFinal_ex(context.get(), out, nullptr);
                   }),
       bare_sha256("SHA-256, context begun anew", bytes,
                   [&](const unsigned char* message, std::size_t size, unsigned char* out) {
                     EVP_DigestInit_ex2(context.get(), nullptr, nullptr);
                     EVP_DigestUpdate(context.get(), message, size);
                     EVP_DigestFinal_ex(context.get(), out, nullptr);
                   }),
       bare_sha256("SHA-256, one call", bytes,
                   [&](const unsigned char* message, std::size_t size, unsigned char* out) {
                     EVP_Digest(message, size, out, nullptr, sha256.get(), nullptr);
                   })});
}

}  // namespace

Result<Report> hash_bench(const Options& options) {
  const Prompt blocks16(options.seed, 1024, 16);
  const Prompt blocks512(options.seed, 32, 512);
  const std::vector<std::byte> secret(32, std::byte{1});
  KVBM_TRY(const DigestKey key, DigestKey::create(secret));
  const HashSeeds seeds{.salt = 7, .key = key};
  KVBM_TRY(VllmHasher hasher, VllmHasher::create());

  Report report{.rows = {}, .seed = options.seed};
  report.rows.push_back(
      measure(names("hash_16", blocks16), bare_chains<16>(blocks16), "ratio >= 0.77"));
  report.rows.push_back(measure(keyed_names(blocks16, seeds), {bare_keyed_chain(blocks16)}));
  report.rows.push_back(measure(names("hash_512", blocks512), bare_chains<512>(blocks512)));
  report.rows.push_back(vllm_row(hasher, blocks16));
  report.rows.push_back(measure(sequence(blocks16), bare_chains<16>(blocks16)));
  return report;
}

}  // namespace kvbm::bench
