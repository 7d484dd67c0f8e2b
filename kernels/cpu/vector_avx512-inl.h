// 16 lanes of fp32 in one register, for linear_tiles-inl.h. Included inside the namespace and the
// target region of a source file, once each; has no include guard for that reason.

constexpr int kLanes = 16;
constexpr int kRegisters = 32;

using Vec = __m512;
using IVec = __m512i;

inline Vec zero() { return _mm512_setzero_ps(); }
inline Vec broadcast(const float* from) { return _mm512_set1_ps(*from); }
inline Vec load(const float* from) { return _mm512_loadu_ps(from); }
inline Vec load_fp16(const std::uint16_t* from) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
// E4M3's exponent and mantissa, put where fp16 has them, are the number times 2^-8; NaN is set.
inline Vec load_fp8(const std::uint8_t* from) {
  const __m256i codes =
      _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  const __m256i sign = _mm256_slli_epi16(_mm256_srli_epi16(codes, 7), 15);
  const __m256i magnitude = _mm256_and_si256(codes, _mm256_set1_epi16(0x7f));
  const __m256i nan = _mm256_cmpeq_epi16(magnitude, _mm256_set1_epi16(0x7f));
  const __m256i halves =
      _mm256_or_si256(_mm256_or_si256(sign, nan), _mm256_slli_epi16(magnitude, 7));
  return _mm512_mul_ps(_mm512_cvtph_ps(halves), _mm512_set1_ps(256.0f));
}
inline void store(float* to, Vec value) { _mm512_storeu_ps(to, value); }
inline void store_first(float* to, Vec value, int count) {
  _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << count) - 1), value);
}
inline Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
inline Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
inline Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
inline Vec to_float(IVec value) { return _mm512_cvtepi32_ps(value); }

inline IVec load_bytes(const std::byte* from) { return _mm512_loadu_si512(from); }
// Of pairs of bf16, one pair a lane: the upper, or the lower one, as fp32.
inline Vec upper_bf16(IVec pairs) {
  return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(-0x10000)));
}
inline Vec lower_bf16(IVec pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
// As fp32_to_bf16 rounds, in the upper halves; the lower are left over.
inline IVec round_to_bf16(Vec values) {
  const IVec bits = _mm512_castps_si512(values);
  const IVec odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const IVec rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
  return _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x00400000));
}
// Neither computed before nor after.
HWY_INLINE void hold(Vec& value) { asm volatile("" : "+v"(value)); }
inline IVec low_nibbles(IVec bytes) { return _mm512_and_si512(bytes, _mm512_set1_epi8(15)); }
inline IVec high_nibbles(IVec bytes) { return low_nibbles(_mm512_srli_epi16(bytes, 4)); }
inline IVec broadcast_quad(const std::int8_t* from) {
  std::int32_t quad;
  std::memcpy(&quad, from, sizeof(quad));
  return _mm512_set1_epi32(quad);
}

// The largest magnitude's bits of `count` floats, a multiple of 16.
inline std::uint32_t largest_magnitude(const float* in, int count) {
  const IVec magnitude = _mm512_set1_epi32(0x7fffffff);
  IVec largest = _mm512_setzero_si512();
  for (int i = 0; i < count; i += kLanes) {
    largest = _mm512_max_epi32(largest, _mm512_and_si512(_mm512_loadu_si512(in + i), magnitude));
  }
  return static_cast<std::uint32_t>(_mm512_reduce_max_epi32(largest));
}

// q = round(in * inverse), which no finite group takes beyond +-127; returns the sum of q.
inline std::int32_t round_group(const float* in, float inverse, int count, std::int8_t* q) {
  const Vec factor = _mm512_set1_ps(inverse);
  IVec sum = _mm512_setzero_si512();
  for (int i = 0; i < count; i += kLanes) {
    const IVec rounded = _mm512_cvtps_epi32(mul(load(in + i), factor));
    sum = _mm512_add_epi32(sum, rounded);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q + i), _mm512_cvtepi32_epi8(rounded));
  }
  return _mm512_reduce_add_epi32(sum);
}
