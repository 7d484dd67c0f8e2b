#include "runtime/requests/request_parser.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/core/error.h"

namespace paceline::runtime {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Request parse(std::string_view text, const RequestRules& rules = {}) {
  return parse_request(text, 7, rules);
}

struct Refusal {
  std::string field;
  std::string message;
};

Refusal refusal(std::string_view text) {
  try {
    parse(text, {.vocab_size = 100});
  } catch (const RequestError& error) {
    return {error.field, error.what()};
  }
  return {"accepted", "accepted"};
}

/// The field that a prompt line with one more field is refused for.
std::string refused_field(const std::string& field) {
  return refusal(R"({"prompt": "x", )" + field + "}").field;
}

const Json& messages_of(const Request& request) { return std::get<Json>(request.prompt); }

TEST(ParseRequest, ReadsAnOpenAiBatchLine) {
  const Request request = parse(R"({"custom_id": "a", "method": "POST",
      "url": "/v1/chat/completions", "body": {"model": "m",
      "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
      "max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "seed": 11,
      "stop": ["\n", "END"], "user": "u", "metadata": {"k": "v"}}})");
  EXPECT_EQ(request.id, "a");
  EXPECT_EQ(request.line, 7);
  EXPECT_TRUE(request.is_chat());
  EXPECT_EQ(messages_of(request).dump(),
            R"([{"content":"Be brief.","role":"system"},{"content":"Hi","role":"user"}])");
  const SamplingParams expected{.temperature = 0.5f,
                                .top_k = 40,
                                .top_p = 0.9f,
                                .seed = 11,
                                .max_tokens = 5,
                                .stop = {"\n", "END"}};
  EXPECT_EQ(request.sampling, expected);
  EXPECT_EQ(request.carried.dump(), R"({"method":"POST","url":"/v1/chat/completions","model":"m",)"
                                    R"("user":"u","metadata":{"k":"v"}})");
}

TEST(ParseRequest, ReadsAFlatLine) {
  const Request request = parse(R"({"prompt": "Once", "max_tokens": 3})");
  EXPECT_EQ(request.id, "line-7");
  EXPECT_FALSE(request.is_chat());
  EXPECT_EQ(std::get<std::string>(request.prompt), "Once");
  EXPECT_EQ(request.sampling.max_tokens, 3);
  EXPECT_TRUE(request.carried.empty());
}

TEST(ParseRequest, ReadsTokenIds) {
  const Request request = parse(R"({"custom_id": "t", "prompt": [1, 0, 99]})", {.vocab_size = 100});
  EXPECT_TRUE(request.is_token_ids());
  EXPECT_THAT(std::get<std::vector<std::int32_t>>(request.prompt), ElementsAre(1, 0, 99));
  EXPECT_EQ(refusal(R"({"prompt": [1, 100]})").message,
            "\"prompt\"[1] is 100, expected a token id below 100");
  EXPECT_EQ(refusal(R"({"prompt": [-1]})").field, "prompt");
  EXPECT_EQ(refusal(R"({"prompt": [1.0]})").field, "prompt");
  EXPECT_EQ(refusal(R"({"prompt": ["text"]})").field, "prompt");
  EXPECT_EQ(refusal(R"({"prompt": [[1]]})").field, "prompt");
  EXPECT_EQ(refusal(R"({"prompt": []})").field, "prompt");
}

TEST(ParseRequest, DefaultsFillWhatTheLineLeavesOpen) {
  RequestRules rules;
  rules.defaults = {.temperature = 1.0f, .top_k = 5, .top_p = 0.5f, .max_tokens = 9, .stop = {"x"}};
  EXPECT_EQ(parse(R"({"prompt": "a"})", rules).sampling, rules.defaults);
  EXPECT_EQ(
      parse(R"({"prompt": "a", "temperature": null, "stop": null, "seed": null})", rules).sampling,
      rules.defaults);
  const SamplingParams own =
      parse(R"({"prompt": "a", "temperature": 0, "top_k": 0, "stop": []})", rules).sampling;
  EXPECT_EQ(own.temperature, 0.0f);
  EXPECT_EQ(own.top_k, 0);
  EXPECT_EQ(own.top_p, 0.5f);
  EXPECT_THAT(own.stop, IsEmpty());
}

TEST(ParseRequest, StopMayBeOneString) {
  EXPECT_THAT(parse(R"({"prompt": "a", "stop": "\n\n"})").sampling.stop, ElementsAre("\n\n"));
  EXPECT_EQ(refused_field(R"("stop": "")"), "stop");
  EXPECT_EQ(refused_field(R"("stop": [1])"), "stop");
  EXPECT_EQ(refused_field(R"("stop": ["1","2","3","4","5","6","7","8","9","10","11","12","13",)"
                          R"("14","15","16","17"])"),
            "stop");
}

