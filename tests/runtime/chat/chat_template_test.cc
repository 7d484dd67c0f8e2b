#include "runtime/chat/chat_template.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "kernels/core/error.h"

namespace paceline::runtime {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::local_seconds kNow = std::chrono::local_days(std::chrono::March / 7 / 2025);

/// One message of the user "u", with the field "n" = 3.
const Json kOneMessage = {{{"role", "user"}, {"content", "u"}, {"n", 3}}};

std::vector<TextSegment> segments(std::string_view source, const Json& messages = kOneMessage) {
  return ChatTemplate::compile(source, "test").render(messages, true, kNow);
}

std::string text(std::string_view source, const Json& messages = kOneMessage) {
  return join_segments(segments(source, messages));
}

/// The text with what is untrusted in angle brackets: "a<b>".
std::string marked(std::string_view source, const Json& messages = kOneMessage) {
  std::string result;
  for (const TextSegment& segment : segments(source, messages)) {
    result += segment.trusted ? segment.text : "<" + segment.text + ">";
  }
  return result;
}

TEST(ChatTemplate, TellsItsOwnTextFromTheRequests) {
  const Json messages = {{{"role", "user"}, {"content", "<s>"}}};
  const ChatTemplate chat = ChatTemplate::compile(
      "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}", "test",
      {"<s>", std::nullopt, std::nullopt, std::nullopt});
  const std::vector<TextSegment> expected = {
      {"<s>[", true}, {"user", false}, {"] ", true}, {"<s>", false}};
  EXPECT_EQ(chat.render(messages, true, kNow), expected);
}

TEST(ChatTemplate, ProvenanceFollowsTheBytesThroughEveryOperation) {
  // Let c = "u" be what the user typed.
  const auto with_c = [](const std::string& source) {
    return marked("{% set c = messages[0].content %}" + source);
  };
  EXPECT_EQ(with_c("{{ 'a' + c + 'b' + c }}"), "a<u>b<u>");
  EXPECT_EQ(with_c("{{ 'a' ~ c ~ 'b' }}"), "a<u>b");
  EXPECT_EQ(with_c("{{ (' ' ~ c ~ 'b ') | trim }}"), "<u>b");
  EXPECT_EQ(with_c("{{ (' ' ~ c ~ 'b').strip() | upper }}"), "<U>B");
  EXPECT_EQ(with_c("{{ 'xyx' | replace('y', c) }}"), "x<u>x");
  EXPECT_EQ(with_c("{{ (c ~ 'yz').replace('u', 'y') }}"), "yyz");
  EXPECT_EQ(with_c("{{ ['a', c, 'b'] | join('-') }}"), "a-<u>-b");
  EXPECT_EQ(with_c("{{ c.join(['a', 'b']) }}"), "a<u>b");
  EXPECT_EQ(with_c("{{ ('ab' ~ c ~ 'de')[1:4] }}"), "b<u>d");
  EXPECT_EQ(with_c("{{ ('ab' ~ c)[::-1] }}"), "<u>ba");
  EXPECT_EQ(with_c("{{ ('ab' ~ c) | reverse }}"), "<u>ba");
  EXPECT_EQ(with_c("{{ ('ab,' ~ c).split(',')[1] }}"), "<u>");
  EXPECT_EQ(with_c("{{ ('a' ~ c) * 2 }}"), "a<u>a<u>");
  EXPECT_EQ(with_c("{% for x in 'a' ~ c %}{{ x }}{% endfor %}"), "a<u>");
  EXPECT_EQ(with_c("{{ ('a' ~ c) | list | last }}{{ ('a' ~ c) | first }}"), "<u>a");
  EXPECT_EQ(with_c("{% set x %}a{{ c }}{% endset %}{{ x }}b"), "a<u>b");
  EXPECT_EQ(with_c("{% macro m(x) %}({{ x }}){% endmacro %}{{ m(c) ~ m('k') }}"), "(<u>)(k)");
  EXPECT_EQ(with_c("{% set ns = namespace(x='a') %}{% set ns.x = ns.x + c %}{{ ns.x }}"), "a<u>");
  EXPECT_EQ(with_c("{{ {'k': c}['k'] }}{{ dict(k=c).k }}{{ [c] | map('upper') | first }}"),
            "<uuU>");
  EXPECT_EQ(with_c("{{ undefined_name | default(c) }}{{ none or c }}{{ c if true }}"), "<uuu>");
  EXPECT_EQ(with_c("{{ c | title }}{{ c.capitalize() }}{{ c | string }}{{ (c,)[0] }}"), "<UUuu>");
}

TEST(ChatTemplate, KeysAndEverythingThatIsNoStringAreUntrusted) {
  EXPECT_EQ(marked("{% for k in messages[0] %}{{ k }}{% endfor %}"), "<contentnrole>");
  EXPECT_EQ(marked("a{{ messages[0].n }}b"), "a<3>b");
  EXPECT_EQ(marked("a{{ messages[0] | tojson }}"),
            R"(a<{"content": "u", "n": 3, "role": "user"}>)");
  EXPECT_EQ(marked("{{ ['x'] }}"), "<['x']>");
}

TEST(ChatTemplate, AStringOfTheRequestIsNeverTrustedForBeingEqual) {
  EXPECT_EQ(marked("{% if messages[0].role == 'user' %}{{ messages[0].role }}{% endif %}"),
            "<user>");
}

TEST(ChatTemplate, DatesComeFromTheCaller) {
  EXPECT_EQ(text("{{ strftime_now('%d %b %Y') }}"), "07 Mar 2025");
  EXPECT_THROW(text("{{ strftime_now('%Z') }}"), RequestError);
}

TEST(ChatTemplate, HasNoTools) {
  EXPECT_EQ(text("{% if tools %}t{% endif %}{% if documents is not none %}d{% endif %}"
                 "{{ custom_tools is defined }}"),
            "False");
}

// ---- What is refused when a template is compiled ----

void expect_config_error(std::string_view source, std::string_view message) {
  try {
    ChatTemplate::compile(source, "model/chat_template.jinja");
    FAIL() << "compiled: " << source;
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.what(), "model/chat_template.jinja: chat template " + std::string(message));
  }
}

