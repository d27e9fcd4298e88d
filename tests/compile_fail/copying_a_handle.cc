// One handle, one hold: handles of every kind move and are not copied.
#include "kvbm/pool.h"

#ifdef SHOULD_FAIL
template <class T>
T& pass(T& handle) {
  return handle;
}
#else
template <class T>
T pass(T& handle) {
  return std::move(handle);
}
#endif

namespace kvbm {

using S = DeviceStorage;

Block<S> again(Block<S>& handle) { return pass(handle); }
MutableBlock<S> again(MutableBlock<S>& handle) { return pass(handle); }
CompleteBlock<S> again(CompleteBlock<S>& handle) { return pass(handle); }
ImmutableBlock<S> again(ImmutableBlock<S>& handle) { return pass(handle); }
WeakBlock<S> again(WeakBlock<S>& handle) { return pass(handle); }
BlockRun<S> again(BlockRun<S>& handle) { return pass(handle); }

}  // namespace kvbm
