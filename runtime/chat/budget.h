#pragma once

#include <cstddef>
#include <stdexcept>

namespace paceline::runtime {

/// What one rendering of a chat template may cost before it is refused.
struct ChatLimits {
  /// Nodes evaluated; string work counts as one more for every 64 bytes that are looked at.
  std::size_t max_steps = 20'000'000;
  /// Bytes of all the values made on the way, summed up (nothing is given back).
  std::size_t max_memory_bytes = std::size_t{512} << 20;
  /// Bytes of the rendered prompt.
  std::size_t max_output_bytes = std::size_t{64} << 20;
};

namespace chat {

/// Thrown while a template is evaluated; becomes a RequestError with the template's line.
class Failure : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Evaluation and values nest at most this deep, so recursion over either is bounded.
constexpr int kMaxEvaluationDepth = 400;
constexpr int kMaxValueDepth = 100;

/// Counts down what is left of ChatLimits. Throws Failure when something runs out.
class Budget {
 public:
  explicit Budget(const ChatLimits& limits)
      : steps_(limits.max_steps), memory_(limits.max_memory_bytes) {}

  void step(std::size_t steps = 1) {
    if (steps > steps_) throw Failure("the chat template takes too many steps");
    steps_ -= steps;
  }
  /// Looking at `bytes` bytes of text.
  void scan(std::size_t bytes) { step(1 + bytes / 64); }
  /// Making a value of `bytes` bytes.
  void make(std::size_t bytes) {
    if (bytes > memory_) throw Failure("the chat template makes too much text");
    memory_ -= bytes;
    scan(bytes);
  }

 private:
  std::size_t steps_;
  std::size_t memory_;
};

}  // namespace chat
}  // namespace paceline::runtime
