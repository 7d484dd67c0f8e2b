#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "runtime/tokenizer/json_field.h"

namespace paceline::runtime {

/// `post_processor` of tokenizer.json, for a single sequence: the special tokens around it
/// (beginning and end of sequence).
struct PostProcessor {
  std::vector<std::int32_t> before, after;

  /// TemplateProcessing, ByteLevel (which moves offsets only), and Sequences of those; throws
  /// ConfigError for anything else. Absent means: no tokens.
  static PostProcessor parse(const std::optional<JsonField>& field);
};

}  // namespace paceline::runtime
