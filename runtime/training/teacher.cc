#include "runtime/training/teacher.h"

#include <algorithm>
#include <iterator>

#include "kernels/core/error.h"
#include "kernels/core/half.h"
#include "kernels/core/philox.h"

namespace paceline::runtime {
namespace {

using drafter::TeacherRows;

constexpr std::int64_t kHeldOutOneIn = 64;
constexpr std::int64_t kFewestHeldOut = 8;

/// Rows of a text that have a next token, the answer's: as many as the answer has tokens.
FedText fed_text(const Conversation& text) {
  return {std::span(text.tokens).first(text.tokens.size() - 1), text.prompt_tokens - 1};
}

std::vector<std::int32_t> position_counts(const std::vector<const Conversation*>& texts) {
  std::vector<std::int32_t> counts;
  for (const Conversation* text : texts) counts.push_back(text->answer_tokens() - 1);
  return counts;
}

std::string identity_of(const SplitConversations& conversations, const TeacherOptions& options) {
  Sha256 hash;
  for (const auto* part : {&conversations.training, &conversations.held_out}) {
    hash.update(fmt::format("{} conversations\n", part->size()));
    for (const Conversation* text : *part) {
      hash.update(fmt::format("{} {}\n", text->tokens.size(), text->prompt_tokens));
      hash.update(std::as_bytes(std::span(text->tokens)));
    }
  }
  const OrderOptions& order = options.order;
  return fmt::format(
      "{} conversations, {} held out, batch {}, groups of {}, windows of {}, seed {}, depth {} "
      "by {}, {} replicas of {}, sha256 {}",
      conversations.training.size(), conversations.held_out.size(), order.batch_positions,
      order.group_positions, order.window, order.seed, options.depth, options.depth_share,
      order.replicas, order.ranks_per_replica, hash.finish_hex());
}

}  // namespace

SplitConversations split_conversations(std::span<const Conversation> conversations,
                                       std::int64_t most) {
  const std::int64_t count = std::ssize(conversations);
  if (count < 2) {
    throw ConfigError("{} conversations to train on: expected two at least, one is held out",
                      count);
  }
  std::vector<std::pair<Sha256::Digest, const Conversation*>> by_digest;
  for (const Conversation& text : conversations) {
    by_digest.emplace_back(prompt_digest(text.prompt()), &text);
  }
  std::ranges::sort(by_digest);
  const std::int64_t held = std::min({std::max(count / kHeldOutOneIn, kFewestHeldOut), count / 2,
                                      std::max<std::int64_t>(1, most)});
  SplitConversations split;
  for (std::int64_t i = 0; i < count; ++i) {
    auto& part = i < held ? split.held_out : split.training;
    part.push_back(by_digest[static_cast<std::size_t>(i)].second);
  }
  return split;
}

EngineTeacher::EngineTeacher(const SplitConversations& conversations, const TeacherOptions& options,
                             HiddenStates& states)
    : options_(options),
      states_(states),
      texts_(conversations.training),
      order_(position_counts(texts_), options.order),
      identity_(identity_of(conversations, options)) {
  held_.resize(texts_.size());
  load_held_out(conversations);
}

void EngineTeacher::load_held_out(const SplitConversations& conversations) {
  const auto replicas = static_cast<std::size_t>(options_.order.replicas);
  for (std::size_t i = static_cast<std::size_t>(options_.replica);
       i < conversations.held_out.size(); i += replicas) {
    const Conversation& text = *conversations.held_out[i];
    TeacherRows& rows = held_out_.emplace_back();
    rows.rows = text.answer_tokens();
    const FedText fed = fed_text(text);
    states_.append(std::span(&fed, 1), rows.hidden);
    states_.append_embedding(text.answer(), rows.next_embedding);
    rows.next_token.assign(text.answer().begin(), text.answer().end());
    for (std::int32_t row = 0; row < text.answer_tokens(); ++row) {
      rows.positions.push_back({row, std::min(options_.depth, text.answer_tokens() - 1 - row)});
    }
  }
}

int EngineTeacher::held_out_texts() const {
  const int ranks = options_.order.ranks_per_replica;
  return (static_cast<int>(held_out_.size()) - options_.rank + ranks - 1) / ranks;
}

void EngineTeacher::held_out(int text, TeacherRows& rows) {
  const int ranks = options_.order.ranks_per_replica;
  rows = held_out_.at(static_cast<std::size_t>(text * ranks + options_.rank));
}

void EngineTeacher::load(const TrainingOrder::Place& place) {
  const std::pair group(place.epoch, place.group);
  if (group_ == group) return;
  group_ = group;
  for (const std::int32_t text : group_texts_) {
    HeldRows& rows = held_[static_cast<std::size_t>(text)];
    if (!rows.kept) rows = {};
  }
  group_texts_ = order_.texts(place.epoch, place.group, options_.replica);
  std::vector<std::int32_t> missing;
  for (const std::int32_t text : group_texts_) {
    if (!held_[static_cast<std::size_t>(text)].kept) missing.push_back(text);
  }
  // Some texts at a time, so that their states are not all there twice.
  constexpr std::int64_t kRowsAtOnce = 16384;
  std::size_t begin = 0;
  std::int64_t rows = 0;
  for (std::size_t i = 0; i < missing.size(); ++i) {
    rows += texts_[static_cast<std::size_t>(missing[i])]->answer_tokens();
    if (rows < kRowsAtOnce && i + 1 < missing.size()) continue;
    feed(std::span(missing).subspan(begin, i + 1 - begin));
    begin = i + 1;
    rows = 0;
  }
}

void EngineTeacher::feed(std::span<const std::int32_t> texts) {
  std::vector<FedText> fed;
  for (const std::int32_t text : texts) {
    fed.push_back(fed_text(*texts_[static_cast<std::size_t>(text)]));
  }
  std::vector<float> hidden;
  states_.append(fed, hidden);
  std::span<const float> rest = hidden;
  for (const std::int32_t text : texts) {
    const auto index = static_cast<std::size_t>(text);
    const auto rows = static_cast<std::size_t>(texts_[index]->answer_tokens());
    hold(rest.first(rows * states_.hidden_size()), held_[index]);
    rest = rest.subspan(rows * states_.hidden_size());
  }
}

void EngineTeacher::hold(std::span<const float> hidden, HeldRows& rows) {
  if (options_.bf16) {
    rows.values.resize(hidden.size() * sizeof(std::uint16_t));
    auto* values = reinterpret_cast<std::uint16_t*>(rows.values.data());
    std::ranges::transform(hidden, values, kernels::fp32_to_bf16);
  } else {
    const auto bytes = std::as_bytes(hidden);
    rows.values.assign(bytes.begin(), bytes.end());
  }
  if (cached_bytes_ + rows.values.size() > options_.cache_bytes) return;
  cached_bytes_ += rows.values.size();
  rows.kept = true;
}

void EngineTeacher::append_hidden(const Window& window, std::size_t rows,
                                  std::vector<float>& hidden) const {
  const HeldRows& held = held_[static_cast<std::size_t>(window.text)];
  const std::size_t first = static_cast<std::size_t>(window.first) * states_.hidden_size();
  const std::size_t count = rows * states_.hidden_size();
  if (options_.bf16) {
    const auto* values = reinterpret_cast<const std::uint16_t*>(held.values.data()) + first;
    std::transform(values, values + count, std::back_inserter(hidden), kernels::bf16_to_fp32);
  } else {
    const auto* values = reinterpret_cast<const float*>(held.values.data()) + first;
    hidden.insert(hidden.end(), values, values + count);
  }
}

int EngineTeacher::steps_ahead(std::uint64_t epoch, std::int32_t text, std::int32_t row) const {
  if (options_.depth_share >= 1) return options_.depth;
  const auto low = [](auto value) { return static_cast<std::uint32_t>(value); };
  const auto random = kernels::philox({low(epoch), low(epoch >> 32), low(text), low(row)},
                                      {low(options_.order.seed), low(options_.order.seed >> 32)});
  const double unit = (random[0] + 0.5) * 0x1p-32;
  int steps = 1;
  for (double share = options_.depth_share; steps < options_.depth && unit < share; ++steps) {
    share *= options_.depth_share;
  }
  return steps;
}

// The window's rows and the `depth` behind them, which its last positions look ahead to.
void EngineTeacher::append_rows(std::uint64_t epoch, const Window& window,
                                TeacherRows& batch) const {
  const Conversation& text = *texts_[static_cast<std::size_t>(window.text)];
  const std::int32_t length = text.answer_tokens();
  const std::int32_t end = std::min(length, window.first + window.positions + options_.depth);
  const auto base = static_cast<std::int32_t>(batch.rows) - window.first;
  for (std::int32_t row = window.first; row < window.first + window.positions; ++row) {
    batch.positions.push_back(
        {base + row, std::min(steps_ahead(epoch, window.text, row), length - 1 - row)});
  }
  const auto tokens = text.answer().subspan(static_cast<std::size_t>(window.first),
                                            static_cast<std::size_t>(end - window.first));
  batch.next_token.insert(batch.next_token.end(), tokens.begin(), tokens.end());
  batch.rows += end - window.first;
}

void EngineTeacher::minibatch(std::uint64_t index, TeacherRows& batch) {
  const TrainingOrder::Place place = order_.place(index);
  load(place);
  batch.rows = 0;
  batch.hidden.clear();
  batch.next_embedding.clear();
  batch.next_token.clear();
  batch.positions.clear();
  // The embedding is cut over the replica's ranks, so all look up the tokens of each.
  for (int rank = 0; rank < options_.order.ranks_per_replica; ++rank) {
    const std::vector<Window> windows = order_.windows(place, options_.replica, rank);
    if (rank != options_.rank) {
      TeacherRows others;
      for (const Window& window : windows) append_rows(place.epoch, window, others);
      states_.append_embedding(others.next_token, others.next_embedding);
      continue;
    }
    for (const Window& window : windows) {
      const std::int64_t before = batch.rows;
      append_rows(place.epoch, window, batch);
      append_hidden(window, static_cast<std::size_t>(batch.rows - before), batch.hidden);
    }
    states_.append_embedding(batch.next_token, batch.next_embedding);
  }
}

}  // namespace paceline::runtime
