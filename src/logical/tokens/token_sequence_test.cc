#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>

#include "base/xxh3.h"
#include "kvbm/tokens.h"

namespace kvbm {
namespace {

std::vector<Token> count_from(Token first, std::size_t count) {
  std::vector<Token> tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

std::vector<Token> copy(std::span<const Token> tokens) { return {tokens.begin(), tokens.end()}; }

std::vector<Token> current_tokens(const TokenBlockSequence& sequence) {
  return copy(sequence.current_block().tokens());
}

TokenBlockSequence make(std::size_t tokens, std::size_t block_size) {
  return TokenBlockSequence::create(count_from(1, tokens), block_size).value();
}

template <class T>
void expect_error(const Result<T>& result, ErrorCode code, std::uint64_t requested,
                  std::uint64_t available) {
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, code);
  EXPECT_EQ(result.error().native, 0);
  EXPECT_EQ(result.error().requested, requested);
  EXPECT_EQ(result.error().available, available);
}

TEST(TokenBlockSequenceTest, APromptsFullBlocksAreCommittedAtOnce) {
  for (const std::size_t tokens : {8u, 9u}) {
    const auto sequence = make(tokens, 4);
    ASSERT_EQ(sequence.blocks().size(), 2u);
    EXPECT_EQ(copy(sequence.blocks()[1].tokens()), count_from(5, 4));
    EXPECT_EQ(current_tokens(sequence), count_from(9, tokens - 8));
    EXPECT_EQ(sequence.current_block().position(), 2u);
    EXPECT_EQ(sequence.total_tokens(), tokens);
  }
}

TEST(TokenBlockSequenceTest, BlocksKeepTheirTokensAndParents) {
  const auto sequence = make(5, 2);
  const auto blocks = sequence.blocks();
  ASSERT_EQ(blocks.size(), 2u);
  EXPECT_FALSE(blocks[0].parent_sequence_hash().has_value());
  EXPECT_EQ(blocks[1].parent_sequence_hash(), blocks[0].sequence_hash());
  EXPECT_EQ(sequence.current_block().parent_sequence_hash(), blocks[1].sequence_hash());
  EXPECT_EQ(sequence.sequence_hashes(),
            (std::vector{blocks[0].sequence_hash(), blocks[1].sequence_hash()}));
}

TEST(TokenBlockSequenceTest, ABlockThatFillsUpIsCommittedByTheNextToken) {
  auto sequence = make(0, 2);
  EXPECT_EQ(sequence.append(1), std::nullopt);
  EXPECT_EQ(sequence.append(2), std::nullopt);
  EXPECT_EQ(sequence.blocks().size(), 0u);
  EXPECT_EQ(sequence.current_block().remaining(), 0u);
  EXPECT_EQ(sequence.append(3), std::optional<std::size_t>(0));
  EXPECT_EQ(current_tokens(sequence), count_from(3, 1));

  EXPECT_EQ(sequence.extend(count_from(4, 5)), (IndexRange{1, 3}));
  EXPECT_EQ(current_tokens(sequence), count_from(7, 2));
  EXPECT_EQ(sequence.extend({}), std::nullopt);
  EXPECT_EQ(sequence.blocks().size(), 3u);
  EXPECT_EQ(sequence.total_tokens(), 8u);
}

TEST(TokenBlockSequenceTest, ExtendInAnyPiecesGivesTheSameBlocks) {
  const auto tokens = count_from(3, 100);
  const auto whole = TokenBlockSequence::create(tokens, 16).value();

  for (std::size_t piece : {1u, 3u, 16u, 17u, 99u}) {
    auto grown = make(0, 16);
    for (std::size_t at = 0; at < tokens.size(); at += piece) {
      grown.extend(std::span(tokens).subspan(at, std::min(piece, tokens.size() - at)));
    }
    EXPECT_EQ(grown.sequence_hashes(), whole.sequence_hashes()) << "pieces of " << piece;
    EXPECT_EQ(grown.current_block().len(), 4u);
    EXPECT_EQ(grown.total_tokens(), 100u);
  }
}

TEST(TokenBlockSequenceTest, TruncateReopensTheBlockItCutsInto) {
  auto sequence = make(10, 4);
  sequence.truncate(11);
  EXPECT_EQ(sequence.total_tokens(), 10u);
  sequence.truncate(8);
  EXPECT_EQ(sequence.blocks().size(), 2u);
  EXPECT_TRUE(sequence.current_block().is_empty());

  sequence.truncate(5);
  EXPECT_EQ(sequence.blocks().size(), 1u);
  EXPECT_EQ(current_tokens(sequence), count_from(5, 1));
  EXPECT_EQ(sequence.current_block().parent_sequence_hash(), sequence.blocks()[0].sequence_hash());
  EXPECT_EQ(sequence.current_block().position(), 1u);

  sequence.extend(count_from(6, 4));
  EXPECT_EQ(sequence.sequence_hashes(), make(9, 4).sequence_hashes());
}

TEST(TokenBlockSequenceTest, UnwindAndPopRefuseMoreThanThereIs) {
  auto sequence = make(6, 4);
  expect_error(sequence.unwind(7), ErrorCode::InsufficientTokens, 7, 6);
  EXPECT_EQ(sequence.total_tokens(), 6u);
  ASSERT_TRUE(sequence.unwind(2));
  EXPECT_EQ(sequence.pop().value(), 4u) << "from the committed block";
  EXPECT_EQ(sequence.pop().value(), 3u);
  ASSERT_TRUE(sequence.unwind(2));
  expect_error(sequence.pop(), ErrorCode::Empty, 0, 0);
}

TEST(TokenBlockSequenceTest, ResetKeepsSizeAndSeeds) {
  const HashSeeds seeds{.salt = 5, .chain = 6};
  auto sequence = TokenBlockSequence::create(count_from(50, 9), 4, seeds).value();
  sequence.reset();
  EXPECT_EQ(sequence.total_tokens(), 0u);
  EXPECT_EQ(sequence.blocks().size(), 0u);
  EXPECT_EQ(sequence.block_size(), 4u);
  EXPECT_EQ(sequence.salt_hash(), 5u);
  sequence.extend(count_from(1, 9));
  EXPECT_EQ(sequence.sequence_hashes(),
            TokenBlockSequence::create(count_from(1, 9), 4, seeds).value().sequence_hashes());
}

TEST(TokenBlockSequenceTest, TokensAtCopiesAcrossBlocks) {
  const auto sequence = make(10, 4);
  EXPECT_EQ(sequence.tokens_at({2, 10}).value(), count_from(3, 8));
  EXPECT_EQ(sequence.tokens_at({9, 10}).value(), count_from(10, 1));
  EXPECT_EQ(sequence.tokens_at({10, 10}).value(), std::vector<Token>{});
  expect_error(sequence.tokens_at({4, 11}), ErrorCode::InsufficientTokens, 11, 10);
  expect_error(sequence.tokens_at({5, 4}), ErrorCode::InvalidConfig, 5, 4);
}

TEST(TokenBlockSequenceTest, PartsCarryOn) {
  auto sequence = make(5, 2);
  sequence.append(6);
  auto [blocks, current] = std::move(sequence).into_parts();
  blocks.push_back(current.commit().value());
  const auto whole = make(6, 2);
  ASSERT_EQ(blocks.size(), whole.blocks().size());
  EXPECT_EQ(blocks.back().sequence_hash(), whole.blocks().back().sequence_hash());
  EXPECT_EQ(blocks.back().position(), 2u);
}

TEST(TokenBlockSequenceTest, PartsKeepTheirMultimodalRuns) {
  const std::vector<TokenBlockMmInfo> runs = {{77, 2, 1}};
  auto parts = TokenBlockSequence::split_tokens(count_from(1, 3), 2, {}, runs).value();
  ASSERT_TRUE(parts.current.push_token(4));
  const auto whole = TokenBlockSequence::create(count_from(1, 4), 2, {}, runs).value();
  EXPECT_EQ(parts.current.commit().value().sequence_hash(), whole.blocks()[1].sequence_hash());
}

TEST(TokenBlockSequenceTest, TokensBehindARemovedRunArePlain) {
  const std::vector<TokenBlockMmInfo> runs = {{77, 3, 3}};
  const std::vector<TokenBlockMmInfo> shorter = {{77, 3, 1}};
  auto sequence = TokenBlockSequence::create(count_from(1, 8), 4, {}, runs).value();
  sequence.truncate(4);
  sequence.extend(count_from(5, 5));
  EXPECT_EQ(sequence.sequence_hashes(),
            TokenBlockSequence::create(count_from(1, 8), 4, {}, shorter).value().sequence_hashes());
  sequence.truncate(3);
  sequence.extend(count_from(4, 6));
  EXPECT_EQ(sequence.sequence_hashes(), make(8, 4).sequence_hashes());
}

TEST(SequenceHashesTest, AreThoseOfTheSequence) {
  const HashSeeds seeds{.salt = 5, .chain = 6};
  const std::vector<TokenBlockMmInfo> runs = {{77, 3, 20}};
  for (const std::size_t size : {1u, 4u, 16u, 17u}) {
    for (const std::size_t count : {0u, 15u, 16u, 40u}) {
      SCOPED_TRACE(testing::Message() << count << " tokens in blocks of " << size);
      const auto tokens = count_from(3, count);
      EXPECT_EQ(sequence_hashes(tokens, size, seeds).value(),
                TokenBlockSequence::create(tokens, size, seeds).value().sequence_hashes());
      if (count < 23) continue;
      EXPECT_EQ(sequence_hashes(tokens, size, seeds, runs).value(),
                TokenBlockSequence::create(tokens, size, seeds, runs).value().sequence_hashes());
    }
  }
  expect_error(sequence_hashes({}, 0), ErrorCode::InvalidConfig, 0, MAX_PAGE_SIZE);
  expect_error(sequence_hashes(count_from(0, 22), 4, seeds, runs), ErrorCode::InvalidConfig, 20,
               19);
}

TEST(TokenBlockSequenceTest, RefusesBlockSizesOutsideTheRange) {
  for (std::size_t size : {std::size_t{0}, MAX_PAGE_SIZE + 1}) {
    expect_error(TokenBlockSequence::create({}, size), ErrorCode::InvalidConfig, size,
                 MAX_PAGE_SIZE);
  }
}

// A sequence as a list of slots that knows nothing of earlier names: it hashes all blocks anew.
class Model {
 public:
  struct Slot {
    Token token;
    std::optional<TokenBlockMmInfo> run;
  };

