#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace paceline::runtime::chat {

enum class TokenKind {
  kData,           ///< Text between tags, white space control already applied.
  kBlockBegin,     ///< {%
  kBlockEnd,       ///< %}
  kVariableBegin,  ///< {{
  kVariableEnd,    ///< }}
  kName,
  kString,  ///< `text` is the decoded value.
  kInteger,
  kFloat,
  kOperator,
  kEnd
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string text;
  int line = 1;
};

/// Throws ConfigError "<where>: chat template line <line>: <what>".
[[noreturn]] void refuse_template(std::string_view where, int line, std::string_view what);

/// Cuts a template into tokens as Jinja does with trim_blocks and lstrip_blocks (which is how
/// chat templates are written): the newline after a block tag or comment is dropped, and so is
/// the white space before one that stands first on its line; "-" strips all white space on its
/// side, "+" keeps it; one newline at the end of the template is dropped.
/// The last token is kEnd. Throws ConfigError.
std::vector<Token> tokenize_template(std::string_view source, std::string_view where);

}  // namespace paceline::runtime::chat
