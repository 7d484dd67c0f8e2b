#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "runtime/engine/sequence.h"
#include "runtime/model/config.h"
#include "runtime/tokenizer/tokenizer.h"

namespace paceline::runtime {

/// The requests of one run of a benchmark, and when they come.
struct Workload {
  struct Item {
    EngineRequest request;  // its uid is its place in the list, from 0
    double arrival = 0;     // seconds after the run's start; counts only if `open`
    std::int32_t task = 0;  // of `tasks`
  };
  std::vector<Item> items;  // by arrival
  std::vector<std::string> tasks;
  /// Requests in flight at most. A closed load sends the next one when one has ended; an open one
  /// sends each when its time has come, and it waits in the engine's queue.
  std::int32_t concurrency = 1;
  bool open = false;
};

/// Between ranks of one build.
std::vector<std::byte> encode_workload(const Workload& workload);
Workload decode_workload(std::span<const std::byte> bytes);

/// The part of one of several replicas: as even a share of the concurrency, and the requests dealt
/// in turn. Replicas beyond the concurrency get none.
Workload replica_share(const Workload& workload, int replica, int replicas);

/// The ids that random prompts are made of: tokens of ordinary text that do not end an answer.
/// `tokenizer` may be null, for a model directory that has none.
std::vector<std::int32_t> ordinary_tokens(const ModelConfig& config, const Tokenizer* tokenizer);

/// `length` of the ids, drawn at random: the same for one seed and index on every machine.
std::vector<std::int32_t> random_prompt(std::span<const std::int32_t> ids, std::int64_t length,
                                        std::uint64_t seed, std::uint64_t index);

/// When `count` requests come, in seconds, the first at 0, if `rate` come a second on average and
/// none knows of the others (a Poisson process). The same for one seed on every machine but for the
/// last bits.
std::vector<double> arrival_times(std::size_t count, double rate, std::uint64_t seed);

}  // namespace paceline::runtime
