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

/// While it lives, this thread's floating-point operations take denormals for zeros of their sign
/// and give such zeros instead of them. The compiler does not see that operations depend on it:
/// what must stay inside has to be held there (as kernels/cpu/linear_products-inl.h does).
class FlushedDenormals {
 public:
  FlushedDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | kFlushToZero | kAreZero); }
  ~FlushedDenormals() { _mm_setcsr(before_); }
  FlushedDenormals(const FlushedDenormals&) = delete;
  FlushedDenormals& operator=(const FlushedDenormals&) = delete;

 private:
  static constexpr unsigned kFlushToZero = 0x8000;
  static constexpr unsigned kAreZero = 0x0040;
  unsigned before_;
};

}  // namespace paceline::kernels
