#include "manager/options.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <limits>
#include <string>
#include <system_error>

#include "leader/socket_path.h"

namespace kvbm {
namespace detail {
namespace {

using Config = KvBlockManagerConfig;

constexpr std::uint64_t kAny = std::numeric_limits<std::uint64_t>::max();

// `kField` picks the option's place out of a configuration, to read and to write.
template <auto kField>
constexpr Option option(const char* name, const char* unit, std::uint64_t min, std::uint64_t max,
                        std::uint64_t default_value, const char* help) {
  const auto read = [](const Config& config) { return std::uint64_t{kField(config)}; };
  const auto write = [](Config& config, std::uint64_t value) {
    kField(config) = static_cast<std::remove_reference_t<decltype(kField(config))>>(value);
  };
  return {name, "uint64", unit, min, max, default_value, help, read, write};
}

#define KVBM_FIELD(path) [](auto& config) -> auto& { return config.path; }

constexpr Option kOptions[] = {
    option<KVBM_FIELD(runtime.worker_id)>("runtime.worker_id", "", 0, kAny, 0,
                                          "Number of this worker among its peers"),
    option<KVBM_FIELD(runtime.transfer_threads)>("runtime.transfer_threads", "threads", 1, 64, 4,
                                                 "Threads that move bytes"),
    option<KVBM_FIELD(runtime.offload_queue_blocks)>(
        "runtime.offload_queue_blocks", "blocks", 1, 0xFFFFFFFF, 65536,
        "Blocks that may wait for offloading on each path"),
    option<KVBM_FIELD(runtime.prefill_tokens_per_second)>(
        "runtime.prefill_tokens_per_second", "tokens/s", 0, kAny, 0,
        "What the engine computes of a prompt; blocks that load more slowly are computed; 0: load "
        "all"),
    option<KVBM_FIELD(runtime.deterministic)>("runtime.deterministic", "", 0, 1, 0,
                                              "Two runs of the same calls find the same blocks"),
    option<KVBM_FIELD(model.num_layers)>("model.num_layers", "layers", 1, MAX_NUM_LAYERS,
                                         DEFAULT_NUM_LAYERS, "Layers of the model"),
    option<KVBM_FIELD(model.outer_dim)>("model.outer_dim", "", 1, MAX_OUTER_DIM, DEFAULT_OUTER_DIM,
                                        "Outer parts of a layer: 2 for K and V"),
    option<KVBM_FIELD(model.page_size)>("model.page_size", "tokens", 1, MAX_PAGE_SIZE,
                                        DEFAULT_PAGE_SIZE, "Tokens per block"),
    option<KVBM_FIELD(model.inner_dim)>("model.inner_dim", "elements", 1, MAX_INNER_DIM,
                                        DEFAULT_INNER_DIM,
                                        "Elements per token, layer and outer part"),
};

#undef KVBM_FIELD

// Collects what is wrong, one sentence each.
class Problems {
 public:
  void add(std::string problem) { problems_.push_back(std::move(problem)); }
  void check(const char* name, std::uint64_t value, std::uint64_t min, std::uint64_t max) {
    if (value >= min && value <= max) return;
    add(std::string(name) + " is " + std::to_string(value) + "; it must be " + std::to_string(min) +
        " .. " + std::to_string(max));
  }
  std::vector<std::string> take() { return std::move(problems_); }

