#include "launcher/options.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <map>

namespace paceline::launcher {

namespace {

std::string to_bytes(std::string& text) {
  const std::string expected = "expected a size such as 512MB, 2GB or 1GiB, not " + text;
  std::uint64_t count = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), count);
  if (parsed.ec != std::errc()) return expected;
  std::string unit = text.substr(static_cast<std::size_t>(parsed.ptr - text.data()));
  std::erase(unit, ' ');
  std::transform(unit.begin(), unit.end(), unit.begin(),
                 [](unsigned char letter) { return std::tolower(letter); });
  static const std::map<std::string, std::uint64_t> kUnits{{"", 1},
                                                           {"b", 1},
                                                           {"kb", 1000},
                                                           {"mb", 1000'000},
                                                           {"gb", 1000'000'000},
                                                           {"kib", 1024},
                                                           {"mib", 1024 * 1024},
                                                           {"gib", 1024 * 1024 * 1024}};
  const auto factor = kUnits.find(unit);
  constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 50;
  if (factor == kUnits.end() || count > kMostBytes / factor->second) return expected;
  text = std::to_string(count * factor->second);
  return {};
}

}  // namespace

CLI::Validator size_validator() { return {to_bytes, "SIZE", "size"}; }

void add_options(CLI::App& command, ModelOptions& options) {
  command.add_option("--model", options.model, "Hugging Face model directory")
      ->required()
      ->option_text("DIR")
      ->group("Model");
  command
      .add_option("--weights", options.weights,
                  "Weight format to compute in; another than the checkpoint's is converted at load")
      ->check(CLI::IsMember({"auto", "fp32", "bf16", "fp8", "int8", "int4"}))
      ->capture_default_str()
      ->group("Model");
  command
      .add_option("--kv-format", options.kv_format,
                  "Key/value cache format; auto: fp32 with fp32 weights, else bf16")
      ->check(CLI::IsMember({"auto", "fp32", "bf16", "int8"}))
      ->capture_default_str()
      ->group("Model");
  command
      .add_option(
          "--attention", options.attention,
          "Numbers that attention multiplies in. bf16: on a GPU's tensor cores, over a bf16 "
          "or int8 cache; auto: bf16 on a GPU with bf16, fp16 and fp8 weights, else fp32")
      ->check(CLI::IsMember({"auto", "fp32", "bf16"}))
      ->capture_default_str()
      ->group("Model");
  command
      .add_option("--virtual-shards", options.virtual_shards,
                  "Pieces that the model is dealt in; the highest possible --tp")
      ->check(CLI::Range(1, 64))
      ->capture_default_str()
      ->group("Model");
}

void add_options(CLI::App& command, ClusterOptions& options) {
  command
      .add_option("--tp", options.tp,
                  "Ranks that share one replica of the model (tensor parallelism); 0: all ranks")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group("Cluster");
  command
      .add_option("--device", options.device,
                  "cpu; cuda: a GPU for each rank of a node, shared if there are fewer; auto: cuda "
                  "where there is one, unless --isa is given")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str()
      ->group("Cluster");
  command
      .add_flag("--no-graphs", options.no_graphs,
                "cuda: start each kernel by itself instead of recorded steps, to find mistakes")
      ->group("Cluster");
  command
      .add_option("--threads", options.threads,
                  "Threads per rank; 0: the node's cores shared among its ranks")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str()
      ->group("Cluster");
  command
      .add_option(
          "--isa", options.isa,
          "Instruction set to force: avx2, avx512, avx512vnni, avx512bf16, amx (default: the best "
          "there is but amx)")
      ->option_text("NAME")
      ->group("Cluster");
  command
      .add_option("--numerics", options.numerics,
                  "Who multiplies by bf16 and fp16 weights on a GPU. canonical: Paceline, each row "
                  "in one order; fast: cuBLASLt, so that answers depend on --tp and on the batch")
      ->check(CLI::IsMember({"canonical", "fast"}))
      ->capture_default_str()
      ->group("Cluster");
  command
      .add_option(
          "--exchange", options.exchange,
          "How ranks exchange sums; auto: NCCL where each has a GPU of its own, else shared "
          "memory on one node, else MPI")
      ->check(CLI::IsMember({"auto", "shared", "mpi", "nccl"}))
      ->capture_default_str()
      ->group("Cluster");
  command
      .add_option("--all-reduce", options.all_reduce,
                  "Who adds the ranks' sums. canonical: Paceline, in one order whatever the ranks; "
                  "nccl: ncclAllReduce, so that answers depend on --tp and on the batch")
      ->check(CLI::IsMember({"canonical", "nccl"}))
      ->capture_default_str()
      ->group("Cluster");
}

void add_options(CLI::App& command, BatchOptions& options) {
  command.add_option("--max-batch", options.max_batch, "Requests that run at once, per replica")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str()
      ->group("Batching");
  command
      .add_option("--max-batch-tokens", options.max_batch_tokens,
                  "Tokens fed in one step; prompts are cut into chunks that fit")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str()
      ->group("Batching");
  command
      .add_option("--kv-memory", options.kv_memory,
                  "Memory per rank for keys and values, e.g. 512MB, 2GB (default: what --max-batch "
                  "requests of full length need, at most half of the free memory)")
      ->transform(size_validator())
      ->option_text("SIZE")
      ->group("Batching");
}

void add_options(CLI::App& command, DraftOptions& options) {
  command
      .add_option("--drafter", options.drafter,
                  "Drafter directory (Apple's ReDrafter or Medusa's format), or none")
      ->option_text("DIR")
      ->capture_default_str()
      ->group("Speculation (changes the speed, never the answers)");
  command
      .add_option(
          "--draft", options.shape,
          "auto: as much as pays, chosen anew for each step by measured cost and learnt "
          "acceptance; off; or beams and tokens of each beam, up to 64x16, which is also the "
          "reach of --lookup")
      ->option_text("auto|off|WIDTHxDEPTH")
      ->capture_default_str()
      ->group("Speculation (changes the speed, never the answers)");
  command
      .add_option("--draft-nodes", options.max_nodes,
                  "Trees of that many nodes: the most probable of all that the search looks at; 0: "
                  "those of its beams")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str()
      ->group("Speculation (changes the speed, never the answers)");
  command
      .add_flag("--lookup", options.lookup,
                "Also draft what followed the last tokens when they came before")
      ->group("Speculation (changes the speed, never the answers)");
  command
      .add_option("--draft-noise", options.noise,
                  "shared: at temperature above 0 beams are chosen with the noise that tokens will "
                  "be sampled with; none: by probability alone, for comparisons")
      ->check(CLI::IsMember({"shared", "none"}))
      ->capture_default_str()
      ->group("Speculation (changes the speed, never the answers)");
  command
      .add_option("--drafter-weights", options.weights, "Weight format to compute the drafter in")
      ->check(CLI::IsMember({"auto", "fp32", "bf16", "fp8", "int8", "int4"}))
      ->capture_default_str()
      ->group("Speculation (changes the speed, never the answers)");
}

}  // namespace paceline::launcher
