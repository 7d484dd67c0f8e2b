// tokenizer.json: any bytes are refused with ConfigError or make a tokenizer that works.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "kernels/core/error.h"
#include "runtime/tokenizer/tokenizer.h"
#include "runtime/tokenizer/utf8.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace paceline;
  using namespace paceline::runtime;
  constexpr std::string_view kText =
      "It's 12  caf\xc3\xa9 e\xcc\x81\n<|im_start|>\xff\xf0\x9f\x98\x80 ab</s>";
  try {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    const Tokenizer tokenizer =
        Tokenizer::parse(parse_json(text, "tokenizer.json"), "tokenizer.json");
    const TextSegment segments[] = {{std::string(kText), true}, {std::string(kText), false}};
    const auto ids = tokenizer.encode(segments, true);
    StreamDecoder stream(tokenizer, false);
    std::string streamed;
    for (const std::int32_t id : ids) streamed += stream.push(id);
    streamed += stream.finish();
    check(streamed == tokenizer.decode(ids, false), "streamed and whole text differ");
    check(is_valid_utf8(streamed), "decoded text is not UTF-8");
  } catch (const ConfigError&) {
  } catch (const RequestError&) {  // a pattern that needs too many steps
  }
  return 0;
}
