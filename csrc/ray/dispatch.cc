#include <cstdlib>
#include <stdexcept>

#include "ray/draw.h"

namespace vlmrm {

#define VLMRM_KERNEL(isa)                                         \
  namespace isa {                                                 \
  void draw(const Scene& scene, Frame* frame, uint8_t* rgb);      \
  }
#if defined(VLMRM_X86)
VLMRM_KERNEL(avx512)
VLMRM_KERNEL(avx2)
VLMRM_KERNEL(sse4)
#endif
#if defined(VLMRM_NEON)
VLMRM_KERNEL(neon)
#else
VLMRM_KERNEL(baseline)
#endif
#undef VLMRM_KERNEL

const std::vector<Kernel>& kernels() {
  static const std::vector<Kernel> all = [] {
    std::vector<Kernel> list;
#if defined(VLMRM_X86)
    const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
      list.push_back({"avx512", avx512::draw});
    }
    if (has_avx2) list.push_back({"avx2", avx2::draw});
    if (__builtin_cpu_supports("sse4.2")) list.push_back({"sse4", sse4::draw});
#endif
#if defined(VLMRM_NEON)
    list.push_back({"neon", neon::draw});
#else
    list.push_back({"baseline", baseline::draw});
#endif
    return list;
  }();
  return all;
}

const Kernel& choose_kernel() {
  const char* forced = std::getenv("VLMRM_FAST_SIMD");
  if (!forced || !*forced) return kernels().front();
  std::string names;
  for (const Kernel& kernel : kernels()) {
    if (std::string(forced) == kernel.name) return kernel;
    names += (names.empty() ? "" : ", ") + std::string(kernel.name);
  }
  throw std::invalid_argument("VLMRM_FAST_SIMD must be one of " + names + ", got '" + forced +
                              "'.");
}

}  // namespace vlmrm
