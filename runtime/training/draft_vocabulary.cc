#include "runtime/training/draft_vocabulary.h"

#include <algorithm>
#include <numeric>

namespace paceline::runtime {

std::vector<std::int32_t> choose_draft_vocabulary(std::span<const Conversation* const> texts,
                                                  std::int64_t size, std::int64_t vocab_size,
                                                  std::span<const std::int32_t> always) {
  if (size == 0 || size >= vocab_size) return {};
  std::vector<std::int64_t> counts(static_cast<std::size_t>(vocab_size));
  for (const Conversation* text : texts) {
    for (const std::int32_t token : text->answer()) ++counts[static_cast<std::size_t>(token)];
  }
  std::vector<bool> chosen(counts.size());
  std::int64_t left = size;
  const auto choose = [&](std::int32_t token) {
    if (chosen[static_cast<std::size_t>(token)]) return;
    chosen[static_cast<std::size_t>(token)] = true;
    --left;
  };
  for (const std::int32_t token : always) {
    if (token < vocab_size) choose(token);
  }
  std::vector<std::int32_t> by_count(counts.size());
  std::iota(by_count.begin(), by_count.end(), 0);
  std::stable_sort(by_count.begin(), by_count.end(), [&](std::int32_t a, std::int32_t b) {
    return counts[static_cast<std::size_t>(a)] > counts[static_cast<std::size_t>(b)];
  });
  for (const std::int32_t token : by_count) {
    if (left <= 0) break;
    choose(token);
  }
  std::vector<std::int32_t> vocabulary;
  for (std::int32_t token = 0; token < vocab_size; ++token) {
    if (chosen[static_cast<std::size_t>(token)]) vocabulary.push_back(token);
  }
  return vocabulary;
}

double covered_share(std::span<const Conversation* const> texts,
                     std::span<const std::int32_t> draft_vocabulary) {
  if (draft_vocabulary.empty()) return 1;
  std::int64_t tokens = 0;
  std::int64_t covered = 0;
  for (const Conversation* text : texts) {
    tokens += text->answer_tokens();
    covered += std::ranges::count_if(text->answer(), [&](std::int32_t token) {
      return std::ranges::binary_search(draft_vocabulary, token);
    });
  }
  return tokens > 0 ? static_cast<double>(covered) / static_cast<double>(tokens) : 0;
}

}  // namespace paceline::runtime
