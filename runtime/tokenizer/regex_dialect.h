#pragma once

#include <string>
#include <string_view>

namespace paceline::runtime {

/// tokenizer.json states its patterns in the dialect of Oniguruma (Ruby syntax), with Oniguruma's
/// Unicode tables. Rewrites such a pattern for PCRE2 so that both match the same text: `\s` becomes
/// Unicode's White_Space (PCRE2's own has U+180E besides), `\p{L}` and `\p{N}` gain the letters and
/// numbers of Unicode 15 and 16 that an older PCRE2 does not know.
///
/// Only what means the same in both is accepted: literals, `.`, classes without nesting, `\s \S
/// \p{..} \P{..}` with general categories, `\r \n \t \f \v`, escaped punctuation, alternation,
/// groups,
/// `(?i:` around ASCII literals, `(?=` and `(?!`, and the quantifiers `* + ? {m} {m,} {m,n}`, lazy
/// or possessive where both agree. A group may be repeated at most once (`?`), so matching cannot
/// take exponential time. Throws ConfigError that starts with `where` and names the construct and
/// its position.
std::string translate_oniguruma(std::string_view pattern, std::string_view where);

}  // namespace paceline::runtime
