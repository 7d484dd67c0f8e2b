// The keys and values that attention reads at a time. Included once per instruction set.

#if defined(PACELINE_KERNELS_CPU_KV_BLOCK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PACELINE_KERNELS_CPU_KV_BLOCK_INL_H_
#undef PACELINE_KERNELS_CPU_KV_BLOCK_INL_H_
#else
#define PACELINE_KERNELS_CPU_KV_BLOCK_INL_H_
#endif

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "kernels/core/kv_address.h"
#include "kernels/cpu/lanes-inl.h"
#include "kernels/cpu/row_ops.h"

HWY_BEFORE_NAMESPACE();
namespace paceline::kernels::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

static_assert(kAttentionBlock == kLanes);

/// kWidth elements, in their order.
HWY_INLINE FloatVec load_elements(const float* from) { return hn::LoadU(FloatTag(), from); }
HWY_INLINE FloatVec load_elements(const std::uint16_t* bf16) {
  const hn::RebindToUnsigned<FloatTag> du;
  const hn::Rebind<std::uint16_t, FloatTag> du16;
  return hn::BitCast(FloatTag(), hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(du16, bf16))));
}
HWY_INLINE FloatVec load_elements(const std::int8_t* from) {
  const hn::RebindToSigned<FloatTag> di;
  const hn::Rebind<std::int8_t, FloatTag> di8;
  return hn::ConvertTo(FloatTag(), hn::PromoteTo(di, hn::LoadU(di8, from)));
}

struct VectorPair {
  FloatVec first, second;
};

/// 2 * kWidth elements in the order that costs least: one half behind the other, but of bf16 those
/// of even index, then those of odd index.
template <class Element>
HWY_INLINE VectorPair load_pair(const Element* from) {
  return {load_elements(from), load_elements(from + kWidth)};
}
template <>
HWY_INLINE VectorPair load_pair(const std::uint16_t* bf16) {
  const FloatTag d;
  const hn::RebindToUnsigned<FloatTag> du;
  const auto words = hn::BitCast(du, hn::LoadU(hn::ScalableTag<std::uint16_t>(), bf16));
  return {hn::BitCast(d, hn::ShiftLeft<16>(words)),
          hn::BitCast(d, hn::And(words, hn::Set(du, std::uint32_t{0xffff0000})))};
}

/// Elements that a pair holds at first[i] and second[i], into their order.
inline void in_order(KvFormat format, const float* pair, float* elements) {
  const bool by_parity = format == KvFormat::kBf16;
  for (int i = 0; i < kWidth; ++i) {
    elements[by_parity ? 2 * i : i] = pair[i];
    elements[by_parity ? 2 * i + 1 : kWidth + i] = pair[kWidth + i];
  }
}

/// The keys and values of one block, in the pool's format. They are widened as they are used:
/// copies would cost more than widening them for every few queries.
template <class Element>
class KvBlock {
 public:
  static constexpr bool kScaled = std::is_same_v<Element, std::int8_t>;

  /// Those of positions begin ... begin + count - 1, as `row` sees them; the other pointers repeat
  /// the first.
  HWY_INLINE void find(const AttentionParams& params, const AttentionGroup& group,
                       const RowPlace& row, std::int32_t begin, int count) {
    const KvPool& kv = params.kv;
    const auto* data = reinterpret_cast<const Element*>(kv.data);
    const std::int64_t to_value = kv_value_distance(kv);
    const auto offset = [&](std::int32_t slot) {
      return kv_offset(kv, params.page_table, row.sequence, slot, params.layer, KvPart::kKey,
                       group.kv_head);
    };
    if (begin + count <= row.base) {
      // 16 aligned slots never straddle a page.
      const std::int64_t first = offset(begin);
      for (int j = 0; j < count; ++j) {
        keys_[j] = data + first + std::int64_t{j} * kv.head_dim;
        values_[j] = keys_[j] + to_value;
      }
      if constexpr (kScaled) {
        std::copy_n(&kv_scale(kv, first, begin), count, key_scales_);
        std::copy_n(&kv_scale(kv, first + to_value, begin), count, value_scales_);
      }
    } else {
      for (int j = 0; j < count; ++j) {
        const std::int32_t slot = slot_of_position(row, params.ancestors, begin + j);
        const std::int64_t at = offset(slot);
        keys_[j] = data + at;
        values_[j] = keys_[j] + to_value;
        if constexpr (kScaled) {
          key_scales_[j] = kv_scale(kv, at, slot);
          value_scales_[j] = kv_scale(kv, at + to_value, slot);
        }
      }
    }
    if (kv.head_dim % kLanes != 0) {
      pad(keys_, key_copies_, kv.head_dim, count);
      pad(values_, value_copies_, kv.head_dim, count);
    }
    for (int j = count; j < kAttentionBlock; ++j) keys_[j] = keys_[0];
    if constexpr (kScaled) {
      std::fill(key_scales_ + count, key_scales_ + kAttentionBlock, 0.0f);
      std::fill(value_scales_ + count, value_scales_ + kAttentionBlock, 0.0f);
    }
  }

  HWY_INLINE const Element* key(int j) const { return keys_[j]; }
  /// j below the count found.
  HWY_INLINE const Element* value(int j) const { return values_[j]; }

  /// What belongs to keys (values) v * kWidth and following, times their scales.
  HWY_INLINE FloatVec times_key_scales(FloatVec x, int v) const {
    if constexpr (kScaled) x = hn::Mul(x, hn::LoadU(FloatTag(), key_scales_ + v * kWidth));
    return x;
  }
  HWY_INLINE FloatVec times_value_scales(FloatVec x, int v) const {
    if constexpr (kScaled) x = hn::Mul(x, hn::LoadU(FloatTag(), value_scales_ + v * kWidth));
    return x;
  }

  /// Asks for the block that starts at position `begin`, if it stands in slots of the same number.
  HWY_INLINE static void prefetch(const AttentionParams& params, const AttentionGroup& group,
                                  const RowPlace& row, std::int32_t begin) {
    const KvPool& kv = params.kv;
    if (begin + kAttentionBlock > row.base) return;
    const auto* keys = reinterpret_cast<const Element*>(kv.data) +
                       kv_offset(kv, params.page_table, row.sequence, begin, params.layer,
                                 KvPart::kKey, group.kv_head);
    const auto bytes = static_cast<std::int64_t>(sizeof(Element)) * kAttentionBlock * kv.head_dim;
    for (const Element* rows : {keys, keys + kv_value_distance(kv)}) {
      const auto* from = reinterpret_cast<const std::byte*>(rows);
      for (std::int64_t at = 0; at < bytes; at += 64) hwy::Prefetch(from + at);
    }
  }

 private:
  // Rows padded with +0 to a multiple of 16.
  HWY_INLINE void pad(const Element** rows, Element* copies, int head_dim, int count) {
    const int padded = padded_head_dim(head_dim);
    for (int j = 0; j < count; ++j) {
      Element* copy = copies + j * padded;
      std::copy_n(rows[j], head_dim, copy);
      std::fill(copy + head_dim, copy + padded, Element{});
      rows[j] = copy;
    }
  }

  const Element* keys_[kAttentionBlock];
  const Element* values_[kAttentionBlock];
  float key_scales_[kAttentionBlock];  // if kScaled, as the next
  float value_scales_[kAttentionBlock];
  alignas(64) Element key_copies_[kAttentionBlock * kMaxHeadDim];  // if padded, as the next
  alignas(64) Element value_copies_[kAttentionBlock * kMaxHeadDim];
};

}  // namespace HWY_NAMESPACE
}  // namespace paceline::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
