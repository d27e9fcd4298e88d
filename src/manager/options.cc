#include "manager/options.h"

#include <limits>
#include <string>

namespace kvbm {
namespace detail {
namespace {

using Config = KvBlockManagerConfig;

constexpr std::uint64_t kAny = std::numeric_limits<std::uint64_t>::max();

constexpr Option kOptions[] = {
    {"runtime.worker_id", "uint64", "", 0, kAny, 0, "Number of this worker among its peers",
     [](const Config& c) { return std::uint64_t{c.runtime.worker_id}; }},
    {"runtime.transfer_threads", "uint64", "threads", 1, 64, 4, "Threads that move bytes",
     [](const Config& c) { return std::uint64_t{c.runtime.transfer_threads}; }},
    {"runtime.offload_queue_blocks", "uint64", "blocks", 1, 0xFFFFFFFF, 65536,
     "Blocks that may wait for offloading on each path",
     [](const Config& c) { return std::uint64_t{c.runtime.offload_queue_blocks}; }},
    {"model.num_layers", "uint64", "layers", 1, MAX_NUM_LAYERS, DEFAULT_NUM_LAYERS,
     "Layers of the model", [](const Config& c) { return std::uint64_t{c.model.num_layers}; }},
    {"model.outer_dim", "uint64", "", 1, MAX_OUTER_DIM, DEFAULT_OUTER_DIM,
     "Outer parts of a layer: 2 for K and V",
     [](const Config& c) { return std::uint64_t{c.model.outer_dim}; }},
    {"model.page_size", "uint64", "tokens", 1, MAX_PAGE_SIZE, DEFAULT_PAGE_SIZE, "Tokens per block",
     [](const Config& c) { return std::uint64_t{c.model.page_size}; }},
    {"model.inner_dim", "uint64", "elements", 1, MAX_INNER_DIM, DEFAULT_INNER_DIM,
     "Elements per token, layer and outer part",
     [](const Config& c) { return std::uint64_t{c.model.inner_dim}; }},
};

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
  const int chosen =
      (layout->storage.empty() ? 0 : 1) + (layout->allocator ? 1 : 0) + (layout->logical ? 1 : 0);
  if (chosen != 1) {
    problems.add(name + " sets " + std::to_string(chosen) +
                 " of storage, allocator and logical; it must set exactly one");
  }
  if (tier != Tier::Device && layout->layout_type != LayoutType::FullyContiguous) {
    problems.add(name + ".layout_type must be FullyContiguous: a block is one extent there");
  }
}

}  // namespace

std::span<const Option> options() noexcept { return kOptions; }

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
  if (!device_layout) problems.add("device_layout is missing; a manager needs a device tier");
  if (disk_layout && !host_layout) {
    problems.add("disk_layout needs a host_layout: blocks reach the disk through host memory");
  }
  detail::check_layout(device_layout, Tier::Device, problems);
  detail::check_layout(host_layout, Tier::Host, problems);
  detail::check_layout(disk_layout, Tier::Disk, problems);
  return problems.take();
}

Result<KvBlockManagerConfig> KvBlockManagerConfigBuilder::build() const {
  KVBM_CHECK_OK(detail::check(config_));
  return config_;
}

}  // namespace kvbm
