// A program outside the source tree: sees only what `cmake --install` left. It calls into the part
// of the library that needs another library, so that it links only where that one is named, too.
#include <kvbm/kvbm.h>

#include <cstring>

int main() {
  const bool hashes = kvbm::VllmHasher::create().has_value();
  return hashes ? std::strcmp(kvbm::to_string(kvbm::Tier::Host), "host") : 1;
}
