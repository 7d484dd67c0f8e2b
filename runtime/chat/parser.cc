#include "runtime/chat/parser.h"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/core/error.h"

namespace paceline::runtime::chat {

namespace {

constexpr std::size_t kMaxTemplateBytes = std::size_t{1} << 20;

class StatementParser {
 public:
  StatementParser(std::string_view source, std::string_view where)
      : tokens_(tokenize_template(source, where), where), expressions_(tokens_, names_, depth_) {}

  Body parse() {
    Body body = parse_body({});
    if (!tokens_.is(TokenKind::kEnd)) tokens_.fail("unexpected end of a block");
    return body;
  }

  NameTable& names() { return names_; }

 private:
  using Words = std::initializer_list<std::string_view>;

  /// Statements up to a tag that starts with one of `ends` (its `{%` is taken, its name is
  /// current), or to the end of the template where `ends` is empty.
  Body parse_body(Words ends) {
    const Nesting nesting(depth_, tokens_);
    Body body;
    while (!tokens_.is(TokenKind::kEnd)) {
      const int line = tokens_.current().line;
      if (tokens_.is(TokenKind::kData)) {
        auto text = make(StatementKind::kText, line);
        text->text = Text(tokens_.take().text, true);
        body.push_back(std::move(text));
      } else if (tokens_.is(TokenKind::kVariableBegin)) {
        tokens_.take();
        auto output = make(StatementKind::kOutput, line);
        output->value = expressions_.parse_tuple();
        tokens_.expect(TokenKind::kVariableEnd, "\"}}\"");
        body.push_back(std::move(output));
      } else {
        tokens_.expect(TokenKind::kBlockBegin, "a tag");
        if (std::any_of(ends.begin(), ends.end(),
                        [&](std::string_view end) { return tokens_.is_name(end); })) {
          return body;
        }
        body.push_back(parse_statement());
      }
    }
    if (ends.size() > 0) {
      tokens_.fail(fmt::format("expected {{% {} %}}, not the end of the template",
                               fmt::join(ends, " %} or {% ")));
    }
    return body;
  }

  std::unique_ptr<Statement> make(StatementKind kind, int line) const {
    auto statement = std::make_unique<Statement>();
    statement->kind = kind;
    statement->line = line;
    return statement;
  }

  std::unique_ptr<Statement> parse_statement() {
    const Token tag = tokens_.current();
    if (tag.kind != TokenKind::kName) {
      tokens_.fail(fmt::format("expected a tag's name, not {}", tokens_.describe()));
    }
    tokens_.take();
    if (tag.text == "if") return parse_if(tag.line);
    if (tag.text == "for") return parse_for(tag.line);
    if (tag.text == "set") return parse_set(tag.line);
    if (tag.text == "macro") return parse_macro(tag.line);
    if (tag.text == "break" || tag.text == "continue") {
      if (loops_ == 0) tokens_.fail(fmt::format("{{% {} %}} outside of a loop", tag.text));
      end_tag();
      return make(tag.text == "break" ? StatementKind::kBreak : StatementKind::kContinue, tag.line);
    }
    if (tag.text == "generation") {
      auto scope = make(StatementKind::kScope, tag.line);
      end_tag();
      scope->branches.push_back({nullptr, parse_block({"endgeneration"})});
      return scope;
    }
    tokens_.fail_at(tag.line, fmt::format("the tag {{% {} %}} is not supported here", tag.text));
  }

  void end_tag() { tokens_.expect(TokenKind::kBlockEnd, "\"%}\""); }

  /// A body and its end tag, both whole.
  Body parse_block(Words ends) {
    ++inner_;
    Body body = parse_body(ends);
    --inner_;
    tokens_.take();
    end_tag();
    return body;
  }

  std::unique_ptr<Statement> parse_if(int line) {
    auto choice = make(StatementKind::kIf, line);
    while (true) {
      Branch branch;
      branch.condition = expressions_.parse_tuple(false);
      end_tag();
      branch.body = parse_body({"elif", "else", "endif"});
      choice->branches.push_back(std::move(branch));
      if (!tokens_.skip_name("elif")) break;
    }
    if (tokens_.skip_name("else")) {
      end_tag();
      choice->branches.push_back({nullptr, parse_body({"endif"})});
    }
    tokens_.take();
    end_tag();
    return choice;
  }

