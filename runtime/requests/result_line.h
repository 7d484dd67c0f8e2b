#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/error.h"
#include "runtime/files/sha256.h"
#include "runtime/requests/request.h"

namespace paceline::runtime {

enum class FinishReason {
  kStop,    ///< an end-of-sequence token or a stop string
  kLength,  ///< max_tokens or the end of the context
};

/// What a request's generation came to.
struct Answer {
  std::string
      text;  ///< without the stop string; bytes that are no UTF-8 become U+FFFD when written
  FinishReason finish_reason = FinishReason::kStop;
  std::int64_t prompt_tokens = 0;
  std::vector<std::int32_t> token_ids;         ///< all generated, the ending one included
  std::int64_t steps = 0;                      ///< forwards that gave it at least one token
  std::vector<std::int64_t> accepted_at = {};  ///< drafted tokens accepted, by depth from 1
  std::uint64_t seed = 0;
  double ttft_ms = 0.0;  ///< from admission to the first token, in milliseconds
};

/// What is the same for all results of a job.
struct ResultFormat {
  std::string model;       ///< for lines that name no model
  bool token_ids = false;  ///< write the generated ids
};

/// One result as a line of an OpenAI batch's output, without the line end:
/// {"id", "custom_id", "response": {"status_code", "request_id", "body"}, "error": null,
///  "paceline": {"steps", "tokens_per_step", "seed", "ttft_ms", "token_sha256"}}.
/// If drafted tokens were accepted `paceline` holds `accepted_by_depth`.
/// The body is a `chat.completion` or a `text_completion`. `paceline` also holds `token_ids` if
/// asked for, and `request`, the line's `method`, `url`, `model`, `user` and `metadata`.
/// `created` is in seconds since 1970.
std::string result_line(const Request& request, const Answer& answer, const ResultFormat& format,
                        std::int64_t created);

/// The line of a request that failed: "response" is null, "error" is
/// {"code": "invalid_request", "message": "line 7: ...", "line": 7, "param": "n" or null}.
/// `code` is "invalid_request" where the line is at fault, "server_error" where the model is.
std::string error_line(std::string_view id, std::int64_t line, const RequestError& error,
                       std::string_view code = "invalid_request");

/// SHA-256 over the ids, 4 bytes each, little-endian.
Sha256::Digest token_digest(const std::vector<std::int32_t>& token_ids);

}  // namespace paceline::runtime
