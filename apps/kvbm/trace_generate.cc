#include "apps/kvbm/trace_generate.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <functional>
#include <new>
#include <optional>
#include <queue>
#include <string_view>
#include <utility>
#include <vector>

namespace kvbm::app {
namespace {

// Time from the arrival of a request to the end of its output.
constexpr std::uint64_t kMsPerOutputToken = 20;

// Quantiles of two log-normal distributions (sigma 1.0 and 1.6, cut at 1/128 and 127/128) in steps
// of 1/32, in units of the median / 1024. Tables, since exp() is not the same everywhere.
constexpr std::size_t kQuantiles = 33;
constexpr std::array<std::uint64_t, kQuantiles> kSkewed = {
    91,   159,  221,  274,  324,  373,  422,  471,  522,  574,  628,
    685,  745,  808,  875,  947,  1024, 1108, 1198, 1298, 1408, 1531,
    1669, 1827, 2010, 2226, 2486, 2811, 3235, 3826, 4749, 6596, 11488};
constexpr std::array<std::uint64_t, kQuantiles> kVerySkewed = {
    21,   52,   88,   124,  163,  203,  248,  296,  348,   405,   468,
    538,  615,  701,  796,  903,  1024, 1161, 1317, 1497,  1705,  1949,
    2238, 2587, 3013, 3547, 4234, 5154, 6451, 8436, 11921, 20168, 49000};

// splitmix64, and integer arithmetic only: neither std distributions nor floating point are the
// same on every machine.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  // From 0 to limit - 1. The bias is below limit / 2^32.
  std::uint64_t below(std::uint32_t limit) { return (bits32() * limit) >> 32; }

  bool chance(std::uint32_t part, std::uint32_t whole) { return below(whole) < part; }

  std::uint64_t skewed(std::uint64_t median, const std::array<std::uint64_t, kQuantiles>& table) {
    const std::uint64_t bits = bits32();
    const std::size_t step = bits >> 27;
    const std::uint64_t within = bits & ((1U << 27) - 1);
    const std::uint64_t low = table[step];
    const std::uint64_t factor = low + (((table[step + 1] - low) * within) >> 27);
    return median * factor / 1024;
  }

  std::uint64_t exponential(std::uint64_t mean) {
    constexpr std::uint64_t kLn2 = 45426;               // in units of 2^-16, as below
    const std::uint64_t uniform = (bits32() >> 1) + 1;  // 1 .. 2^31 stands for 2^-31 .. 1
    const std::uint64_t minus_ln = (((std::uint64_t{31} << 16) - log2(uniform)) * kLn2) >> 16;
    return (mean * minus_ln) >> 16;
  }

 private:
  std::uint64_t bits32() {
    state_ += 0x9e3779b97f4a7c15ULL;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return (z ^ (z >> 31)) >> 32;
  }

  // log2 of 1 .. 2^31 in units of 2^-16, bit by bit: squaring doubles the logarithm.
  static std::uint64_t log2(std::uint64_t value) {
    const auto whole = static_cast<unsigned>(std::bit_width(value)) - 1;
    std::uint64_t mantissa = value << (31 - whole);  // 1.0 is 2^31
    std::uint64_t result = whole;
    for (int i = 0; i < 16; ++i) {
      mantissa = (mantissa * mantissa) >> 31;
      const std::uint64_t bit = mantissa >> 32;
      mantissa >>= bit;
      result = (result << 1) | bit;
    }
    return result;
  }

  std::uint64_t state_;
};

struct SystemPrompt {
  std::uint64_t tokens;
  std::vector<std::uint64_t> ids;  // of the full blocks that prompts have reached so far
};

struct Conversation {
  std::size_t system_prompt;
  std::uint64_t tokens;  // prompt and output of the last turn; before the first, the system prompt
  std::vector<std::uint64_t> ids;  // of the full blocks of the prompts so far
  std::optional<std::uint64_t> last_prompt_tokens;
  std::optional<std::uint64_t> last_partial_id;
};

struct Event {
  std::uint64_t time;
  std::uint64_t number;             // orders events of one time
  std::optional<std::size_t> user;  // none: a one-off prompt

