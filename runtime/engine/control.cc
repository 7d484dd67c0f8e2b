#include "runtime/engine/control.h"

#include "runtime/engine/wire.h"

namespace paceline::runtime {

std::vector<std::byte> encode_control(const Control& control) {
  WireWriter writer;
  writer.value(static_cast<std::uint64_t>(control.admit.size()));
  for (const EngineRequest& request : control.admit) {
    writer.value(request.uid);
    writer.list(request.prompt);
    writer.value(request.max_new_tokens);
    writer.value(request.temperature);
    writer.value(request.top_k);
    writer.value(request.top_p);
    writer.value(request.seed);
    writer.value(request.ignore_eos);
    writer.value(request.speculative);
  }
  writer.list(control.cancel);
  writer.value(control.draft.has_value());
  writer.value(control.draft.value_or(drafter::DraftShape{}));
  writer.value(control.stop);
  return writer.take();
}

Control decode_control(std::span<const std::byte> bytes) {
  WireReader reader(bytes);
  Control control;
  const auto admitted = reader.value<std::uint64_t>();
  for (std::uint64_t i = 0; i < admitted; ++i) {
    EngineRequest request;
    request.uid = reader.value<std::uint64_t>();
    request.prompt = reader.list<std::int32_t>();
    request.max_new_tokens = reader.value<std::int32_t>();
    request.temperature = reader.value<float>();
    request.top_k = reader.value<std::int32_t>();
    request.top_p = reader.value<float>();
    request.seed = reader.value<std::uint64_t>();
    request.ignore_eos = reader.value<bool>();
    request.speculative = reader.value<bool>();
    control.admit.push_back(std::move(request));
  }
  control.cancel = reader.list<std::uint64_t>();
  const bool has_draft = reader.value<bool>();
  const auto shape = reader.value<drafter::DraftShape>();
  if (has_draft) control.draft = shape;
  control.stop = reader.value<bool>();
  reader.done();
  return control;
}

}  // namespace paceline::runtime
