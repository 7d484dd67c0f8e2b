#include "runtime/job/work.h"

namespace paceline::runtime {

void encode_work(const std::vector<WorkItem>& items, WireWriter& writer) {
  writer.value(static_cast<std::uint64_t>(items.size()));
  for (const WorkItem& item : items) {
    writer.value(item.index);
    writer.list(item.prompt);
    writer.value(item.max_new_tokens);
    writer.value(item.temperature);
    writer.value(item.top_k);
    writer.value(item.top_p);
    writer.value(item.seed);
    writer.value(static_cast<std::uint64_t>(item.stop.size()));
    for (const std::string& stop : item.stop) writer.text(stop);
    writer.value(item.speculative);
  }
}

std::vector<WorkItem> decode_work(WireReader& reader) {
  std::vector<WorkItem> items;
  const auto count = reader.value<std::uint64_t>();
  for (std::uint64_t i = 0; i < count; ++i) {
    WorkItem item;
    item.index = reader.value<std::int64_t>();
    item.prompt = reader.list<std::int32_t>();
    item.max_new_tokens = reader.value<std::int32_t>();
    item.temperature = reader.value<float>();
    item.top_k = reader.value<std::int32_t>();
    item.top_p = reader.value<float>();
    item.seed = reader.value<std::uint64_t>();
    const auto stops = reader.value<std::uint64_t>();
    for (std::uint64_t s = 0; s < stops; ++s) item.stop.push_back(reader.text());
    item.speculative = reader.value<bool>();
    items.push_back(std::move(item));
  }
  return items;
}

void encode_result(const WorkResult& result, WireWriter& writer) {
  writer.value(result.index);
  writer.list(result.token_ids);
  writer.text(result.text);
  writer.value(result.end);
  writer.value(result.steps);
  writer.list(result.accepted_at);
  writer.value(result.ttft_ms);
}

WorkResult decode_result(WireReader& reader) {
  WorkResult result;
  result.index = reader.value<std::int64_t>();
  result.token_ids = reader.list<std::int32_t>();
  result.text = reader.text();
  result.end = reader.value<EndReason>();
  result.steps = reader.value<std::int64_t>();
  result.accepted_at = reader.list<std::int64_t>();
  result.ttft_ms = reader.value<double>();
  return result;
}

}  // namespace paceline::runtime