  std::unique_ptr<Statement> parse_for(int line) {
    auto loop = make(StatementKind::kFor, line);
    loop->target = parse_target();
    if (!loop->target.attribute.empty()) tokens_.fail("a loop cannot assign to an attribute");
    if (!tokens_.skip_name("in")) {
      tokens_.fail(fmt::format("expected \"in\", not {}", tokens_.describe()));
    }
    loop->value = expressions_.parse_tuple(false);
    if (tokens_.skip_name("if")) loop->condition = expressions_.parse();
    if (tokens_.is_name("recursive")) tokens_.fail("recursive loops are not supported");
    end_tag();
    ++inner_;
    ++loops_;
    loop->branches.push_back({nullptr, parse_body({"else", "endfor"})});
    --loops_;
    if (tokens_.skip_name("else")) {
      end_tag();
      loop->branches.push_back({nullptr, parse_body({"endfor"})});
    }
    --inner_;
    tokens_.take();
    end_tag();
    return loop;
  }

  Target parse_target() {
    Target target;
    const bool parenthesized = tokens_.skip_operator("(");
    do {
      if (tokens_.is_operator("(")) tokens_.fail("nested unpacking is not supported");
      target.name_ids.push_back(names_.id_of(tokens_.expect_identifier()));
      if (tokens_.is_operator(",")) target.unpacks = true;
    } while (tokens_.skip_operator(","));
    if (parenthesized) tokens_.expect_operator(")");
    if (!target.unpacks && tokens_.skip_operator(".")) {
      target.attribute = tokens_.expect_identifier();
      if (target.attribute[0] == '_') {  // As in transformers.
        tokens_.fail("an attribute that starts with \"_\" cannot be assigned to");
      }
    }
    return target;
  }

  std::unique_ptr<Statement> parse_set(int line) {
    Target target = parse_target();
    if (tokens_.skip_operator("=")) {
      auto assignment = make(StatementKind::kSet, line);
      assignment->target = std::move(target);
      assignment->value = expressions_.parse_tuple();
      end_tag();
      return assignment;
    }
    if (tokens_.is_operator("|")) tokens_.fail("filters on a {% set %} block are not supported");
    if (target.unpacks) tokens_.fail("a {% set %} block has one name");
    auto block = make(StatementKind::kSetBlock, line);
    block->target = std::move(target);
    end_tag();
    const int outer_loops = std::exchange(loops_, 0);
    block->branches.push_back({nullptr, parse_block({"endset"})});
    loops_ = outer_loops;
    return block;
  }

  std::unique_ptr<Statement> parse_macro(int line) {
    // A macro sees the template's own names. Inside a loop it would have to keep that
    // iteration's as well; no chat template does that.
    if (inner_ > 0) tokens_.fail("a macro inside of a loop, block or macro is not supported");
    auto statement = make(StatementKind::kMacro, line);
    auto macro = std::make_unique<MacroDefinition>();
    macro->name = tokens_.expect_identifier();
    statement->target.name_ids.push_back(names_.id_of(macro->name));
    tokens_.expect_operator("(");
    while (!tokens_.is_operator(")")) {
      const std::string parameter = tokens_.expect_identifier();
      const auto& known = macro->parameter_names;
      if (std::find(known.begin(), known.end(), parameter) != known.end()) {
        tokens_.fail(fmt::format("the parameter \"{}\" occurs twice", parameter));
      }
      macro->parameter_names.push_back(parameter);
      macro->parameter_ids.push_back(names_.id_of(parameter));
      if (tokens_.skip_operator("=")) {
        macro->defaults.push_back(expressions_.parse());
      } else if (!macro->defaults.empty()) {
        tokens_.fail("a parameter without a default follows one with a default");
      }
      if (!tokens_.skip_operator(",")) break;
    }
    tokens_.expect_operator(")");
    end_tag();
    const int outer_loops = std::exchange(loops_, 0);
    macro->body = parse_block({"endmacro"});
    loops_ = outer_loops;
    statement->macro = std::move(macro);
    return statement;
  }

  TokenStream tokens_;
  NameTable names_;
  int depth_ = 0;
  int loops_ = 0;  ///< Loops around, for break and continue.
  int inner_ = 0;  ///< Scopes around, for macros.
  ExpressionParser expressions_;
};

}  // namespace

std::unique_ptr<const Program> parse_template(std::string_view source, std::string_view where) {
  if (source.size() > kMaxTemplateBytes) {
    throw ConfigError("{}: a chat template of {} bytes, at most {} are accepted", where,
                      source.size(), kMaxTemplateBytes);
  }
  auto program = std::make_unique<Program>();
  program->where = where;
  StatementParser parser(source, where);
  program->body = parser.parse();
  program->loop_id = parser.names().id_of("loop");
  program->names = parser.names().take();
  return program;
}

}  // namespace paceline::runtime::chat