TEST(ParseRequest, SeedsHave64Bits) {
  EXPECT_EQ(*parse(R"({"prompt": "a", "seed": 18446744073709551615})").sampling.seed, ~0ull);
  EXPECT_EQ(*parse(R"({"prompt": "a", "seed": -1})").sampling.seed, ~0ull);
  EXPECT_EQ(refused_field(R"("seed": 1.5)"), "seed");
  EXPECT_EQ(refused_field(R"("seed": 18446744073709551616)"), "seed");
  EXPECT_EQ(refused_field(R"("seed": "1")"), "seed");
}

TEST(ParseRequest, TheNewerNameOfMaxTokens) {
  EXPECT_EQ(parse(R"({"prompt": "a", "max_completion_tokens": 4})").sampling.max_tokens, 4);
  EXPECT_EQ(refused_field(R"("max_tokens": 4, "max_completion_tokens": 5)"),
            "max_completion_tokens");
}

TEST(ParseRequest, ParametersAreBounded) {
  EXPECT_EQ(refused_field(R"("temperature": -0.1)"), "temperature");
  EXPECT_EQ(refused_field(R"("temperature": 101)"), "temperature");
  EXPECT_EQ(refused_field(R"("temperature": 1e-300)"), "temperature");
  EXPECT_EQ(refused_field(R"("temperature": 0.00001)"), "temperature");
  EXPECT_EQ(refused_field(R"("temperature": 1e300)"), "temperature");
  EXPECT_EQ(refused_field(R"("temperature": "1")"), "temperature");
  EXPECT_EQ(refused_field(R"("top_p": 0)"), "top_p");
  EXPECT_EQ(refused_field(R"("top_p": 1.01)"), "top_p");
  EXPECT_EQ(refused_field(R"("top_k": -2)"), "top_k");
  EXPECT_EQ(refused_field(R"("top_k": 1.5)"), "top_k");
  EXPECT_EQ(refused_field(R"("max_tokens": 0)"), "max_tokens");
  EXPECT_EQ(refused_field(R"("max_tokens": 99999999999)"), "max_tokens");
  EXPECT_EQ(refusal(R"({"prompt": "a", "top_k": -2})").message,
            "\"top_k\" is -2, expected a whole number from -1 to 2147483647");
}

TEST(ParseRequest, FieldsThatAskForSomethingElseAreRefusedByName) {
  for (const char* field :
       {R"("n": 2)", R"("tools": [{}])", R"("logprobs": true)", R"("logprobs": 0)",
        R"("stream": true)", R"("best_of": 2)", R"("presence_penalty": 0.1)",
        R"("frequency_penalty": -1)", R"("response_format": {"type": "json_object"})",
        R"("logit_bias": {"1": 5})", R"("echo": true)", R"("chat_template": "x")",
        R"("no_such_field": 1)", R"("no_such_field": null)", R"("n": true)"}) {
    const std::string text(field);
    EXPECT_EQ(refused_field(text), text.substr(1, text.find('"', 1) - 1)) << text;
  }
  EXPECT_EQ(refusal(R"({"prompt": "a", "n": 2})").message, "\"n\": 2 is not supported");
  EXPECT_EQ(refusal(R"({"body": {"prompt": "a", "n": 3}})").field, "n");
  EXPECT_EQ(refusal(R"({"body": {"prompt": "a"}, "temperature": 1})").field, "temperature");
}

TEST(ParseRequest, ValuesThatChangeNothingAreAccepted) {
  EXPECT_NO_THROW(parse(R"({"prompt": "a", "n": 1, "tools": [], "tool_choice": "none",
      "logprobs": false, "top_logprobs": null, "stream": false, "stream_options": null,
      "best_of": 1, "presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {},
      "response_format": {"type": "text"}, "echo": false, "suffix": null, "store": false})"));
}

TEST(ParseRequest, TheEndpointAgreesWithThePrompt) {
  EXPECT_NO_THROW(parse(R"({"url": "/v1/completions", "body": {"prompt": "a"}})"));
  EXPECT_EQ(refusal(R"({"url": "/v1/chat/completions", "body": {"prompt": "a"}})").field, "url");
  EXPECT_EQ(refusal(R"({"url": "/v1/completions", "messages": [{"role": "user", "content": "a"}]})")
                .field,
            "url");
  EXPECT_EQ(refusal(R"({"url": "/v1/embeddings", "prompt": "a"})").field, "url");
  EXPECT_EQ(refusal(R"({"method": "GET", "prompt": "a"})").field, "method");
}