  Model(std::size_t block_size, HashSeeds seeds) : block_size_(block_size), seeds_(seeds) {}

  void set_prompt(std::vector<Slot> slots) {
    slots_ = std::move(slots);
    committed_ = slots_.size() / block_size_;
  }

  void extend(std::span<const Token> tokens) {
    for (const Token token : tokens) {
      committed_ = std::max(committed_, slots_.size() / block_size_);
      slots_.push_back({token, std::nullopt});
    }
  }

  void truncate(std::size_t len) {
    if (len < slots_.size()) slots_.resize(len);
    committed_ = std::min(committed_, slots_.size() / block_size_);
  }

  std::size_t size() const { return slots_.size(); }
  std::size_t committed() const { return committed_; }
  Token back() const { return slots_.back().token; }

  std::vector<Token> tokens(std::size_t begin, std::size_t end) const {
    std::vector<Token> tokens;
    for (std::size_t i = begin; i < end; ++i) tokens.push_back(slots_[i].token);
    return tokens;
  }

  BlockHash block_hash(std::size_t block) const {
    const auto first = slots_.begin() + static_cast<std::ptrdiff_t>(block * block_size_);
    const auto last = first + static_cast<std::ptrdiff_t>(block_size_);
    const bool framed = std::any_of(first, last, [](const Slot& slot) { return slot.run; });
    std::vector<unsigned char> bytes;
    const auto put = [&](std::uint64_t value, int count) {
      for (int i = 0; i < count; ++i) bytes.push_back(static_cast<unsigned char>(value >> (8 * i)));
    };
    for (auto slot = first; slot != last; ++slot) {
      if (framed) put(slot->run ? 1 : 0, 1);
      const auto at = static_cast<std::size_t>(slot - slots_.begin());
      put(slot->run ? at - slot->run->offset : slot->token, 4);
      if (framed) put(slot->run ? slot->run->mm_hash : 0, 8);
    }
    return xxh3(bytes.data(), bytes.size(), seeds_.salt);
  }

