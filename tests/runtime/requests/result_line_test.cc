#include "runtime/requests/result_line.h"

#include <gtest/gtest.h>

#include "runtime/requests/request_parser.h"

namespace paceline::runtime {
namespace {

Answer example_answer() {
  return {.text = "Paris.",
          .finish_reason = FinishReason::kStop,
          .prompt_tokens = 4,
          .token_ids = {1, 258, 2},
          .steps = 2,
          .accepted_at = {1},
          .seed = 18446744073709551615ull,
          .ttft_ms = 12.34567};
}

TEST(ResultLine, AChatCompletion) {
  const Request request =
      parse_request(R"({"custom_id": "q", "messages": [{"role": "user", "content": "?"}]})", 1, {});
  const Json line =
      parse_json(result_line(request, example_answer(), {.model = "m"}, 1700000000), "line");
  const Json expected = parse_json(R"({
      "id": "batch_req-8e35c2cd3bf6641bdb0e2050",
      "custom_id": "q",
      "response": {
        "status_code": 200,
        "request_id": "batch_req-8e35c2cd3bf6641bdb0e2050",
        "body": {
          "id": "chatcmpl-8e35c2cd3bf6641bdb0e2050",
          "object": "chat.completion",
          "created": 1700000000,
          "model": "m",
          "choices": [{"index": 0, "message": {"role": "assistant", "content": "Paris."},
                       "finish_reason": "stop", "logprobs": null}],
          "usage": {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7}}},
      "error": null,
      "paceline": {"steps": 2, "tokens_per_step": 1.5, "accepted_by_depth": [1], "seed": 18446744073709551615,
        "ttft_ms": 12.346,
        "token_sha256": "6df5f8c806d69e8d982e3f15466fd8d49e3bb78f17743965adc54d0e0e524660"}})",
                                   "expected");
  EXPECT_EQ(line.dump(2), expected.dump(2));
}

TEST(ResultLine, ACompletion) {
  const Request request =
      parse_request(R"({"prompt": "a", "model": "theirs", "user": "u"})", 3, {});
  Answer answer = example_answer();
  answer.finish_reason = FinishReason::kLength;
  const Json line =
      parse_json(result_line(request, answer, {.model = "m", .token_ids = true}, 1), "line");
  EXPECT_EQ(line["custom_id"], "line-3");
  const Json& body = line["response"]["body"];
  EXPECT_EQ(body["object"], "text_completion");
  EXPECT_EQ(body["model"], "theirs");
  EXPECT_EQ(body["choices"][0].dump(),
            R"({"finish_reason":"length","index":0,"logprobs":null,"text":"Paris."})");
  EXPECT_EQ(line["paceline"]["token_ids"], Json({1, 258, 2}));
  EXPECT_EQ(line["paceline"]["request"].dump(), R"({"model":"theirs","user":"u"})");
}

TEST(ResultLine, IsOneLineOfUtf8WhateverWasGenerated) {
  const Request request = parse_request(R"({"prompt": "a"})", 1, {});
  Answer answer = example_answer();
  answer.text = "two\nlines, \xff, half a \xf0\x9f";
  const std::string text = result_line(request, answer, {}, 1);
  EXPECT_EQ(text.find('\n'), std::string::npos);
  EXPECT_EQ(parse_json(text, "line")["response"]["body"]["choices"][0]["text"],
            "two\nlines, \xef\xbf\xbd, half a \xef\xbf\xbd");
}

TEST(ErrorLine, NamesLineAndField) {
  const Json line =
      parse_json(error_line("a", 7, RequestError("n", "\"n\": {} is not supported", 2)), "line");
  const Json expected = parse_json(R"({
      "id": "batch_req-ca978112ca1bbdcafac231b3", "custom_id": "a", "response": null,
      "error": {"code": "invalid_request", "message": "line 7: \"n\": 2 is not supported",
                "line": 7, "param": "n"}})",
                                   "expected");
  EXPECT_EQ(line.dump(2), expected.dump(2));
  EXPECT_TRUE(
      parse_json(error_line("a", 7, RequestError("", "\xff")), "line")["error"]["param"].is_null());
}

TEST(TokenDigest, HashesLittleEndianWords) {
  EXPECT_EQ(token_digest({1, 258}),
            Sha256().update(std::string_view("\x01\0\0\0\x02\x01\0\0", 8)).finish());
  EXPECT_EQ(token_digest({}), Sha256().finish());
}

}  // namespace
}  // namespace paceline::runtime
