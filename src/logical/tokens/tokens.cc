#include "kvbm/tokens.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "base/xxh3.h"
#include "logical/tokens/digest.h"

namespace kvbm {

namespace {

Result<void> check_block_size(std::size_t block_size) {
  if (block_size == 0 || block_size > MAX_PAGE_SIZE) {
    return Error{ErrorCode::InvalidConfig, 0, block_size, MAX_PAGE_SIZE,
                 "block_size must be 1 .. 1024 tokens"};
  }
  return {};
}

Error bad_run(std::size_t index, const char* what, std::size_t requested, std::size_t available) {
  return {ErrorCode::InvalidConfig, 0, requested, available,
          "multimodal run " + std::to_string(index) + " " + what};
}

Result<void> check_runs(std::span<const TokenBlockMmInfo> runs, std::size_t total_tokens) {
  std::size_t free_from = 0;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const TokenBlockMmInfo& run = runs[i];
    if (run.length == 0) return bad_run(i, "is empty", 0, 0);
    if (run.offset < free_from) {
      return bad_run(i, "begins before the end of the run before it", run.offset, free_from);
    }
    // Compared as lengths, because offset + length may overflow.
    const std::size_t room = total_tokens - std::min(run.offset, total_tokens);
    if (run.length > room) {
      return bad_run(i, "is longer than the tokens from its offset on", run.length, room);
    }
    free_from = run.offset + run.length;
  }
  return {};
}

// One slot of a block with multimodal runs.
void append_frame(std::vector<std::byte>& bytes, std::byte tag, std::uint32_t low,
                  std::uint64_t high) {
  const std::size_t at = bytes.size();
  bytes.resize(at + kFrameBytes);
  bytes[at] = tag;
  std::memcpy(&bytes[at + sizeof tag], &low, sizeof low);
  std::memcpy(&bytes[at + sizeof tag + sizeof low], &high, sizeof high);
}

// What is hashed in place of the tokens; nothing for a block without a run in it.
std::vector<std::byte> frames_of(std::span<const Token> tokens, std::size_t offset,
                                 std::span<const TokenBlockMmInfo> runs) {
  // Valid runs are sorted by their ends, too.
  auto run = std::partition_point(runs.begin(), runs.end(), [&](const TokenBlockMmInfo& r) {
    return r.offset + r.length <= offset;
  });
  if (run == runs.end() || run->offset >= offset + tokens.size()) return {};

  std::vector<std::byte> frames;
  frames.reserve(tokens.size() * kFrameBytes);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const std::size_t slot = offset + i;
    if (run != runs.end() && slot == run->offset + run->length) ++run;
    if (run != runs.end() && slot >= run->offset) {
      append_frame(frames, std::byte{1}, static_cast<std::uint32_t>(slot - run->offset),
                   run->mm_hash);
    } else {
      append_frame(frames, std::byte{0}, tokens[i], 0);
    }
  }
  return frames;
}

SequenceHash link_hash(SequenceHash parent, BlockHash block, std::uint64_t chain_seed) noexcept {
  const std::uint64_t link[2] = {parent.value(), block};
  return SequenceHash(xxh3(link, sizeof link, chain_seed));
}

// Chains the block hashes that hash_of(index) gives.
template <class HashOf>
void name_blocks(std::span<SequenceHash> names, std::uint64_t chain_seed, HashOf hash_of) {
  if (names.empty()) return;
  names[0] = SequenceHash(hash_of(0));
  for (std::size_t i = 1; i < names.size(); ++i) {
    names[i] = link_hash(names[i - 1], hash_of(i), chain_seed);
  }
}

}  // namespace

SaltHash hash_salt(std::span<const std::byte> salt) noexcept {
  return xxh3(salt.data(), salt.size());
}

BlockHash hash_block(std::span<const Token> tokens, SaltHash salt) noexcept {
  return xxh3(tokens.data(), tokens.size_bytes(), salt);
}

BlockHash hash_block(std::span<const Token> tokens, std::size_t offset,
                     std::span<const TokenBlockMmInfo> runs, SaltHash salt) {
  const std::vector<std::byte> frames = frames_of(tokens, offset, runs);
  return frames.empty() ? hash_block(tokens, salt) : xxh3(frames.data(), frames.size(), salt);
}

SequenceHash chain_hash(std::optional<SequenceHash> parent, BlockHash block,
                        std::uint64_t chain_seed) noexcept {
  return parent ? link_hash(*parent, block, chain_seed) : SequenceHash(block);
}

