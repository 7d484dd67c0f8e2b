#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runtime/chat/budget.h"
#include "runtime/chat/builtins.h"
#include "runtime/chat/syntax.h"

namespace paceline::runtime::chat {

/// Runs one rendering of a template. Recursion over the tree, and through macros, is bounded by
/// kMaxEvaluationDepth; time and memory by the limits.
class Interpreter {
 public:
  /// `now` is what strftime_now() formats.
  Interpreter(const Program& program, const ChatLimits& limits, std::chrono::local_seconds now);

  Budget& budget() { return budget_; }

  /// Gives a name a value before run(); names that the template never uses are ignored.
  void define(std::string_view name, Value value);

  /// The prompt. Throws Failure; line() then says where. Throws RequestError for
  /// raise_exception().
  Text run();

  int line() const { return line_; }

 private:
  enum class Flow { kNext, kBreak, kContinue };

  /// The names bound by one iteration, block or macro call; the outermost are in globals_.
  struct Scope {
    Scope* outer = nullptr;
    std::vector<std::pair<int, Value>> names;
  };

  // interpreter.cc: statements
  Flow run_body(const Body& body);
  Flow run_statement(const Statement& statement);
  Flow run_if(const Statement& statement);
  Flow run_for(const Statement& statement);
  Flow run_in_scope(const Body& body, Scope& scope);
  Items loop_items(const Statement& statement);
  Text capture(const Body& body, Scope& scope);
  void write(const Value& value);
  void write(const Text& text);
  void assign(const Target& target, const Value& value);
  void bind(int name_id, Value value);

  // evaluate.cc: expressions
  Value evaluate(const Expression& expression);
  Value evaluate_kind(const Expression& expression);
  Value evaluate_name(const Expression& expression);
  Value evaluate_collection(const Expression& expression);
  Value evaluate_arithmetic(const Expression& expression);
  Value evaluate_concatenation(const Expression& expression);
  Value evaluate_comparison(const Expression& expression);
  Value evaluate_logic(const Expression& expression);
  Value evaluate_conditional(const Expression& expression);
  Value evaluate_slice(const Expression& expression);
  Value evaluate_test(const Expression& expression);
  Value evaluate_method(const Expression& expression);
  Arguments evaluate_arguments(const Expression& call);
  Value call(const Value& callee, const Arguments& arguments);
  Value call_builtin(Builtin builtin, const Arguments& arguments);
  Value call_macro(const MacroDefinition& macro, const Arguments& arguments);
  Value make_namespace(const Arguments& arguments);
  Value make_dict(const Arguments& arguments);
  Value make_range(const Arguments& arguments);
  Value format_time(const Arguments& arguments);

  const Program& program_;
  Budget budget_;
  std::size_t max_output_bytes_;
  std::chrono::local_seconds now_;
  std::vector<std::optional<Value>> globals_;  ///< By name id.
  std::vector<std::unique_ptr<Namespace>> namespaces_;
  Scope* scope_ = nullptr;
  Text output_;
  int depth_ = 0;
  int line_ = 1;
};

}  // namespace paceline::runtime::chat
