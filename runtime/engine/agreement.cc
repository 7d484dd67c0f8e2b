#include "runtime/engine/agreement.h"

#include <algorithm>

#include "kernels/core/error.h"

namespace paceline::runtime {

bool Agreement::any(const std::vector<Header>& headers, std::uint64_t Header::*flag) {
  return std::ranges::any_of(headers, [&](const Header& header) { return header.*flag != 0; });
}

Control Agreement::exchange(const Control& mine, std::uint64_t last_decisions) {
  const auto size = static_cast<std::size_t>(communicator_.size());
  ++step_;
  const bool terminate = terminate_();
  if (size == 1) {
    termination_requested_ = terminate;
    return mine;
  }
  const bool leads = communicator_.rank() == 0;

  std::vector<std::byte> bytes;
  if (leads && !mine.empty()) bytes = encode_control(mine);
  const bool forgot = backend_.repeat_counts().forgotten != forgotten_;
  const Header header{last_decisions, bytes.size(), terminate, forgot};
  std::vector<Header> headers(size);
  const std::vector<std::size_t> sizes(size, sizeof(Header));
  communicator_.all_gather(std::as_bytes(std::span(&header, 1)),
                           std::as_writable_bytes(std::span(headers)), sizes);
  for (std::size_t rank = 1; rank < size; ++rank) {
    check(headers[rank].decisions == headers[0].decisions,
          "ranks 0 and {} of the replica decided differently in step {} ({:016x} and {:016x}); "
          "no answer of that step is written",
          rank, step_ - 1, headers[0].decisions, headers[rank].decisions);
  }
  termination_requested_ = any(headers, &Header::terminate);
  if (any(headers, &Header::forgot)) backend_.forget_repeats();
  forgotten_ = backend_.repeat_counts().forgotten;
  if (headers[0].control_bytes == 0) return {};
  bytes.resize(headers[0].control_bytes);
  communicator_.broadcast(bytes, 0);
  return leads ? mine : decode_control(bytes);
}

}  // namespace paceline::runtime
