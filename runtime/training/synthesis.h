#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "runtime/job/prompt_encoder.h"
#include "runtime/job/work.h"
#include "runtime/requests/output_file.h"
#include "runtime/training/conversations.h"

namespace paceline::runtime {

/// Rank 0's side of having the engine write a training's conversations: answers to prompts that
/// were given, and conversations that are the model's own from end to end.
///
/// User turn n is what the model writes after the template's "user:" at temperature 1; it counts if
/// it is not empty, came to its end within kUserTurnTokens, and gives a prompt that is new. Of the
/// m-th prompt so found the answer is greedy, but sampled for every fourth m, at temperatures 0.7
/// and 1 in turn. Seeds come from the job's seed and n or m. Turns are judged in the order of n,
/// and the first answers to found prompts that have synthesize_tokens tokens together are taken: so
/// the result does not depend on batches, ranks or interruptions.
///
/// In the directory user_turns.jsonl holds the turns, {"text": string or null}, in order, and
/// conversations.jsonl the answers as they came, as conversation_line gives them (a few more than
/// are taken, where several were under way at the end); beside each the manifest of what it depends
/// on.
class Synthesis {
 public:
  static constexpr std::int32_t kUserTurnTokens = 112;

  struct Options {
    std::int64_t synthesize_tokens = 0;
    std::int64_t answer_tokens = 0;  ///< new tokens of an answer at most
    std::int64_t longest = 0;        ///< tokens of a conversation that is read back
    std::uint64_t seed = 0;
    bool resume = false;
  };

  /// Reads what an earlier run wrote to `directory`, if options.resume. `given`: prompts to be
  /// answered first. `manifest` is completed by the given prompts and the options. Throws
  /// ConfigError if the directory holds other data, or data and options.resume is not set.
  Synthesis(const PromptEncoder& encoder, std::vector<WorkItem> given, const Options& options,
            const std::filesystem::path& directory, OutputManifest manifest);

  /// Up to `wanted` requests: maybe none yet.
  std::vector<WorkItem> next(std::size_t wanted);
  /// No further request will come.
  bool exhausted() const;
  /// Throws FatalError if thousands of user turns gave nothing.
  void complete(const WorkResult& result);

  /// Once exhausted and everything handed out is complete: all answers. Forces the files to disk.
  std::vector<Conversation> take();

  std::int64_t given_prompts() const { return num_given_; }
  std::int64_t answered() const { return answered_; }            ///< prompts, given and found
  std::int64_t answer_tokens() const { return answer_tokens_; }  ///< of all complete answers
  std::int64_t user_turns() const { return next_turn_; }

 private:
  /// A prompt, given or found, and what became of it.
  struct Prompt {
    WorkItem item;
    bool handed_out = false;
    bool done = false;
    std::optional<Conversation> answer;  // none if the model's numbers were not finite
  };

  void open_files(const std::filesystem::path& directory, OutputManifest manifest, bool resume);
  void read_turns(const std::filesystem::path& path);
  void add_prompt(WorkItem item);
  void add_turn(std::optional<std::string> text);
  void add_turns();
  void add_answer(const WorkResult& result);
  void settle();
  WorkItem next_turn_item();
  std::size_t given() const { return static_cast<std::size_t>(num_given_); }
  double expected_tokens() const;
  bool enough() const { return settled_ >= options_.synthesize_tokens; }

  const PromptEncoder& encoder_;
  Options options_;
  std::optional<PromptEncoder::UserTurn> turn_;  // null: nothing is synthesized
  std::int64_t num_given_ = 0;
  std::vector<Prompt> prompts_;
  std::set<Sha256::Digest> known_;                  // of prompts
  std::map<Sha256::Digest, Conversation> earlier_;  // answers that an earlier run wrote
  std::optional<OutputFile> turns_file_, conversations_file_;

  std::map<std::int64_t, std::optional<std::string>> turns_;  // complete, before their turn
  std::int64_t next_turn_ = 0;                                // to be judged
  std::int64_t handed_turns_ = 0;
  std::int64_t useless_turns_ = 0;  // since the last that gave a prompt
  std::size_t next_prompt_ = 0;     // to be handed out
  std::size_t next_answer_ = 0;     // all before it are done
  std::int64_t settled_ = 0;        // tokens of found prompts' answers before next_answer_
  std::int64_t answered_ = 0;
  std::int64_t answer_tokens_ = 0;
  std::int64_t found_tokens_ = 0;  // of all their answers that are complete
  std::int64_t found_answers_ = 0;
};

}  // namespace paceline::runtime
