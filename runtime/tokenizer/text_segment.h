#pragma once

#include <string>

namespace paceline::runtime {

/// A piece of a prompt, with where it came from. Only trusted text may become special and other
/// added tokens: a chat template's own literals and the model's special token names. Whatever came
/// from a request (content, but roles and names as well) is untrusted, so that a user who types
/// "<|im_end|>" sends those ten characters and not the token.
struct TextSegment {
  std::string text;
  bool trusted = false;

  bool operator==(const TextSegment&) const = default;
};

}  // namespace paceline::runtime