TEST(ChatTemplateSyntax, WhatIsNotSupportedIsNamedWithItsLine) {
  expect_config_error("a\n{% include 'x' %}",
                      "line 2: the tag {% include %} is not supported here");
  expect_config_error("\n\n{% call m() %}{% endcall %}",
                      "line 3: the tag {% call %} is not supported here");
  expect_config_error("{{ 1 | sort }}", "line 1: the filter \"sort\" is not supported");
  expect_config_error("{{ 1 is filter }}", "line 1: the test \"filter\" is not supported");
  expect_config_error("{{\nx.append(1) }}", "line 2: the method .append() is not supported");
  expect_config_error("{{ joiner(',') }}", "line 1: the function joiner() is not supported");
  expect_config_error("{% for x in y recursive %}{% endfor %}",
                      "line 1: recursive loops are not supported");
  expect_config_error("{{ f(*x) }}", "line 1: \"*\" and \"**\" in arguments are not supported");
  expect_config_error("{% for x in y %}{% macro m() %}{% endmacro %}{% endfor %}",
                      "line 1: a macro inside of a loop, block or macro is not supported");
  expect_config_error("{{ '\\N{BULLET}' }}", "line 1: the escape \\N{...} is not supported");
}

TEST(ChatTemplateSyntax, WhatIsBrokenIsNamedWithItsLine) {
  expect_config_error("{% if x %}\n",
                      "line 1: expected {% elif %} or {% else %} or {% endif %}, not "
                      "the end of the template");
  expect_config_error("{% endif %}", "line 1: the tag {% endif %} is not supported here");
  expect_config_error("{{ 'abc }}", "line 1: a string is not closed");
  expect_config_error("{# never", "line 1: a comment {# is not closed by #}");
  expect_config_error("{% raw %} x", "line 1: {% raw %} is not closed by {% endraw %}");
  expect_config_error("{{ x", "line 1: a tag is not closed by }}");
  expect_config_error("{{ (1] }}", "line 1: unexpected \"]\"");
  expect_config_error("{{ 1 + }}", "line 1: expected an expression, not the end of the tag");
  expect_config_error("{{ x ! y }}", "line 1: unexpected character \"!\"");
  expect_config_error("{% break %}", "line 1: {% break %} outside of a loop");
  expect_config_error("{% set true = 1 %}", "line 1: expected a name, not \"true\"");
  expect_config_error("{{ 99999999999999999999 }}",
                      "line 1: the integer 99999999999999999999 exceeds 64 bits");
  expect_config_error("{{ x[1:2:3:4] }}", "line 1: a slice has at most two \":\"");
}