Result<std::vector<SequenceHash>> sequence_hashes(std::span<const Token> tokens,
                                                  std::size_t block_size, const HashSeeds& seeds,
                                                  std::span<const TokenBlockMmInfo> runs) {
  KVBM_CHECK_OK(check_block_size(block_size));
  KVBM_CHECK_OK(check_runs(runs, tokens.size()));
  std::vector<SequenceHash> hashes(tokens.size() / block_size);
  if (!runs.empty()) {
    name_blocks(hashes, seeds.chain, [&](std::size_t block) {
      const std::size_t offset = block * block_size;
      return hash_block(tokens.subspan(offset, block_size), offset, runs, seeds.salt);
    });
  } else if (block_size == DEFAULT_PAGE_SIZE) {
    // A length that the compiler knows leaves half of XXH3's instructions for small inputs.
    name_blocks(hashes, seeds.chain, [&](std::size_t block) {
      return xxh3(&tokens[block * DEFAULT_PAGE_SIZE], DEFAULT_PAGE_SIZE * sizeof(Token),
                  seeds.salt);
    });
  } else {
    name_blocks(hashes, seeds.chain, [&](std::size_t block) {
      return xxh3(&tokens[block * block_size], block_size * sizeof(Token), seeds.salt);
    });
  }
  return hashes;
}

TokenBlock::TokenBlock(std::vector<Token> tokens, std::span<const std::byte> frames,
                       const detail::BlockPlace& place, const HashSeeds& seeds) noexcept
    : tokens_(std::move(tokens)), parent_(place.parent), position_(place.position), digest_(0) {
  const auto content = frames.empty() ? std::as_bytes(std::span(tokens_)) : frames;
  block_hash_ = xxh3(content.data(), content.size(), seeds.salt);
  sequence_hash_ =
      position_ == 0 ? SequenceHash(block_hash_) : link_hash(parent_, block_hash_, seeds.chain);
  // Behind a parent without a digest this one would stand for less than the whole prefix.
  if (!seeds.key.is_empty() && (position_ == 0 || place.parent_digest != 0)) {
    digest_ = digest_block(seeds, place.parent_digest, {content, tokens_.size(), !frames.empty()});
  }
}

Result<TokenBlock> TokenBlock::create(std::span<const Token> tokens, const TokenBlock* parent,
                                      const HashSeeds& seeds) {
  KVBM_CHECK_OK(check_block_size(tokens.size()));
  detail::BlockPlace place;
  if (parent) {
    if (parent->tokens_.size() != tokens.size()) {
      return Error{ErrorCode::InvalidConfig, 0, tokens.size(), parent->tokens_.size(),
                   "a block must have as many tokens as its parent"};
    }
    place = {parent->position_ + 1, parent->sequence_hash_, parent->digest_};
  }
  return TokenBlock({tokens.begin(), tokens.end()}, {}, place, seeds);
}

Result<TokenBlock> TokenBlock::create_external(std::span<const Token> tokens,
                                               SequenceHash sequence_hash, const TokenBlock* parent,
                                               std::uint64_t digest) {
  KVBM_TRY(TokenBlock block, create(tokens, parent));
  block.sequence_hash_ = sequence_hash;
  block.digest_ = digest;
  return block;
}

PartialTokenBlock::PartialTokenBlock(std::size_t block_size, const HashSeeds& seeds)
    : block_size_(block_size), seeds_(seeds) {}

Result<PartialTokenBlock> PartialTokenBlock::create(std::size_t block_size,
                                                    const HashSeeds& seeds) {
  KVBM_CHECK_OK(check_block_size(block_size));
  return PartialTokenBlock(block_size, seeds);
}

Result<void> PartialTokenBlock::push_token(Token token) {
  if (remaining() == 0) return Error{ErrorCode::Full, 0, 1, 0, {}};
  tokens_.push_back(token);
  return {};
}

std::span<const Token> PartialTokenBlock::push_tokens(std::span<const Token> tokens) {
  const auto taken = tokens.first(std::min(remaining(), tokens.size()));
  tokens_.insert(tokens_.end(), taken.begin(), taken.end());
  return tokens.subspan(taken.size());
}

Result<Token> PartialTokenBlock::pop_token() {
  if (is_empty()) return Error{ErrorCode::Empty, 0, 0, 0, {}};
  const Token last = tokens_.back();
  KVBM_CHECK_OK(pop_tokens(1));
  return last;
}

Result<void> PartialTokenBlock::pop_tokens(std::size_t count) {
  if (count > len()) return Error{ErrorCode::InsufficientTokens, 0, count, len(), {}};
  tokens_.resize(len() - count);
  clip_runs();
  return {};
}

// Runs never reach past the tokens, so tokens that are pushed later are plain ones.
void PartialTokenBlock::clip_runs() {
  const std::size_t end = place_.position * block_size_ + len();
  while (!runs_.empty() && runs_.back().offset >= end) runs_.pop_back();
  if (runs_.empty()) return;
  TokenBlockMmInfo& last = runs_.back();
  last.length = std::min(last.length, end - last.offset);
}

Result<TokenBlock> PartialTokenBlock::commit() {
  if (remaining() != 0) return Error{ErrorCode::Incomplete, 0, block_size_, len(), {}};
  return take();
}

