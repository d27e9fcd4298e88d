// A NIXL agent whose transfers end: what was given up counts as ended only when nothing can write
// into its blocks any more.
//
// NIXL cannot cancel. A request that was released in progress still writes, into memory that may
// belong to somebody else by then. So a transfer that passes its deadline, or is cancelled, becomes
// overdue: its owner is told, and must leave its blocks alone, here and at the peer, until the
// transfer ends. It ends when NIXL says so, or else when the agent is rebuilt: destroying an agent
// is the only way to make NIXL stop.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kvbm/result.h"
#include "nixl/nixl_api.h"
#include "nixl/owned.h"

namespace kvbm::nixl {

struct AgentOptions {
  // No two agents may ever have the same name, not even one after the other: worker and
  // incarnation. A rebuilt agent adds a number.
  std::string name;
  // Of NIXL's plug-in UCX. Always set is ucx_error_handling_mode=peer.
  std::vector<std::pair<std::string, std::string>> ucx = {};
  // How long NIXL's own thread sleeps where nothing wakes it. 1 ms costs 1.5 % of a core, 10 ms
  // 0.2 %, 0 a whole core; without that thread nothing moves over TCP.
  std::chrono::microseconds progress_interval{10'000};
  // How long a transfer may be overdue before the agent is rebuilt. Rebuilding ends all transfers
  // of the agent, and over TCP it can kill a peer that stands still while this agent reads from it.
  std::chrono::milliseconds overdue_limit{30'000};
};

// A peer as it was met: its agent's name, its process, and how often we have shaken hands with it.
struct PeerKey {
  std::string agent;
  std::uint64_t incarnation = 0;
  std::uint64_t generation = 0;
  friend bool operator==(const PeerKey&, const PeerKey&) = default;
};

// Blocks of one size, at equal distances. All of them must lie in one registered region.
struct BlockArea {
  std::uint64_t address = 0;
  std::size_t stride_bytes = 0;
  std::size_t block_bytes = 0;
  std::uint32_t blocks = 0;
};

enum class PeerId : std::uint64_t {};
enum class LocalListId : std::uint32_t {};
enum class RemoteListId : std::uint64_t {};
enum class TransferId : std::uint64_t {};

struct BlockPair {
  std::uint32_t local = 0;   // index in the local area
  std::uint32_t remote = 0;  // and in the remote one
};

struct TransferRequest {
  Operation operation = Operation::Read;  // Write: from here to the peer
  LocalListId local{};
  RemoteListId remote{};
  std::span<const BlockPair> blocks = {};  // no block twice
  std::chrono::steady_clock::time_point deadline{};
};

struct AgentEvent {
  enum class Kind : std::uint8_t {
    Overdue,   // `transfer` is given up, with TimedOut, Cancelled or NixlError; its blocks stay
               // taken
    Ended,     // `transfer` is over, once and for all: nothing reads or writes its blocks any more
    PeerLost,  // `peer` does not answer: it must be loaded again, as of a new generation
    Rebuilt,   // the agent has another name and metadata, and knows no peers and remote lists
  };
  Kind kind = Kind::Ended;
  TransferId transfer{};
  PeerId peer{};
  Result<void> result = {};
};

// Threads: one, always the same; see AgentThread.
class Agent {
 public:
  using Time = std::chrono::steady_clock::time_point;

  // `api` must outlive the agent. Errors: NixlError with NIXL's status. Cost: half a second for the
  // first one of the process, then 20 ms.
  static Result<std::unique_ptr<Agent>> create(const NixlApi& api, AgentOptions options);
  // Ends all transfers, without events.
  ~Agent();
  Agent(const Agent&) = delete;
  Agent& operator=(const Agent&) = delete;

  // Makes memory known to NIXL, until the agent is destroyed; it must not be unmapped before.
  // Errors: InvalidConfig for no bytes; NixlError.
  Result<void> register_memory(std::span<std::byte> memory);

  // What peers must load to reach the registered memory. Errors: NixlError.
  Result<std::vector<std::byte>> metadata() const;
  const std::string& name() const noexcept { return name_; }

  // Takes a peer's metadata; what was loaded of that agent before is forgotten.
  // Errors: InvalidConfig if the metadata is of another agent than `key` says, or the generation is
  // not above the one that is known; QueueFull while transfers of that agent's earlier generation
  // have not ended (requested: how many); NixlError. Cost: 5 to 30 ms.
  Result<PeerId> load_peer(PeerKey key, std::span<const std::byte> metadata);
  // The peer takes no more transfers, and is forgotten when its last one has ended. Its remote
  // lists end with it. Unknown peers are ignored.
  void forget_peer(PeerId peer);

  // Lists of blocks, looked up once for all transfers. Errors: InvalidConfig for an impossible
  // area; HandleNotFound for an unknown peer; NixlError, such as for memory that is not registered.
  // Cost: 20 ns per block.
  Result<LocalListId> prepare_local(const BlockArea& area);
  Result<RemoteListId> prepare_remote(PeerId peer, const BlockArea& area);

  // Begins a transfer, which ends with an Ended event of a later poll(). Neighbours that are
  // neighbours on both sides move as one.
  // Errors: InvalidConfig without blocks; HandleNotFound for lists that are not there or whose peer
  // is lost; InvalidBlockIndex; NixlError. Then nothing has begun.
  // Cost: 1 us, and where the kernel copies between processes (CMA) the whole copy.
  Result<TransferId> start(const TransferRequest& request, Time now);
  // Makes a transfer overdue; one that has ended is left alone.
  void cancel(TransferId transfer, Time now);

  // Appends what has happened. Cost: about 1 us per transfer in progress.
  void poll(Time now, std::vector<AgentEvent>& events);
  // When to poll again: soon after a transfer was begun, later for those that take long; max() if
  // there is nothing to wait for.
  Time next_poll(Time now) const;

  // Destroys the agent and makes a new one with another name, the same memory and the same local
  // lists. All transfers end, and no peer can write into our memory over the old one's connections
  // any more. On an error there is no agent: all other calls fail until a rebuild() succeeds.
  // Errors: NixlError.
  Result<void> rebuild(Time now);

  std::size_t unfinished() const noexcept { return unfinished_; }
  std::size_t overdue() const noexcept { return overdue_; }
  // Aborts if the counts do not agree with what they count.
  void check_invariants() const;

 private:
  struct Peer {
    PeerId id{};
    PeerKey key;
    bool open = true;  // takes transfers
    std::size_t unfinished = 0;
  };
  struct List {
    BlockArea area;
    PreparedListHandle* handle = nullptr;
    RemoteListId id{};  // of a remote list
    PeerId peer{};      // likewise
  };
  enum class State : std::uint8_t {
    Free,
    Running,
    Overdue,
    Untracked,  // overdue, and NIXL does not tell any more whether it runs: it must be assumed
    Over,       // its end is not told yet
  };
  struct Transfer {
    std::uint32_t generation = 0;  // of the slot
    State state = State::Free;
    RequestHandle* request = nullptr;
    PeerId peer{};
    Time deadline{};
    Time limit{};  // of an overdue one: when the agent is rebuilt
    std::optional<Error> error = std::nullopt;
  };

  Agent(const NixlApi& api, AgentOptions options) : api_(api), options_(std::move(options)) {}

  Result<void> build();
  // Whether NIXL has stopped.
  bool destroy();
  Result<void> check_there() const;
  Result<void> tell_of(std::span<std::byte> memory);
  Result<PreparedListHandle*> prepare(const char* peer, const BlockArea& area);
  void discard_notifications();

  Peer* find_peer(PeerId id);
  const List* find_remote(RemoteListId id) const;
  Result<void> make_room_for(const PeerKey& key);
  void drop_peer(std::size_t index);
  void drop_closed_peers();
  // A call for this peer has failed: is it gone?
  void suspect(PeerId id);

  Result<RequestHandle*> make_request(const TransferRequest& request, const List& local,
                                      const List& remote);
  std::uint32_t take_slot();
  void look_at(std::uint32_t slot, Time now);
  void make_overdue(std::uint32_t slot, State state, Error error, Time now);
  void end(std::uint32_t slot);
  TransferId id_of(std::uint32_t slot) const;

  const NixlApi& api_;
  AgentOptions options_;
  std::string name_;
  std::uint64_t builds_ = 0;
  AgentHandle* agent_ = nullptr;
  std::optional<Backend> backend_;
  std::optional<CallOptions> ucx_only_;  // options that choose the backend
  std::vector<std::span<std::byte>> memory_;

  std::vector<Peer> peers_;
  std::vector<List> local_lists_;  // by id
  std::vector<List> remote_lists_;
  std::uint64_t last_peer_ = 0;
  std::uint64_t last_remote_list_ = 0;

  std::vector<Transfer> transfers_;
  std::vector<std::uint32_t> active_;  // slots that are not free
  std::vector<std::uint32_t> free_;
  std::size_t unfinished_ = 0;
  std::size_t overdue_ = 0;
  Time newest_{};  // when the last transfer began
  bool has_closed_peers_ = false;
  std::vector<AgentEvent> events_;  // for the next poll()

  // Of one call; kept to save allocations.
  std::vector<BlockPair> sorted_;
  std::vector<std::int32_t> local_indices_;
  std::vector<std::int32_t> remote_indices_;
};

}  // namespace kvbm::nixl
