// The raw vectors of one instruction set and what the vector extension of GCC and Clang cannot say
// about them. simd.h builds its types on these; nothing else includes this file.
#ifndef VLMRM_RAY_ISA_H_
#define VLMRM_RAY_ISA_H_

#include <cstdint>
#include <cstring>

#include "ray/frame.h"

// Each kernel file is compiled for one set and names it; without a name it is the plain one.
#ifndef VLMRM_ISA
#if defined(__aarch64__) && defined(__ARM_NEON)
#define VLMRM_ISA neon
#else
#define VLMRM_ISA baseline
#endif
#endif

#if defined(__SSE4_2__)
#include <immintrin.h>
#elif defined(__aarch64__) && defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#define VLMRM_INLINE inline __attribute__((always_inline))

namespace vlmrm {
namespace VLMRM_ISA {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
static_assert(kLanes <= kMaxLanes, "frames are padded for packets of kMaxLanes");

typedef float RawFloat __attribute__((vector_size(4 * kLanes)));
typedef int32_t RawInt __attribute__((vector_size(4 * kLanes)));

// Four integers, and a mask's bits, for what comes in fours on every set.
typedef int32_t Four __attribute__((vector_size(16)));
#if defined(__SSE4_2__)
VLMRM_INLINE int bits_of(Four mask) { return _mm_movemask_ps(reinterpret_cast<__m128>(mask)); }
#elif defined(__aarch64__) && defined(__ARM_NEON)
VLMRM_INLINE int bits_of(Four mask) { return vaddvq_s32(mask & Four{1, 2, 4, 8}); }
#else
VLMRM_INLINE int bits_of(Four mask) {
  return (mask[0] & 1) | (mask[1] & 2) | (mask[2] & 4) | (mask[3] & 8);
}
#endif
typedef float FourFloats __attribute__((vector_size(16)));
typedef int32_t LooseNumber __attribute__((may_alias));
typedef int32_t LooseFour __attribute__((vector_size(16), aligned(4), may_alias));
typedef float LooseFourFloats __attribute__((vector_size(16), aligned(4), may_alias));
VLMRM_INLINE Four load_four(const int32_t* p) { return *reinterpret_cast<const LooseFour*>(p); }
VLMRM_INLINE FourFloats load_four(const float* p) {
  return *reinterpret_cast<const LooseFourFloats*>(p);
}

// Overwrites the numbers at `p` where the mask is set.
VLMRM_INLINE void put_four(int32_t* p, Four mask, Four a) {
  *reinterpret_cast<LooseFour*>(p) = (mask & a) | (~mask & load_four(p));
}
VLMRM_INLINE void put_four(float* p, Four mask, FourFloats a) {
  const Four old = reinterpret_cast<Four>(load_four(p));
  *reinterpret_cast<LooseFour*>(reinterpret_cast<int32_t*>(p)) =
      (mask & reinterpret_cast<Four>(a)) | (~mask & old);
}

// A mask: one bit a lane where the set has mask registers, else all bits of a lane.
#if defined(__AVX512F__)
typedef __mmask16 RawMask;
#else
typedef RawInt RawMask;
#endif

#if defined(__SSE4_2__)
// Within 128 bits: keeps three bytes of each of four lanes.
#define kDropFourth _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1)
#endif

#if defined(__AVX512F__)

VLMRM_INLINE int raw_bits(RawMask m) { return m; }
VLMRM_INLINE RawMask raw_not(RawMask m) { return _knot_mask16(m); }
VLMRM_INLINE RawFloat raw_select(RawMask m, RawFloat a, RawFloat b) {
  return _mm512_mask_blend_ps(m, b, a);
}
VLMRM_INLINE RawInt raw_select(RawMask m, RawInt a, RawInt b) {
  return reinterpret_cast<RawInt>(_mm512_mask_blend_epi32(m, reinterpret_cast<__m512i>(b),
                                                          reinterpret_cast<__m512i>(a)));
}
VLMRM_INLINE RawFloat raw_min(RawFloat a, RawFloat b) {
  return _mm512_min_ps(a, b);
}
VLMRM_INLINE RawFloat raw_max(RawFloat a, RawFloat b) {
  return _mm512_max_ps(a, b);
}
VLMRM_INLINE RawFloat raw_sqrt(RawFloat a) { return _mm512_sqrt_ps(a); }
VLMRM_INLINE RawInt raw_min(RawInt a, RawInt b) {
  return reinterpret_cast<RawInt>(
      _mm512_min_epi32(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
}
VLMRM_INLINE RawInt raw_max(RawInt a, RawInt b) {
  return reinterpret_cast<RawInt>(
      _mm512_max_epi32(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
}
VLMRM_INLINE RawFloat raw_fma(RawFloat a, RawFloat b, RawFloat c) {
  return _mm512_fmadd_ps(a, b, c);
}
VLMRM_INLINE RawFloat raw_rough_rcp(RawFloat a) { return _mm512_rcp14_ps(a); }
VLMRM_INLINE RawFloat raw_rough_rsqrt(RawFloat a) { return _mm512_rsqrt14_ps(a); }
VLMRM_INLINE RawFloat raw_floor(RawFloat a) {
  return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}
VLMRM_INLINE RawInt raw_gather(const uint32_t* base, RawInt index) {
  return reinterpret_cast<RawInt>(
      _mm512_i32gather_epi32(reinterpret_cast<__m512i>(index), base, 4));
}

VLMRM_INLINE RawInt raw_look_up(const int32_t* table, RawInt index) {
  return reinterpret_cast<RawInt>(
      _mm512_permutexvar_epi32(reinterpret_cast<__m512i>(index), _mm512_loadu_si512(table)));
}
VLMRM_INLINE void raw_append(LooseNumber* out, RawMask m, RawInt a) {
  // Not straight to memory, which takes more than a hundred cycles on Zen 4.
  _mm512_storeu_si512(out, _mm512_maskz_compress_epi32(m, reinterpret_cast<__m512i>(a)));
}
VLMRM_INLINE void raw_store_first(int32_t* out, RawInt a, int count) {
  const auto first = static_cast<__mmask16>((1 << count) - 1);
  _mm512_mask_storeu_epi32(out, first, reinterpret_cast<__m512i>(a));
}
VLMRM_INLINE RawInt raw_ranks(RawMask m) {
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return reinterpret_cast<RawInt>(_mm512_maskz_expand_epi32(m, lanes));
}
VLMRM_INLINE RawInt raw_each_four_times(const LooseNumber* p) {
  const __m128i four = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  const __m512i order = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
  return reinterpret_cast<RawInt>(
      _mm512_permutexvar_epi32(order, _mm512_castsi128_si512(four)));
}
VLMRM_INLINE RawInt raw_join(Four a, Four b, Four c, Four d) {
  __m512i all = _mm512_castsi128_si512(reinterpret_cast<__m128i>(a));
  all = _mm512_inserti32x4(all, reinterpret_cast<__m128i>(b), 1);
  all = _mm512_inserti32x4(all, reinterpret_cast<__m128i>(c), 2);
  return reinterpret_cast<RawInt>(_mm512_inserti32x4(all, reinterpret_cast<__m128i>(d), 3));
}
template <int k>
VLMRM_INLINE RawInt raw_turn(RawInt a) {
  constexpr auto kOrder = static_cast<_MM_PERM_ENUM>(0xe4e4 >> (2 * k) & 0xff);
  return reinterpret_cast<RawInt>(_mm512_shuffle_epi32(reinterpret_cast<__m512i>(a), kOrder));
}

// Writes the low three bytes of each lane one after another.
VLMRM_INLINE void raw_store_rgb(uint8_t* out, RawInt a) {
  const __m512i drop = _mm512_broadcast_i32x4(kDropFourth);
  const __m512i join = _mm512_setr_epi32(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 0, 0, 0, 0);
  __m512i b = _mm512_shuffle_epi8(reinterpret_cast<__m512i>(a), drop);
  _mm512_mask_storeu_epi32(out, 0xfff, _mm512_permutexvar_epi32(join, b));
}

#else  // masks are vectors

VLMRM_INLINE RawMask raw_not(RawMask m) { return ~m; }

#if defined(__AVX2__)

VLMRM_INLINE int raw_bits(RawMask m) { return _mm256_movemask_ps(reinterpret_cast<__m256>(m)); }
VLMRM_INLINE RawFloat raw_select(RawMask m, RawFloat a, RawFloat b) {
  return _mm256_blendv_ps(b, a, reinterpret_cast<__m256>(m));
}
VLMRM_INLINE RawFloat raw_min(RawFloat a, RawFloat b) {
  return _mm256_min_ps(a, b);
}
VLMRM_INLINE RawFloat raw_max(RawFloat a, RawFloat b) {
  return _mm256_max_ps(a, b);
}
VLMRM_INLINE RawFloat raw_sqrt(RawFloat a) { return _mm256_sqrt_ps(a); }
VLMRM_INLINE RawFloat raw_floor(RawFloat a) { return _mm256_floor_ps(a); }
VLMRM_INLINE RawFloat raw_fma(RawFloat a, RawFloat b, RawFloat c) {
  return _mm256_fmadd_ps(a, b, c);
}
VLMRM_INLINE RawFloat raw_rough_rcp(RawFloat a) { return _mm256_rcp_ps(a); }
VLMRM_INLINE RawFloat raw_rough_rsqrt(RawFloat a) { return _mm256_rsqrt_ps(a); }
VLMRM_INLINE RawInt raw_gather(const uint32_t* base, RawInt index) {
  return reinterpret_cast<RawInt>(_mm256_i32gather_epi32(
      reinterpret_cast<const int*>(base), reinterpret_cast<__m256i>(index), 4));
}

VLMRM_INLINE RawInt raw_look_up(const int32_t* table, RawInt index) {
  auto half = [&](const int32_t* p) __attribute__((always_inline)) {
    return _mm256_castsi256_ps(_mm256_permutevar8x32_epi32(
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), reinterpret_cast<__m256i>(index)));
  };
  const __m256 upper = _mm256_castsi256_ps(reinterpret_cast<__m256i>(index << 28));
  return reinterpret_cast<RawInt>(_mm256_blendv_ps(half(table), half(table + 8), upper));
}
VLMRM_INLINE RawInt raw_each_four_times(const LooseNumber* p) {
  const __m128i two = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  const __m256i order = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
  return reinterpret_cast<RawInt>(
      _mm256_permutevar8x32_epi32(_mm256_castsi128_si256(two), order));
}
VLMRM_INLINE RawInt raw_join(Four a, Four b) {
  return reinterpret_cast<RawInt>(
      _mm256_set_m128i(reinterpret_cast<__m128i>(b), reinterpret_cast<__m128i>(a)));
}
template <int k>
VLMRM_INLINE RawInt raw_turn(RawInt a) {
  return reinterpret_cast<RawInt>(
      _mm256_shuffle_epi32(reinterpret_cast<__m256i>(a), 0xe4e4 >> (2 * k) & 0xff));
}

VLMRM_INLINE void raw_store_rgb(uint8_t* out, RawInt a) {
  const __m256i drop = _mm256_broadcastsi128_si256(kDropFourth);
  const __m256i join = _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 6, 6);
  __m256i b = _mm256_shuffle_epi8(reinterpret_cast<__m256i>(a), drop);
  b = _mm256_permutevar8x32_epi32(b, join);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_castsi256_si128(b));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(out + 16), _mm256_extracti128_si256(b, 1));
}

#elif defined(__SSE4_2__)

VLMRM_INLINE int raw_bits(RawMask m) { return _mm_movemask_ps(reinterpret_cast<__m128>(m)); }
VLMRM_INLINE RawFloat raw_select(RawMask m, RawFloat a, RawFloat b) {
  return _mm_blendv_ps(b, a, reinterpret_cast<__m128>(m));
}
VLMRM_INLINE RawFloat raw_min(RawFloat a, RawFloat b) {
  return _mm_min_ps(a, b);
}
VLMRM_INLINE RawFloat raw_max(RawFloat a, RawFloat b) {
  return _mm_max_ps(a, b);
}
VLMRM_INLINE RawFloat raw_sqrt(RawFloat a) { return _mm_sqrt_ps(a); }
VLMRM_INLINE RawFloat raw_floor(RawFloat a) { return _mm_floor_ps(a); }
VLMRM_INLINE RawFloat raw_fma(RawFloat a, RawFloat b, RawFloat c) { return a * b + c; }
VLMRM_INLINE RawFloat raw_rough_rcp(RawFloat a) { return _mm_rcp_ps(a); }
VLMRM_INLINE RawFloat raw_rough_rsqrt(RawFloat a) { return _mm_rsqrt_ps(a); }
template <int k>
VLMRM_INLINE RawInt raw_turn(RawInt a) {
  return reinterpret_cast<RawInt>(
      _mm_shuffle_epi32(reinterpret_cast<__m128i>(a), 0xe4e4 >> (2 * k) & 0xff));
}
VLMRM_INLINE void raw_store_rgb(uint8_t* out, RawInt a) {
  const __m128i b = _mm_shuffle_epi8(reinterpret_cast<__m128i>(a), kDropFourth);
  const int32_t last = _mm_extract_epi32(b, 2);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(out), b);
  std::memcpy(out + 8, &last, 4);
}

#elif defined(__aarch64__) && defined(__ARM_NEON)

VLMRM_INLINE int raw_bits(RawMask m) {
  return bits_of(m);
}
VLMRM_INLINE RawFloat raw_select(RawMask m, RawFloat a, RawFloat b) {
  return vbslq_f32(reinterpret_cast<uint32x4_t>(m), a, b);
}
// As on x86, the second operand is the answer where one is not a number.
VLMRM_INLINE RawFloat raw_min(RawFloat a, RawFloat b) { return raw_select(a < b, a, b); }
VLMRM_INLINE RawFloat raw_max(RawFloat a, RawFloat b) { return raw_select(a > b, a, b); }
VLMRM_INLINE RawFloat raw_sqrt(RawFloat a) { return vsqrtq_f32(a); }
VLMRM_INLINE RawFloat raw_floor(RawFloat a) { return vrndmq_f32(a); }
VLMRM_INLINE RawFloat raw_fma(RawFloat a, RawFloat b, RawFloat c) { return vfmaq_f32(c, a, b); }
VLMRM_INLINE RawFloat raw_rough_rcp(RawFloat a) {
  const float32x4_t r = vrecpeq_f32(a);
  return vmulq_f32(r, vrecpsq_f32(a, r));
}
VLMRM_INLINE RawFloat raw_rough_rsqrt(RawFloat a) {
  const float32x4_t r = vrsqrteq_f32(a);
  return vmulq_f32(r, vrsqrtsq_f32(vmulq_f32(a, r), r));
}

#else  // any processor

VLMRM_INLINE int raw_bits(RawMask m) {
  return bits_of(m);
}
VLMRM_INLINE RawFloat raw_select(RawMask m, RawFloat a, RawFloat b) { return m ? a : b; }
VLMRM_INLINE RawFloat raw_min(RawFloat a, RawFloat b) { return a < b ? a : b; }
VLMRM_INLINE RawFloat raw_max(RawFloat a, RawFloat b) { return a > b ? a : b; }
VLMRM_INLINE RawFloat raw_sqrt(RawFloat a) {
  RawFloat r;
  for (int i = 0; i < kLanes; ++i) r[i] = __builtin_sqrtf(a[i]);
  return r;
}
VLMRM_INLINE RawFloat raw_fma(RawFloat a, RawFloat b, RawFloat c) { return a * b + c; }
VLMRM_INLINE RawFloat raw_rough_rcp(RawFloat a) { return 1.0f / a; }
VLMRM_INLINE RawFloat raw_rough_rsqrt(RawFloat a) { return 1.0f / raw_sqrt(a); }
VLMRM_INLINE RawFloat raw_floor(RawFloat a) {
  const RawFloat t = __builtin_convertvector(__builtin_convertvector(a, RawInt), RawFloat);
  const RawFloat down = t > a ? t - 1.0f : t;
  // From 2^23 on all numbers are whole, and may not fit an integer.
  return (a < 8388608.0f) & (a > -8388608.0f) ? down : a;
}

#endif

VLMRM_INLINE RawInt raw_select(RawMask m, RawInt a, RawInt b) { return (m & a) | (~m & b); }
VLMRM_INLINE RawInt raw_min(RawInt a, RawInt b) { return a < b ? a : b; }
VLMRM_INLINE RawInt raw_max(RawInt a, RawInt b) { return a > b ? a : b; }
#if !defined(__AVX2__)
VLMRM_INLINE RawInt raw_gather(const uint32_t* base, RawInt index) {
  RawInt r;
  for (int i = 0; i < kLanes; ++i) r[i] = static_cast<int32_t>(base[index[i]]);
  return r;
}
#endif

#endif  // __AVX512F__

#if defined(__SSE4_2__)
VLMRM_INLINE float raw_smallest(RawFloat a) {
#if defined(__AVX512F__)
  const __m256 c = _mm256_min_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
  __m128 b = _mm_min_ps(_mm256_castps256_ps128(c), _mm256_extractf128_ps(c, 1));
#elif defined(__AVX2__)
  __m128 b = _mm_min_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
#else
  __m128 b = a;
#endif
  b = _mm_min_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_min_ss(b, _mm_movehdup_ps(b)));
}
#elif defined(__aarch64__) && defined(__ARM_NEON)
VLMRM_INLINE float raw_smallest(RawFloat a) { return vminvq_f32(a); }
#else
VLMRM_INLINE float raw_smallest(RawFloat a) {
  float r = a[0];
  for (int i = 1; i < kLanes; ++i) r = a[i] < r ? a[i] : r;
  return r;
}
#endif

