#include "runtime/requests/answer_checksum.h"

#include "kernels/core/error.h"

namespace paceline::runtime {

void AnswerChecksum::set_answer(std::size_t index, const Sha256::Digest& digest) {
  check(index < digests_.size() && !is_set_[index], "request {} of {} is answered twice", index,
        digests_.size());
  digests_[index] = digest;
  is_set_[index] = true;
}

std::string AnswerChecksum::finish_hex() const {
  Sha256 hash;
  for (std::size_t i = 0; i < digests_.size(); ++i) {
    check(is_set_[i], "request {} of {} has no answer", i, digests_.size());
    hash.update(digests_[i]);
  }
  return hash.finish_hex();
}

}  // namespace paceline::runtime
