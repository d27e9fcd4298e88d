// The inputs that fuzzing starts from: what a store writes, and what is next to it.
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace kvbm::fuzz {

// Of the target of this name: a name for each, and its bytes. Always the same.
std::vector<std::pair<std::string, std::vector<std::byte>>> seeds(const std::string& target);

}  // namespace kvbm::fuzz
