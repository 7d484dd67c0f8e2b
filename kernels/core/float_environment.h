#pragma once

#include <immintrin.h>

namespace paceline::kernels {

/// While it lives, this thread rounds to nearest (even) and keeps denormals, whatever the thread's
/// settings were (a library built for fast math may have changed them); then they are restored.
class FloatEnvironment {
 public:
  FloatEnvironment() : before_(_mm_getcsr()) {
    if (before_ != kStandard) _mm_setcsr(kStandard);
  }
  ~FloatEnvironment() {
    if (before_ != kStandard) _mm_setcsr(before_);
  }
  FloatEnvironment(const FloatEnvironment&) = delete;
  FloatEnvironment& operator=(const FloatEnvironment&) = delete;

 private:
  // All exceptions masked, round to nearest, flush-to-zero and denormals-are-zero off.
  static constexpr unsigned kStandard = 0x1f80;
  unsigned before_;
};

}  // namespace paceline::kernels