  bool operator>(const Event& other) const {
    return time != other.time ? time > other.time : number > other.number;
  }
};

class Generator {
 public:
  explicit Generator(const GenerateOptions& options)
      : options_(options), random_(options.seed), users_(options.users) {
    for (std::size_t i = 0; i < options.system_prompts; ++i) {
      const std::uint64_t half = options.system_prompt_tokens / 2;
      const std::uint64_t tokens = half + random_.below(options.system_prompt_tokens + 1);
      system_prompts_.push_back(SystemPrompt{tokens, {}});
      system_weight_ += system_weight(i);
    }
    for (std::size_t user = 0; user < options.users; ++user) {
      schedule(random_.exponential(options.pause_ms), user);
    }
  }

  Trace run() {
    trace_.requests.reserve(options_.requests);
    while (trace_.requests.size() < options_.requests) {
      const Event event = events_.top();
      events_.pop();
      if (event.user) {
        turn(event.time, *event.user);
        one_offs(event.time);
      } else {
        one_off(event.time);
      }
    }
    return std::move(trace_);
  }

 private:
  static std::uint32_t system_weight(std::size_t rank) {
    return (1U << 20) / static_cast<std::uint32_t>(rank + 1);
  }

  void schedule(std::uint64_t time, std::optional<std::size_t> user) {
    events_.push(Event{time, event_count_++, user});
  }

  std::uint64_t length(std::uint64_t median) {
    return std::max<std::uint64_t>(random_.skewed(median, kSkewed), 1);
  }

  std::size_t choose_system_prompt() {
    std::uint64_t left = random_.below(system_weight_);
    std::size_t rank = 0;
    while (left >= system_weight(rank)) left -= system_weight(rank++);
    return rank;
  }

  void turn(std::uint64_t time, std::size_t user) {
    std::optional<Conversation>& conversation = users_[user];
    std::uint64_t prompt = 0;
    bool again = false;
    if (conversation) {
      again = random_.chance(options_.regenerate_percent, 100);
      prompt = again ? *conversation->last_prompt_tokens
                     : conversation->tokens + length(options_.message_tokens);
      if (prompt > options_.max_prompt_tokens) conversation.reset();
    }
    if (!conversation) {
      const std::size_t system = choose_system_prompt();
      conversation = Conversation{system, system_prompts_[system].tokens, {}, {}, {}};
      prompt = std::min<std::uint64_t>(conversation->tokens + length(options_.opening_tokens),
                                       options_.max_prompt_tokens);
    }
    const std::uint64_t output = length(options_.output_tokens);
    emit(time, prompt, output, prompt_ids(*conversation, prompt, again));
    conversation->tokens = prompt + output;
    conversation->last_prompt_tokens = prompt;

    const std::uint64_t done = time + output * kMsPerOutputToken;
    if (random_.chance(1, options_.mean_turns)) {
      conversation.reset();
      schedule(done + random_.exponential(options_.pause_ms), user);
    } else if (random_.chance(options_.break_percent, 100)) {
      schedule(done + random_.exponential(options_.break_ms), user);
    } else {
      schedule(done + random_.skewed(options_.think_ms, kVerySkewed), user);
    }
  }

  // Gives ids to the full blocks that have none yet: those that the last output and the new message
  // filled, the earlier partial block among them.
  std::vector<std::uint64_t> prompt_ids(Conversation& conversation, std::uint64_t prompt,
                                        bool again) {
    SystemPrompt& system = system_prompts_[conversation.system_prompt];
    while (conversation.ids.size() < prompt / kTraceBlockTokens) {
      const std::size_t block = conversation.ids.size();
      if (block >= system.tokens / kTraceBlockTokens) {
        conversation.ids.push_back(next_id_++);
        continue;
      }
      if (block == system.ids.size()) system.ids.push_back(next_id_++);
      conversation.ids.push_back(system.ids[block]);
    }
    std::vector<std::uint64_t> ids = conversation.ids;
    if (prompt % kTraceBlockTokens != 0) {
      if (!again) conversation.last_partial_id = next_id_++;
      ids.push_back(*conversation.last_partial_id);
    }
    return ids;
  }

  // So many for each turn that they make up their share of all requests.
  void one_offs(std::uint64_t time) {
    const std::uint32_t percent = options_.one_off_percent;
    std::uint32_t count = percent / (100 - percent);
    if (random_.chance(percent % (100 - percent), 100 - percent)) ++count;
    for (; count > 0; --count) schedule(time + random_.exponential(options_.think_ms), {});
  }