#if !defined(__AVX2__)
// table[index], of 16 numbers.
VLMRM_INLINE RawInt raw_look_up(const int32_t* table, RawInt index) {
  return raw_gather(reinterpret_cast<const uint32_t*>(table), index);
}
// What comes in fours is laid side by side in wider vectors.
VLMRM_INLINE RawInt raw_each_four_times(const LooseNumber* p) { return *p - RawInt{}; }
VLMRM_INLINE RawInt raw_join(Four a) { return a; }
#endif
#if !defined(__SSE4_2__)
// Within each four lanes, lane i holds what lane (i + k) % 4 held.
template <int k>
VLMRM_INLINE RawInt raw_turn(RawInt a) {
  return RawInt{a[k & 3], a[(k + 1) & 3], a[(k + 2) & 3], a[(k + 3) & 3]};
}
#endif

#if !defined(__AVX512F__)
// Writes the lanes of the mask one after another.
VLMRM_INLINE void raw_append(LooseNumber* out, RawMask m, RawInt a) {
  int32_t all[kLanes];
  std::memcpy(all, &a, sizeof all);
  for (int rest = raw_bits(m); rest; rest &= rest - 1) *out++ = all[__builtin_ctz(rest)];
}
// Writes the first lanes and nothing beyond.
VLMRM_INLINE void raw_store_first(int32_t* out, RawInt a, int count) {
  int32_t all[kLanes];
  std::memcpy(all, &a, sizeof all);
  for (int i = 0; i < count; ++i) out[i] = all[i];
}
// How many lanes of the mask come before each of them; 0 elsewhere.
VLMRM_INLINE RawInt raw_ranks(RawMask m) {
  int32_t all[kLanes] = {0}, rank = 0;
  for (int rest = raw_bits(m); rest; rest &= rest - 1) all[__builtin_ctz(rest)] = rank++;
  RawInt r;
  std::memcpy(&r, all, sizeof all);
  return r;
}
#endif

#if !defined(__SSE4_2__)
VLMRM_INLINE void raw_store_rgb(uint8_t* out, RawInt a) {
  for (int i = 0; i < kLanes; ++i) {
    out[3 * i] = static_cast<uint8_t>(a[i]);
    out[3 * i + 1] = static_cast<uint8_t>(a[i] >> 8);
    out[3 * i + 2] = static_cast<uint8_t>(a[i] >> 16);
  }
}
#endif

}  // namespace VLMRM_ISA
}  // namespace vlmrm

#endif  // VLMRM_RAY_ISA_H_
