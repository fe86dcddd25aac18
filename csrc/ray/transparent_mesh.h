// Glass made of triangles.
#ifndef VLMRM_RAY_TRANSPARENT_MESH_H_
#define VLMRM_RAY_TRANSPARENT_MESH_H_

#include <algorithm>

#include "ray/frame.h"
#include "ray/intersect.h"
#include "ray/resolve.h"
#include "ray/shade_mesh.h"
#include "ray/simd.h"

namespace vlmrm {
namespace VLMRM_ISA {

// The part of the eye rays between what lies before a transparent geom and what hides it.
VLMRM_INLINE Range range_of(const Scene& scene, const Frame& f, const ViewGeom& g, int at) {
  const vf limit = load(f.depth.data() + at), near = splat(scene.znear);
  if (g.mirrored) return {max(near, limit), load(f.mirror_depth.data() + at)};
  return {near, limit};
}

VLMRM_INLINE v3 to_float(const Color& c) { return {to_float(c.r), to_float(c.g), to_float(c.b)}; }

// Blends as OpenGL does in 8 bits: rounded after each layer.
VLMRM_INLINE v3 lay_over(v3 under, v3 over, float alpha, bool additive) {
  const vf half = splat(0.5f), most = splat(255.0f);
  const v3 c = under + (additive ? over : over - under) * splat(alpha);
  return {min(floor(c.x + half), most), min(floor(c.y + half), most),
          min(floor(c.z + half), most)};
}

constexpr int32_t kNoTriangle = 0x7fffffff;

// A transparent mesh in a packet of pixels. It is not sorted: each of its triangles is blended over
// what the ones before it left in the sub-samples.
class MeshGlass {
 public:
  MeshGlass(const Scene& scene, Frame* frame, int view, int row, int col)
      : scene_(scene), f_(*frame), g_(f_.view[view]), view_(view), row_(row), col_(col) {}

  // Finds the first triangle of each sample; false where there is none.
  bool start() {
    const vf px = lane_index() + splat(static_cast<float>(col_));
    vm seen = {};
    for (int s = 0; s < 4; ++s) {
      sample_[s].x = splat(f_.left) + (px + splat(kSampleX[s])) * splat(f_.step_x);
      sample_[s].y = splat(f_.top - (row_ + kSampleY[s]) * f_.step_y);
      advance(all_lanes(), splat(int32_t{-1}), &sample_[s]);
      seen |= sample_[s].number < splat(kNoTriangle);
    }
    return any(seen);
  }

  // Blends all triangles over the four samples' colours, 0..255.
  void blend(v3* rgb) {
    Points q;
    q.x = splat(f_.left) + (lane_index() + splat(static_cast<float>(col_))) * splat(f_.step_x);
    q.y = splat(f_.top - row_ * f_.step_y);
    q.face = vi{};
    q.active = all_lanes();
    while (true) {
      vi now = splat(kNoTriangle);
      for (int s = 0; s < 4; ++s) now = select(sample_[s].number < now, sample_[s].number, now);
      const vm left = now < splat(kNoTriangle);
      if (!any(left)) return;
      q.t = splat(1.0f), q.prim = vi{};
      for (int s = 0; s < 4; ++s) {
        const vm mine = left & (sample_[s].number == now);
        q.t = select(mine, sample_[s].t, q.t), q.prim = select(mine, sample_[s].prim, q.prim);
      }
      const Color c = shade_any(scene_, f_, view_, q);
      for (int s = 0; s < 4; ++s) {
        const vm mine = left & (sample_[s].number == now);
        if (!any(mine)) continue;
        const v3 over = lay_over(rgb[s], to_float(c), g_.alpha, scene_.additive != 0);
        rgb[s] = select(mine, over, rgb[s]);
        advance(mine, now, &sample_[s]);
      }
    }
  }

 private:
  // Where a sample is, and its next triangle in drawing order.
  struct Sample {
    vf x, y;
    vi number, prim;
    vf t;
  };

  // Moves lanes of `todo` on to the triangle after number `after`.
  void advance(vm todo, vi after, Sample* s) {
    const int at = row_ * f_.pitch + col_;
    Range range = range_of(scene_, f_, g_, at);
    vm shown = todo;
    if (g_.mirrored) shown &= (load(f_.id.data() + at) >> 3) == splat(f_.reflective);
    range.to = select(shown, range.to, splat(-1.0f));
    vi number = splat(kNoTriangle);
    const Ray r = f_.orthographic ? eye_ray<true>(g_, s->x, s->y) : eye_ray<false>(g_, s->x, s->y);
    const MeshHit h =
        g_.hollow ? next_triangle<true>(*g_.mesh, r.o, r.d, range.from, range.to, after, &number)
                 : next_triangle<false>(*g_.mesh, r.o, r.d, range.from, range.to, after, &number);
    s->number = select(todo, number, s->number);
    s->prim = select(todo, h.prim, s->prim);
    s->t = select(todo, h.t, s->t);
  }

  const Scene& scene_;
  Frame& f_;
  const ViewGeom& g_;
  int view_, row_, col_;
  Sample sample_[4];
};

}  // namespace VLMRM_ISA
}  // namespace vlmrm

#endif  // VLMRM_RAY_TRANSPARENT_MESH_H_
