#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "runtime/files/sha256.h"

namespace paceline::runtime {

/// The checksum that ends a job's summary: equal if and only if all answers are, token for token.
/// It is the SHA-256 over one digest of 32 bytes for each request, in input order: token_digest()
/// of the answer, which each output line also states as `paceline.token_sha256`, or 32 zero bytes
/// for a request that ended in an error. So it can be computed in any order of completion and
/// without the token ids of answers that an earlier run wrote:
///   sha256(concat(unhex(token_sha256) for each line of the input))
class AnswerChecksum {
 public:
  explicit AnswerChecksum(std::size_t requests) : digests_(requests), is_set_(requests) {}

  /// Throws FatalError if `index` has been set before, by either function.
  void set_answer(std::size_t index, const Sha256::Digest& digest);
  void set_error(std::size_t index) { set_answer(index, Sha256::Digest{}); }

  /// 64 hexadecimal digits. Throws FatalError unless every request is set.
  std::string finish_hex() const;

 private:
  std::vector<Sha256::Digest> digests_;
  std::vector<bool> is_set_;
};

}  // namespace paceline::runtime
