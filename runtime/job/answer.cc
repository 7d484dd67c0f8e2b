#include "runtime/job/answer.h"

#include <algorithm>

#include "kernels/core/error.h"

namespace paceline::runtime {

StopStrings::StopStrings(std::vector<std::string> stops) : stops_(std::move(stops)) {
  for (const std::string& stop : stops_) longest_ = std::max(longest_, stop.size());
}

std::optional<std::size_t> StopStrings::find(const std::string& text) {
  if (stops_.empty()) return std::nullopt;
  const std::size_t from = searched_ > longest_ ? searched_ - longest_ : 0;
  std::size_t first = std::string::npos;
  for (const std::string& stop : stops_) first = std::min(first, text.find(stop, from));
  searched_ = text.size();
  if (first == std::string::npos) return std::nullopt;
  return first;
}

GrowingAnswer::GrowingAnswer(const WorkItem& item, const Tokenizer* tokenizer) : stops_(item.stop) {
  if (tokenizer != nullptr) decoder_.emplace(*tokenizer, /*skip_special_tokens=*/true);
  result_.index = item.index;
}

bool GrowingAnswer::push(const TokenEvent& event) {
  check(result_.end == EndReason::kNone, "a token for a request that has ended");
  if (result_.token_ids.empty()) {
    const auto waited = std::chrono::steady_clock::now() - taken_;
    result_.ttft_ms = std::chrono::duration<double, std::milli>(waited).count();
  }
  result_.end = event.end;
  if (event.token >= 0) {
    result_.token_ids.push_back(event.token);
    const std::size_t depth = step_tokens_++;
    if (depth > result_.accepted_at.size()) result_.accepted_at.push_back(0);
    if (depth > 0) ++result_.accepted_at[depth - 1];
    if (decoder_) result_.text += decoder_->push(event.token);
  }
  if (event.end != EndReason::kNone && decoder_) result_.text += decoder_->finish();
  if (const auto cut = stops_.find(result_.text)) {
    result_.text.resize(*cut);
    result_.end = EndReason::kStop;
  }
  return result_.end != EndReason::kNone;
}

WorkResult GrowingAnswer::take() { return std::move(result_); }

}  // namespace paceline::runtime
