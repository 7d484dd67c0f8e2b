#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

namespace paceline::launcher {

/// Which model, in which numbers.
struct ModelOptions {
  std::string model;
  std::string weights = "auto";
  std::string kv_format = "auto";
  std::string attention = "auto";
  int virtual_shards = 8;
  bool operator==(const ModelOptions&) const = default;
};

/// Which ranks, devices, cores and instructions compute it.
struct ClusterOptions {
  int tp = 0;
  std::string device = "auto";
  bool no_graphs = false;
  int threads = 0;
  std::string isa;
  std::string numerics = "canonical";
  std::string exchange = "auto";
  std::string all_reduce = "canonical";
  bool operator==(const ClusterOptions&) const = default;
};

/// How much is computed at once.
struct BatchOptions {
  int max_batch = 32;
  int max_batch_tokens = 512;
  std::uint64_t kv_memory = 0;
  bool operator==(const BatchOptions&) const = default;
};

/// Who guesses tokens ahead, and how many. Answers do not depend on it.
struct DraftOptions {
  std::string drafter = "none";
  std::string shape = "auto";
  int max_nodes = 0;
  bool lookup = false;
  std::string noise = "shared";
  std::string weights = "auto";
  bool operator==(const DraftOptions&) const = default;
};

/// Turns "512MB", "2 GB" or a plain number of bytes to that number; units are powers of 1000, or of
/// 1024 with an i (MiB).
CLI::Validator size_validator();

/// Each option is declared once, here, with its name, default and help.
void add_options(CLI::App& command, ModelOptions& options);
void add_options(CLI::App& command, ClusterOptions& options);
void add_options(CLI::App& command, BatchOptions& options);
void add_options(CLI::App& command, DraftOptions& options);

}  // namespace paceline::launcher
