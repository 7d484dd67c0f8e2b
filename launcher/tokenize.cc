#include <chrono>
#include <fstream>
#include <iostream>
#include <memory>

#include "kernels/core/error.h"
#include "launcher/command_line.h"
#include "runtime/chat/chat_template.h"
#include "runtime/files/json.h"
#include "runtime/tokenizer/tokenizer.h"

namespace paceline::launcher {
namespace {

using runtime::Json;
using runtime::TextSegment;

struct TokenizeOptions {
  std::string model;
  std::string input = "-";
  bool decode = false;
  bool chat = false;
  bool special = false;
  bool parse_special = false;
};

class LineConverter {
 public:
  explicit LineConverter(const TokenizeOptions& options)
      : options_(options), tokenizer_(runtime::Tokenizer::load(options.model)) {
    if (!options.chat) return;
    template_ = runtime::ChatTemplate::load(options.model);
    if (!template_) throw ConfigError("{}: has no chat template", options.model);
  }

  Json convert(const Json& line) const {
    if (options_.decode) return decode(line);
    if (options_.chat) return encode_chat(line);
    if (!line.is_string()) throw RequestError("", "expected a JSON string");
    const TextSegment segment{line.get<std::string>(), options_.parse_special};
    return tokenizer_.encode(std::span(&segment, 1), options_.special);
  }

 private:
  Json decode(const Json& line) const {
    std::vector<std::int32_t> ids;
    if (!line.is_array()) throw RequestError("", "expected a JSON list of token ids");
    for (const Json& id : line) {
      if (!id.is_number_integer() || id < 0 || id >= tokenizer_.vocab_size()) {
        throw RequestError("", "{} is not a token id below {}", id.dump(), tokenizer_.vocab_size());
      }
      ids.push_back(id.get<std::int32_t>());
    }
    return tokenizer_.decode(ids, /*skip_special_tokens=*/!options_.special);
  }

  Json encode_chat(const Json& line) const {
    const Json& messages = line.is_object() && line.contains("messages") ? line["messages"] : line;
    if (!messages.is_array()) throw RequestError("messages", "expected a JSON list of messages");
    const auto now = std::chrono::floor<std::chrono::seconds>(
        std::chrono::local_time<std::chrono::system_clock::duration>(
            std::chrono::system_clock::now().time_since_epoch()));
    return tokenizer_.encode(template_->render(messages, /*add_generation_prompt=*/true, now),
                             /*add_special_tokens=*/false);
  }

  const TokenizeOptions& options_;
  runtime::Tokenizer tokenizer_;
  std::optional<runtime::ChatTemplate> template_;
};

int run_tokenize(const TokenizeOptions& options, Context& context) {
  context.signals.end_at_once();
  if (context.world.rank() != 0) return kSuccess;
  const LineConverter converter(options);
  std::ifstream file;
  if (options.input != "-") {
    file.open(options.input, std::ios::binary);
    if (!file) throw ConfigError("{}: cannot be opened for reading", options.input);
  }
  std::istream& in = options.input == "-" ? std::cin : file;
  std::int64_t number = 0;
  int exit_code = kSuccess;
  for (std::string line; std::getline(in, line);) {
    ++number;
    try {
      const Json json = runtime::parse_json(line, fmt::format("line {}", number));
      std::cout << converter.convert(json).dump() << "\n";
    } catch (const RequestError& error) {
      std::cerr << "line " << number << ": " << error.what() << "\n";
      exit_code = kConfigError;
    } catch (const ConfigError& error) {  // not JSON; the message names the line
      std::cerr << error.what() << "\n";
      exit_code = kConfigError;
    }
  }
  std::cout.flush();
  return exit_code;
}

}  // namespace

void add_tokenize(CLI::App& app, Action& action) {
  auto options = std::make_shared<TokenizeOptions>();
  CLI::App* command =
      app.add_subcommand("tokenize", "JSON strings, one a line, to lists of token ids, or back");
  command->add_option("--model", options->model, "Hugging Face model directory")
      ->required()
      ->option_text("DIR");
  command->add_option("--input", options->input, "Lines to convert; - is standard input")
      ->capture_default_str()
      ->option_text("FILE");
  auto* decode = command->add_flag("--decode", options->decode, "Lists of ids to strings instead");
  auto* chat = command->add_flag("--chat", options->chat,
                                 "Lines are lists of messages, put through the chat template");
  command->add_flag("--special", options->special,
                    "Encoding: add the tokens that begin and end a text; decoding: keep special "
                    "tokens in the text");
  command
      ->add_flag("--parse-special", options->parse_special,
                 "Text may spell special tokens (never so for prompts of requests)")
      ->excludes(decode);
  chat->excludes(decode);
  command->callback([options, &action] {
    action = [options](Context& context) { return run_tokenize(*options, context); };
  });
}

}  // namespace paceline::launcher