TEST(ParseRequest, TextPartsAreJoined) {
  const Request request = parse(R"({"messages": [{"role": "user", "content": [
      {"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}]})");
  EXPECT_EQ(messages_of(request)[0]["content"], "one\ntwo");
}

TEST(ParseRequest, MessagesAreChecked) {
  const auto field_of = [](const std::string& messages) {
    return refusal("{\"messages\": " + messages + "}").field;
  };
  EXPECT_EQ(field_of("[]"), "messages");
  EXPECT_EQ(field_of("\"hi\""), "messages");
  EXPECT_EQ(field_of("[1]"), "messages[0]");
  EXPECT_EQ(field_of(R"([{"content": "a"}])"), "messages[0].role");
  EXPECT_EQ(field_of(R"([{"role": "tool", "content": "a"}])"), "messages[0].role");
  EXPECT_EQ(field_of(R"([{"role": "user"}])"), "messages[0].content");
  EXPECT_EQ(field_of(R"([{"role": "user", "content": null}])"), "messages[0].content");
  EXPECT_EQ(field_of(R"([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}])"),
            "messages[0].content[0]");
  EXPECT_EQ(field_of(R"([{"role": "user", "content": "a", "name": "b"}])"), "messages[0].name");
  EXPECT_EQ(field_of(R"([{"role": "assistant", "content": "a", "tool_calls": [], "name": null}])"),
            "accepted");
}

TEST(ParseRequest, ALineWithoutOnePromptIsRefused) {
  EXPECT_EQ(refusal("{}").message, "neither \"messages\" nor \"prompt\" is there");
  EXPECT_EQ(refusal(R"({"prompt": null})").field, "prompt");
  EXPECT_EQ(refusal(R"({"prompt": 5})").field, "prompt");
  EXPECT_EQ(refusal(R"({"prompt": "a", "messages": [{"role": "user", "content": "b"}]})").message,
            "\"messages\" and \"prompt\" are both there, expected one");
  EXPECT_EQ(refusal(R"({"body": []})").field, "body");
}

TEST(ParseRequest, NotJson) {
  EXPECT_THAT(refusal("{\"prompt\": ").message, ::testing::StartsWith("not valid JSON at byte"));
  EXPECT_THAT(refusal("[1]").message, HasSubstr("expected a JSON object, not [1]"));
  EXPECT_THAT(refusal(R"({"prompt": "a", "prompt": "b"})").message, HasSubstr("occurs twice"));
  EXPECT_THAT(refusal(std::string(100'000, '[')).message, HasSubstr("nested deeper"));
  EXPECT_THAT(refusal("{\"prompt\": \"\xff\"}").message, HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal(R"({"prompt": "\ud800"})").message, HasSubstr("not valid JSON"));
}

TEST(ParseRequest, CarriedFieldsHaveTheirTypes) {
  EXPECT_EQ(refused_field(R"("model": 1)"), "model");
  EXPECT_EQ(refused_field(R"("metadata": "x")"), "metadata");
  EXPECT_EQ(parse(R"({"body": {"prompt": "a"}, "metadata": {"k": 1}})").carried.dump(),
            R"({"metadata":{"k":1}})");
}

TEST(RequestId, ComesFromWhateverCanBeRead) {
  EXPECT_EQ(request_id(R"({"custom_id": "a", "prompt": 5})", 3), "a");
  EXPECT_EQ(request_id(R"({"prompt": "x"})", 3), "line-3");
  EXPECT_EQ(request_id(R"({"custom_id": "a")", 3), "line-3");
  EXPECT_EQ(request_id(R"({"custom_id": 5})", 3), "line-3");
  EXPECT_EQ(request_id(R"({"custom_id": ""})", 3), "line-3");
  EXPECT_EQ(request_id("[]", 3), "line-3");
}

TEST(ParseRequest, AnUnusableIdIsRefused) {
  EXPECT_EQ(refused_field(R"("custom_id": 5)"), "custom_id");
  EXPECT_EQ(refused_field(R"("custom_id": "")"), "custom_id");
  EXPECT_EQ(refused_field("\"custom_id\": \"" + std::string(513, 'i') + "\""), "custom_id");
  EXPECT_EQ(refused_field(R"("custom_id": null)"), "accepted");
}

TEST(RequestSeed, DependsOnJobAndIdAlone) {
  // printf '\x00\x00\x00\x00\x00\x00\x00\x00line-1' | sha256sum
  EXPECT_EQ(request_seed(0, "line-1"), 0x14f2a96706ddc3cbull);
  EXPECT_NE(request_seed(0, "line-1"), request_seed(1, "line-1"));
  EXPECT_NE(request_seed(0, "line-1"), request_seed(0, "line-2"));
}

TEST(ParseRequest, ARequestMayDoWithoutSpeculation) {
  EXPECT_TRUE(parse(R"({"prompt": "a"})").speculative);
  EXPECT_TRUE(parse(R"({"prompt": "a", "speculative": null})").speculative);
  EXPECT_FALSE(parse(R"({"body": {"prompt": "a", "speculative": false}})").speculative);
  try {
    parse(R"({"prompt": "a", "speculative": 1})");
    FAIL() << "accepted";
  } catch (const RequestError& error) {
    EXPECT_EQ(error.field, "speculative");
  }
}

}  // namespace
}  // namespace paceline::runtime