TEST(ChatTemplateSyntax, NestingAndSizeAreBounded) {
  const auto repeat = [](std::string_view part, int count) {
    std::string result;
    for (int i = 0; i < count; ++i) result += part;
    return result;
  };
  const auto nested = [&](std::string_view open, std::string_view inner, std::string_view close,
                          int count) {
    return "{{ " + repeat(open, count) + std::string(inner) + repeat(close, count) + " }}";
  };
  for (const auto& [open, close] : {std::pair("(", ")"),
                                    {"[", "]"},
                                    {"{1: ", "}"},
                                    {"-", ""},
                                    {"not ", ""},
                                    {"f(", ")"},
                                    {"x[", "]"},
                                    {"1 if 1 else ", ""}}) {
    EXPECT_NO_THROW(ChatTemplate::compile(nested(open, "x", close, 20), "test")) << open;
    EXPECT_THROW(ChatTemplate::compile(nested(open, "x", close, 100'000), "test"), ConfigError)
        << open;
  }
  EXPECT_THROW(ChatTemplate::compile("{{ x" + repeat(".a", 10'000) + " }}", "test"), ConfigError);
  EXPECT_THROW(ChatTemplate::compile("{{ x" + repeat("|trim", 10'000) + " }}", "test"),
               ConfigError);
  EXPECT_THROW(ChatTemplate::compile(repeat("{% if x %}", 10'000), "test"), ConfigError);
  EXPECT_THROW(ChatTemplate::compile(std::string((1 << 20) + 1, 'x'), "test"), ConfigError);
  // What does not nest may be long.
  EXPECT_EQ(text("{{ 'a'" + repeat(" + 'a'", 10'000) + " }}").size(), 10'001u);
  EXPECT_EQ(text("{% if 0 %}" + repeat("{% elif 0 %}", 10'000) + "{% else %}x{% endif %}"), "x");
}

// ---- What fails when a request is rendered ----

std::string request_error(std::string_view source, const Json& messages = kOneMessage,
                          const ChatLimits& limits = {}) {
  const ChatTemplate chat = ChatTemplate::compile(source, "test");
  try {
    chat.render(messages, true, kNow, limits);
  } catch (const RequestError& error) {
    EXPECT_EQ(error.field, "messages");
    return error.what();
  }
  return "";
}

TEST(ChatTemplateRender, TheTemplatesOwnRefusalIsTheMessage) {
  EXPECT_EQ(request_error("{{ raise_exception('Not ' ~ messages[0].role ~ '!') }}"), "Not user!");
}

TEST(ChatTemplateRender, OtherFailuresNameTheLine) {
  EXPECT_EQ(request_error("\n{{ messages[0].name + 'x' }}"),
            "test: chat template line 2: 'name' is undefined");
  EXPECT_EQ(request_error("{{ messages[0].n + 'x' }}"),
            "test: chat template line 1: \"+\" does not work on int and string");
  EXPECT_EQ(request_error("{{ 9223372036854775807 + 1 }}"),
            "test: chat template line 1: an integer exceeds 64 bits");
  EXPECT_EQ(request_error("{{ 'é' | upper }}"),
            "test: chat template line 1: changing the case of text beyond ASCII is not supported");
}

TEST(ChatTemplateRender, MessagesMustBeAListOfObjects) {
  EXPECT_EQ(request_error("", "hi"), "must be a list of messages");
  EXPECT_EQ(request_error("", {{{"role", "user"}}, "hi"}), "[1] must be an object");
  Json deep = "x";
  for (int i = 0; i < 1000; ++i) deep = Json::array({deep});
  EXPECT_NE(request_error("", {{{"content", deep}}}).find("nests too deep"), std::string::npos);
}

TEST(ChatTemplateRender, TimeMemoryAndOutputAreBounded) {
  const auto fails_with = [](std::string_view source, std::string_view reason) {
    const ChatLimits limits{
        .max_steps = 200'000, .max_memory_bytes = 1 << 20, .max_output_bytes = 1 << 10};
    EXPECT_NE(request_error(source, kOneMessage, limits).find(reason), std::string::npos)
        << source << ": " << request_error(source, kOneMessage, limits);
  };
  const std::string loops =
      "{% for a in range(999) %}{% for b in range(999) %}{% if a %}"
      "{% endif %}{% endfor %}{% endfor %}";
  fails_with(loops, "too ");
  fails_with("{% for a in range(2000) %}x{% endfor %}", "exceeds 1024 bytes");
  fails_with("{{ 'x' * 9000000000 }}", "too ");
  fails_with("{{ [1] * 9000000000 }}", "too much text");
  fails_with("{{ '' * 9000000000 }}{{ [] * 9000000000 }}{{ 1 / 0 }}", "division by zero");
  // Doubling, in text and in lists that hold lists.
  fails_with(
      "{% set n = namespace(x='xy') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}"
      "{% endfor %}",
      "too much text");
  fails_with(
      "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}"
      "{% endfor %}{{ n.x }}",
      "too ");
  fails_with(
      "{% set n = namespace(x=[1], y=[1]) %}{% for i in range(60) %}"
      "{% set n.x = [n.x, n.x] %}{% set n.y = [n.y, n.y] %}{% endfor %}{{ n.x == n.y }}",
      "too many steps");
  fails_with(
      "{% set n = namespace(x=[1]) %}{% for i in range(200) %}{% set n.x = [n.x] %}"
      "{% endfor %}",
      "nest too deep");
  fails_with("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recurses too deep");
  fails_with("{% set n = namespace() %}{% set n.n = n %}{{ n }}", "cannot be printed");
  fails_with("{{ 'abc' | map('map', 'map', 'map') | list }}", "not supported");
}

TEST(ChatTemplateRender, IsLinearInALongMessage) {
  // 8 MB with a role between template literals fit into limits that a quadratic step would not.
  const Json messages = {{{"role", "user"}, {"content", std::string(8 << 20, 'x')}}};
  const ChatTemplate chat = ChatTemplate::compile(
      "{% for m in messages %}{{ '<' + m.role + '>' + m.content | trim + '</>' }}{% endfor %}",
      "test");
  const ChatLimits limits{.max_steps = 2'000'000,
                          .max_memory_bytes = std::size_t{64} << 20,
                          .max_output_bytes = std::size_t{9} << 20};
  EXPECT_EQ(join_segments(chat.render(messages, true, kNow, limits)).size(), (8u << 20) + 9);
}

// ---- Model directories ----

class ChatTemplateLoad : public ::testing::Test {
 protected:
  ChatTemplateLoad()
      : dir_(fs::temp_directory_path() /
             ("paceline_chat_" +
              std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()))) {
    fs::remove_all(dir_);
    fs::create_directories(dir_);
  }
  ~ChatTemplateLoad() override { fs::remove_all(dir_); }

  void write(const std::string& name, const std::string& content) {
    std::ofstream(dir_ / name, std::ios::binary) << content;
  }
  std::string rendered() {
    const auto chat = ChatTemplate::load(dir_);
    return chat ? join_segments(chat->render(kOneMessage, true, kNow)) : "none";
  }

  fs::path dir_;
};

TEST_F(ChatTemplateLoad, TakesTheTemplateOfTokenizerConfig) {
  write("tokenizer_config.json", R"({"chat_template": "{{ bos_token }}{{ messages[0].content }}",
                                     "bos_token": {"content": "<s>", "special": true}})");
  EXPECT_EQ(rendered(), "<s>u");
}

TEST_F(ChatTemplateLoad, TakesTheDefaultOfAList) {
  write("tokenizer_config.json", R"({"chat_template": [{"name": "tool_use", "template": "t"},
                                     {"name": "default", "template": "d{{ eos_token }}"}],
                                     "eos_token": "</s>"})");
  EXPECT_EQ(rendered(), "d</s>");
}

TEST_F(ChatTemplateLoad, PrefersTheFileOfItsOwn) {
  write("chat_template.jinja", "file{{ pad_token is defined }}{{ unk_token }}\n");
  write("tokenizer_config.json", R"({"chat_template": "config", "pad_token": null,
                                     "unk_token": "<unk>"})");
  EXPECT_EQ(rendered(), "fileFalse<unk>");
}

TEST_F(ChatTemplateLoad, AModelMayHaveNone) {
  EXPECT_EQ(rendered(), "none");
  write("tokenizer_config.json", "{}");
  EXPECT_EQ(rendered(), "none");
}

TEST_F(ChatTemplateLoad, RefusesWhatIsMalformedByName) {
  const auto expect_refused = [&](const std::string& config, std::string_view reason) {
    write("tokenizer_config.json", config);
    try {
      ChatTemplate::load(dir_);
      FAIL() << "loaded: " << config;
    } catch (const ConfigError& error) {
      EXPECT_NE(std::string(error.what()).find("tokenizer_config.json"), std::string::npos);
      EXPECT_NE(std::string(error.what()).find(reason), std::string::npos) << error.what();
    }
  };
  expect_refused("[]", "must be an object");
  expect_refused(R"({"chat_template": 1})", "must be a string or a list");
  expect_refused(R"({"chat_template": [1]})", "needs the strings");
  expect_refused(R"({"chat_template": [{"name": "x", "template": "y"}]})", "named \"default\"");
  expect_refused(R"({"chat_template": "x", "bos_token": 7})", "\"bos_token\" must be");
  expect_refused(R"({"chat_template": "{% do x %}"})", "chat template line 1: the tag {% do %}");
}

}  // namespace
}  // namespace paceline::runtime
