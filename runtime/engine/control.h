#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "drafter/drafter.h"
#include "runtime/engine/sequence.h"

namespace paceline::runtime {

/// What one rank knows and the others must be told before a step: requests to admit, requests to
/// end, how much to draft. The replica's leader (rank 0 of its communicator) fills it, the others
/// receive it.
struct Control {
  std::vector<EngineRequest> admit;
  std::vector<std::uint64_t> cancel;  // uids
  /// What is drafted for a request from this step on, width or depth 0: nothing. None: as before.
  std::optional<drafter::DraftShape> draft;
  bool stop = false;  // no further step follows

  bool empty() const { return admit.empty() && cancel.empty() && !draft && !stop; }
};

/// A control as bytes, between ranks of one build; and back. `decode_control` throws FatalError on
/// bytes that `encode_control` did not write.
std::vector<std::byte> encode_control(const Control& control);
Control decode_control(std::span<const std::byte> bytes);

}  // namespace paceline::runtime
