#include <gtest/gtest.h>

#include <string>

#include "logical/pool/test_blocks.h"

namespace kvbm {
namespace {

using namespace test_blocks;

// The store is told the time, so any clock does.
TimePoint at(int seconds) { return TimePoint() + std::chrono::seconds(seconds); }

// The name of block `position` of conversation `conversation`, as in "2:1".
std::string spell(SequenceHash hash) {
  return std::to_string(hash.value() >> 32) + ":" + std::to_string((hash.value() & 0xffffffff) - 1);
}

class RetentionTest : public testing::Test {
 protected:
  void make(std::size_t blocks, EvictionPolicy policy = EvictionPolicy::Lru) {
    store_ = BlockStore::create({.capacity = blocks, .policy = policy}).value();
    store_->advance(at(0));
  }
  void TearDown() override {
    if (store_) store_->check_invariants();
  }

  Result<void> retain(BlockId id, const Retention& retention) {
    return store_->retain({&id, 1}, retention);
  }
  // Registers a block of this priority that nobody holds; returns its id.
  BlockId put_with(std::uint64_t conversation, std::uint32_t position, const Retention& retention) {
    const ImmutableHold held = put(*store_, conversation, position);
    retain(held.id(), retention).value();
    return held.id();
  }
  BlockId put_with(std::uint64_t conversation, std::uint32_t position, std::uint32_t priority) {
    return put_with(conversation, position, Retention{.priority = priority});
  }
  // The names that go, in order, when `count` blocks are allocated one by one: "1:0 2:0".
  std::string evict(std::size_t count) {
    std::string text;
    std::vector<MutableHold> taken;
    for (std::size_t i = 0; i < count; ++i) {
      std::vector<SequenceHash> evicted;
      taken.push_back(std::move(detail::allocate(*store_, 1, &evicted).value().front()));
      for (const SequenceHash hash : evicted) text += (text.empty() ? "" : " ") + spell(hash);
      store_->check_invariants();
    }
    return text;
  }
  std::size_t available() const { return store_->available_blocks(); }
  std::uint32_t priority(BlockId id) const { return store_->basic_metadata(id).priority; }

