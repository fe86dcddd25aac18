// Eight-lane vectors, written once for every instruction set.
//
// The GCC/Clang vector extension carries the arithmetic; only what it cannot say (square root,
// floor, gather, move-mask) has a line per instruction set. Everything sits in a namespace named
// after the instruction set, because each kernel file is compiled once per set.
#ifndef VLMRM_RAY_SIMD_H_
#define VLMRM_RAY_SIMD_H_

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

#ifndef VLMRM_ISA
#define VLMRM_ISA baseline
#endif

#define VLMRM_INLINE inline __attribute__((always_inline))

namespace vlmrm {
namespace VLMRM_ISA {

constexpr int kLanes = 8;
typedef float vf __attribute__((vector_size(32)));
typedef int32_t vi __attribute__((vector_size(32)));

VLMRM_INLINE vf splat(float a) { return vf{a, a, a, a, a, a, a, a}; }
VLMRM_INLINE vi splat(int32_t a) { return vi{a, a, a, a, a, a, a, a}; }
VLMRM_INLINE vf lane_index() { return vf{0, 1, 2, 3, 4, 5, 6, 7}; }

VLMRM_INLINE vf load(const float* p) {
  vf v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
VLMRM_INLINE vi load(const int32_t* p) {
  vi v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
VLMRM_INLINE void store(float* p, vf v) { std::memcpy(p, &v, sizeof v); }
VLMRM_INLINE void store(int32_t* p, vi v) { std::memcpy(p, &v, sizeof v); }

VLMRM_INLINE vf select(vi mask, vf yes, vf no) {
#if defined(__AVX2__)
  return reinterpret_cast<vf>(_mm256_blendv_ps(reinterpret_cast<__m256>(no),
                                               reinterpret_cast<__m256>(yes),
                                               reinterpret_cast<__m256>(mask)));
#else
  return mask ? yes : no;
#endif
}
VLMRM_INLINE vi select(vi mask, vi yes, vi no) { return (mask & yes) | (~mask & no); }

VLMRM_INLINE vf min(vf a, vf b) { return a < b ? a : b; }
VLMRM_INLINE vf max(vf a, vf b) { return a > b ? a : b; }
VLMRM_INLINE vf abs(vf a) {
  return reinterpret_cast<vf>(reinterpret_cast<vi>(a) & splat(int32_t{0x7fffffff}));
}
VLMRM_INLINE vf clamp01(vf a) { return min(max(a, splat(0.0f)), splat(1.0f)); }

// Bit i is set where lane i of the mask is set.
VLMRM_INLINE int bits(vi mask) {
#if defined(__AVX2__)
  return _mm256_movemask_ps(reinterpret_cast<__m256>(mask));
#else
  int r = 0;
  for (int i = 0; i < kLanes; ++i) r |= (mask[i] & 1) << i;
  return r;
#endif
}
VLMRM_INLINE bool any(vi mask) { return bits(mask) != 0; }

VLMRM_INLINE vf sqrt(vf a) {
#if defined(__AVX2__)
  return reinterpret_cast<vf>(_mm256_sqrt_ps(reinterpret_cast<__m256>(a)));
#else
  vf r;
  for (int i = 0; i < kLanes; ++i) r[i] = __builtin_sqrtf(a[i]);
  return r;
#endif
}

VLMRM_INLINE vf to_float(vi a) { return __builtin_convertvector(a, vf); }
VLMRM_INLINE vi truncate(vf a) { return __builtin_convertvector(a, vi); }
VLMRM_INLINE vf floor(vf a) {
#if defined(__AVX2__)
  return reinterpret_cast<vf>(_mm256_floor_ps(reinterpret_cast<__m256>(a)));
#else
  vf t = to_float(truncate(a));
  return t > a ? t - splat(1.0f) : t;
#endif
}
VLMRM_INLINE vi gather(const uint32_t* base, vi index) {
#if defined(__AVX2__)
  return reinterpret_cast<vi>(_mm256_i32gather_epi32(reinterpret_cast<const int*>(base),
                                                     reinterpret_cast<__m256i>(index), 4));
#else
  vi r;
  for (int i = 0; i < kLanes; ++i) r[i] = static_cast<int32_t>(base[index[i]]);
  return r;
#endif
}

VLMRM_INLINE vi gather(const int32_t* base, vi index) {
  return gather(reinterpret_cast<const uint32_t*>(base), index);
}
VLMRM_INLINE vf gather(const float* base, vi index) {
#if defined(__AVX2__)
  return reinterpret_cast<vf>(_mm256_i32gather_ps(base, reinterpret_cast<__m256i>(index), 4));
#else
  vf r;
  for (int i = 0; i < kLanes; ++i) r[i] = base[index[i]];
  return r;
#endif
}

// log2 of a positive normal number, absolute error < 2e-5.
VLMRM_INLINE vf log2(vf x) {
  vi b = reinterpret_cast<vi>(x);
  vf exponent = to_float((b >> 23) - splat(int32_t{127}));
  vf m = reinterpret_cast<vf>((b & splat(int32_t{0x7fffff})) | splat(int32_t{0x3f800000}));
  vi big = m > splat(1.41421356f);
  m = select(big, m * splat(0.5f), m);
  exponent = select(big, exponent + splat(1.0f), exponent);
  // 2/ln2 * atanh(s) with s = (m - 1) / (m + 1), |s| < 0.172
  vf s = (m - splat(1.0f)) / (m + splat(1.0f));
  vf s2 = s * s;
  vf p = splat(0.961796694f) + s2 * splat(0.577078016f);
  return exponent + s * (splat(2.885390082f) + s2 * p);
}

// x^e for x in [0, 1], relative error < 2e-3 at e = 128.
VLMRM_INLINE vf power(vf x, float e) {
  vf y = max(log2(max(x, splat(1e-30f))) * splat(e), splat(-126.0f));
  vf n = floor(y);
  vf f = y - n;
  vf p = splat(0.05550411f) + f * (splat(0.00961813f) + f * splat(0.00133336f));
  p = splat(1.0f) + f * (splat(0.69314718f) + f * (splat(0.24022651f) + f * p));
  return p * reinterpret_cast<vf>((truncate(n) + splat(int32_t{127})) << 23);
}

struct v3 {
  vf x, y, z;
};
VLMRM_INLINE v3 operator+(v3 a, v3 b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
VLMRM_INLINE v3 operator-(v3 a, v3 b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
VLMRM_INLINE v3 operator*(v3 a, vf b) { return {a.x * b, a.y * b, a.z * b}; }
VLMRM_INLINE vf dot(v3 a, v3 b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
VLMRM_INLINE vf dot(v3 a, const float* b) {
  return a.x * splat(b[0]) + a.y * splat(b[1]) + a.z * splat(b[2]);
}
VLMRM_INLINE v3 splat3(const float* a) { return {splat(a[0]), splat(a[1]), splat(a[2])}; }
VLMRM_INLINE v3 normalize(v3 a) { return a * (splat(1.0f) / sqrt(max(dot(a, a), splat(1e-30f)))); }
VLMRM_INLINE v3 select(vi m, v3 a, v3 b) {
  return {select(m, a.x, b.x), select(m, a.y, b.y), select(m, a.z, b.z)};
}

}  // namespace VLMRM_ISA
}  // namespace vlmrm

#endif  // VLMRM_RAY_SIMD_H_
