#include "runtime/tokenizer/post_processor.h"

#include "runtime/tokenizer/bpe.h"

namespace paceline::runtime {
namespace {

std::vector<std::int32_t> read_ids(const JsonField& ids) {
  std::vector<std::int32_t> read;
  for (const JsonField& id : ids.items()) {
    read.push_back(static_cast<std::int32_t>(id.count(kMostTokens - 1)));
  }
  return read;
}

/// `single` is a list such as [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}].
void add_template(const JsonField& field, PostProcessor& processor) {
  field.allow_only({"type", "single", "pair", "special_tokens"});
  const JsonField single = field.at("single");
  std::vector<std::int32_t> before, after;
  bool seen_text = false;
  for (const JsonField& piece : single.items()) {
    piece.allow_only({"SpecialToken", "Sequence"});
    if (const auto sequence = piece.find("Sequence")) {
      if (seen_text || sequence->at("id").string() != "A") single.refuse("the sequence A once");
      seen_text = true;
      continue;
    }
    const std::string& name = piece.at("SpecialToken").at("id").string();
    const auto ids = read_ids(field.at("special_tokens").at(name).at("ids"));
    std::vector<std::int32_t>& side = seen_text ? after : before;
    side.insert(side.end(), ids.begin(), ids.end());
  }
  if (!seen_text) single.refuse("the sequence A once");
  processor.before.insert(processor.before.begin(), before.begin(), before.end());
  processor.after.insert(processor.after.end(), after.begin(), after.end());
}

void parse_into(const JsonField& field, PostProcessor& processor) {
  const std::string& type = field.at("type").string();
  if (type == "Sequence") {
    field.allow_only({"type", "processors"});
    for (const JsonField& item : field.at("processors").items()) parse_into(item, processor);
  } else if (type == "TemplateProcessing") {
    add_template(field, processor);
  } else if (type == "ByteLevel") {
    field.allow_only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
  } else {
    field.at("type").refuse("TemplateProcessing, ByteLevel or Sequence");
  }
}

}  // namespace

PostProcessor PostProcessor::parse(const std::optional<JsonField>& field) {
  PostProcessor processor;
  if (field) parse_into(*field, processor);
  return processor;
}

}  // namespace paceline::runtime
