#include <fmt/format.h>

#include <cmath>

#include "runtime/chat/builtins.h"
#include "runtime/chat/syntax.h"

/// Python's arithmetic: floor division and modulo take the sign of the divisor.
namespace paceline::runtime::chat {

namespace {

constexpr std::string_view kSymbols[] = {"+", "-", "*", "/", "//", "%", "**"};

[[noreturn]] void fail_types(const Value& left, Operator operation, const Value& right) {
  throw Failure(fmt::format("\"{}\" does not work on {} and {}",
                            kSymbols[static_cast<std::size_t>(operation)], left.type_name(),
                            right.type_name()));
}

[[noreturn]] void fail_overflow() { throw Failure("an integer exceeds 64 bits"); }

std::int64_t floor_divide(std::int64_t a, std::int64_t b) {
  if (b == -1 && a == INT64_MIN) fail_overflow();
  const std::int64_t quotient = a / b;
  return quotient - (a % b != 0 && (a % b < 0) != (b < 0) ? 1 : 0);
}

std::int64_t floor_modulo(std::int64_t a, std::int64_t b) {
  if (b == -1) return 0;
  const std::int64_t rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

double float_modulo(double a, double b) {
  const double rest = std::fmod(a, b);
  if (rest == 0) return std::copysign(0.0, b);
  return (rest < 0) != (b < 0) ? rest + b : rest;
}

Value integer_power(std::int64_t base, std::int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) throw Failure("0 cannot be raised to a negative power");
    return Value::of(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  std::int64_t result = 1;
  std::int64_t factor = base;
  for (std::int64_t left = exponent; left > 0; left >>= 1) {
    if ((left & 1) != 0 && __builtin_mul_overflow(result, factor, &result)) fail_overflow();
    if (left > 1 && __builtin_mul_overflow(factor, factor, &factor)) fail_overflow();
  }
  return Value::of(result);
}

Value calculate_integers(std::int64_t a, Operator operation, std::int64_t b) {
  std::int64_t result = 0;
  bool overflow = false;
  if (b == 0 && (operation == Operator::kDivide || operation == Operator::kFloorDivide ||
                 operation == Operator::kModulo)) {
    throw Failure("division by zero");
  }
  switch (operation) {
    case Operator::kAdd:
      overflow = __builtin_add_overflow(a, b, &result);
      break;
    case Operator::kSubtract:
      overflow = __builtin_sub_overflow(a, b, &result);
      break;
    case Operator::kMultiply:
      overflow = __builtin_mul_overflow(a, b, &result);
      break;
    case Operator::kDivide:
      return Value::of(static_cast<double>(a) / static_cast<double>(b));
    case Operator::kFloorDivide:
      return Value::of(floor_divide(a, b));
    case Operator::kModulo:
      return Value::of(floor_modulo(a, b));
    default:
      return integer_power(a, b);
  }
  if (overflow) fail_overflow();
  return Value::of(result);
}

Value calculate_floats(double a, Operator operation, double b) {
  switch (operation) {
    case Operator::kAdd:
      return Value::of(a + b);
    case Operator::kSubtract:
      return Value::of(a - b);
    case Operator::kMultiply:
      return Value::of(a * b);
    default:
      break;
  }
  if (operation == Operator::kPower) {
    if (a < 0 && b != std::floor(b)) throw Failure("a power is not a real number");
    if (a == 0 && b < 0) throw Failure("0 cannot be raised to a negative power");
    return Value::of(std::pow(a, b));
  }
  if (b == 0) throw Failure("division by zero");
  if (operation == Operator::kDivide) return Value::of(a / b);
  const double rest = float_modulo(a, b);
  if (operation == Operator::kModulo) return Value::of(rest);
  return Value::of(std::round((a - rest) / b));
}

/// A string or list `count` times over.
Value repeat(const Value& value, std::int64_t count, Budget& budget) {
  if (const Text* text = value.text()) {
    Text result;
    for (std::int64_t i = 0; i < count && !text->empty(); ++i) {
      budget.make(text->size());
      result.append(*text);
    }
    return Value::of(std::move(result));
  }
  const Sequence& list = *value.sequence();
  std::vector<Value> items;
  for (std::int64_t i = 0; i < count && !list.items.empty(); ++i) {
    budget.make(list.items.size() * sizeof(Value));
    items.insert(items.end(), list.items.begin(), list.items.end());
  }
  return Value::list(std::move(items), budget, list.tuple);
}

}  // namespace

Value calculate(const Value& left, Operator operation, const Value& right, Budget& budget) {
  for (const Value* side : {&left, &right}) {
    if (side->is_undefined()) fail_undefined(*side->undefined());
  }
  std::int64_t a = 0;
  std::int64_t b = 0;
  const bool left_whole = left.integer(a);
  const bool right_whole = right.integer(b);
  if (left_whole && right_whole) return calculate_integers(a, operation, b);
  double x = 0;
  double y = 0;
  if (left.number(x) && right.number(y)) return calculate_floats(x, operation, y);
  if (operation == Operator::kAdd && left.is_string() && right.is_string()) {
    Value joined = left;
    joined.append_text(*right.text(), budget);
    return joined;
  }
  const Sequence* list = left.sequence();
  const Sequence* other = right.sequence();
  if (operation == Operator::kAdd && list != nullptr && other != nullptr &&
      list->tuple == other->tuple) {
    budget.make((list->items.size() + other->items.size()) * sizeof(Value));
    std::vector<Value> items = list->items;
    items.insert(items.end(), other->items.begin(), other->items.end());
    return Value::list(std::move(items), budget, list->tuple);
  }
  if (operation == Operator::kMultiply) {
    if (right_whole && (left.is_string() || list != nullptr)) return repeat(left, b, budget);
    if (left_whole && (right.is_string() || other != nullptr)) return repeat(right, a, budget);
  }
  fail_types(left, operation, right);
}

Value negate(const Value& value) {
  std::int64_t whole = 0;
  if (value.integer(whole)) {
    if (whole == INT64_MIN) fail_overflow();
    return Value::of(-whole);
  }
  if (const double* real = value.floating()) return Value::of(-*real);
  if (value.is_undefined()) fail_undefined(*value.undefined());
  throw Failure(fmt::format("\"-\" does not work on {}", value.type_name()));
}

}  // namespace paceline::runtime::chat
