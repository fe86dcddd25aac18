// Packets of kLanes numbers, written once for every instruction set.
//
// vf holds floats, vi integers and vm a mask; they behave as numbers do. Everything sits in a
// namespace named after the instruction set, because each kernel file is compiled once per set.
#ifndef VLMRM_RAY_SIMD_H_
#define VLMRM_RAY_SIMD_H_

#include <cstdint>
#include <cstring>

#include "ray/isa.h"

namespace vlmrm {
namespace VLMRM_ISA {

struct vf {
  RawFloat v;
};
struct vi {
  RawInt v;
};
struct vm {
  RawMask v;
};

VLMRM_INLINE vf splat(float a) { return {a - RawFloat{}}; }
VLMRM_INLINE vi splat(int32_t a) { return {a - RawInt{}}; }
// Lane i holds i.
VLMRM_INLINE vf lane_index() {
  RawFloat v;
  for (int i = 0; i < kLanes; ++i) v[i] = static_cast<float>(i);
  return {v};
}
// Lane i holds a[i % 4].
VLMRM_INLINE vf repeat4(const float* a) {
  RawFloat v;
  for (int i = 0; i < kLanes; ++i) v[i] = a[i & 3];
  return {v};
}
VLMRM_INLINE int32_t first(vi a) { return a.v[0]; }

// Through a vector type, not memcpy, which GCC 12 does in halves that stall the whole's next load.
typedef RawFloat LooseFloat __attribute__((aligned(4), may_alias));
typedef RawInt LooseInt __attribute__((aligned(4), may_alias));
VLMRM_INLINE vf load(const float* p) { return {*reinterpret_cast<const LooseFloat*>(p)}; }
VLMRM_INLINE vi load(const int32_t* p) { return {*reinterpret_cast<const LooseInt*>(p)}; }
VLMRM_INLINE void store(float* p, vf a) { *reinterpret_cast<LooseFloat*>(p) = a.v; }
VLMRM_INLINE void store(int32_t* p, vi a) { *reinterpret_cast<LooseInt*>(p) = a.v; }
// Writes the first `count` pixels 0x..BBGGRR as bytes, and nothing beyond.
VLMRM_INLINE void store_rgb(uint8_t* out, vi a, int count) {
  if (count == kLanes) return raw_store_rgb(out, a.v);
  uint8_t all[3 * kLanes];
  raw_store_rgb(all, a.v);
  std::memcpy(out, all, 3 * count);
}

// Lane i holds p[i / 4].
VLMRM_INLINE vi each_four_times(const int32_t* p) { return {raw_each_four_times(p)}; }
VLMRM_INLINE vf each_four_times(const float* p) {
  const vi a = {raw_each_four_times(reinterpret_cast<const LooseNumber*>(p))};
  return {reinterpret_cast<RawFloat>(a.v)};
}
// The fours of lanes hold table[4 * index[j]] and the three after it.
VLMRM_INLINE vi load_fours(const LooseNumber* table, const int32_t* index) {
  auto four = [&](int j) __attribute__((always_inline)) { return load_four(table + 4 * index[j]); };
#if defined(__AVX512F__)
  return {raw_join(four(0), four(1), four(2), four(3))};
#elif defined(__AVX2__)
  return {raw_join(four(0), four(1))};
#else
  return {raw_join(four(0))};
#endif
}
VLMRM_INLINE vf load_fours(const float* table, const int32_t* index) {
  const vi a = load_fours(reinterpret_cast<const LooseNumber*>(table), index);
  return {reinterpret_cast<RawFloat>(a.v)};
}
// The inverse of load_fours.
VLMRM_INLINE void store_fours(int32_t* table, const int32_t* index, vi a) {
  int32_t all[kLanes];
  store(all, a);
  for (int j = 0; j < kLanes / 4; ++j) {
    *reinterpret_cast<LooseFour*>(table + 4 * index[j]) = load_four(all + 4 * j);
  }
}
VLMRM_INLINE void store_fours(float* table, const int32_t* index, vf a) {
  float all[kLanes];
  store(all, a);
  for (int j = 0; j < kLanes / 4; ++j) {
    *reinterpret_cast<LooseFourFloats*>(table + 4 * index[j]) = load_four(all + 4 * j);
  }
}
// Within each four lanes, lane i holds what lane (i + k) % 4 held.
template <int k>
VLMRM_INLINE vi turn(vi a) { return {raw_turn<k>(a.v)}; }

VLMRM_INLINE vf operator+(vf a, vf b) { return {a.v + b.v}; }
VLMRM_INLINE vf operator-(vf a, vf b) { return {a.v - b.v}; }
VLMRM_INLINE vf operator*(vf a, vf b) { return {a.v * b.v}; }
VLMRM_INLINE vf operator/(vf a, vf b) { return {a.v / b.v}; }
VLMRM_INLINE vf operator-(vf a) { return {-a.v}; }
VLMRM_INLINE vf& operator+=(vf& a, vf b) { return a = a + b; }
VLMRM_INLINE vf& operator-=(vf& a, vf b) { return a = a - b; }
VLMRM_INLINE vf& operator*=(vf& a, vf b) { return a = a * b; }
VLMRM_INLINE vf& operator/=(vf& a, vf b) { return a = a / b; }

VLMRM_INLINE vi operator+(vi a, vi b) { return {a.v + b.v}; }
VLMRM_INLINE vi operator-(vi a, vi b) { return {a.v - b.v}; }
VLMRM_INLINE vi operator*(vi a, vi b) { return {a.v * b.v}; }
VLMRM_INLINE vi operator&(vi a, vi b) { return {a.v & b.v}; }
VLMRM_INLINE vi operator|(vi a, vi b) { return {a.v | b.v}; }
VLMRM_INLINE vi operator<<(vi a, int n) { return {a.v << n}; }
VLMRM_INLINE vi operator>>(vi a, int n) { return {a.v >> n}; }
VLMRM_INLINE vi& operator+=(vi& a, vi b) { return a = a + b; }

VLMRM_INLINE vm operator&(vm a, vm b) { return {static_cast<RawMask>(a.v & b.v)}; }
VLMRM_INLINE vm operator|(vm a, vm b) { return {static_cast<RawMask>(a.v | b.v)}; }
VLMRM_INLINE vm operator~(vm a) { return {raw_not(a.v)}; }
VLMRM_INLINE vm& operator&=(vm& a, vm b) { return a = a & b; }
VLMRM_INLINE vm& operator|=(vm& a, vm b) { return a = a | b; }

#if defined(__AVX512F__)
#define VLMRM_COMPARE(op, code, icode)                                                        \
  VLMRM_INLINE vm operator op(vf a, vf b) { return {_mm512_cmp_ps_mask(a.v, b.v, code)}; }    \
  VLMRM_INLINE vm operator op(vi a, vi b) {                                                   \
    return {_mm512_cmp_epi32_mask(reinterpret_cast<__m512i>(a.v),                             \
                                  reinterpret_cast<__m512i>(b.v), icode)};                    \
  }
#else
#define VLMRM_COMPARE(op, code, icode)                            \
  VLMRM_INLINE vm operator op(vf a, vf b) { return {a.v op b.v}; } \
  VLMRM_INLINE vm operator op(vi a, vi b) { return {a.v op b.v}; }
#endif
VLMRM_COMPARE(<, _CMP_LT_OS, _MM_CMPINT_LT)
VLMRM_COMPARE(<=, _CMP_LE_OS, _MM_CMPINT_LE)
VLMRM_COMPARE(>, _CMP_GT_OS, _MM_CMPINT_NLE)
VLMRM_COMPARE(>=, _CMP_GE_OS, _MM_CMPINT_NLT)
VLMRM_COMPARE(==, _CMP_EQ_OQ, _MM_CMPINT_EQ)
VLMRM_COMPARE(!=, _CMP_NEQ_UQ, _MM_CMPINT_NE)
#undef VLMRM_COMPARE

// Bit i is set where lane i of the mask is set.
VLMRM_INLINE int bits(vm m) { return raw_bits(m.v); }
VLMRM_INLINE bool any(vm m) { return raw_bits(m.v) != 0; }
constexpr int kAllBits = (1 << kLanes) - 1;
VLMRM_INLINE vm all_lanes() { return ~vm{}; }

VLMRM_INLINE vf select(vm m, vf yes, vf no) { return {raw_select(m.v, yes.v, no.v)}; }
VLMRM_INLINE vi select(vm m, vi yes, vi no) { return {raw_select(m.v, yes.v, no.v)}; }
// The number where the mask is set, else 0.
VLMRM_INLINE vi operator&(vm m, vi a) { return select(m, a, vi{}); }

// Lane i holds i.
VLMRM_INLINE vi lane_number() {
  RawInt v;
  for (int i = 0; i < kLanes; ++i) v[i] = i;
  return {v};
}
// Lane i is set where bit i is: the inverse of bits().
VLMRM_INLINE vm mask_of(int bits) {
#if defined(__AVX512F__)
  return {static_cast<RawMask>(bits)};
#else
  RawInt bit;
  for (int i = 0; i < kLanes; ++i) bit[i] = 1 << i;
  return (splat(int32_t{bits}) & vi{bit}) != vi{};
#endif
}
VLMRM_INLINE vm first_lanes(int count) { return lane_number() < splat(int32_t{count}); }
// Writes the lanes of the mask one after another; `out` has room for kLanes.
VLMRM_INLINE void append(int32_t* out, vm m, vi a) { raw_append(out, m.v, a.v); }
VLMRM_INLINE void append(float* out, vm m, vf a) {
  raw_append(reinterpret_cast<LooseNumber*>(out), m.v, reinterpret_cast<RawInt>(a.v));
}
// Writes the first `count` lanes and nothing beyond.
VLMRM_INLINE void store_first(int32_t* p, vi a, int count) { raw_store_first(p, a.v, count); }
// How many lanes of the mask come before each of them; 0 elsewhere.
VLMRM_INLINE vi ranks(vm m) { return {raw_ranks(m.v)}; }

// Of all lanes, none of which may be NaN.
VLMRM_INLINE float smallest(vf a) { return raw_smallest(a.v); }
VLMRM_INLINE float largest(vf a) { return -raw_smallest(-a.v); }

// a * b + c, by one instruction where there is one. Written out, not left to the compiler, which
// would fuse here and not there: a pixel must not depend on the loop that computes it.
VLMRM_INLINE vf fma(vf a, vf b, vf c) { return {raw_fma(a.v, b.v, c.v)}; }

VLMRM_INLINE vi as_int(vf a) { return {reinterpret_cast<RawInt>(a.v)}; }
VLMRM_INLINE vf as_float(vi a) { return {reinterpret_cast<RawFloat>(a.v)}; }
VLMRM_INLINE vf to_float(vi a) { return {__builtin_convertvector(a.v, RawFloat)}; }
VLMRM_INLINE vi truncate(vf a) { return {__builtin_convertvector(a.v, RawInt)}; }

VLMRM_INLINE vf min(vf a, vf b) { return {raw_min(a.v, b.v)}; }
VLMRM_INLINE vf max(vf a, vf b) { return {raw_max(a.v, b.v)}; }
VLMRM_INLINE vi min(vi a, vi b) { return {raw_min(a.v, b.v)}; }
VLMRM_INLINE vi max(vi a, vi b) { return {raw_max(a.v, b.v)}; }
VLMRM_INLINE vf abs(vf a) { return as_float(as_int(a) & splat(int32_t{0x7fffffff})); }
VLMRM_INLINE vf clamp01(vf a) { return min(max(a, splat(0.0f)), splat(1.0f)); }
VLMRM_INLINE vf sqrt(vf a) { return {raw_sqrt(a.v)}; }
VLMRM_INLINE vf floor(vf a) { return {raw_floor(a.v)}; }
VLMRM_INLINE vi gather(const uint32_t* base, vi index) { return {raw_gather(base, index.v)}; }

VLMRM_INLINE vi gather(const int32_t* base, vi index) {
  return gather(reinterpret_cast<const uint32_t*>(base), index);
}
VLMRM_INLINE vf gather(const float* base, vi index) {
  typedef uint32_t LooseBits __attribute__((may_alias));
  return as_float(gather(reinterpret_cast<const LooseBits*>(base), index));
}

// table[index], of 16 numbers: quicker than a gather.
VLMRM_INLINE vi look_up(const int32_t* table, vi index) { return {raw_look_up(table, index.v)}; }

// 1 / a and 1 / sqrt(a) by one Newton step from 12 bits or more: a unit or two in the last place.
// Not for zero, infinity or subnormal numbers.
VLMRM_INLINE vf rcp(vf a) {
  const vf r = {raw_rough_rcp(a.v)};
  return r * fma(-a, r, splat(2.0f));
}
VLMRM_INLINE vf rsqrt(vf a) {
  const vf r = {raw_rough_rsqrt(a.v)};
  return r * fma(splat(-0.5f) * a * r, r, splat(1.5f));
}
// sqrt of what is not negative, up to the same error.
VLMRM_INLINE vf root_of(vf a) {
  a = max(a, splat(1e-30f));
  return a * rsqrt(a);
}

// log2 of a positive normal number, absolute error < 2e-5.
VLMRM_INLINE vf log2(vf x) {
  vi b = as_int(x);
  vf exponent = to_float((b >> 23) - splat(int32_t{127}));
  vf m = as_float((b & splat(int32_t{0x7fffff})) | splat(int32_t{0x3f800000}));
  vm big = m > splat(1.41421356f);
  m = select(big, m * splat(0.5f), m);
  exponent = select(big, exponent + splat(1.0f), exponent);
  // 2/ln2 * atanh(s) with s = (m - 1) / (m + 1), |s| < 0.172
  vf s = (m - splat(1.0f)) * rcp(m + splat(1.0f));
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
  return p * as_float((truncate(n) + splat(int32_t{127})) << 23);
}

struct v3 {
  vf x, y, z;
};
VLMRM_INLINE v3 operator+(v3 a, v3 b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
VLMRM_INLINE v3 operator-(v3 a, v3 b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
VLMRM_INLINE v3 operator*(v3 a, vf b) { return {a.x * b, a.y * b, a.z * b}; }
VLMRM_INLINE vf dot(v3 a, v3 b) { return fma(a.x, b.x, fma(a.y, b.y, a.z * b.z)); }
VLMRM_INLINE vf dot(v3 a, const float* b) {
  return fma(a.x, splat(b[0]), fma(a.y, splat(b[1]), a.z * splat(b[2])));
}
// a * b + c.
VLMRM_INLINE v3 fma(v3 a, vf b, v3 c) {
  return {fma(a.x, b, c.x), fma(a.y, b, c.y), fma(a.z, b, c.z)};
}
VLMRM_INLINE v3 splat3(const float* a) { return {splat(a[0]), splat(a[1]), splat(a[2])}; }
VLMRM_INLINE v3 normalize(v3 a) { return a * rsqrt(max(dot(a, a), splat(1e-30f))); }
VLMRM_INLINE v3 select(vm m, v3 a, v3 b) {
  return {select(m, a.x, b.x), select(m, a.y, b.y), select(m, a.z, b.z)};
}

}  // namespace VLMRM_ISA
}  // namespace vlmrm

#endif  // VLMRM_RAY_SIMD_H_
