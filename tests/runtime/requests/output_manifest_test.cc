#include "runtime/requests/output_manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/core/error.h"
#include "tests/temporary_directory.h"

namespace paceline::runtime {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

OutputManifest example() {
  return {.input_sha256 = "aa",
          .model_sha256 = "bb",
          .job_seed = 18446744073709551615ull,
          .numerics_id = "cpu-fp32-v8",
          .options = {{"max_tokens", "256"}, {"stop", "[\"\\n\"]"}}};
}

TEST(OutputManifest, ReadsWhatItWrote) {
  const TemporaryDirectory directory;
  const auto path = manifest_path(directory.path() / "out.jsonl");
  EXPECT_EQ(path.filename(), "out.jsonl.manifest.json");
  EXPECT_EQ(read_manifest(path), std::nullopt);
  write_manifest(path, example());
  EXPECT_EQ(read_manifest(path), example());
  OutputManifest other = example();
  other.job_seed = 1;
  write_manifest(path, other);
  EXPECT_EQ(read_manifest(path), other);
  EXPECT_FALSE(std::filesystem::exists(path.string() + ".tmp"));
}

TEST(OutputManifest, NamesEveryDifferenceWithBothValues) {
  EXPECT_NO_THROW(check_same_manifest(example(), example(), "m"));
  OutputManifest now = example();
  now.job_seed = 3;
  now.numerics_id = "cpu-int4-v8";
  now.options = {{"max_tokens", "256"}, {"top_k", "5"}};
  try {
    check_same_manifest(example(), now, "m");
    FAIL() << "accepted";
  } catch (const ConfigError& error) {
    EXPECT_EQ(std::string(error.what()),
              "m: the output cannot be resumed, it was made by a different job: "
              "job_seed was \"18446744073709551615\", now \"3\"; "
              "numerics_id was \"cpu-fp32-v8\", now \"cpu-int4-v8\"; "
              "option stop was \"[\"\\n\"]\", now absent; "
              "option top_k was absent, now \"5\"");
  }
}

TEST(OutputManifest, RefusesWhatIsNoManifest) {
  const TemporaryDirectory directory;
  for (const char* text :
       {"", "[]", "{}", R"({"format_version": 2})", R"({"format_version": 1, "input_sha256": 5})",
        R"({"format_version": 1, "input_sha256": "", "model_sha256": "",
                               "numerics_id": "", "job_seed": -1, "options": {}})",
        R"({"format_version": 1, "input_sha256": "", "model_sha256": "",
                               "numerics_id": "", "job_seed": 1, "options": {"a": 1}})"}) {
    EXPECT_THROW(read_manifest(directory.write("m", text)), ConfigError) << text;
  }
}

TEST(OutputManifest, AFolderThatIsNotThereIsNamed) {
  EXPECT_THROW(write_manifest("/no/such/folder/m", example()), ConfigError);
}

}  // namespace
}  // namespace paceline::runtime
