// What the static-background cache notes of still meshes.
#ifndef VLMRM_RAY_STILL_MESH_H_
#define VLMRM_RAY_STILL_MESH_H_

#include <algorithm>

#include "ray/frame.h"
#include "ray/shade_mesh.h"
#include "ray/simd.h"
#include "ray/still.h"

namespace vlmrm {
namespace VLMRM_ISA {

// Widens the bounds of a packet by the places where the pixels that show one mesh are shaded. On a
// steep triangle that may be far from its depth in the picture, which `record_frame` notes.
inline void record_mesh(const Scene& scene, const Frame& f, int row, int col, int view, vm in, int one,
                        Background* b) {
  const int at = row * f.pitch + col;
  const ViewGeom& g = f.view[view];
  Points q;
  q.x = splat(f.left) + (lane_index() + splat(static_cast<float>(col))) * splat(f.step_x);
  q.y = splat(f.top - row * f.step_y);
  q.t = select(in, load(f.depth.data() + at), splat(f.depth[at + one]));
  q.prim = select(in, load(f.prim.data() + at), splat(f.prim[at + one]));
  float x[kLanes], y[kLanes], t[kLanes];
  store(x, q.x), store(y, q.y);
  store(t, shaded_depth(f, g, triangle_at(*g.mesh, q.prim), q));
  for (int rest = bits(in); rest; rest &= rest - 1) {
    const int i = __builtin_ctz(rest);
    record_point(scene, f, row, col + i, x[i], y[i], t[i], b);
  }
}

// The same for all meshes in a picture.
inline void record_meshes(const Scene& scene, const Frame& f, Background* b) {
  if (f.prim.empty()) return;
  const int n = static_cast<int>(scene.geoms.size());
  for (int row = 0; row < f.height; ++row) {
    for (int col = 0; col < f.width; col += kLanes) {
      const int at = row * f.pitch + col;
      const vi ids = load(f.id.data() + at) >> 3;
      const vm shown = (ids >= vi{}) & first_lanes(f.width - col);
      for (int rest = bits(shown); rest;) {
        const int one = __builtin_ctz(rest), view = f.id[at + one] >> 3;
        const vm in = shown & (ids == splat(int32_t{view}));
        rest &= ~bits(in);
        if (view < n && f.view[view].type == kMesh) {
          record_mesh(scene, f, row, col, view, in, one, b);
        }
      }
    }
  }
}

}  // namespace VLMRM_ISA
}  // namespace vlmrm

#endif  // VLMRM_RAY_STILL_MESH_H_
