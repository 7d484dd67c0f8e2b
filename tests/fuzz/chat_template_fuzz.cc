// A chat template, a zero byte and a conversation: the template is refused when it is compiled, or
// the conversation when it is rendered, or the prompt stays within its limits and no character of
// the conversation is trusted.

#include <cstdint>
#include <string_view>

#include "kernels/core/error.h"
#include "runtime/chat/chat_template.h"

using paceline::check;
using paceline::ConfigError;
using paceline::RequestError;
using namespace paceline::runtime;  // NOLINT: a test of that namespace

namespace {

/// What no template of the seeds holds, and every conversation: U+E000.
constexpr std::string_view kTyped = "\xee\x80\x80";

void check_prompt(const std::vector<TextSegment>& segments, bool typed_by_template,
                  const ChatLimits& limits) {
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < segments.size(); ++i) {
    const auto& [text, trusted] = segments[i];
    check(!text.empty(), "an empty segment");
    check(i == 0 || trusted != segments[i - 1].trusted, "two segments of one provenance");
    check(typed_by_template || !trusted || text.find(kTyped) == std::string::npos,
          "text of the conversation is trusted");
    bytes += text.size();
  }
  check(bytes <= limits.max_output_bytes, "{} bytes of output", bytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t end = input.find('\0');
  const std::string_view source = input.substr(0, end);
  const ChatLimits limits{
      .max_steps = 20'000, .max_memory_bytes = 1 << 20, .max_output_bytes = 64 << 10};
  try {
    const auto chat = ChatTemplate::compile(source, "fuzz", {"<s>", "</s>", "<unk>", "<pad>"});
    Json messages = {{{"role", "user"}, {"content", kTyped}}};
    if (end != input.npos) messages = parse_json(input.substr(end + 1), "messages");
    // A template may spell it too, also as an escape of which we cannot know.
    const bool typed_by_template =
        source.find(kTyped) != source.npos || source.find('\\') != source.npos;
    for (const bool add_generation_prompt : {false, true}) {
      try {
        check_prompt(chat.render(messages, add_generation_prompt, {}, limits), typed_by_template,
                     limits);
      } catch (const RequestError&) {
      }
    }
  } catch (const ConfigError&) {
  }
  return 0;
}
