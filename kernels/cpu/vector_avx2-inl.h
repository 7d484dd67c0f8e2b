// 8 lanes of fp32 in one register and their integer dot products, for linear_tiles-inl.h. Included
// inside the namespace and the target region of a source file, once each; has no include guard for
// that reason.

constexpr int kLanes = 8;
constexpr int kRegisters = 16;

using Vec = __m256;
using IVec = __m256i;

inline Vec zero() { return _mm256_setzero_ps(); }
inline Vec broadcast(const float* from) { return _mm256_broadcast_ss(from); }
inline Vec load(const float* from) { return _mm256_loadu_ps(from); }
inline Vec load_fp16(const std::uint16_t* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
// E4M3's exponent and mantissa, put where fp16 has them, are the number times 2^-8; NaN is set.
inline Vec load_fp8(const std::uint8_t* from) {
  const __m128i codes = _mm_cvtepu8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
  const __m128i sign = _mm_slli_epi16(_mm_srli_epi16(codes, 7), 15);
  const __m128i magnitude = _mm_and_si128(codes, _mm_set1_epi16(0x7f));
  const __m128i nan = _mm_cmpeq_epi16(magnitude, _mm_set1_epi16(0x7f));
  const __m128i halves = _mm_or_si128(_mm_or_si128(sign, nan), _mm_slli_epi16(magnitude, 7));
  return _mm256_mul_ps(_mm256_cvtph_ps(halves), _mm256_set1_ps(256.0f));
}
inline void store(float* to, Vec value) { _mm256_storeu_ps(to, value); }
inline void store_first(float* to, Vec value, int count) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  _mm256_maskstore_ps(to, _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lanes), value);
}
inline Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
inline Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
inline Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
inline Vec to_float(IVec value) { return _mm256_cvtepi32_ps(value); }

inline IVec load_bytes(const std::byte* from) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}
// Of pairs of bf16, one pair a lane: the upper, or the lower one, as fp32.
inline Vec upper_bf16(IVec pairs) {
  return _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(-0x10000)));
}
inline Vec lower_bf16(IVec pairs) { return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)); }
// As fp32_to_bf16 rounds, in the upper halves; the lower are left over.
inline IVec round_to_bf16(Vec values) {
  const IVec bits = _mm256_castps_si256(values);
  const IVec odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const IVec rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const IVec quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x00400000));
  const Vec nan = _mm256_cmp_ps(values, values, _CMP_UNORD_Q);
  return _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(nan));
}
// Neither computed before nor after.
HWY_INLINE void hold(Vec& value) { asm volatile("" : "+x"(value)); }
inline IVec low_nibbles(IVec bytes) { return _mm256_and_si256(bytes, _mm256_set1_epi8(15)); }
inline IVec high_nibbles(IVec bytes) { return low_nibbles(_mm256_srli_epi16(bytes, 4)); }
inline IVec broadcast_quad(const std::int8_t* from) {
  std::int32_t quad;
  std::memcpy(&quad, from, sizeof(quad));
  return _mm256_set1_epi32(quad);
}

// Keeps a sum in its register. Without it GCC multiplies a whole group ahead of the sums and spills
// what it multiplied.
HWY_INLINE void pin(IVec& sum) { asm("" : "+x"(sum)); }

// Sums of pairs of products fit 16 bits over all of a group: 8 * 2 * 15 * 127 = 30480.
template <int V>
HWY_INLINE void add_quad_int4(const IVec (&q)[V], IVec in, IVec (&dot)[V]) {
  for (int v = 0; v < V; ++v) {
    dot[v] = _mm256_add_epi16(dot[v], _mm256_maddubs_epi16(q[v], in));
    pin(dot[v]);
  }
}
HWY_INLINE IVec sum_int4(IVec dot) { return _mm256_madd_epi16(dot, _mm256_set1_epi16(1)); }

// |w| times in with w's sign: 2 * 128 * 127 fits 16 bits, for w = -128 too, whose magnitude is 128
// as an unsigned byte. So the offset is taken off at once and the term is not needed.
struct Int8Weights {
  IVec signs;
  IVec magnitudes;
};
HWY_INLINE Int8Weights load_int8_weights(const std::byte* from) {
  const IVec w = _mm256_xor_si256(load_bytes(from), _mm256_set1_epi8(-128));
  return {w, _mm256_abs_epi8(w)};
}
HWY_INLINE IVec start_int8(const std::int32_t*) { return _mm256_setzero_si256(); }
template <int V>
HWY_INLINE void add_quad_int8(const Int8Weights (&w)[V], IVec in, IVec (&dot)[V]) {
  for (int v = 0; v < V; ++v) {
    const IVec pairs = _mm256_maddubs_epi16(w[v].magnitudes, _mm256_sign_epi8(in, w[v].signs));
    dot[v] = _mm256_add_epi32(dot[v], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    pin(dot[v]);
  }
}

// The largest magnitude's bits of `count` floats, a multiple of 8.
inline std::uint32_t largest_magnitude(const float* in, int count) {
  const IVec magnitude = _mm256_set1_epi32(0x7fffffff);
  IVec largest = _mm256_setzero_si256();
  for (int i = 0; i < count; i += kLanes) {
    const IVec bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + i));
    largest = _mm256_max_epi32(largest, _mm256_and_si256(bits, magnitude));
  }
  __m128i four =
      _mm_max_epi32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256(largest, 1));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1));
  return static_cast<std::uint32_t>(_mm_cvtsi128_si32(four));
}

// q = round(in * inverse), which no finite group takes beyond +-127; returns the sum of q.
inline std::int32_t round_group(const float* in, float inverse, int count, std::int8_t* q) {
  const Vec factor = _mm256_set1_ps(inverse);
  IVec sum = _mm256_setzero_si256();
  for (int i = 0; i < count; i += 2 * kLanes) {
    const IVec low = _mm256_cvtps_epi32(mul(load(in + i), factor));
    const IVec high = _mm256_cvtps_epi32(mul(load(in + i + kLanes), factor));
    sum = _mm256_add_epi32(sum, _mm256_add_epi32(low, high));
    // Packing works within halves: words come as low 0-3, high 0-3, low 4-7, high 4-7.
    const IVec words = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8);
    const __m128i bytes =
        _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q + i), bytes);
  }
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1));
  return _mm_cvtsi128_si32(four);
}
