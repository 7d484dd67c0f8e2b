#include "runtime/chat/interpreter.h"

#include <fmt/format.h>

#include <algorithm>

namespace paceline::runtime::chat {

namespace {

/// Puts a variable back when it leaves, also when a Failure passes through.
template <typename T>
class Restore {
 public:
  Restore(T& variable, T value) : variable_(variable), before_(std::move(variable)) {
    variable_ = std::move(value);
  }
  ~Restore() { variable_ = std::move(before_); }
  Restore(const Restore&) = delete;
  Restore& operator=(const Restore&) = delete;

 private:
  T& variable_;
  T before_;
};

}  // namespace

Interpreter::Interpreter(const Program& program, const ChatLimits& limits,
                         std::chrono::local_seconds now)
    : program_(program),
      budget_(limits),
      max_output_bytes_(limits.max_output_bytes),
      now_(now),
      globals_(program.names.size()) {
  constexpr std::pair<std::string_view, Builtin> kBuiltins[] = {
      {"raise_exception", Builtin::kRaiseException},
      {"strftime_now", Builtin::kStrftimeNow},
      {"namespace", Builtin::kNamespace},
      {"range", Builtin::kRange},
      {"dict", Builtin::kDict}};
  for (const auto& [name, builtin] : kBuiltins) {
    define(name, Value::holding(Function{builtin, nullptr}));
  }
}

void Interpreter::define(std::string_view name, Value value) {
  const auto known = std::find(program_.names.begin(), program_.names.end(), name);
  if (known == program_.names.end()) return;
  globals_[static_cast<std::size_t>(known - program_.names.begin())] = std::move(value);
}

Text Interpreter::run() {
  run_body(program_.body);
  return std::move(output_);
}

Interpreter::Flow Interpreter::run_body(const Body& body) {
  if (depth_ >= kMaxEvaluationDepth) throw Failure("the chat template recurses too deep");
  const Restore deeper(depth_, depth_ + 1);
  for (const auto& statement : body) {
    const Flow flow = run_statement(*statement);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::run_statement(const Statement& statement) {
  budget_.step();
  line_ = statement.line;
  switch (statement.kind) {
    case StatementKind::kText:
      write(statement.text);
      return Flow::kNext;
    case StatementKind::kOutput:
      write(evaluate(*statement.value));
      return Flow::kNext;
    case StatementKind::kIf:
      return run_if(statement);
    case StatementKind::kFor:
      return run_for(statement);
    case StatementKind::kSet:
      assign(statement.target, evaluate(*statement.value));
      return Flow::kNext;
    case StatementKind::kSetBlock: {
      Scope scope;
      assign(statement.target, Value::of(capture(statement.branches[0].body, scope)));
      return Flow::kNext;
    }
    case StatementKind::kMacro:
      bind(statement.target.name_ids[0],
           Value::holding(Function{Builtin::kDict, statement.macro.get()}));
      return Flow::kNext;
    case StatementKind::kScope: {
      Scope scope;
      return run_in_scope(statement.branches[0].body, scope);
    }
    case StatementKind::kBreak:
      return Flow::kBreak;
    case StatementKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::run_if(const Statement& statement) {
  for (const Branch& branch : statement.branches) {
    if (branch.condition == nullptr || evaluate(*branch.condition).truthy()) {
      return run_body(branch.body);
    }
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::run_in_scope(const Body& body, Scope& scope) {
  scope.outer = scope_;
  const Restore entered(scope_, &scope);
  return run_body(body);
}

Text Interpreter::capture(const Body& body, Scope& scope) {
  Text captured;
  {
    const Restore redirected(output_, Text());
    run_in_scope(body, scope);
    captured = std::move(output_);
  }
  return captured;
}

/// What a loop goes over, its `if` already applied: loop.length counts what is left.
Items Interpreter::loop_items(const Statement& statement) {
  Items all = iterate(evaluate(*statement.value), budget_);
  if (statement.condition == nullptr) return all;
  std::vector<Value> kept;
  for (const Value& item : all) {
    Scope scope;
    scope.outer = scope_;
    const Restore entered(scope_, &scope);
    assign(statement.target, item);
    if (evaluate(*statement.condition).truthy()) kept.push_back(item);
  }
  return Items(Value::list(std::move(kept), budget_));
}

Interpreter::Flow Interpreter::run_for(const Statement& statement) {
  const Items items = loop_items(statement);
  if (items.empty()) {
    if (statement.branches.size() < 2) return Flow::kNext;
    Scope scope;
    return run_in_scope(statement.branches[1].body, scope);
  }
  for (std::size_t i = 0; i < items.size(); ++i) {
    budget_.make(sizeof(LoopState) + sizeof(Scope));
    Scope scope;  // What an iteration sets, the next one does not see.
    scope.outer = scope_;
    const Restore entered(scope_, &scope);
    bind(program_.loop_id,
         Value::holding(std::make_shared<const LoopState>(LoopState{items.list(), i})));
    assign(statement.target, items[i]);
    if (run_body(statement.branches[0].body) == Flow::kBreak) break;
  }
  return Flow::kNext;
}

void Interpreter::write(const Text& text) {
  budget_.make(text.size());
  if (text.size() > max_output_bytes_ - std::min(output_.size(), max_output_bytes_)) {
    throw Failure(fmt::format("the prompt exceeds {} bytes", max_output_bytes_));
  }
  output_.append(text);
}

void Interpreter::write(const Value& value) {
  if (const Text* text = value.text()) {
    write(*text);
  } else {
    write(to_text(value, budget_));
  }
}

void Interpreter::bind(int name_id, Value value) {
  if (scope_ == nullptr) {
    globals_[static_cast<std::size_t>(name_id)] = std::move(value);
    return;
  }
  for (auto& [id, held] : scope_->names) {
    if (id != name_id) continue;
    held = std::move(value);
    return;
  }
  budget_.make(sizeof(value));
  budget_.step(scope_->names.size() / 8);
  scope_->names.emplace_back(name_id, std::move(value));
}

void Interpreter::assign(const Target& target, const Value& value) {
  if (target.unpacks) {
    const Items parts = iterate(value, budget_);
    if (parts.size() != target.name_ids.size()) {
      throw Failure(fmt::format("{} values cannot be unpacked into {} names", parts.size(),
                                target.name_ids.size()));
    }
    for (std::size_t i = 0; i < parts.size(); ++i) {
      bind(target.name_ids[i], parts[i]);
    }
    return;
  }
  if (target.attribute.empty()) {
    bind(target.name_ids[0], value);
    return;
  }
  Expression name;
  name.kind = ExpressionKind::kName;
  name.line = line_;
  name.name_id = target.name_ids[0];
  const Value held = evaluate(name);
  Namespace* space = held.name_space();
  if (space == nullptr) throw Failure("only attributes of a namespace() can be assigned to");
  for (auto& [key, old] : space->attributes) {
    if (key != target.attribute) continue;
    old = value;
    return;
  }
  budget_.make(sizeof(value) + target.attribute.size());
  space->attributes.emplace_back(target.attribute, value);
}

}  // namespace paceline::runtime::chat
