// Which way of copying is the fastest on a device, by the size of what lies together.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace kvbm {

enum class CudaDirection : std::uint8_t { ToDevice, ToHost };

enum class CudaWay : std::uint8_t {
  Engine,  // the copy engines take fragment by fragment
  Staged,  // one copy to or from a place on the device where a kernel gathers or scatters
  Kernel,  // a kernel reads host memory; to the device only, and from registered memory only
};
const char* to_string(CudaWay way) noexcept;

// Measured speeds, and the choice that follows from them. A value; deterministic.
class CudaCopyTable {
 public:
  static constexpr std::size_t kWays = 3;
  static constexpr std::array<std::size_t, 6> kSizes = {
      std::size_t{4} << 10,   std::size_t{16} << 10, std::size_t{64} << 10,
      std::size_t{256} << 10, std::size_t{1} << 20,  std::size_t{4} << 20};

  // All 0: nothing but the copy engines is chosen.
  CudaCopyTable() = default;
  // That way wherever it can be gone.
  static CudaCopyTable always(CudaWay way);

  // In bytes per nanosecond; 0: cannot be gone. `size` is an index of kSizes.
  void set(CudaDirection direction, CudaWay way, std::size_t size, double speed) noexcept {
    speeds_[static_cast<std::size_t>(direction)][static_cast<std::size_t>(way)][size] = speed;
  }
  double get(CudaDirection direction, CudaWay way, std::size_t size) const noexcept {
    return speeds_[static_cast<std::size_t>(direction)][static_cast<std::size_t>(way)][size];
  }

  // For fragments of that many bytes, as measured for the nearest size. Another way than the copy
  // engines must be clearly faster, as it takes a part of the device away from its owner.
  CudaWay choose(CudaDirection direction, std::size_t fragment_bytes) const noexcept;

  // One line for people.
  std::string description() const;

 private:
  std::array<std::array<std::array<double, kSizes.size()>, kWays>, 2> speeds_ = {};
};

}  // namespace kvbm
