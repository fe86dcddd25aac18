// The kernels, one per instruction set, behind one signature.
#ifndef VLMRM_RAY_DRAW_H_
#define VLMRM_RAY_DRAW_H_

#include <cstdint>

#include "ray/frame.h"
#include "ray/scene.h"

namespace vlmrm {

namespace baseline {
void draw(const Scene& scene, Frame* frame, uint8_t* rgb);
}
#if defined(VLMRM_HAVE_AVX2)
namespace avx2 {
void draw(const Scene& scene, Frame* frame, uint8_t* rgb);
}
#endif

using DrawFunction = void (*)(const Scene&, Frame*, uint8_t*);

}  // namespace vlmrm

#endif  // VLMRM_RAY_DRAW_H_
