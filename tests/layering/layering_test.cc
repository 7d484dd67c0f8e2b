#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <string_view>
#include <vector>

// kernels <- parallel <- drafter <- runtime <- launcher: an arrow points to the folder that
// includes.

namespace paceline {
namespace {

const std::vector<std::string> kFolders{"kernels", "parallel", "drafter", "runtime", "launcher"};

std::size_t level(const std::string& folder) {
  return static_cast<std::size_t>(std::find(kFolders.begin(), kFolders.end(), folder) -
                                  kFolders.begin());
}

struct Include {
  std::string file;  // the one that includes, from the repository's root
  std::string name;  // what stands between the quotes or brackets
};

// "parallel/shards.h" for `#include "parallel/shards.h"`, "mpi.h" for `#include <mpi.h>`; empty for
// any other line.
std::string included_name(const std::string& line) {
  constexpr std::string_view kDirective = "#include ";
  if (line.rfind(kDirective, 0) != 0) return {};
  const std::size_t end = line.find_last_of("\">");
  const std::size_t begin = line.find_first_of("\"<") + 1;
  return end == std::string::npos || end < begin ? std::string() : line.substr(begin, end - begin);
}

std::vector<Include> includes_of(const std::string& folder) {
  const std::filesystem::path root = PACELINE_SOURCE_DIR;
  std::vector<Include> found;
  if (!std::filesystem::exists(root / folder)) return found;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root / folder)) {
    const std::string extension = entry.path().extension().string();
    if (extension != ".h" && extension != ".cc" && extension != ".cu" && extension != ".cuh") {
      continue;
    }
    std::ifstream file(entry.path());
    for (std::string line; std::getline(file, line);) {
      const std::string name = included_name(line);
      if (name.empty()) continue;
      found.push_back({std::filesystem::relative(entry.path(), root).string(), name});
    }
  }
  return found;
}

TEST(Layering, FoldersIncludeOnlyThoseBelowThem) {
  std::size_t checked = 0;
  for (const std::string& folder : kFolders) {
    for (const Include& include : includes_of(folder)) {
      const std::string from = include.name.substr(0, include.name.find('/'));
      if (level(from) == kFolders.size()) continue;  // not ours
      ++checked;
      EXPECT_LE(level(from), level(folder)) << include.file << " includes " << include.name;
    }
  }
  EXPECT_GT(checked, 100u);
}

TEST(Layering, LibrariesStayWhereTheyBelong) {
  const std::map<std::string, std::string> homes{
      {"mpi.h", "parallel"},   {"nccl.h", "parallel"},     {"hwloc.h", "parallel"},
      {"boost/", "launcher"},  {"CLI/", "launcher"},       {"pcre2.h", "runtime"},
      {"hwy/", "kernels"},     {"immintrin.h", "kernels"}, {"nlohmann/", "runtime"},
      {"openssl/", "runtime"}, {"dnnl.h", "drafter"},      {"cuda_runtime.h", "kernels"}};
  std::map<std::string, int> seen;
  for (const std::string& folder : kFolders) {
    for (const Include& include : includes_of(folder)) {
      for (const auto& [library, home] : homes) {
        if (include.name.rfind(library, 0) != 0) continue;
        ++seen[library];
        EXPECT_EQ(folder, home) << include.file << " includes " << include.name;
      }
    }
  }
  EXPECT_GT(seen["mpi.h"], 0);
  EXPECT_GT(seen["immintrin.h"] + seen["hwy/"], 0);
}

TEST(Layering, TheModelAndTheStepDoNotAskForTheirRank) {
  const std::filesystem::path root = PACELINE_SOURCE_DIR;
  for (const char* name : {"runtime/model/llama.cc", "runtime/engine/step.cc",
                           "runtime/engine/scheduler.cc", "runtime/engine/packed_batch.cc"}) {
    std::ifstream file(root / name);
    ASSERT_TRUE(file) << name;
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    EXPECT_EQ(text.find("rank() =="), std::string::npos) << name;
    EXPECT_EQ(text.find("rank =="), std::string::npos) << name;
  }
}

}  // namespace
}  // namespace paceline