TokenBlock PartialTokenBlock::take() {
  std::vector<std::byte> frames;
  if (!runs_.empty()) frames = frames_of(tokens_, place_.position * block_size_, runs_);
  TokenBlock block(std::move(tokens_), frames, place_, seeds_);
  tokens_.clear();
  place_ = {place_.position + 1, block.sequence_hash(), block.digest()};
  return block;
}

// Undoes the commit that made `block`. The runs are still there: they are the whole sequence's.
void PartialTokenBlock::reopen(const TokenBlock& block, const TokenBlock* parent) {
  tokens_.assign(block.tokens().begin(), block.tokens().end());
  place_ = {block.position_, block.parent_, parent ? parent->digest_ : 0};
}

TokenBlockSequence::TokenBlockSequence(TokenBlockParts parts)
    : blocks_(std::move(parts.blocks)), current_(std::move(parts.current)) {}

Result<TokenBlockSequence> TokenBlockSequence::create(std::span<const Token> tokens,
                                                      std::size_t block_size,
                                                      const HashSeeds& seeds,
                                                      std::span<const TokenBlockMmInfo> runs) {
  KVBM_TRY(TokenBlockParts parts, split_tokens(tokens, block_size, seeds, runs));
  return TokenBlockSequence(std::move(parts));
}

Result<TokenBlockParts> TokenBlockSequence::split_tokens(std::span<const Token> tokens,
                                                         std::size_t block_size,
                                                         const HashSeeds& seeds,
                                                         std::span<const TokenBlockMmInfo> runs) {
  KVBM_TRY(PartialTokenBlock current, PartialTokenBlock::create(block_size, seeds));
  KVBM_CHECK_OK(check_runs(runs, tokens.size()));
  current.runs_.assign(runs.begin(), runs.end());

  TokenBlockParts parts{{}, std::move(current)};
  parts.blocks.reserve(tokens.size() / block_size);
  while (!tokens.empty()) {
    tokens = parts.current.push_tokens(tokens);
    if (parts.current.remaining() == 0) parts.blocks.push_back(parts.current.take());
  }
  return parts;
}

std::optional<IndexRange> TokenBlockSequence::extend(std::span<const Token> tokens) {
  const std::size_t before = blocks_.size();
  while (!tokens.empty()) {
    if (current_.remaining() == 0) blocks_.push_back(current_.take());
    tokens = current_.push_tokens(tokens);
  }
  if (blocks_.size() == before) return std::nullopt;
  return IndexRange{before, blocks_.size()};
}

std::optional<std::size_t> TokenBlockSequence::append(Token token) {
  const auto committed = extend({&token, 1});
  if (!committed) return std::nullopt;
  return committed->begin;
}

void TokenBlockSequence::truncate(std::size_t len) {
  if (len >= total_tokens()) return;
  const std::size_t kept = len / block_size();
  if (kept < blocks_.size()) {
    current_.reopen(blocks_[kept], kept > 0 ? &blocks_[kept - 1] : nullptr);
    blocks_.erase(blocks_.begin() + static_cast<std::ptrdiff_t>(kept), blocks_.end());
  }
  // The current block holds everything behind the kept blocks, so it has this many.
  current_.pop_tokens(total_tokens() - len).value();
}

Result<void> TokenBlockSequence::unwind(std::size_t count) {
  const std::size_t total = total_tokens();
  if (count > total) return Error{ErrorCode::InsufficientTokens, 0, count, total, {}};
  truncate(total - count);
  return {};
}

Result<Token> TokenBlockSequence::pop() {
  if (total_tokens() == 0) return Error{ErrorCode::Empty, 0, 0, 0, {}};
  const Token last = (current_.is_empty() ? blocks_.back().tokens() : current_.tokens()).back();
  truncate(total_tokens() - 1);
  return last;
}

Result<std::vector<Token>> TokenBlockSequence::tokens_at(IndexRange range) const {
  if (range.end < range.begin) {
    return Error{ErrorCode::InvalidConfig, 0, range.begin, range.end,
                 "the token range ends before it begins"};
  }
  if (range.end > total_tokens()) {
    return Error{ErrorCode::InsufficientTokens, 0, range.end, total_tokens(), {}};
  }
  std::vector<Token> tokens;
  tokens.reserve(range.end - range.begin);
  for (std::size_t at = range.begin; at < range.end; ++at) {
    const std::size_t block = at / block_size();
    const auto from = block < blocks_.size() ? blocks_[block].tokens() : current_.tokens();
    tokens.push_back(from[at % block_size()]);
  }
  return tokens;
}

std::vector<SequenceHash> TokenBlockSequence::sequence_hashes() const {
  std::vector<SequenceHash> hashes;
  hashes.reserve(blocks_.size());
  for (const TokenBlock& block : blocks_) hashes.push_back(block.sequence_hash());
  return hashes;
}

}  // namespace kvbm