 private:
  std::vector<std::string> problems_;
};

template <class S>
void check_layout(const std::optional<KvManagerLayoutConfig<S>>& layout, Tier tier,
                  Problems& problems) {
  if (!layout) return;
  const std::string name = std::string(to_string(tier)) + "_layout";
  problems.check((name + ".num_blocks").c_str(), layout->num_blocks, 1, 0xFFFFFFFE);
  const int chosen = (layout->storage.empty() ? 0 : 1) + (layout->allocator ? 1 : 0) +
                     (layout->tensors ? 1 : 0) + (layout->store ? 1 : 0) +
                     (layout->logical ? 1 : 0);
  if (chosen != 1) {
    problems.add(name + " sets " + std::to_string(chosen) +
                 " of storage, allocator, tensors, store and logical; it must set exactly one");
  }
  if (tier != Tier::Device && layout->tensors) {
    problems.add(name + ".tensors must be empty: an engine's tensors are the device tier");
  }
  if (tier != Tier::Device && layout->external) {
    problems.add(name + ".external must be false: an engine's own blocks are the device tier");
  }
  if (tier == Tier::Device && layout->external && layout->logical) {
    problems.add(name + ".external needs blocks in this process, not logical ones");
  }
  if (tier == Tier::Disk && (layout->offload.mode != OffloadMode::WriteThrough ||
                             layout->offload.admission != AdmissionConfig{})) {
    problems.add(name + ".offload must not be set: there is no tier below");
  }
  problems.check((name + ".offload.admission.min_priority").c_str(),
                 layout->offload.admission.min_priority, 0, MAX_PRIORITY);
  if (tier != Tier::Disk && layout->store) {
    problems.add(name + ".store must be empty: only the disk tier survives");
  }
  if (tier != Tier::Device && layout->layout_type != LayoutType::FullyContiguous) {
    problems.add(name + ".layout_type must be FullyContiguous: a block is one extent there");
  }
}

void check_leader_socket(const std::string& path, Problems& problems) {
  if (path.empty()) return;
  if (const auto checked = leader::check_socket_path(path); !checked) {
    problems.add("runtime.leader_socket: " + checked.error().message + "; it may have " +
                 std::to_string(checked.error().available) + " bytes");
  }
}

void check_nixl(const NixlOptions& nixl, Problems& problems) {
  if (nixl.kind != NixlOptions::Kind::Agent) return;
  problems.check("the length of runtime.nixl.agent's name",
                 nixl.agent ? nixl.agent->name.size() : 0, 1, 128);
}

void check_store(const KvBlockManagerConfig& config, Problems& problems) {
  problems.check("the length of model.name", config.model.name.size(), 0, 256);
  problems.check("the length of model.hash_profile", config.model.hash_profile.size(), 0, 64);
  if (!config.disk_layout || !config.disk_layout->store) return;
  const DiskStoreConfig& store = *config.disk_layout->store;
  if (store.directory.empty()) problems.add("disk_layout.store.directory is empty");
  const auto milliseconds = [](std::chrono::milliseconds time) {
    return static_cast<std::uint64_t>(std::max<std::int64_t>(time.count(), 0));
  };
  problems.check("disk_layout.store.sync_interval in ms", milliseconds(store.sync_interval), 10,
                 3'600'000);
  problems.check("disk_layout.store.stall_timeout in ms", milliseconds(store.stall_timeout), 100,
                 3'600'000);
  problems.check("disk_layout.store.rated_years", store.rated_years, 1, 100);
}

}  // namespace

std::span<const Option> options() noexcept { return kOptions; }

std::string Option::flag() const {
  std::string text = name;
  text = "--" + text.substr(text.find('.') + 1);
  std::replace(text.begin(), text.end(), '_', '-');
  return text;
}

std::string Option::environment_variable() const {
  std::string text = "KVBM_";
  for (const char* c = name; *c; ++c) {
    text += *c == '.' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(*c)));
  }
  return text;
}

const Option* find_option(std::string_view name) noexcept {
  for (const Option& option : kOptions) {
    if (name == option.name) return &option;
  }
  return nullptr;
}

Result<void> set_option(KvBlockManagerConfig& config, const Option& option, std::string_view text,
                        std::string_view source) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool is_number = error == std::errc() && end == text.data() + text.size();
  if (!is_number || value < option.min || value > option.max) {
    return Error{ErrorCode::InvalidConfig, 0, 0, 0,
                 std::string(source) + ": '" + std::string(text) + "' is not a whole number from " +
                     std::to_string(option.min) + " to " + std::to_string(option.max)};
  }
  option.write(config, value);
  return {};
}

Result<void> apply_environment(KvBlockManagerConfig& config) {
  for (const Option& option : kOptions) {
    const std::string variable = option.environment_variable();
    const char* text = std::getenv(variable.c_str());
    if (text && *text) KVBM_CHECK_OK(set_option(config, option, text, variable));
  }
  return {};
}

Result<void> check(const KvBlockManagerConfig& config) {
  std::string all;
  for (const std::string& problem : config.problems()) {
    all += (all.empty() ? "" : "; ") + problem;
  }
  if (all.empty()) return {};
  return Error{ErrorCode::InvalidConfig, 0, 0, 0, std::move(all)};
}

}  // namespace detail

std::vector<std::string> KvBlockManagerConfig::problems() const {
  detail::Problems problems;
  for (const detail::Option& option : detail::options()) {
    problems.check(option.name, option.read(*this), option.min, option.max);
  }
  detail::check_leader_socket(runtime.leader_socket, problems);
  detail::check_nixl(runtime.nixl, problems);
  if (runtime.sharing.is_set() && (!host_layout || host_layout->logical)) {
    problems.add("runtime.sharing needs host_layout: what workers share lies in the host tier");
  }
  if (runtime.deterministic && runtime.prefill_tokens_per_second > 0) {
    problems.add(
        "runtime.deterministic and runtime.prefill_tokens_per_second exclude each other: "
        "what is loaded would depend on how fast that is");
  }
  if (!device_layout) problems.add("device_layout is missing; a manager needs a device tier");
  detail::check_layout(device_layout, Tier::Device, problems);
  detail::check_layout(host_layout, Tier::Host, problems);
  detail::check_layout(disk_layout, Tier::Disk, problems);
  detail::check_store(*this, problems);
  return problems.take();
}

Result<KvBlockManagerConfig> KvBlockManagerConfigBuilder::build() const {
  KVBM_CHECK_OK(detail::check(config_));
  return config_;
}

}  // namespace kvbm
