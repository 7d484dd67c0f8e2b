#include "runtime/job/generate_job.h"

#include <chrono>
#include <utility>

#include "kernels/core/error.h"

namespace paceline::runtime {

GenerateJob::GenerateJob(const JsonlInput& input, const PromptEncoder& encoder,
                         const OutputState& state, OutputFile output, ResultFormat format)
    : input_(input),
      encoder_(encoder),
      output_(std::move(output)),
      format_(std::move(format)),
      checksum_(input.size()),
      finished_before_(input.size()) {
  totals_.requests = static_cast<std::int64_t>(input.size());
  for (std::size_t index = 0; index < input.size(); ++index) {
    const auto& line = state.finished.at(index);
    if (!line) continue;
    finished_before_[index] = true;
    ++totals_.resumed;
    checksum_.set_answer(index, line->token_digest);
  }
  while (next_ < input_.size() && finished_before_[next_]) ++next_;
}

std::vector<WorkItem> GenerateJob::next(std::size_t wanted) {
  std::vector<WorkItem> items;
  while (items.size() < wanted && !exhausted()) {
    const std::size_t index = next_++;
    try {
      Request request = input_.read(index);
      WorkItem item = encoder_.encode(request, static_cast<std::int64_t>(index));
      running_.emplace(
          item.index,
          Running{std::move(request), static_cast<std::int64_t>(item.prompt.size()), item.seed});
      items.push_back(std::move(item));
    } catch (const RequestError& error) {
      fail(index, error, "invalid_request");
    }
    while (next_ < input_.size() && finished_before_[next_]) ++next_;
  }
  return items;
}

void GenerateJob::fail(std::size_t index, const RequestError& error, std::string_view code) {
  output_.write_line(error_line(input_.id(index), input_.line(index), error, code));
  checksum_.set_error(index);
  ++totals_.failed;
}

void GenerateJob::complete(const WorkResult& result) {
  const auto running = running_.extract(result.index);
  check(!running.empty(), "a result for request {}, which is not running", result.index);
  const Running& info = running.mapped();
  const auto index = static_cast<std::size_t>(result.index);
  if (result.end == EndReason::kNonFinite) {
    fail(index,
         RequestError("", "the model's logits after {} new tokens are not finite numbers",
                      result.token_ids.size()),
         "server_error");
    return;
  }
  Answer answer;
  answer.text = result.text;
  answer.finish_reason =
      result.end == EndReason::kLength ? FinishReason::kLength : FinishReason::kStop;
  answer.prompt_tokens = info.prompt_tokens;
  answer.token_ids = result.token_ids;
  answer.steps = result.steps;
  answer.accepted_at = result.accepted_at;
  answer.seed = info.seed;
  answer.ttft_ms = result.ttft_ms;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  output_.write_line(result_line(info.request, answer, format_,
                                 std::chrono::duration_cast<std::chrono::seconds>(now).count()));
  checksum_.set_answer(index, token_digest(answer.token_ids));
  ++totals_.answered;
  totals_.prompt_tokens += info.prompt_tokens;
  totals_.generated_tokens += static_cast<std::int64_t>(answer.token_ids.size());
  totals_.steps += result.steps;
  totals_.ttft_ms.push_back(result.ttft_ms);
}

}  // namespace paceline::runtime
