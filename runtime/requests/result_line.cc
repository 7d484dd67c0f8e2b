#include "runtime/requests/result_line.h"

#include <cmath>

namespace paceline::runtime {
namespace {

/// Replaces what is not UTF-8 instead of throwing: a model may generate any bytes.
std::string line_of(const OrderedJson& json) {
  return json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

/// Equal ids give equal names, so that a resumed job writes what an undisturbed one would.
std::string name_of(std::string_view prefix, std::string_view id) {
  return fmt::format("{}-{}", prefix, sha256_hex(id).substr(0, 24));
}

/// Three decimals: what is measured is no finer, and the file stays readable.
double rounded(double value) { return std::round(value * 1000.0) / 1000.0; }

OrderedJson body_of(const Request& request, const Answer& answer, const ResultFormat& format,
                    std::int64_t created) {
  const bool is_chat = request.is_chat();
  OrderedJson choice = {{"index", 0}};
  if (is_chat) {
    choice["message"] = {{"role", "assistant"}, {"content", answer.text}};
  } else {
    choice["text"] = answer.text;
  }
  choice["finish_reason"] = answer.finish_reason == FinishReason::kStop ? "stop" : "length";
  choice["logprobs"] = nullptr;

  const auto completion_tokens = static_cast<std::int64_t>(answer.token_ids.size());
  OrderedJson body;
  body["id"] = name_of(is_chat ? "chatcmpl" : "cmpl", request.id);
  body["object"] = is_chat ? "chat.completion" : "text_completion";
  body["created"] = created;
  body["model"] = request.carried.value("model", format.model);
  body["choices"] = OrderedJson::array({std::move(choice)});
  body["usage"] = {{"prompt_tokens", answer.prompt_tokens},
                   {"completion_tokens", completion_tokens},
                   {"total_tokens", answer.prompt_tokens + completion_tokens}};
  return body;
}

OrderedJson paceline_of(const Request& request, const Answer& answer, const ResultFormat& format) {
  const auto tokens = static_cast<double>(answer.token_ids.size());
  OrderedJson ours;
  ours["steps"] = answer.steps;
  ours["tokens_per_step"] =
      answer.steps > 0 ? rounded(tokens / static_cast<double>(answer.steps)) : 0.0;
  if (!answer.accepted_at.empty()) ours["accepted_by_depth"] = answer.accepted_at;
  ours["seed"] = answer.seed;
  ours["ttft_ms"] = rounded(answer.ttft_ms);
  ours["token_sha256"] = hex_of(token_digest(answer.token_ids));
  if (format.token_ids) ours["token_ids"] = answer.token_ids;
  if (!request.carried.empty()) ours["request"] = request.carried;
  return ours;
}

}  // namespace

std::string result_line(const Request& request, const Answer& answer, const ResultFormat& format,
                        std::int64_t created) {
  const std::string name = name_of("batch_req", request.id);
  OrderedJson line;
  line["id"] = name;
  line["custom_id"] = request.id;
  line["response"] = {{"status_code", 200},
                      {"request_id", name},
                      {"body", body_of(request, answer, format, created)}};
  line["error"] = nullptr;
  line["paceline"] = paceline_of(request, answer, format);
  return line_of(line);
}

std::string error_line(std::string_view id, std::int64_t line_number, const RequestError& error,
                       std::string_view code) {
  OrderedJson line;
  line["id"] = name_of("batch_req", id);
  line["custom_id"] = id;
  line["response"] = nullptr;
  line["error"] = {{"code", code},
                   {"message", fmt::format("line {}: {}", line_number, error.what())},
                   {"line", line_number},
                   {"param", error.field.empty() ? OrderedJson() : OrderedJson(error.field)}};
  return line_of(line);
}

Sha256::Digest token_digest(const std::vector<std::int32_t>& token_ids) {
  std::string bytes;
  bytes.reserve(4 * token_ids.size());
  for (const std::int32_t id : token_ids) {
    for (int i = 0; i < 4; ++i) {
      bytes += static_cast<char>(static_cast<std::uint32_t>(id) >> (8 * i) & 255);
    }
  }
  return Sha256().update(bytes).finish();
}

}  // namespace paceline::runtime
