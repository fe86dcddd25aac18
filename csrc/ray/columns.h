// Weighted sums of texels in 16-bit arithmetic, the innermost step of texture filtering.
//
// A lane's four texels are 16 bytes (two columns, see Texture). Lane k of every block of four lanes
// goes through the k-th of four vectors, so that all shuffles stay within 128 bits.
#ifndef VLMRM_RAY_COLUMNS_H_
#define VLMRM_RAY_COLUMNS_H_

#include <type_traits>

#include "ray/simd.h"

namespace vlmrm {
namespace VLMRM_ISA {

#if defined(__SSE4_2__) || (defined(__aarch64__) && defined(__ARM_NEON))

#if defined(__AVX512F__)
typedef __m512i Words;
#define VLMRM_WIDE(name) _mm512_##name
#elif defined(__AVX2__)
typedef __m256i Words;
#define VLMRM_WIDE(name) _mm256_##name
#elif defined(__SSE4_2__)
typedef __m128i Words;
#define VLMRM_WIDE(name) _mm_##name
#endif

#if defined(__SSE4_2__)

VLMRM_INLINE Words words(vi a) { return reinterpret_cast<Words>(a.v); }
VLMRM_INLINE vi from_words(Words a) { return {reinterpret_cast<RawInt>(a)}; }

// The two columns at `base` + index[i] for i = 0, 4, 8, ...
VLMRM_INLINE Words load_columns(const uint64_t* base, const uint32_t* index) {
  auto block = [&](int i) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(base + index[i]));
  };
#if defined(__AVX512F__)
  __m512i a = _mm512_castsi128_si512(block(0));
  a = _mm512_inserti32x4(a, block(4), 1);
  a = _mm512_inserti32x4(a, block(8), 2);
  return _mm512_inserti32x4(a, block(12), 3);
#elif defined(__AVX2__)
  return _mm256_inserti128_si256(_mm256_castsi128_si256(block(0)), block(4), 1);
#else
  return block(0);
#endif
}
// Upper times the low byte of the weights plus lower times the high byte, for all channels.
template <int k>
VLMRM_INLINE Words mix_rows(Words columns, vi weights) {
  constexpr auto kOrder = static_cast<_MM_PERM_ENUM>(k * 0x55);
  return VLMRM_WIDE(maddubs_epi16)(VLMRM_WIDE(shuffle_epi32)(words(weights), kOrder), columns);
}
template <int k>
VLMRM_INLINE Words column_weights(vi left, vi right) {
  constexpr auto kOrder = static_cast<_MM_PERM_ENUM>(k & 1 ? 0xfa : 0x50);
  const Words l = words(left), r = words(right);
  return VLMRM_WIDE(shuffle_epi32)(
      k < 2 ? VLMRM_WIDE(unpacklo_epi32)(l, r) : VLMRM_WIDE(unpackhi_epi32)(l, r), kOrder);
}
VLMRM_INLINE Words add(Words a, Words b) { return VLMRM_WIDE(add_epi16)(a, b); }
VLMRM_INLINE Words scale(Words a, Words b) { return VLMRM_WIDE(mulhrs_epi16)(a, b); }
// Adds the columns of lanes k (in a) and k + 1 (in b).
VLMRM_INLINE Words add_halves(Words a, Words b) {
  return add(VLMRM_WIDE(unpacklo_epi64)(a, b), VLMRM_WIDE(unpackhi_epi64)(a, b));
}
VLMRM_INLINE void split(Words a, Words b, vi* red_green, vi* blue) {
#if defined(__AVX512F__)
  const __m512 c = _mm512_castsi512_ps(a), d = _mm512_castsi512_ps(b);
  *red_green = from_words(_mm512_castps_si512(_mm512_shuffle_ps(c, d, 0x88)));
  *blue = from_words(_mm512_castps_si512(_mm512_shuffle_ps(c, d, 0xdd)));
#elif defined(__AVX2__)
  const __m256 c = _mm256_castsi256_ps(a), d = _mm256_castsi256_ps(b);
  *red_green = from_words(_mm256_castps_si256(_mm256_shuffle_ps(c, d, 0x88)));
  *blue = from_words(_mm256_castps_si256(_mm256_shuffle_ps(c, d, 0xdd)));
#else
  const __m128 c = _mm_castsi128_ps(a), d = _mm_castsi128_ps(b);
  *red_green = from_words(_mm_castps_si128(_mm_shuffle_ps(c, d, 0x88)));
  *blue = from_words(_mm_castps_si128(_mm_shuffle_ps(c, d, 0xdd)));
#endif
}
#undef VLMRM_WIDE

#else  // NEON

typedef int16x8_t Words;

