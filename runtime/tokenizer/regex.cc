#include "runtime/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>

#include "kernels/core/error.h"

namespace paceline::runtime {
namespace {

// A match may cost this many backtracking points, and some more per byte that lies ahead of it. The
// patterns of known tokenizers need none: they repeat single characters, which costs no points.
constexpr std::size_t kMatchSteps = 1'000'000;
constexpr std::size_t kMatchStepsPerByte = 16;
constexpr std::uint32_t kHeapKibibytes = 256 * 1024;

std::string error_text(int code) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

const pcre2_code* code_of(const std::shared_ptr<const void>& code) {
  return static_cast<const pcre2_code*>(code.get());
}

}  // namespace

Regex::Regex(const std::string& pattern, std::string_view where) : source_(pattern) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK, &error, &offset, nullptr);
  if (code == nullptr) {
    throw ConfigError("{}: the pattern {} at byte {}: {}", where, pattern, offset,
                      error_text(error));
  }
  code_ = std::shared_ptr<const void>(code, [](const void* freed) {
    pcre2_code_free(static_cast<pcre2_code*>(const_cast<void*>(freed)));
  });
  std::uint32_t matches_empty = 0;
  pcre2_pattern_info(code, PCRE2_INFO_MATCHEMPTY, &matches_empty);
  if (matches_empty != 0) {
    throw ConfigError("{}: a pattern that can match nothing is not supported", where);
  }
  // Where the machine forbids JIT, pcre2_match interprets instead: slower, equal.
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
}

void Regex::for_each_match(std::string_view text,
                           const std::function<void(std::size_t, std::size_t)>& found) const {
  if (text.empty()) return;
  const pcre2_code* code = code_of(code_);
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match(
      pcre2_match_data_create(1, nullptr), pcre2_match_data_free);
  const std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)> context(
      pcre2_match_context_create(nullptr), pcre2_match_context_free);
  if (!match || !context) throw FatalError("out of memory in the tokenizer's pattern");
  pcre2_set_match_limit(context.get(),
                        static_cast<std::uint32_t>(std::min<std::size_t>(
                            kMatchSteps + kMatchStepsPerByte * text.size(), UINT32_MAX)));
  pcre2_set_heap_limit(context.get(), kHeapKibibytes);
  const PCRE2_SPTR subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  std::size_t at = 0;
  while (at < text.size()) {
    int matched =
        pcre2_match(code, subject, text.size(), at, PCRE2_NO_UTF_CHECK, match.get(), context.get());
    if (matched == PCRE2_ERROR_JIT_STACKLIMIT) {
      matched = pcre2_match(code, subject, text.size(), at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                            match.get(), context.get());
    }
    if (matched == PCRE2_ERROR_NOMATCH) return;
    if (matched < 0) {
      throw RequestError("", "the tokenizer's pattern {} failed at byte {} of the text: {}",
                         source_, at, error_text(matched));
    }
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(match.get());
    // The constructor refuses patterns that PCRE2 knows to match nothing; it does not know all.
    if (bounds[0] == bounds[1]) {
      throw RequestError("", "the tokenizer's pattern {} matches nothing at byte {} of the text",
                         source_, bounds[0]);
    }
    found(bounds[0], bounds[1]);
    at = bounds[1];
  }
}

}  // namespace paceline::runtime