  std::vector<SequenceHash> names() const {
    std::vector<SequenceHash> names;
    for (std::size_t block = 0; block < committed_; ++block) {
      const BlockHash hash = block_hash(block);
      if (block == 0) {
        names.push_back(SequenceHash(hash));
      } else {
        const std::uint64_t link[2] = {names.back().value(), hash};
        names.push_back(SequenceHash(xxh3(link, sizeof link, seeds_.chain)));
      }
    }
    return names;
  }

 private:
  std::size_t block_size_;
  HashSeeds seeds_;
  std::vector<Slot> slots_;
  std::size_t committed_ = 0;  // blocks
};

// One random history of a sequence beside its model.
class History {
 public:
  explicit History(std::uint64_t seed)
      : random_(seed),
        block_size_(1 + below(7)),
        seeds_{.salt = random_(), .chain = random_()},
        model_(block_size_, seeds_),
        sequence_(create()) {}

  void run(int steps) {
    check();
    for (int i = 0; i < steps && !testing::Test::HasFailure(); ++i) {
      step();
      check();
    }
  }

 private:
  std::size_t below(std::size_t limit) { return random_() % limit; }

  std::vector<Token> some_tokens() {
    std::vector<Token> tokens(below(4 * block_size_));
    for (Token& token : tokens) token = static_cast<Token>(random_());
    return tokens;
  }

