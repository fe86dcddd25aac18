// The conversions of sink.cc for processors with AVX2, FMA and F16C: sixteen pixels at a time.
//
// x / 255 and d / std are computed as products with the reciprocal and one step of correction,
// which gives the correctly rounded quotient for nearly all operands (Markstein, "Computation of
// elementary functions on the IBM RISC System/6000 processor", 1990); Sink checks all 256 bytes.
#ifndef VLMRM_SINK_AVX2_H_
#define VLMRM_SINK_AVX2_H_

#if defined(__x86_64__)
#define VLMRM_SINK_AVX2 1
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#define VLMRM_AVX2 __attribute__((target("avx2,fma,f16c")))

namespace vlmrm {
namespace sink_avx2 {

inline bool supported() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c");
}

struct Planes {
  __m128i channel[3];
};

// Takes sixteen pixels of three bytes apart.
VLMRM_AVX2 inline Planes split(const uint8_t* in) {
  const auto* p = reinterpret_cast<const __m128i*>(in);
  const __m128i part[3] = {_mm_loadu_si128(p), _mm_loadu_si128(p + 1), _mm_loadu_si128(p + 2)};
  // Byte i of a channel is byte 3 i + channel of the 48; each third of them gives what it holds.
  alignas(16) static constexpr int8_t kPick[3][3][16] = {
      {{0, 3, 6, 9, 12, 15, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1},
       {-1, -1, -1, -1, -1, -1, 2, 5, 8, 11, 14, -1, -1, -1, -1, -1},
       {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 1, 4, 7, 10, 13}},
      {{1, 4, 7, 10, 13, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1},
       {-1, -1, -1, -1, -1, 0, 3, 6, 9, 12, 15, -1, -1, -1, -1, -1},
       {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 2, 5, 8, 11, 14}},
      {{2, 5, 8, 11, 14, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1},
       {-1, -1, -1, -1, -1, 1, 4, 7, 10, 13, -1, -1, -1, -1, -1, -1},
       {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 3, 6, 9, 12, 15}}};
  Planes planes;
  for (int c = 0; c < 3; ++c) {
    __m128i bytes = _mm_setzero_si128();
    for (int k = 0; k < 3; ++k) {
      const auto* pick = reinterpret_cast<const __m128i*>(kPick[c][k]);
      bytes = _mm_or_si128(bytes, _mm_shuffle_epi8(part[k], _mm_load_si128(pick)));
    }
    planes.channel[c] = bytes;
  }
  return planes;
}

struct Norm {
  float mean, std, over_std;
};

// (x / 255 - mean) / std of eight bytes.
VLMRM_AVX2 inline __m256 normalise(__m128i bytes, const Norm& n) {
  const __m256 x = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
  const __m256 full = _mm256_set1_ps(255.0f), over = _mm256_set1_ps(1 / 255.0f);
  const __m256 std = _mm256_set1_ps(n.std), over_std = _mm256_set1_ps(n.over_std);
  __m256 q = _mm256_mul_ps(x, over);
  q = _mm256_fmadd_ps(_mm256_fnmadd_ps(q, full, x), over, q);
  const __m256 d = _mm256_sub_ps(q, _mm256_set1_ps(n.mean));
  const __m256 r = _mm256_mul_ps(d, over_std);
  return _mm256_fmadd_ps(_mm256_fnmadd_ps(r, std, d), over_std, r);
}

VLMRM_AVX2 inline void store(float* out, __m256 v) { _mm256_storeu_ps(out, v); }

struct Half {
  uint16_t bits;
};
VLMRM_AVX2 inline void store(Half* out, __m256 v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

struct Brain {
  uint16_t bits;
};
VLMRM_AVX2 inline void store(Brain* out, __m256 v) {
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
  const __m256i top = _mm256_srli_epi32(_mm256_add_epi32(bits, up), 16);
  // Packs within 128-bit halves, so the middle quarters change places.
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(top, top), 0xd8);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_castsi256_si128(packed));
}

// Both return how many pixels they have done; the rest is less than sixteen.
template <class T>
VLMRM_AVX2 size_t planar(const uint8_t* in, size_t pixels, const Norm* norm, T* out) {
  size_t i = 0;
  for (; i + 16 <= pixels; i += 16) {
    const Planes planes = split(in + 3 * i);
    for (int c = 0; c < 3; ++c) {
      const __m128i low = planes.channel[c];
      store(out + c * pixels + i, normalise(low, norm[c]));
      store(out + c * pixels + i + 8, normalise(_mm_srli_si128(low, 8), norm[c]));
    }
  }
  return i;
}

VLMRM_AVX2 inline size_t planar_bytes(const uint8_t* in, size_t pixels, uint8_t* out) {
  size_t i = 0;
  for (; i + 16 <= pixels; i += 16) {
    const Planes planes = split(in + 3 * i);
    for (int c = 0; c < 3; ++c) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + c * pixels + i), planes.channel[c]);
    }
  }
  return i;
}

}  // namespace sink_avx2
}  // namespace vlmrm

#undef VLMRM_AVX2
#endif  // x86
#endif  // VLMRM_SINK_AVX2_H_
