// A check of pages, for tests.
#pragma once

#include <cctype>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace kvbm::app {

// Whether ` name="value"` is all that is left, any number of times.
inline bool are_attributes(std::string_view text) {
  while (!text.empty()) {
    const std::size_t equals = text.find("=\"");
    if (text.front() != ' ' || equals == std::string_view::npos) return false;
    for (const char c : text.substr(1, equals - 1)) {
      if (!std::isalnum(static_cast<unsigned char>(c)) && c != '-') return false;
    }
    const std::size_t quote = text.find('"', equals + 2);
    if (quote == std::string_view::npos) return false;
    text.remove_prefix(quote + 1);
  }
  return true;
}

// What is wrong with the text as XML: tags that do not match, attributes without quotes, a bare
// '&' or '<'. Empty if nothing is. By hand, because std::regex recurses once per character.
inline std::string xml_problem(std::string_view text) {
  constexpr std::string_view kDoctype = "<!DOCTYPE html>\n";
  if (!text.starts_with(kDoctype)) return "no doctype";
  text.remove_prefix(kDoctype.size());
  for (std::size_t at = 0; (at = text.find('&', at)) != text.npos; ++at) {
    const std::string_view name = text.substr(at + 1, text.find(';', at) - at - 1);
    if (name != "amp" && name != "lt" && name != "gt" && name != "quot" && name != "#39") {
      return "a bare &";
    }
  }

  std::vector<std::string_view> open;
  for (std::size_t at; (at = text.find('<')) != text.npos;) {
    const std::size_t end = text.find('>', at);
    if (end == text.npos) return "a bare <";
    std::string_view tag = text.substr(at + 1, end - at - 1);
    text.remove_prefix(end + 1);
    if (tag.starts_with('/')) {
      if (open.empty() || open.back() != tag.substr(1)) return "unexpected " + std::string(tag);
      open.pop_back();
      continue;
    }
    const bool is_empty = tag.ends_with('/');
    if (is_empty) tag.remove_suffix(1);
    const std::string_view name = tag.substr(0, tag.find(' '));
    if (!are_attributes(tag.substr(name.size()))) return "attributes of " + std::string(tag);
    if (!is_empty) open.push_back(name);
  }
  return open.empty() ? "" : "not closed: " + std::string(open.back());
}

}  // namespace kvbm::app
