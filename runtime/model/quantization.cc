#include "runtime/model/quantization.h"

#include <string>

#include "runtime/model/config.h"

namespace paceline::runtime {
namespace {

constexpr std::int64_t kMaxGroup = std::int64_t{1} << 20;

void check_paceline(const ConfigFields& fields) {
  fields.allow_only({"quant_method", "group_size"});
  if (fields.size("group_size", kMaxGroup) != kQuantizationGroup) {
    fields.refuse("group_size", "only {} is supported", kQuantizationGroup);
  }
}

void check_fp8(const ConfigFields& fields) {
  if (fields.find("weight_block_size") != nullptr) {
    fields.refuse("weight_block_size",
                  "fp8 weights with scales of blocks are not supported, only with one for each "
                  "tensor or output");
  }
  fields.must_be("fmt", "e4m3");
  if (fields.find("kv_cache_scheme") != nullptr) {
    fields.refuse("kv_cache_scheme", "a quantized cache in the checkpoint is not supported");
  }
}

void check_float_weights(const ConfigFields& weights) {
  weights.must_be("num_bits", 8);
  weights.must_be("type", "float");
  weights.must_be("symmetric", true);
  weights.must_be("dynamic", false);
  const std::string strategy = weights.find("strategy") ? weights.text("strategy") : "tensor";
  if (strategy != "tensor" && strategy != "channel") {
    weights.refuse("strategy", "supported are tensor and channel");
  }
}

void check_compressed_tensors(const ConfigFields& fields) {
  if (!fields.find("format") || fields.text("format") != "float-quantized") {
    fields.refuse("format", "only \"float-quantized\" is supported");
  }
  if (fields.find("kv_cache_scheme") != nullptr) {
    fields.refuse("kv_cache_scheme", "a quantized cache in the checkpoint is not supported");
  }
  if (fields.find("sparsity_config") != nullptr) {
    fields.inside("sparsity_config").must_be("format", "dense");
  }
  const Json* groups = fields.find("config_groups");
  if (groups == nullptr || !groups->is_object() || groups->empty()) {
    fields.refuse("config_groups", "expected an object that describes groups of layers");
  }
  const ConfigFields inside = fields.inside("config_groups");
  for (const auto& item : groups->items()) {
    if (inside.find(item.key()) == nullptr) continue;
    const ConfigFields group = inside.inside(item.key());
    if (group.find("weights") == nullptr) group.refuse("weights", "expected an object");
    check_float_weights(group.inside("weights"));
  }
}

}  // namespace

StoredQuantization stored_quantization(const ConfigFields& config) {
  if (config.find("quantization_config") == nullptr) return StoredQuantization::kNone;
  const ConfigFields fields = config.inside("quantization_config");
  const std::string method = fields.find("quant_method") ? fields.text("quant_method") : "";
  if (method == "paceline") {
    check_paceline(fields);
    return StoredQuantization::kPaceline;
  }
  if (method == "fp8") {
    check_fp8(fields);
  } else if (method == "compressed-tensors") {
    check_compressed_tensors(fields);
  } else {
    fields.refuse("quant_method", "supported are paceline, fp8 and compressed-tensors");
  }
  return StoredQuantization::kFp8;
}

}  // namespace paceline::runtime