  BlockStore::Owner store_;
};

// --- levels ----------------------------------------------------------------------------------

TEST_F(RetentionTest, TheLowestPriorityGoesFirstUnderEveryPolicy) {
  for (const auto policy : {EvictionPolicy::Lru, EvictionPolicy::AgeIndex, EvictionPolicy::Fifo}) {
    make(5, policy);
    put_with(1, 0, 100);
    put_with(2, 0, 36);
    put_with(3, 0, DEFAULT_PRIORITY);
    put_with(4, 0, 0);
    put_with(5, 0, 34);
    EXPECT_EQ(evict(5), "4:0 5:0 3:0 2:0 1:0") << to_string(policy);
  }
}

TEST_F(RetentionTest, AmongEqualsTheLeastRecentlyUsedGoesFirst) {
  make(4);
  for (std::uint64_t c = 1; c <= 4; ++c) put_with(c, 0, 50);
  detail::match_run(*store_, chain(2, 1));
  EXPECT_EQ(evict(4), "1:0 3:0 4:0 2:0");
}

// Killed mutant: without a place of its own, an unwanted parent goes only when its turn comes among
// the blocks of its child.
TEST_F(RetentionTest, AParentOfLessWorthGoesRightAfterItsChild) {
  make(4);
  put_with(1, 0, 10);
  put_with(1, 1, DEFAULT_PRIORITY);
  put(*store_, 2, 0);
  put(*store_, 3, 0);
  detail::match_run(*store_, chain(1, 2));  // the youngest now
  EXPECT_EQ(evict(4), "2:0 3:0 1:1 1:0");
}

TEST_F(RetentionTest, AnUnwantedChildGoesAloneAndItsParentStaysInItsLevel) {
  make(4);
  put_with(1, 0, 80);
  put_with(1, 1, 5);
  put(*store_, 2, 0);
  put_with(3, 0, 80);
  EXPECT_EQ(evict(4), "1:1 2:0 1:0 3:0") << "the parent is older than 3:0";
}

TEST_F(RetentionTest, FirstInFirstOutHoldsForAParentOfAnotherLevel) {
  make(3, EvictionPolicy::Fifo);
  put(*store_, 2, 0);
  {
    const auto held = put_chain(*store_, 1, 2);
    retain(held[1].id(), {.priority = 34}).value();
  }
  EXPECT_EQ(evict(3), "1:1 2:0 1:0") << "2:0 came before 1:0";
}

TEST_F(RetentionTest, PrioritiesThatMixAlongAChainNeverOrphanABlock) {
  make(7);
  const std::uint32_t priorities[] = {90, 5, 90, 5, 35, 0};
  for (std::uint32_t i = 0; i < 6; ++i) put_with(1, i, priorities[i]);
  put_with(2, 0, 40);
  detail::match_run(*store_, chain(1, 6));
  EXPECT_EQ(evict(7), "1:5 1:4 1:3 2:0 1:2 1:1 1:0");
}

TEST_F(RetentionTest, APriorityOfAHeldBlockCountsFromItsRelease) {
  make(2);
  ImmutableHold held = put(*store_, 1, 0);
  put(*store_, 2, 0);
  retain(held.id(), {.priority = 0}).value();
  EXPECT_EQ(available(), 1u) << "held blocks do not go";
  held = {};
  EXPECT_EQ(evict(2), "1:0 2:0") << "though it is the younger one";
}

TEST_F(RetentionTest, AnEvictableBlockChangesItsLevelAtOnce) {
  make(3);
  const BlockId first = put(*store_, 1, 0).id();
  put(*store_, 2, 0);
  const BlockId third = put(*store_, 3, 0).id();
  store_->set_priority(third, 0).value();
  store_->set_priority(first, 50).value();
  store_->check_invariants();
  EXPECT_EQ(evict(3), "3:0 2:0 1:0");
}

TEST_F(RetentionTest, TheInnerBlockOfAnEvictableChainChangesItsLevelToo) {
  make(3);
  const BlockId root = put(*store_, 1, 0).id();
  put(*store_, 1, 1);
  put(*store_, 2, 0);
  store_->set_priority(root, 90).value();
  EXPECT_EQ(evict(3), "1:1 2:0 1:0");
}

TEST_F(RetentionTest, APriorityIsForgottenWithItsContent) {
  make(2);
  const BlockId id = put_with(1, 0, {.priority = 0, .until = at(9), .hint = 3});
  EXPECT_TRUE(store_->wants_time());
  EXPECT_EQ(evict(2), "1:0");
  EXPECT_EQ(priority(id), DEFAULT_PRIORITY);
  store_->advance(at(1));
  EXPECT_FALSE(store_->wants_time()) << "its end went along";
}

TEST_F(RetentionTest, BadArgumentsChangeNothing) {
  make(2);
  store_->advance(at(5));
  const BlockId id = put_with(1, 0, {.priority = 50, .until = at(10)});
  const ImmutableHold held = std::move(detail::match(*store_, chain(1, 1)).front());

  const auto too_high = retain(id, {.priority = 101, .hint = 1});
  ASSERT_FALSE(too_high.has_value());
  EXPECT_EQ(too_high.error().code, ErrorCode::InvalidConfig);
  EXPECT_EQ(too_high.error().requested, 101u);
  EXPECT_EQ(too_high.error().available, MAX_PRIORITY);
  const auto set_too_high = store_->set_priority(id, 101);
  ASSERT_FALSE(set_too_high.has_value());
  EXPECT_EQ(set_too_high.error().requested, 101u);
  EXPECT_EQ(set_too_high.error().available, MAX_PRIORITY);
  for (const int past : {4, 5}) {
    const auto refused = retain(id, {.priority = 60, .until = at(past)});
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error().code, ErrorCode::InvalidConfig);
    const auto lease = store_->lease(id, at(past));
    ASSERT_FALSE(lease.has_value());
    EXPECT_EQ(lease.error().code, ErrorCode::InvalidConfig);
  }
  EXPECT_EQ(priority(id), 50u);
  store_->check_invariants();
  store_->advance(at(9));
  EXPECT_EQ(priority(id), 50u);
  store_->advance(at(10));
  EXPECT_EQ(priority(id), DEFAULT_PRIORITY) << "the end of before the refusals";
}

// --- until -----------------------------------------------------------------------------------

TEST_F(RetentionTest, APriorityEndsAtItsTimeAndNotBefore) {
  make(3);
  const BlockId wanted = put_with(1, 0, {.priority = 80, .until = at(10)});
  put_with(2, 0, 40);
  put(*store_, 3, 0);
  store_->advance(at(9));
  EXPECT_EQ(priority(wanted), 80u);
  store_->advance(at(10));
  EXPECT_EQ(priority(wanted), DEFAULT_PRIORITY);
  EXPECT_FALSE(store_->wants_time());
  EXPECT_EQ(evict(3), "3:0 1:0 2:0") << "back among the ordinary, as the youngest";
}

TEST_F(RetentionTest, TimeNeverGoesBack) {
  make(1);
  const BlockId id = put_with(1, 0, {.priority = 80, .until = at(10)});
  store_->advance(at(10));
  store_->advance(at(3));
  EXPECT_FALSE(retain(id, {.priority = 80, .until = at(9)}).has_value());
}

TEST_F(RetentionTest, ALaterEndReplacesAnEarlierOne) {
  make(2);
  const BlockId longer = put_with(1, 0, {.priority = 80, .until = at(10)});
  const BlockId forever = put_with(2, 0, {.priority = 80, .until = at(10)});
  retain(longer, {.priority = 80, .until = at(20)}).value();
  retain(forever, {.priority = 70}).value();
  store_->check_invariants();
  store_->advance(at(19));
  EXPECT_EQ(priority(longer), 80u);
  EXPECT_EQ(priority(forever), 70u);
  store_->advance(at(20));
  EXPECT_EQ(priority(longer), DEFAULT_PRIORITY);
  EXPECT_EQ(priority(forever), 70u) << "for good";
}

TEST_F(RetentionTest, SetPriorityIsForGood) {
  make(1);
  const BlockId id = put_with(1, 0, {.priority = 80, .until = at(10), .hint = 2});
  store_->set_priority(id, 60).value();
  EXPECT_FALSE([&] {
    store_->advance(at(1));
    return store_->wants_time();
  }());
  store_->advance(at(11));
  EXPECT_EQ(priority(id), 60u);
}

// The end belongs to the content: the next owner's priority in the same block is another one.
TEST_F(RetentionTest, AnEndIsDroppedWithItsBlock) {
  make(1);
  const BlockId id = put_with(1, 0, {.priority = 80, .until = at(10)});
  const MutableHold next = allocate_one(*store_);
  ASSERT_EQ(next.id(), id);
  store_->set_priority(id, 70).value();
  store_->advance(at(11));
  EXPECT_EQ(priority(id), 70u);
}

TEST_F(RetentionTest, AnEndIsDroppedWithABlockThatWasNeverRegistered) {
  make(1);
  {
    const MutableHold block = allocate_one(*store_);
    retain(block.id(), {.priority = 80, .until = at(10), .hint = 1}).value();
    store_->check_invariants();
  }
  store_->advance(at(1));
  EXPECT_FALSE(store_->wants_time());
  const MutableHold again = allocate_one(*store_);
  retain(again.id(), {.priority = 80, .until = at(10)}).value();
  store_->uncomplete(again.id());
  store_->advance(at(2));
  EXPECT_FALSE(store_->wants_time());
}

TEST_F(RetentionTest, AForgottenBlockGoesFirstWhateverItsPriority) {
  make(3);
  put_with(1, 0, {.priority = 100, .until = at(10)});
  store_->reset();
  put_with(2, 0, 0);
  store_->check_invariants();
  EXPECT_EQ(evict(1), "") << "a free block";
  EXPECT_EQ(evict(2), "") << "and what was forgotten";
  EXPECT_TRUE(store_->contains(name(2, 0)));
}

// --- what goes along to another store ----------------------------------------------------------

TEST_F(RetentionTest, CopyMetadataCarriesPriorityAndEnd) {
  make(2);
  const BlockId source = put_with(1, 0, {.priority = 80, .until = at(10), .hint = 5});
  const auto other = BlockStore::create({.capacity = 2}).value();
  {
    const ImmutableHold copy = put(*other, 1, 0);
    other->copy_metadata(copy.id(), *store_, source);
    EXPECT_TRUE(other->wants_time());
    EXPECT_EQ(other->basic_metadata(copy.id()).priority, 80u);
    other->check_invariants();
    other->advance(at(10));
    EXPECT_EQ(other->basic_metadata(copy.id()).priority, DEFAULT_PRIORITY);
    EXPECT_EQ(priority(source), 80u) << "whose own time has not come";
    const ImmutableHold second = put(*other, 2, 0);
    store_->set_priority(source, 20).value();
    other->copy_metadata(second.id(), *store_, source);
    EXPECT_EQ(other->basic_metadata(second.id()).priority, 20u);
    other->copy_metadata(copy.id(), *other, second.id());
    EXPECT_EQ(other->basic_metadata(copy.id()).priority, 20u) << "within one store as well";
  }
  other->check_invariants();
}

// A hint is seen in nothing but what the learned order makes of it.
TEST_F(RetentionTest, AHintStaysWithItsContentAndGoesWithIt) {
  make(103, EvictionPolicy::AgeIndex);
  // Blocks without a hint come back after two seconds, those of hint 1 never. Their priority keeps
  // them out of the way afterwards.
  store_->advance(at(1));
  for (std::uint64_t c = 100; c < 180; ++c) {
    put_with(c, 0, {.priority = 90, .hint = static_cast<std::uint8_t>(c % 2)});
  }
  store_->advance(at(3));
  for (std::uint64_t c = 100; c < 180; c += 2) detail::match_run(*store_, chain(c, 1));
  store_->advance(at(63));
  for (std::uint64_t c = 180; c < 200; ++c) {
    put_with(c, 0, {.priority = 90, .hint = static_cast<std::uint8_t>(c % 2)});
  }

  MutableHold pad = allocate_one(*store_);
  put_with(1, 0, {.hint = 8});  // modulo 8: none
  const auto other = BlockStore::create({.capacity = 1}).value();
  const MutableHold source = allocate_one(*other);
  other->retain(std::vector<BlockId>{source.id()}, {.hint = 1}).value();
  MutableHold block = allocate_one(*store_);
  const BlockId id = block.id();
  store_->copy_metadata(id, *other, source.id());
  {
    std::vector<CompleteHold> blocks;
    blocks.push_back(detail::complete(std::move(block), identity(2, 0)));
    detail::register_blocks(*store_, std::move(blocks)).value();
  }
  EXPECT_EQ(priority(id), DEFAULT_PRIORITY) << "a hint is no priority";
  store_->advance(at(64));
  EXPECT_EQ(evict(1), "2:0") << "the younger one, but it never comes back";

  pad = {};
  pad = allocate_one(*store_);
  const BlockId again = put(*store_, 3, 0).id();
  ASSERT_EQ(again, id);
  pad = {};
  put_with(4, 0, {.hint = 1});
  store_->advance(at(65));
  EXPECT_EQ(evict(1), "4:0") << "the hint of 2:0 is not that of 3:0";
}

// --- protection ------------------------------------------------------------------------------

TEST_F(RetentionTest, ProtectedBlocksGoLastOfAll) {
  for (const auto policy : {EvictionPolicy::Lru, EvictionPolicy::AgeIndex, EvictionPolicy::Fifo}) {
    make(5, policy);
    put_chain(*store_, 1, 2);
    put_with(2, 0, 100);
    put(*store_, 3, 0);
    put_with(4, 0, 0);
    EXPECT_EQ(store_->protect(chain(1, 2)), 2u);
    store_->check_invariants();
    EXPECT_EQ(evict(5), "4:0 3:0 2:0 1:1 1:0")
        << to_string(policy) << ": and go, when nothing else is left";
  }
}

TEST_F(RetentionTest, ProtectionCoversTheRegisteredPrefixOnly) {
  make(5);
  put(*store_, 1, 0);
  put(*store_, 1, 2);  // not reached: block 1 is missing
  put_chain(*store_, 2, 2);
  put(*store_, 3, 0);
  EXPECT_EQ(store_->protect(chain(1, 3)), 1u);
  EXPECT_EQ(store_->protect(chain(9, 3)), 0u);
  EXPECT_EQ(store_->protect(chain(1, 0)), 0u);
  EXPECT_EQ(evict(5), "1:2 2:1 2:0 3:0 1:0");
}

TEST_F(RetentionTest, ProtectionEndsWithAnyKindOfMatch) {
  make(2);
  const auto first = chain(1, 1);
  const auto is_ordinary_after = [&](auto match) {
    put(*store_, 1, 0);
    EXPECT_EQ(store_->protect(first), 1u);
    match();
    put(*store_, 2, 0);
    const std::string gone = evict(1);
    store_->reset();
    evict(2);
    return gone == "1:0";
  };
  EXPECT_FALSE(is_ordinary_after([] {}));
  EXPECT_FALSE(is_ordinary_after([&] { store_->contains(first.front()); }));
  EXPECT_TRUE(is_ordinary_after([&] { detail::match_run(*store_, first); }));
  EXPECT_TRUE(is_ordinary_after([&] { detail::match(*store_, first); }));
  EXPECT_TRUE(is_ordinary_after([&] { detail::scan(*store_, first); }));
  EXPECT_TRUE(is_ordinary_after([&] { store_->touch(first); }));
}

TEST_F(RetentionTest, AMatchOfAPrefixEndsTheProtectionOfThatPrefixOnly) {
  make(4);
  put_chain(*store_, 1, 3);
  put(*store_, 2, 0);
  EXPECT_EQ(store_->protect(chain(1, 3)), 3u);
  detail::match_run(*store_, chain(1, 1));
  EXPECT_EQ(evict(4), "2:0 1:2 1:1 1:0") << "a parent stays while its child is protected";
}

TEST_F(RetentionTest, AHeldBlockMayBeProtectedAndItsPriorityStays) {
  make(3);
  ImmutableHold held = put(*store_, 1, 0);
  retain(held.id(), {.priority = 0, .until = at(10)}).value();
  EXPECT_EQ(store_->protect(chain(1, 1)), 1u);
  put(*store_, 2, 0);
  held = {};
  store_->advance(at(1));
  EXPECT_EQ(store_->touch(chain(2, 1)), 1u);
  put(*store_, 3, 0);
  EXPECT_EQ(evict(1), "2:0");
  EXPECT_EQ(detail::match(*store_, chain(1, 1)).size(), 1u);
  put(*store_, 4, 0);
  EXPECT_EQ(evict(1), "1:0") << "of priority 0 again";
}

TEST_F(RetentionTest, ThePriorityOfAProtectedBlockMayEndMeanwhile) {
  make(2);
  put_with(1, 0, {.priority = 0, .until = at(10)});
  EXPECT_EQ(store_->protect(chain(1, 1)), 1u);
  put_with(2, 0, 100);
  store_->advance(at(10));
  EXPECT_EQ(evict(2), "2:0 1:0") << "protected all the same";
}

TEST_F(RetentionTest, ProtectionComparesDigestsAndNamespaces) {
  make(2);
  put(*store_, 1, 0);
  const auto first = chain(1, 1);
  const std::uint64_t other = 7;
  EXPECT_EQ(store_->protect({first, {&other, 1}}), 0u);
  EXPECT_EQ(store_->protect({first, {}, 1}), 0u);
  const std::uint64_t none = 0;
  EXPECT_EQ(store_->protect({first, {&none, 1}}), 1u);
}

// --- leases ----------------------------------------------------------------------------------

TEST_F(RetentionTest, ALeaseKeepsABlockBeyondItsHandleUntilItsTime) {
  make(3);
  put_chain(*store_, 1, 2);
  {
    const auto run = detail::match_run(*store_, chain(1, 2));
    store_->lease(run.id(), at(10)).value();
  }
  EXPECT_EQ(available(), 1u) << "the whole chain";
  EXPECT_FALSE(detail::allocate(*store_, 2).has_value());
  store_->advance(at(9));
  store_->check_invariants();
  EXPECT_EQ(available(), 1u);
  EXPECT_TRUE(store_->wants_time());
  store_->advance(at(10));
  EXPECT_EQ(available(), 3u);
  EXPECT_FALSE(store_->wants_time());
  EXPECT_EQ(evict(3), "1:1 1:0");
}

TEST_F(RetentionTest, ALeaseThatIsGivenBackEndsOnce) {
  make(1);
  const LeaseId lease = store_->lease(put(*store_, 1, 0).id(), at(10)).value();
  EXPECT_TRUE(store_->wants_time());
  EXPECT_TRUE(store_->release_lease(lease));
  EXPECT_FALSE(store_->wants_time());
  EXPECT_EQ(available(), 1u);
  EXPECT_FALSE(store_->release_lease(lease));
  EXPECT_FALSE(store_->release_lease(lease + 1)) << "never was";
  store_->advance(at(10));
  store_->check_invariants();
}

TEST_F(RetentionTest, ALeaseThatHasExpiredCannotBeGivenBack) {
  make(1);
  ImmutableHold held = put(*store_, 1, 0);
  const LeaseId lease = store_->lease(held.id(), at(10)).value();
  store_->advance(at(11));
  EXPECT_FALSE(store_->release_lease(lease));
  EXPECT_EQ(available(), 0u) << "the handle's own hold stays";
  held = {};
  EXPECT_EQ(available(), 1u);
}

TEST_F(RetentionTest, EveryLeaseOfABlockIsAHoldOfItsOwn) {
  make(1);
  LeaseId second = 0;
  {
    const ImmutableHold held = put(*store_, 1, 0);
    store_->lease(held.id(), at(10)).value();
    second = store_->lease(held.id(), at(10)).value();
    store_->lease(held.id(), at(20)).value();
  }
  store_->check_invariants();
  EXPECT_TRUE(store_->release_lease(second));
  store_->advance(at(15));
  EXPECT_EQ(available(), 0u);
  store_->advance(at(20));
  EXPECT_EQ(available(), 1u);
}

TEST_F(RetentionTest, ALeaseOnAMemberOfARunPinsNoMoreThanItsAncestors) {
  make(3);
  put_chain(*store_, 1, 3);
  const auto members = detail::ids(detail::match_run(*store_, chain(1, 3)));
  {
    const auto run = detail::match_run(*store_, chain(1, 3));
    store_->lease(members[1], at(10)).value();
  }
  EXPECT_EQ(available(), 1u);
  EXPECT_EQ(evict(1), "1:2");
}

// Killed mutant: a priority that ends first would move a block that is still pinned.
TEST_F(RetentionTest, ALeaseAndAPriorityMayEndTogether) {
  make(2);
  const BlockId id = put_with(1, 0, {.priority = 90, .until = at(10)});
  store_->lease(std::move(detail::match(*store_, chain(1, 1)).front()).id(), at(10)).value();
  put(*store_, 2, 0);
  store_->advance(at(10));
  EXPECT_EQ(priority(id), DEFAULT_PRIORITY);
  EXPECT_EQ(evict(2), "2:0 1:0") << "it became evictable last";
}

TEST_F(RetentionTest, LeasesEndWhenTheStoreIsClosed) {
  const auto backing = std::make_shared<int>(0);
  store_ = BlockStore::create({.capacity = 2}, backing).value();
  store_->lease(put(*store_, 1, 0).id(), at(10)).value();
  store_->lease(put(*store_, 2, 0).id(), at(10)).value();
  store_.reset();
  EXPECT_EQ(backing.use_count(), 1) << "the store is gone";
}

TEST_F(RetentionTest, ALeaseOnABlockOfAnotherHolderEndsAtCloseToo) {
  const auto backing = std::make_shared<int>(0);
  store_ = BlockStore::create({.capacity = 1}, backing).value();
  ImmutableHold held = put(*store_, 1, 0);
  store_->lease(held.id(), at(10)).value();
  store_.reset();
  EXPECT_EQ(backing.use_count(), 2);
  held = {};
  EXPECT_EQ(backing.use_count(), 1);
}

TEST_F(RetentionTest, ALearningPolicyAlwaysWantsTheTime) {
  make(1, EvictionPolicy::AgeIndex);
  EXPECT_TRUE(store_->wants_time());
  make(1, EvictionPolicy::Fifo);
  EXPECT_FALSE(store_->wants_time());
}

}  // namespace
}  // namespace kvbm
