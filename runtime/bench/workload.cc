#include "runtime/bench/workload.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/error.h"
#include "kernels/core/philox.h"
#include "runtime/engine/control.h"
#include "runtime/engine/wire.h"

namespace paceline::runtime {
namespace {

// What a number is drawn for; keeps prompts and arrivals of one seed apart.
enum class Draw : std::uint32_t { kPrompt, kArrival };

/// 32 random bits for each (seed, purpose, index, place).
std::uint32_t random_bits(std::uint64_t seed, Draw draw, std::uint64_t index, std::uint64_t place) {
  const auto block =
      kernels::philox({static_cast<std::uint32_t>(place / 4), static_cast<std::uint32_t>(index),
                       static_cast<std::uint32_t>(index >> 32), static_cast<std::uint32_t>(draw)},
                      {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
  return block[place % 4];
}

}  // namespace

std::vector<std::byte> encode_workload(const Workload& workload) {
  WireWriter writer;
  Control control;
  for (const Workload::Item& item : workload.items) control.admit.push_back(item.request);
  writer.list(encode_control(control));
  for (const Workload::Item& item : workload.items) {
    writer.value(item.arrival);
    writer.value(item.task);
  }
  writer.value(static_cast<std::uint64_t>(workload.tasks.size()));
  for (const std::string& task : workload.tasks) writer.text(task);
  writer.value(workload.concurrency);
  writer.value(workload.open);
  return writer.take();
}

Workload decode_workload(std::span<const std::byte> bytes) {
  WireReader reader(bytes);
  Workload workload;
  for (EngineRequest& request : decode_control(reader.list<std::byte>()).admit) {
    workload.items.push_back({.request = std::move(request)});
  }
  for (Workload::Item& item : workload.items) {
    item.arrival = reader.value<double>();
    item.task = reader.value<std::int32_t>();
  }
  const auto tasks = reader.value<std::uint64_t>();
  for (std::uint64_t i = 0; i < tasks; ++i) workload.tasks.push_back(reader.text());
  workload.concurrency = reader.value<std::int32_t>();
  workload.open = reader.value<bool>();
  reader.done();
  return workload;
}

Workload replica_share(const Workload& workload, int replica, int replicas) {
  check(0 <= replica && replica < replicas, "replica {} of {}", replica, replicas);
  Workload share;
  share.tasks = workload.tasks;
  share.open = workload.open;
  const int busy = std::min(replicas, workload.concurrency);
  if (replica >= busy) return share;
  share.concurrency = workload.concurrency / busy + (replica < workload.concurrency % busy ? 1 : 0);
  for (auto i = static_cast<std::size_t>(replica); i < workload.items.size();
       i += static_cast<std::size_t>(busy)) {
    share.items.push_back(workload.items[i]);
    share.items.back().request.uid = share.items.size() - 1;
  }
  return share;
}

std::vector<std::int32_t> ordinary_tokens(const ModelConfig& config, const Tokenizer* tokenizer) {
  std::vector<std::int32_t> ids;
  for (std::int32_t id = 0; id < config.vocab_size; ++id) {
    const bool special =
        tokenizer != nullptr && (!tokenizer->token(id) || tokenizer->is_special(id));
    if (!special && std::ranges::count(config.eos_token_ids, id) == 0) ids.push_back(id);
  }
  if (ids.empty()) throw ConfigError("the model has no token for a random prompt");
  return ids;
}

std::vector<std::int32_t> random_prompt(std::span<const std::int32_t> ids, std::int64_t length,
                                        std::uint64_t seed, std::uint64_t index) {
  std::vector<std::int32_t> prompt;
  for (std::int64_t place = 0; place < length; ++place) {
    const std::uint64_t bits =
        random_bits(seed, Draw::kPrompt, index, static_cast<std::uint64_t>(place));
    prompt.push_back(ids[bits * ids.size() >> 32]);
  }
  return prompt;
}

std::vector<double> arrival_times(std::size_t count, double rate, std::uint64_t seed) {
  check(rate > 0, "requests at {} a second", rate);
  std::vector<double> times;
  double now = 0;
  for (std::size_t i = 0; i < count; ++i) {
    times.push_back(now);
    const double u = (random_bits(seed, Draw::kArrival, 0, i) + 0.5) * 0x1p-32;
    now -= std::log(u) / rate;
  }
  return times;
}

}  // namespace paceline::runtime
