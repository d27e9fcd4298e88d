// What the tier engine can come through, counted: tests show with it what they have reached, and
// metrics tell it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace kvbm::detail {

// clang-format off
#define KVBM_TRANSITIONS(X)                                                                        \
  /* how requests end */                                                                           \
  X(RequestDone, "request_done")                  /* every block arrived */                        \
  X(RequestFailed, "request_failed")              /* some block did not */                         \
  X(RequestExpired, "request_expired")            /* at its deadline */                            \
  X(RequestCancelled, "request_cancelled")        /* by its caller, or when the engine closed */   \
  X(RequestRefused, "request_refused")            /* too many blocks wait already */               \
  X(RequestLate, "request_late")                  /* it came after the end of the engine */        \
  X(RequestEmpty, "request_empty")                /* it asked for nothing */                       \
  X(RequestCut, "request_cut")                    /* computing the rest is sooner by now */        \
  /* loads */                                                                                      \
  X(BlockOnboarded, "block_onboarded")            /* host to device */                             \
  X(BlockStaged, "block_staged")                  /* disk to host */                               \
  X(BlockPulled, "block_pulled")                  /* from a peer to host */                        \
  X(LoadShared, "load_shared")                    /* somebody else's copy was waited for */        \
  X(LoadFoundInDevice, "load_found_in_device")    /* it had come there meanwhile */                \
  X(StageShared, "stage_shared")                                                                   \
  X(StageFoundInHost, "stage_found_in_host")                                                       \
  X(StageWaited, "stage_waited")                  /* for room in the host tier */                  \
  X(StageWithoutRoom, "stage_without_room")       /* and there will be none */                     \
  X(LayersVerified, "layers_verified")            /* blocks that go layer by layer */              \
  X(LayersJoined, "layers_joined")                /* their last layer has come */                  \
  X(LayersFailed, "layers_failed")                                                                 \
  X(LayersAbandoned, "layers_abandoned")          /* the request ended between two layers */       \
  X(LoadSplit, "load_split")                      /* the last blocks are computed sooner */        \
  X(LoadNotWorth, "load_not_worth")               /* all of them are */                            \
  X(LoadTried, "load_tried")                      /* to see how fast it is now */                  \
  X(SourceDetached, "source_detached")            /* it cannot be read or has wrong bytes */       \
  X(ExternalRefused, "external_refused")          /* a copy still uses the external block */       \
  /* offloads */                                                                                   \
  X(BlockOffloaded, "block_offloaded")                                                             \
  X(OfferDropped, "offer_dropped")                /* the queue was full: the coldest one */        \
  X(OfferGone, "offer_gone")                      /* evicted before its turn */                    \
  X(OfferPresent, "offer_present")                /* the tier below has it, or will in a moment */ \
  X(OfferWithoutRoom, "offer_without_room")       /* the tier below is full of held blocks */      \
  X(OfferNotAdmitted, "offer_not_admitted")                                                        \
  X(OfferOverBudget, "offer_over_budget")                                                          \
  X(OfferUnwritable, "offer_unwritable")          /* the disk is not in order */                   \
  X(OffloadShared, "offload_shared")                                                               \
  X(OffloadYielded, "offload_yielded")            /* fewer at a time, since somebody loads */      \
  X(PreCleaned, "pre_cleaned")                    /* offered because it may be evicted soon */     \
  /* copies */                                                                                     \
  X(MoveFailed, "move_failed")                                                                     \
  X(TargetQuarantined, "target_quarantined")      /* nobody waits for it, and it still runs */     \
  X(QuarantineEnded, "quarantine_ended")                                                           \
  X(ArrivedForgotten, "arrived_forgotten")        /* there was a reset meanwhile */                \
  X(EndHeldBack, "end_held_back")                 /* until those before it have ended */
// clang-format on

enum class Transition : std::uint8_t {
#define KVBM_ENUMERATOR(name, text) name,
  KVBM_TRANSITIONS(KVBM_ENUMERATOR)
#undef KVBM_ENUMERATOR
};

#define KVBM_COUNT(name, text) +1
inline constexpr std::size_t kTransitionCount = 0 KVBM_TRANSITIONS(KVBM_COUNT);
#undef KVBM_COUNT

const char* to_string(Transition transition) noexcept;  // "request_done" ...

using TransitionCounts = std::array<std::uint64_t, kTransitionCount>;  // by Transition

}  // namespace kvbm::detail
