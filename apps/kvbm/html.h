// What the pages of reports have in common.
#pragma once

#include <string>
#include <string_view>

namespace kvbm::app {

// As the text of an XML element or attribute. Bytes that are not UTF-8 and control characters
// become U+FFFD.
std::string escaped(std::string_view text);

// A page up to the beginning of its main part, light or dark as the reader's system is. Both
// arguments are taken as they are, so the title must be escaped.
std::string begin_page(std::string_view title, std::string_view more_style = {});
std::string end_page();

}  // namespace kvbm::app
