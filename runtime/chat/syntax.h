#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/chat/value.h"

/// The syntax tree of a chat template.
namespace paceline::runtime::chat {

struct Filter;
struct Test;

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

/// An argument of a call; `keyword` is empty for a positional one.
struct Argument {
  std::string keyword;
  ExpressionPtr value;
};

enum class ExpressionKind {
  kLiteral,      ///< `literal`
  kName,         ///< `name_id`, `name`
  kList,         ///< `operands`
  kTuple,        ///< `operands`
  kDict,         ///< `operands`: key, value, key, value, ...
  kAttribute,    ///< operands[0].name
  kItem,         ///< operands[0][operands[1]]
  kSlice,        ///< operands[0][operands[1]:operands[2]:operands[3]], null where left out
  kCall,         ///< operands[0](arguments)
  kMethod,       ///< operands[0].name(arguments)
  kFilter,       ///< operands[0] | filter(arguments)
  kTest,         ///< operands[0] is [not] test(arguments)
  kArithmetic,   ///< operands joined left to right by `operators`
  kConcatenate,  ///< operands joined by ~
  kCompare,      ///< operands[0] operators[0] operands[1] operators[1] ...
  kAnd,
  kOr,
  kNot,
  kNegate,
  kPlus,
  kConditional  ///< operands[0] if operands[1] else operands[2] (null without else)
};

enum class Operator : std::uint8_t {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn
};

/// One struct for all kinds: which fields count is said at the kind. `depth` is the height of
/// the tree below, bounded by the parser.
struct Expression {
  ExpressionKind kind = ExpressionKind::kLiteral;
  int line = 1;
  int depth = 1;
  Value literal;
  std::string name;
  int name_id = -1;
  bool negated = false;
  const Filter* filter = nullptr;
  const Test* test = nullptr;
  std::vector<ExpressionPtr> operands;
  std::vector<Operator> operators;
  std::vector<Argument> arguments;
};

/// What an assignment or a for loop binds: a name, or several for unpacking.
struct Target {
  std::vector<int> name_ids;
  bool unpacks = false;   ///< "a, b" or "a,"
  std::string attribute;  ///< Of "namespace.attribute", else empty.
};

struct Statement;
using Body = std::vector<std::unique_ptr<Statement>>;

struct Branch {
  ExpressionPtr condition;  ///< Null for else.
  Body body;
};

struct MacroDefinition {
  std::string name;
  std::vector<int> parameter_ids;
  std::vector<std::string> parameter_names;
  std::vector<ExpressionPtr> defaults;  ///< Of the last defaults.size() parameters.
  Body body;
};

enum class StatementKind {
  kText,      ///< `text`
  kOutput,    ///< `value`
  kIf,        ///< `branches`
  kFor,       ///< `target`, `value`, `condition` (may be null), branches[0] and maybe an else
  kSet,       ///< `target`, `value`
  kSetBlock,  ///< `target`, branches[0]
  kMacro,     ///< target.name_ids[0], `macro`
  kScope,     ///< {% generation %}: branches[0] in a scope of its own
  kBreak,
  kContinue
};

struct Statement {
  StatementKind kind = StatementKind::kText;
  int line = 1;
  Text text;
  Target target;
  ExpressionPtr value;
  ExpressionPtr condition;
  std::vector<Branch> branches;
  std::unique_ptr<MacroDefinition> macro;
};

/// A parsed template. Names are numbered; `loop_id` is that of "loop".
struct Program {
  std::string where;
  Body body;
  std::vector<std::string> names;
  int loop_id = -1;
};

/// Parses a template. Throws ConfigError naming the line and what is not supported.
std::unique_ptr<const Program> parse_template(std::string_view source, std::string_view where);

}  // namespace paceline::runtime::chat