VLMRM_INLINE Words load_columns(const uint64_t* base, const uint32_t* index) {
  return vreinterpretq_s16_u64(vld1q_u64(base + index[0]));
}
template <int k>
VLMRM_INLINE Words mix_rows(Words columns, vi weights) {
  const int8x16_t c = vreinterpretq_s8_s16(columns);
  const int32x4_t w = weights.v;
  const Words each = vreinterpretq_s16_u16(
      vmovl_u8(vreinterpret_u8_s32(vdup_laneq_s32(w, k))));
  return vpaddq_s16(vmulq_s16(vmovl_s8(vget_low_s8(c)), each),
                    vmulq_s16(vmovl_high_s8(c), each));
}
template <int k>
VLMRM_INLINE Words column_weights(vi left, vi right) {
  const int32x4_t l = left.v, r = right.v;
  const int32x4_t both = k < 2 ? vzip1q_s32(l, r) : vzip2q_s32(l, r);
  return vreinterpretq_s16_s32(k & 1 ? vzip2q_s32(both, both) : vzip1q_s32(both, both));
}
VLMRM_INLINE Words add(Words a, Words b) { return vaddq_s16(a, b); }
VLMRM_INLINE Words scale(Words a, Words b) { return vqrdmulhq_s16(a, b); }
VLMRM_INLINE Words add_halves(Words a, Words b) {
  const int64x2_t c = vreinterpretq_s64_s16(a), d = vreinterpretq_s64_s16(b);
  return vaddq_s16(vreinterpretq_s16_s64(vzip1q_s64(c, d)),
                   vreinterpretq_s16_s64(vzip2q_s64(c, d)));
}
VLMRM_INLINE void split(Words a, Words b, vi* red_green, vi* blue) {
  const int32x4_t c = vreinterpretq_s32_s16(a), d = vreinterpretq_s32_s16(b);
  *red_green = {vuzp1q_s32(c, d)};
  *blue = {vuzp2q_s32(c, d)};
}

#endif

// Sums of 255 * (texel - 128), one for each of a block's lanes.
struct Blend {
  Words lane[4];
};

// Adds the columns at `at` and `at` + 1, weighted by left / 32768 and right / 32768; within a
// column by the two bytes of `rows` / 255.
VLMRM_INLINE void add_columns(const uint64_t* base, vi at, vi rows, vi left, vi right, Blend* sum) {
  alignas(4 * kLanes) int32_t index[kLanes];
  store(index, at);
  const auto* i = reinterpret_cast<const uint32_t*>(index);
  rows = rows | rows << 16, left = left | left << 16, right = right | right << 16;
  auto one = [&](auto lane) {
    constexpr int k = decltype(lane)::value;
    const Words column = mix_rows<k>(load_columns(base, i + k), rows);
    sum->lane[k] = add(sum->lane[k], scale(column, column_weights<k>(left, right)));
  };
  one(std::integral_constant<int, 0>());
  one(std::integral_constant<int, 1>());
  one(std::integral_constant<int, 2>());
  one(std::integral_constant<int, 3>());
}

VLMRM_INLINE void channels_of(const Blend& sum, vi* r, vi* g, vi* b) {
  split(add_halves(sum.lane[0], sum.lane[1]), add_halves(sum.lane[2], sum.lane[3]), g, b);
  *r = *g << 16 >> 16;
  *g = *g >> 16;
  *b = *b << 16 >> 16;
}

#else  // any processor

struct Blend {
  int32_t channel[3][kLanes];
};

VLMRM_INLINE void add_columns(const uint64_t* base, vi at, vi rows, vi left, vi right, Blend* sum) {
  for (int i = 0; i < kLanes; ++i) {
    const int32_t upper = rows.v[i] & 255, lower = rows.v[i] >> 8;
    for (int side = 0; side < 2; ++side) {
      const uint64_t column = base[at.v[i] + side];
      const int32_t weight = side ? right.v[i] : left.v[i];
      for (int k = 0; k < 3; ++k) {
        const int32_t a = static_cast<int8_t>(column >> 16 * k);
        const int32_t b = static_cast<int8_t>(column >> (16 * k + 8));
        sum->channel[k][i] += ((a * upper + b * lower) * weight + 16384) >> 15;
      }
    }
  }
}

VLMRM_INLINE void channels_of(const Blend& sum, vi* r, vi* g, vi* b) {
  *r = load(sum.channel[0]);
  *g = load(sum.channel[1]);
  *b = load(sum.channel[2]);
}

#endif

// The sum as a colour in 0..1.
VLMRM_INLINE v3 color_of(const Blend& sum) {
  vi r, g, b;
  channels_of(sum, &r, &g, &b);
  const vf unit = splat(1.0f / (255 * 255)), middle = splat(128.0f / 255);
  return {fma(to_float(r), unit, middle), fma(to_float(g), unit, middle),
          fma(to_float(b), unit, middle)};
}

}  // namespace VLMRM_ISA
}  // namespace vlmrm

#endif  // VLMRM_RAY_COLUMNS_H_