  TokenBlockSequence create() {
    const auto tokens = some_tokens();
    std::vector<TokenBlockMmInfo> runs;
    std::vector<Model::Slot> slots;
    while (slots.size() < tokens.size()) {
      const std::size_t room = tokens.size() - slots.size();
      const std::size_t length = 1 + below(std::min(room, 2 * block_size_));
      std::optional<TokenBlockMmInfo> run;
      if (below(2) == 0) {
        run = TokenBlockMmInfo{random_(), slots.size(), length};
        runs.push_back(*run);
      }
      for (std::size_t i = 0; i < length; ++i) slots.push_back({tokens[slots.size()], run});
    }
    model_.set_prompt(std::move(slots));
    return TokenBlockSequence::create(tokens, block_size_, seeds_, runs).value();
  }

  void step() {
    const std::size_t before = model_.committed();
    const std::size_t count = below(model_.size() + 3);
    switch (below(16)) {
      case 0:
        sequence_.truncate(count);
        model_.truncate(count);
        break;
      case 1:
        ASSERT_EQ(sequence_.unwind(count).has_value(), count <= model_.size());
        if (count <= model_.size()) model_.truncate(model_.size() - count);
        break;
      case 2:
      case 3:
      case 4:
        if (model_.size() == 0) {
          ASSERT_EQ(sequence_.pop().error().code, ErrorCode::Empty);
        } else {
          ASSERT_EQ(sequence_.pop().value(), model_.back());
          model_.truncate(model_.size() - 1);
        }
        break;
      case 5:
        if (below(4) > 0) break;
        sequence_.reset();
        model_.truncate(0);
        break;
      case 6:
      case 7:
      case 8: {
        const auto tokens = some_tokens();
        const auto committed = sequence_.extend(tokens);
        model_.extend(tokens);
        ASSERT_EQ(committed.has_value(), model_.committed() > before);
        ASSERT_EQ(committed.value_or(IndexRange{before, before}),
                  (IndexRange{before, model_.committed()}));
        break;
      }
      default: {
        const auto token = static_cast<Token>(random_());
        const auto committed = sequence_.append(token);
        model_.extend({&token, 1});
        ASSERT_EQ(committed, model_.committed() > before ? std::optional(before) : std::nullopt);
      }
    }
  }

  void check() {
    const auto names = model_.names();
    ASSERT_EQ(sequence_.total_tokens(), model_.size());
    ASSERT_EQ(sequence_.sequence_hashes(), names);
    for (std::size_t i = 0; i < names.size(); ++i) {
      const TokenBlock& block = sequence_.blocks()[i];
      ASSERT_EQ(block.block_hash(), model_.block_hash(i));
      ASSERT_EQ(block.position(), i);
      ASSERT_EQ(block.parent_sequence_hash(), i ? std::optional(names[i - 1]) : std::nullopt);
      ASSERT_EQ(copy(block.tokens()), model_.tokens(i * block_size_, (i + 1) * block_size_));
    }
    ASSERT_EQ(current_tokens(sequence_), model_.tokens(names.size() * block_size_, model_.size()));
    ASSERT_EQ(sequence_.current_block().position(), names.size());
    ASSERT_EQ(sequence_.current_block().parent_sequence_hash(),
              names.empty() ? std::nullopt : std::optional(names.back()));
    const std::size_t begin = below(model_.size() + 1);
    const std::size_t end = begin + below(model_.size() - begin + 1);
    ASSERT_EQ(sequence_.tokens_at({begin, end}).value(), model_.tokens(begin, end));
  }

  std::mt19937_64 random_;
  std::size_t block_size_;
  HashSeeds seeds_;
  Model model_;
  TokenBlockSequence sequence_;
};

std::uint64_t seed_of_this_run() {
  if (const char* given = std::getenv("KVBM_SEED")) return std::strtoull(given, nullptr, 10);
  return std::random_device{}();
}

TEST(TokenBlockSequenceTest, AgreesWithTheModelOnRandomHistories) {
  const std::uint64_t seed = seed_of_this_run();
  std::fprintf(stderr, "KVBM_SEED=%llu\n", static_cast<unsigned long long>(seed));
  std::mt19937_64 seeds(seed);
  for (int history = 0; history < 100 && !HasFailure(); ++history) {
    SCOPED_TRACE(testing::Message() << "history " << history);
    History(seeds()).run(100);
  }
}

}  // namespace
}  // namespace kvbm