  void one_off(std::uint64_t time) {
    const std::uint64_t prompt =
        std::min<std::uint64_t>(length(options_.one_off_tokens), options_.max_prompt_tokens);
    std::vector<std::uint64_t> ids(trace_blocks(static_cast<std::uint32_t>(prompt)));
    for (std::uint64_t& id : ids) id = next_id_++;
    emit(time, prompt, length(options_.output_tokens), std::move(ids));
  }

  void emit(std::uint64_t time, std::uint64_t prompt, std::uint64_t output,
            std::vector<std::uint64_t> ids) {
    if (trace_.requests.empty()) start_ = time;
    trace_.requests.push_back(TraceRequest{.timestamp_ms = time - start_,
                                           .input_length = static_cast<std::uint32_t>(prompt),
                                           .output_length = static_cast<std::uint32_t>(output),
                                           .hash_ids = std::move(ids)});
  }

  const GenerateOptions& options_;
  Random random_;
  std::vector<SystemPrompt> system_prompts_;  // most popular first
  std::uint32_t system_weight_ = 0;           // of all together
  std::vector<std::optional<Conversation>> users_;
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  std::uint64_t event_count_ = 0;
  std::uint64_t next_id_ = 0;
  std::uint64_t start_ = 0;  // of the first request
  Trace trace_;
};

Result<void> check_range(std::string_view name, std::uint64_t value, std::uint64_t min,
                         std::uint64_t max) {
  if (value >= min && value <= max) return {};
  return Error{.code = ErrorCode::InvalidConfig,
               .message = fmt::format("{} is {}; it must be from {} to {}", name, value, min, max)};
}

Result<void> check(const GenerateOptions& o) {
  constexpr std::uint64_t kDayMs = 86'400'000;
  KVBM_CHECK_OK(check_range("requests", o.requests, 1, 1'000'000));
  KVBM_CHECK_OK(check_range("system_prompts", o.system_prompts, 1, 1024));
  KVBM_CHECK_OK(check_range("system_prompt_tokens", o.system_prompt_tokens, 0, 100'000));
  KVBM_CHECK_OK(check_range("users", o.users, 1, 100'000));
  KVBM_CHECK_OK(check_range("mean_turns", o.mean_turns, 1, 1000));
  KVBM_CHECK_OK(check_range("opening_tokens", o.opening_tokens, 1, 100'000));
  KVBM_CHECK_OK(check_range("message_tokens", o.message_tokens, 1, 100'000));
  KVBM_CHECK_OK(check_range("output_tokens", o.output_tokens, 1, 100'000));
  KVBM_CHECK_OK(check_range("think_ms", o.think_ms, 0, kDayMs));
  KVBM_CHECK_OK(check_range("pause_ms", o.pause_ms, 0, kDayMs));
  KVBM_CHECK_OK(check_range("break_percent", o.break_percent, 0, 100));
  KVBM_CHECK_OK(check_range("break_ms", o.break_ms, 0, kDayMs));
  KVBM_CHECK_OK(check_range("regenerate_percent", o.regenerate_percent, 0, 50));
  KVBM_CHECK_OK(check_range("one_off_percent", o.one_off_percent, 0, 90));
  KVBM_CHECK_OK(check_range("one_off_tokens", o.one_off_tokens, 1, 1'000'000));
  // Room for the longest system prompt and one token of a message.
  const std::uint64_t longest_system = o.system_prompt_tokens / 2 + o.system_prompt_tokens;
  auto range = check_range("max_prompt_tokens", o.max_prompt_tokens,
                           std::max<std::uint64_t>(longest_system + 1, 2), 1'048'576);
  if (!range && o.max_prompt_tokens <= longest_system) {
    Error error = std::move(range).error();
    error.message +=
        fmt::format(": more than 3/2 of system_prompt_tokens, which is {}", o.system_prompt_tokens);
    return error;
  }
  return range;
}

}  // namespace

Result<Trace> generate_trace(const GenerateOptions& options) {
  try {
    KVBM_CHECK_OK(check(options));
    return Generator(options).run();
  } catch (const std::bad_alloc&) {
    return Error{.code = ErrorCode::AllocationFailed,
                 .native = ENOMEM,
                 .message = "not enough memory for a trace of that size"};
  }
}

}  // namespace kvbm::app
