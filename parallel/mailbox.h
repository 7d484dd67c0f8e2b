#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include "parallel/rank_state.h"

namespace paceline::parallel {

struct Message {
  int source = 0;  // world rank
  std::vector<std::byte> bytes;
};

/// Messages of any size between any two ranks of the world, the sender itself included. Nothing
/// here waits: `send` returns at once, `try_receive` with what has come. Messages of one source and
/// tag keep their order. Both sides must keep calling one of the two for messages to move.
class Mailbox {
 public:
  explicit Mailbox(const RankState& state);
  ~Mailbox();

  /// `tag` is 0 or greater, of the caller's choosing.
  void send(int destination, int tag, std::vector<std::byte> bytes);
  std::optional<Message> try_receive(int tag);
  /// Waits until all that was sent has left. Throws FatalError when the phase's patience is over.
  void flush();

 private:
  struct Traffic;
  const RankState& state_;
  std::unique_ptr<Traffic> traffic_;
};

}  // namespace paceline::parallel
