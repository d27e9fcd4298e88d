// A program outside the source tree: sees only what `cmake --install` left.
#include <kvbm/kvbm.h>

#include <cstring>

int main() { return std::strcmp(kvbm::to_string(kvbm::Tier::Host), "host"); }
