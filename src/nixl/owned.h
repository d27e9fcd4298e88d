// Handles of NIXL that end with their owner.
#pragma once

#include <utility>

#include "nixl/nixl_api.h"

namespace kvbm::nixl {

// A handle and the function that ends it. Threads: one at a time.
template <class Handle, Status (*NixlApi::*Destroy)(Handle*)>
class Owned {
 public:
  // `create` is a function of `api`, called with the place for the handle after `args`.
  // Errors: NixlError with the status of the function.
  template <class Create, class... Args>
  static Result<Owned> make(const NixlApi& api, const char* name, Create create, Args... args) {
    Owned owned(api);
    const Status status = (api.*create)(args..., &owned.handle_);
    if (status != kSuccess) {
      owned.handle_ = nullptr;
      return failed(status, name);
    }
    return owned;
  }
  Owned(Owned&& other) noexcept
      : api_(other.api_), handle_(std::exchange(other.handle_, nullptr)) {}
  Owned& operator=(Owned&& other) noexcept {
    std::swap(api_, other.api_);
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Owned() {
    if (handle_) (api_->*Destroy)(handle_);
  }

  Handle* get() const noexcept { return handle_; }

 private:
  explicit Owned(const NixlApi& api) : api_(&api) {}

  const NixlApi* api_;
  Handle* handle_ = nullptr;
};

using Params = Owned<ParamsHandle, &NixlApi::destroy_params>;
using Backend = Owned<BackendHandle, &NixlApi::destroy_backend>;
using CallOptions = Owned<OptionsHandle, &NixlApi::destroy_opt_args>;
using RegionList = Owned<RegionListHandle, &NixlApi::destroy_reg_dlist>;
using DescriptorList = Owned<DescriptorListHandle, &NixlApi::destroy_xfer_dlist>;
using Notifications = Owned<NotificationsHandle, &NixlApi::destroy_notif_map>;

}  // namespace kvbm::nixl
