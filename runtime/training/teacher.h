#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "drafter/training/teacher_data.h"
#include "runtime/training/conversations.h"
#include "runtime/training/hidden_states.h"
#include "runtime/training/training_order.h"

namespace paceline::runtime {

/// Conversations that are trained on, and those that are only judged by.
struct SplitConversations {
  std::vector<const Conversation*> training;
  std::vector<const Conversation*> held_out;
};

/// Holds out whole conversations: one in 64, at least 8 (or half of them, if they are fewer than
/// 16) and at most `most`, those whose prompts' digests are the smallest: whatever order they come
/// in. `conversations` must outlive the result. Throws ConfigError if there are fewer than two.
SplitConversations split_conversations(std::span<const Conversation> conversations,
                                       std::int64_t most);

struct TeacherOptions {
  OrderOptions order;
  int depth = 5;  ///< of the recurrence
  /// Of a text's positions that look i steps ahead in an epoch, about this share looks i + 1 ahead;
  /// others in each epoch. Held-out positions look all steps ahead.
  double depth_share = 1;
  /// Hidden states are held as bf16: nothing is lost where their products round them anyway.
  bool bf16 = false;
  std::size_t cache_bytes = 0;  ///< of hidden states that are kept for later epochs
  int replica = 0;              ///< this rank's
  int rank = 0;                 ///< within its replica
};

/// What the base model says of conversations' answers, straight from its forward. Held are the
/// hidden states of one group of conversations (see TrainingOrder), of the held-out ones, and of as
/// many others as fit the cache: those that came first, so that nothing depends on what is asked
/// for. Row r of a text is the row of the answer's r-th token's predecessor, so its next token is
/// that one. The ranks of a replica make the same calls and feed the model together.
class EngineTeacher final : public drafter::TeacherData {
 public:
  /// Computes the held-out texts' hidden states. All that is passed by reference must outlive it.
  EngineTeacher(const SplitConversations& conversations, const TeacherOptions& options,
                HiddenStates& states);

  void minibatch(std::uint64_t index, drafter::TeacherRows& batch) override;
  int held_out_texts() const override;
  void held_out(int text, drafter::TeacherRows& rows) override;
  std::string identity() const override { return identity_; }

  /// Minibatches of the first `epochs` epochs.
  std::uint64_t minibatches(std::uint64_t epochs) { return order_.minibatches(epochs); }
  /// All held-out texts of the replica: its ranks can draft for them together.
  std::span<const drafter::TeacherRows> held_out_of_replica() const { return held_out_; }

 private:
  /// A text's hidden states [rows, hidden]: fp32 or bf16; none: not held.
  struct HeldRows {
    std::vector<std::byte> values;
    bool kept = false;  // in the cache
  };
  void load(const TrainingOrder::Place& place);
  void feed(std::span<const std::int32_t> texts);
  void hold(std::span<const float> hidden, HeldRows& rows);
  void load_held_out(const SplitConversations& conversations);
  int steps_ahead(std::uint64_t epoch, std::int32_t text, std::int32_t row) const;
  void append_rows(std::uint64_t epoch, const Window& window, drafter::TeacherRows& batch) const;
  void append_hidden(const Window& window, std::size_t rows, std::vector<float>& hidden) const;

  TeacherOptions options_;
  HiddenStates& states_;
  std::vector<const Conversation*> texts_;
  TrainingOrder order_;
  std::string identity_;
  std::optional<std::pair<std::uint64_t, std::size_t>> group_;  // epoch and number
  std::vector<std::int32_t> group_texts_;                       // the replica's
  std::vector<HeldRows> held_;                                  // of each text of the training
  std::size_t cached_bytes_ = 0;
  std::vector<drafter::TeacherRows> held_out_;
};

}  // namespace paceline::runtime
