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
constexpr int kMostLayers = 12;  // triangles over a sample that are found in one walk

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
      collect(&sample_[s]);
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
  // Where a sample is, the triangles over it, and the next of them in drawing order.
  struct Sample {
    vf x, y;
    vi number, prim;
    vf t;
    int layers;     // the most that lie over one lane
    bool complete;  // all are listed
    int32_t numbers[kMostLayers][kLanes], prims[kMostLayers][kLanes];
    float depths[kMostLayers][kLanes];
  };

  Range range(vm shown) const {
    const int at = row_ * f_.pitch + col_;
    Range r = range_of(scene_, f_, g_, at);
    if (g_.mirrored) shown &= (load(f_.id.data() + at) >> 3) == splat(f_.reflective);
    r.to = select(shown, r.to, splat(-1.0f));
    return r;
  }

  Ray ray(const Sample& s) const {
    return f_.orthographic ? eye_ray<true>(g_, s.x, s.y) : eye_ray<false>(g_, s.x, s.y);
  }

  // Lists what lies over a sample, in no order.
  void collect(Sample* s) {
    int count[kLanes] = {0};
    s->layers = 0, s->complete = true;
    auto keep = [&](vm win, int32_t i, vf t) {
      float depth[kLanes];
      store(depth, t);
      for (int rest = bits(win); rest; rest &= rest - 1) {
        const int lane = __builtin_ctz(rest), k = count[lane]++;
        if (k >= kMostLayers) return void(s->complete = false);
        if (k == s->layers) {
          store(s->numbers[k], splat(kNoTriangle));
          ++s->layers;
        }
        s->numbers[k][lane] = g_.mesh->source[i];
        s->prims[k][lane] = i;
        s->depths[k][lane] = depth[lane];
      }
    };
    const Range limits = range(all_lanes());
    const Ray r = ray(*s);
    if (g_.hollow) {
      all_triangles<true>(*g_.mesh, r.o, r.d, limits.from, limits.to, keep);
    } else {
      all_triangles<false>(*g_.mesh, r.o, r.d, limits.from, limits.to, keep);
    }
  }

  // Moves lanes of `todo` on to the triangle after number `after`.
  void advance(vm todo, vi after, Sample* s) {
    vi number = splat(kNoTriangle), prim = vi{};
    vf t = vf{};
    if (s->complete) {
      for (int k = 0; k < s->layers; ++k) {
        const vi n = load(s->numbers[k]);
        const vm win = (n > after) & (n < number);
        number = select(win, n, number);
        prim = select(win, load(s->prims[k]), prim), t = select(win, load(s->depths[k]), t);
      }
    } else {
      trace(todo, after, *s, &number, &prim, &t);
    }
    s->number = select(todo, number, s->number);
    s->prim = select(todo, prim, s->prim);
    s->t = select(todo, t, s->t);
  }

  // The same where more triangles lie over a sample than are listed.
  __attribute__((noinline)) void trace(vm todo, vi after, const Sample& s, vi* number, vi* prim,
                                       vf* t) const {
    const Range limits = range(todo);
    const Ray r = ray(s);
    const MeshHit h =
        g_.hollow ? next_triangle<true>(*g_.mesh, r.o, r.d, limits.from, limits.to, after, number)
                 : next_triangle<false>(*g_.mesh, r.o, r.d, limits.from, limits.to, after, number);
    *prim = h.prim, *t = h.t;
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
