#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "kernels/core/error.h"
#include "runtime/chat/interpreter.h"

/// The interpreter's expressions.
namespace paceline::runtime::chat {

Value Interpreter::evaluate(const Expression& expression) {
  budget_.step();
  if (depth_ >= kMaxEvaluationDepth) throw Failure("the chat template recurses too deep");
  line_ = expression.line;
  ++depth_;
  Value value = evaluate_kind(expression);  // A Failure ends the rendering, and depth_ with it.
  --depth_;
  return value;
}

Value Interpreter::evaluate_kind(const Expression& expression) {
  const auto operand = [&](std::size_t i) { return evaluate(*expression.operands[i]); };
  switch (expression.kind) {
    case ExpressionKind::kLiteral:
      return expression.literal;
    case ExpressionKind::kName:
      return evaluate_name(expression);
    case ExpressionKind::kList:
    case ExpressionKind::kTuple:
    case ExpressionKind::kDict:
      return evaluate_collection(expression);
    case ExpressionKind::kAttribute:
      return get_attribute(operand(0), expression.name, budget_);
    case ExpressionKind::kItem: {
      const Value object = operand(0);
      return get_item(object, operand(1), budget_);
    }
    case ExpressionKind::kSlice:
      return evaluate_slice(expression);
    case ExpressionKind::kCall: {
      const Value callee = operand(0);
      return call(callee, evaluate_arguments(expression));
    }
    case ExpressionKind::kMethod:
      return evaluate_method(expression);
    case ExpressionKind::kFilter: {
      const Value input = operand(0);
      return expression.filter->apply(input, evaluate_arguments(expression), budget_);
    }
    case ExpressionKind::kTest:
      return evaluate_test(expression);
    case ExpressionKind::kArithmetic:
      return evaluate_arithmetic(expression);
    case ExpressionKind::kConcatenate:
      return evaluate_concatenation(expression);
    case ExpressionKind::kCompare:
      return evaluate_comparison(expression);
    case ExpressionKind::kAnd:
    case ExpressionKind::kOr:
      return evaluate_logic(expression);
    case ExpressionKind::kNot:
      return Value::of(!operand(0).truthy());
    case ExpressionKind::kNegate:
      return negate(operand(0));
    case ExpressionKind::kPlus:
      return negate(negate(operand(0)));
    case ExpressionKind::kConditional:
      return evaluate_conditional(expression);
  }
  return {};
}

Value Interpreter::evaluate_name(const Expression& expression) {
  std::size_t searched = 0;
  for (const Scope* scope = scope_; scope != nullptr; scope = scope->outer) {
    searched += scope->names.size();
    for (const auto& [id, value] : scope->names) {
      if (id == expression.name_id) {
        budget_.step(searched / 8);
        return value;
      }
    }
  }
  budget_.step(searched / 8);
  const auto id = static_cast<std::size_t>(expression.name_id);
  if (globals_[id]) return *globals_[id];
  return Value::holding(Undefined{&program_.names[id]});
}

Value Interpreter::evaluate_collection(const Expression& expression) {
  if (expression.kind != ExpressionKind::kDict) {
    std::vector<Value> items;
    for (const auto& operand : expression.operands) items.push_back(evaluate(*operand));
    return Value::list(std::move(items), budget_, expression.kind == ExpressionKind::kTuple);
  }
  std::vector<std::pair<Value, Value>> entries;
  for (std::size_t i = 0; i < expression.operands.size(); i += 2) {
    Value key = evaluate(*expression.operands[i]);
    if (key.sequence() != nullptr || key.mapping() != nullptr) {
      throw Failure(fmt::format("{} cannot be a key", key.type_name()));
    }
    Value value = evaluate(*expression.operands[i + 1]);
    const auto same = std::find_if(entries.begin(), entries.end(), [&](const auto& entry) {
      return equals(entry.first, key, budget_);
    });
    if (same != entries.end()) {
      same->second = std::move(value);
    } else {
      entries.emplace_back(std::move(key), std::move(value));
    }
  }
  return Value::mapping(std::move(entries), budget_);
}

Value Interpreter::evaluate_arithmetic(const Expression& expression) {
  Value result = evaluate(*expression.operands[0]);
  for (std::size_t i = 0; i < expression.operators.size(); ++i) {
    const Value right = evaluate(*expression.operands[i + 1]);
    const Operator operation = expression.operators[i];
    if (operation == Operator::kAdd && result.is_string() && right.is_string()) {
      result.append_text(*right.text(), budget_);  // 'a' + b + 'c' grows one string.
    } else {
      result = calculate(result, operation, right, budget_);
    }
  }
  return result;
}

Value Interpreter::evaluate_concatenation(const Expression& expression) {
  Text joined;
  for (const auto& operand : expression.operands) {
    const Text part = to_text(evaluate(*operand), budget_);
    budget_.make(part.size());
    joined.append(part);
  }
  return Value::of(std::move(joined));
}

Value Interpreter::evaluate_comparison(const Expression& expression) {
  Value left = evaluate(*expression.operands[0]);
  for (std::size_t i = 0; i < expression.operators.size(); ++i) {
    Value right = evaluate(*expression.operands[i + 1]);
    bool holds = false;
    switch (expression.operators[i]) {
      case Operator::kEqual:
        holds = equals(left, right, budget_);
        break;
      case Operator::kNotEqual:
        holds = !equals(left, right, budget_);
        break;
      case Operator::kIn:
        holds = contains(right, left, budget_);
        break;
      case Operator::kNotIn:
        holds = !contains(right, left, budget_);
        break;
      default: {
        const int result = order(left, right, budget_);
        const Operator wanted = expression.operators[i];
        holds = result == 0  ? wanted == Operator::kLessEqual || wanted == Operator::kGreaterEqual
                : result < 0 ? wanted == Operator::kLess || wanted == Operator::kLessEqual
                             : wanted == Operator::kGreater || wanted == Operator::kGreaterEqual;
      }
    }
    if (!holds) return Value::of(false);
    left = std::move(right);
  }
  return Value::of(true);
}

Value Interpreter::evaluate_logic(const Expression& expression) {
  const bool stops_at = expression.kind == ExpressionKind::kOr;
  Value value;
  for (const auto& operand : expression.operands) {
    value = evaluate(*operand);
    if (value.truthy() == stops_at) break;
  }
  return value;
}

Value Interpreter::evaluate_conditional(const Expression& expression) {
  if (evaluate(*expression.operands[1]).truthy()) return evaluate(*expression.operands[0]);
  return expression.operands[2] == nullptr ? Value() : evaluate(*expression.operands[2]);
}

Value Interpreter::evaluate_slice(const Expression& expression) {
  const Value object = evaluate(*expression.operands[0]);
  Value bounds[3];
  for (std::size_t i = 0; i < 3; ++i) {
    const auto& operand = expression.operands[i + 1];
    bounds[i] = operand == nullptr ? Value::none() : evaluate(*operand);
  }
  return get_slice(object, bounds[0], bounds[1], bounds[2], budget_);
}

Value Interpreter::evaluate_test(const Expression& expression) {
  const Value input = evaluate(*expression.operands[0]);
  const bool holds = expression.test->holds(input, evaluate_arguments(expression), budget_);
  return Value::of(holds != expression.negated);
}

Value Interpreter::evaluate_method(const Expression& expression) {
  const Value object = evaluate(*expression.operands[0]);
  const Arguments arguments = evaluate_arguments(expression);
  line_ = expression.line;
  return call_method(object, expression.name, arguments, budget_);
}

Arguments Interpreter::evaluate_arguments(const Expression& call) {
  Arguments arguments;
  for (const Argument& argument : call.arguments) {
    Value value = evaluate(*argument.value);
    if (argument.keyword.empty()) {
      arguments.positional.push_back(std::move(value));
    } else {
      arguments.named.emplace_back(argument.keyword, std::move(value));
    }
  }
  budget_.make(call.arguments.size() * sizeof(Value));
  return arguments;
}

Value Interpreter::call(const Value& callee, const Arguments& arguments) {
  if (callee.is_undefined()) fail_undefined(*callee.undefined());
  const Function* function = callee.function();
  if (function == nullptr) {
    throw Failure(fmt::format("a {} cannot be called", callee.type_name()));
  }
  if (function->macro != nullptr) return call_macro(*function->macro, arguments);
  return call_builtin(function->builtin, arguments);
}

Value Interpreter::call_macro(const MacroDefinition& macro, const Arguments& arguments) {
  const std::size_t count = macro.parameter_ids.size();
  if (arguments.positional.size() > count) {
    throw Failure(fmt::format("{}() takes at most {} arguments", macro.name, count));
  }
  std::vector<std::optional<Value>> given(count);
  std::copy(arguments.positional.begin(), arguments.positional.end(), given.begin());
  for (const auto& [keyword, value] : arguments.named) {
    const auto parameter =
        std::find(macro.parameter_names.begin(), macro.parameter_names.end(), keyword);
    if (parameter == macro.parameter_names.end()) {
      throw Failure(fmt::format("{}() has no argument \"{}\"", macro.name, keyword));
    }
    auto& slot = given[static_cast<std::size_t>(parameter - macro.parameter_names.begin())];
    if (slot) throw Failure(fmt::format("{}() gets \"{}\" twice", macro.name, keyword));
    slot = value;
  }
  // A macro sees its parameters and the template's own names, not its caller's.
  Scope scope;
  Scope* const caller = std::exchange(scope_, nullptr);
  scope_ = &scope;
  const std::size_t first_default = count - macro.defaults.size();
  for (std::size_t i = 0; i < count; ++i) {
    Value value = Value::holding(Undefined{&macro.parameter_names[i]});
    if (given[i]) {
      value = *given[i];
    } else if (i >= first_default) {
      value = evaluate(*macro.defaults[i - first_default]);
    }
    bind(macro.parameter_ids[i], std::move(value));
  }
  scope_ = nullptr;
  Scope body;
  body.names = std::move(scope.names);
  Text text = capture(macro.body, body);
  scope_ = caller;
  return Value::of(std::move(text));
}

Value Interpreter::call_builtin(Builtin builtin, const Arguments& arguments) {
  switch (builtin) {
    case Builtin::kRaiseException: {
      const auto bound = arguments.bind("raise_exception", {"message"});
      throw RequestError("messages", "{}",
                         bound[0] ? to_text(*bound[0], budget_).bytes() : std::string());
    }
    case Builtin::kStrftimeNow:
      return format_time(arguments);
    case Builtin::kNamespace:
      return make_namespace(arguments);
    case Builtin::kRange:
      return make_range(arguments);
    case Builtin::kDict:
      return make_dict(arguments);
  }
  return {};
}

Value Interpreter::make_dict(const Arguments& arguments) {
  if (!arguments.positional.empty()) {
    throw Failure("dict() and namespace() take named arguments only");
  }
  std::vector<std::pair<Value, Value>> entries;
  for (const auto& [keyword, value] : arguments.named) {
    budget_.make(keyword.size());
    entries.emplace_back(Value::of(Text(keyword, true)), value);
  }
  return Value::mapping(std::move(entries), budget_);
}

Value Interpreter::make_namespace(const Arguments& arguments) {
  const Value attributes = make_dict(arguments);
  auto space = std::make_unique<Namespace>();
  budget_.make(sizeof(Namespace) + 64);
  for (const auto& [name, value] : attributes.mapping()->entries) {
    if (name.text()->bytes().starts_with('_')) {  // As in transformers.
      throw Failure("an attribute that starts with \"_\" cannot be assigned to");
    }
    space->attributes.emplace_back(name.text()->bytes(), value);
  }
  namespaces_.push_back(std::move(space));
  return Value::holding(namespaces_.back().get());
}

Value Interpreter::make_range(const Arguments& arguments) {
  constexpr std::int64_t kMaxRange = 100'000;  // Jinja's sandbox has the same.
  const auto bound = arguments.bind("range", {"start", "stop", "step"});
  std::int64_t numbers[3] = {0, 0, 1};
  for (std::size_t i = 0; i < 3; ++i) {
    if (bound[i] && !bound[i]->integer(numbers[i])) throw Failure("range() needs integers");
  }
  if (!bound[0] || numbers[2] == 0)
    throw Failure("range() needs a length, and a step that is not 0");
  auto [start, stop, step] = numbers;
  if (!bound[1]) stop = std::exchange(start, 0);
  std::vector<Value> items;
  for (std::int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (items.size() == static_cast<std::size_t>(kMaxRange)) {
      throw Failure(fmt::format("range() of more than {} numbers", kMaxRange));
    }
    items.push_back(Value::of(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return Value::list(std::move(items), budget_);
}

Value Interpreter::format_time(const Arguments& arguments) {
  namespace chrono = std::chrono;
  const auto bound = arguments.bind("strftime_now", {"format"});
  if (!bound[0] || !bound[0]->is_string()) throw Failure("strftime_now() needs a format");
  const std::string format = bound[0]->text()->bytes();
  constexpr std::string_view kConversions = "aAbBdHIjmMpSwyYeFTDRUW%";
  for (std::size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') continue;
    ++i;
    if (i < format.size() && format[i] == '-') ++i;  // glibc's "no padding", as Python passes on.
    if (i >= format.size() || kConversions.find(format[i]) == kConversions.npos) {
      throw Failure(fmt::format("strftime_now() does not support the format \"{}\"", format));
    }
  }
  const auto today = chrono::floor<chrono::days>(now_);
  const chrono::year_month_day date(today);
  const chrono::hh_mm_ss time(now_ - today);
  std::tm fields{};
  fields.tm_year = static_cast<int>(date.year()) - 1900;
  fields.tm_mon = static_cast<int>(static_cast<unsigned>(date.month())) - 1;
  fields.tm_mday = static_cast<int>(static_cast<unsigned>(date.day()));
  fields.tm_hour = static_cast<int>(time.hours().count());
  fields.tm_min = static_cast<int>(time.minutes().count());
  fields.tm_sec = static_cast<int>(time.seconds().count());
  fields.tm_wday = static_cast<int>(chrono::weekday(today).c_encoding());
  const chrono::local_days new_year(
      chrono::year_month_day(date.year(), chrono::January, chrono::day(1)));
  fields.tm_yday = static_cast<int>((today - new_year).count());
  if (format.size() > 1024) throw Failure("strftime_now() has a format of more than 1024 bytes");
  std::string text(32 * 1024, '\0');
  text.resize(std::strftime(text.data(), text.size(), format.c_str(), &fields));
  budget_.make(text.size());
  return Value::of(Text(text, true));
}

}  // namespace paceline::runtime::chat
