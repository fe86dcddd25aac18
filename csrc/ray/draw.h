// The kernels, one per instruction set, behind one signature.
#ifndef VLMRM_RAY_DRAW_H_
#define VLMRM_RAY_DRAW_H_

#include <cstdint>
#include <string>
#include <vector>

#include "ray/frame.h"
#include "ray/scene.h"

namespace vlmrm {

using DrawFunction = void (*)(const Scene& scene, Frame* frame, uint8_t* rgb);

// One kernel file's entry points.
struct Kernel {
  const char* name;  // of its instruction set, as in VLMRM_FAST_SIMD
  DrawFunction draw;
};

// Those that this processor runs, the preferred one first; never empty.
const std::vector<Kernel>& kernels();

// The preferred one, or the one that the environment variable VLMRM_FAST_SIMD names. Throws
// std::invalid_argument if it names none of kernels().
const Kernel& choose_kernel();

}  // namespace vlmrm

#endif  // VLMRM_RAY_DRAW_H_
