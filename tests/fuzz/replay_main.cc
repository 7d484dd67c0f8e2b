// Runs a fuzz target without libFuzzer: over the seeds in a folder, then over mutations of them
// that are the same in every run. Usage: fuzz_replay_<name> CORPUS_FOLDER [MUTATIONS]

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
extern "C" void __sanitizer_set_death_callback(void (*callback)()) __attribute__((weak));

namespace {

constexpr std::size_t kMaxInputBytes = 64 << 10;
constexpr const char* kCrashFile = "fuzz_replay_crash.bin";

/// Pieces that matter to JSON, templates and length fields.
const std::vector<std::string> kTokens = {"{",
                                          "}",
                                          "[",
                                          "]",
                                          "\"",
                                          ":",
                                          ",",
                                          "\\",
                                          "\\u0000",
                                          "\\ud800",
                                          "null",
                                          "true",
                                          "-1",
                                          "0",
                                          "1e999",
                                          "{}",
                                          "[]",
                                          "\"\"",
                                          "{{",
                                          "}}",
                                          "{%",
                                          "%}",
                                          "..",
                                          "/",
                                          "\n",
                                          "\r",
                                          "\xff",
                                          "\xef\xbb\xbf",
                                          "9223372036854775807",
                                          "9223372036854775808",
                                          "18446744073709551615",
                                          "4294967296",
                                          std::string(1, '\0'),
                                          std::string(8, '\xff'),
                                          std::string(100, '['),
                                          std::string(100, '{')};

// The input that is running, for the callback of a sanitizer that ends the process.
const std::string* running_input = nullptr;

void save_running_input() {
  if (running_input == nullptr) return;
  std::ofstream(kCrashFile, std::ios::binary) << *running_input;
  std::fprintf(stderr, "the input is in %s\n", kCrashFile);
}

void run(const std::string& input) {
  // A copy of exact size on the heap, so that a read past its end is seen.
  const std::vector<std::uint8_t> bytes(input.begin(), input.end());
  running_input = &input;
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  running_input = nullptr;
}

std::vector<std::string> read_seeds(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.is_regular_file()) paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());  // the folder's own order differs between machines
  std::vector<std::string> seeds;
  for (const auto& path : paths) {
    std::ifstream file(path, std::ios::binary);
    seeds.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return seeds;
}

class Mutator {
 public:
  explicit Mutator(const std::vector<std::string>& seeds) : seeds_(seeds) {}

  std::string next() {
    std::string input = any(seeds_);
    for (std::size_t changes = 1 + below(4); changes > 0; --changes) change(input);
    if (input.size() > kMaxInputBytes) input.resize(kMaxInputBytes);
    return input;
  }

 private:
  // Not std::uniform_int_distribution, whose results differ between libraries.
  std::size_t below(std::size_t limit) { return static_cast<std::size_t>(random_() % limit); }

  const std::string& any(const std::vector<std::string>& list) { return list[below(list.size())]; }

  std::string piece_of(const std::string& text) {
    if (text.empty()) return {};
    const std::size_t begin = below(text.size());
    return text.substr(begin, 1 + below(std::min<std::size_t>(text.size() - begin, 64)));
  }

  void change(std::string& input) {
    const std::size_t place = below(input.size() + 1);
    switch (below(7)) {
      case 0:
        if (place < input.size()) input[place] = static_cast<char>(input[place] ^ 1 << below(8));
        break;
      case 1:
        if (place < input.size()) input[place] = static_cast<char>(below(256));
        break;
      case 2:
        input.insert(place, any(kTokens));
        break;
      case 3:
        input.erase(place, 1 + below(16));
        break;
      case 4:
        input.insert(place, piece_of(input));
        break;
      case 5:
        input.insert(place, piece_of(any(seeds_)));
        break;
      default:
        if (below(4) == 0) input.resize(place);
        break;
    }
  }

  const std::vector<std::string>& seeds_;
  std::mt19937_64 random_{20240229};
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 && argc != 3) {
    std::fprintf(stderr, "usage: %s CORPUS_FOLDER [MUTATIONS]\n", argv[0]);
    return 2;
  }
  const long mutations = argc == 3 ? std::strtol(argv[2], nullptr, 10) : 0;
  const auto seeds = read_seeds(argv[1]);
  if (seeds.empty()) {
    std::fprintf(stderr, "%s holds no seeds\n", argv[1]);
    return 2;
  }
  if (__sanitizer_set_death_callback) __sanitizer_set_death_callback(save_running_input);
  try {
    for (const std::string& seed : seeds) run(seed);
    Mutator mutator(seeds);
    for (long i = 0; i < mutations; ++i) run(mutator.next());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "the target threw: %s\n", error.what());
    save_running_input();
    return 1;
  }
  std::printf("%zu seeds and %ld mutations\n", seeds.size(), mutations);
  return 0;
}
