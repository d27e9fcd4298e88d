// Delta debugging: what is left of a failing list when nothing more can be taken out.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace kvbm::model {

// A part of `items`, in order, for which fails(part) holds as it does for the whole, and which no
// longer fails without any one of its items; or the best found after `tries` calls of fails().
template <class Item, class Fails>
std::vector<Item> shrink(std::vector<Item> items, std::size_t tries, Fails fails) {
  for (std::size_t chunk = items.size() / 2; chunk > 0 && tries > 0;) {
    bool has_shrunk = false;
    // From the end: what comes late matters for little.
    for (std::size_t end = items.size(); end > 0 && tries > 0; --tries) {
      const std::size_t begin = end - std::min(chunk, end);
      std::vector<Item> part(items.begin(), items.begin() + static_cast<std::ptrdiff_t>(begin));
      part.insert(part.end(), items.begin() + static_cast<std::ptrdiff_t>(end), items.end());
      if (fails(part)) {
        items = std::move(part);
        has_shrunk = true;
      }
      end = begin;
    }
    if (chunk == 1 && !has_shrunk) break;
    if (chunk > 1) chunk = std::max<std::size_t>(1, chunk / 2);
  }
  return items;
}

}  // namespace kvbm::model
