// Transparent geoms, blended over the finished picture.
#ifndef VLMRM_RAY_TRANSPARENT_H_
#define VLMRM_RAY_TRANSPARENT_H_

#include <algorithm>

#include "ray/frame.h"
#include "ray/intersect.h"
#include "ray/resolve.h"
#include "ray/shade_mesh.h"
#include "ray/simd.h"
#include "ray/still.h"

namespace vlmrm {
namespace VLMRM_ISA {

constexpr int32_t kNoTriangle = 0x7fffffff;

// Blends one geom. In the mirror the picture behind is taken as black, which it is wherever no
// opaque geom is mirrored too, and both of MuJoCo's passes are taken at once.
struct BlendGeom {
  const Scene& scene;
  Frame* f;
  uint8_t* rgb;
  int view;
  int lanes = kAllBits;  // of the packet in hand that are to be blended

  template <int kType>
  VLMRM_INLINE void run() {
    const ViewGeom& g = f->view[view];
    for (int row = std::max(g.y0, f->row_begin); row < std::min(g.y1, f->row_end); ++row) {
      const uint64_t* dirty = &f->dirty[static_cast<size_t>(row) * f->words];
      for (int col = g.x0 & -kLanes; col < g.x1; col += kLanes) {
        lanes = f->background ? lanes_of(dirty, col) : kAllBits;
        if (lanes) packet<kType>(g, row, col);
      }
    }
  }

  // The part of the eye rays between what lies before the geom and what hides it.
  VLMRM_INLINE Range range_of(const ViewGeom& g, int at) const {
    const vf limit = load(f->depth.data() + at), near = splat(scene.znear);
    if (g.mirrored) return {max(near, limit), load(f->mirror_depth.data() + at)};
    return {near, limit};
  }

  // Where the geom is the nearest thing at (x, y) and how deep.
  template <int kType>
  VLMRM_INLINE vm visible(const ViewGeom& g, int at, vf x, vf y, Hit* h) {
    const vf limit = load(f->depth.data() + at);
    const Range range = range_of(g, at);
    *h = f->general ? hit_general<kType>(g, f->orthographic, scene.znear, x, y, range)
                    : hit_eye<kType>(g, x, y, range);
    vm mask = h->mask & (h->t > splat(scene.znear));
    if (!g.mirrored) return mask & (h->t < limit);
    const vm over = (load(f->id.data() + at) >> 3) == splat(f->reflective);
    return mask & over & (h->t > limit) & (h->t < load(f->mirror_depth.data() + at));
  }

  template <int kType>
  VLMRM_INLINE void packet(const ViewGeom& g, int row, int col) {
    if (kType == kMesh) return mesh_packet(g, row, col);
    const int at = row * f->pitch + col;
    const vf px = lane_index() + splat(static_cast<float>(col));
    Points q;
    q.x = splat(f->left) + px * splat(f->step_x);
    q.y = splat(f->top - row * f->step_y);
    q.active = all_lanes();
    Hit h;
    vm center = visible<kType>(g, at, q.x, q.y, &h);
    q.t = h.t, q.face = h.face;
    vf cover = vf{};
    for (int s = 0; s < 4; ++s) {
      vf x = splat(f->left) + (px + splat(kSampleX[s])) * splat(f->step_x);
      vf y = splat(f->top - (row + kSampleY[s]) * f->step_y);
      vm mask = visible<kType>(g, at, x, y, &h);
      cover += select(mask, splat(0.25f), vf{});
      vm use = mask & ~center;
      q.x = select(use, x, q.x), q.y = select(use, y, q.y), q.t = select(use, h.t, q.t);
      q.face = select(use, h.face, q.face);
      center |= mask;
    }
    if (any(cover > vf{})) blend(g, row, col, shade_any(scene, *f, view, q), cover);
  }

  // A sample of a mesh: what it holds so far, 0..255, and its next triangle in drawing order.
  struct Sample {
    vf x, y;
    v3 rgb;
    vi number, prim;
    vf t;
  };

  // A mesh is not sorted: each of its triangles is blended over what the ones before it left in the
  // samples, which all start from the pixel's colour.
  void mesh_packet(const ViewGeom& g, int row, int col) {
    const v3 black = {vf{}, vf{}, vf{}};
    Sample sample[4];
    if (!start_samples(g, row, col, sample)) return;
    const v3 under = load_pixels(row, col);
    for (Sample& s : sample) s.rgb = g.mirrored ? black : under;
    blend_triangles(g, row, col, sample);
    // The mirrored scene is drawn by itself, in both passes, and added.
    if (g.mirrored && start_samples(g, row, col, sample)) blend_triangles(g, row, col, sample);
    const v3 sum = sample[0].rgb + sample[1].rgb + (sample[2].rgb + sample[3].rgb);
    store_pixels(row, col, g.mirrored ? under + sum * splat(0.25f) : sum * splat(0.25f));
  }

  bool start_samples(const ViewGeom& g, int row, int col, Sample* sample) {
    const int at = row * f->pitch + col;
    const vf px = lane_index() + splat(static_cast<float>(col));
    vm seen = {};
    for (int s = 0; s < 4; ++s) {
      sample[s].x = splat(f->left) + (px + splat(kSampleX[s])) * splat(f->step_x);
      sample[s].y = splat(f->top - (row + kSampleY[s]) * f->step_y);
      advance(g, at, all_lanes(), splat(int32_t{-1}), &sample[s]);
      seen |= sample[s].number < splat(kNoTriangle);
    }
    return any(seen);
  }

  void blend_triangles(const ViewGeom& g, int row, int col, Sample* sample) {
    Points q;
    q.x = splat(f->left) + (lane_index() + splat(static_cast<float>(col))) * splat(f->step_x);
    q.y = splat(f->top - row * f->step_y);
    q.face = vi{};
    q.active = all_lanes();
    while (true) {
      vi now = splat(kNoTriangle);
      for (int s = 0; s < 4; ++s) now = select(sample[s].number < now, sample[s].number, now);
      const vm left = now < splat(kNoTriangle);
      if (!any(left)) return;
      q.t = splat(1.0f), q.prim = vi{};
      for (int s = 0; s < 4; ++s) {
        const vm mine = left & (sample[s].number == now);
        q.t = select(mine, sample[s].t, q.t), q.prim = select(mine, sample[s].prim, q.prim);
      }
      const Color c = shade_any(scene, *f, view, q);
      for (int s = 0; s < 4; ++s) {
        const vm mine = left & (sample[s].number == now);
        if (!any(mine)) continue;
        blend_sample(g.alpha, c, mine, &sample[s].rgb);
        advance(g, row * f->pitch + col, mine, now, &sample[s]);
      }
    }
  }

  v3 load_pixels(int row, int col) const {
    float c[3][kLanes] = {};
    const uint8_t* in = rgb + 3 * (static_cast<size_t>(row) * f->width + col);
    for (int i = 0; i < std::min(kLanes, f->width - col); ++i) {
      for (int k = 0; k < 3; ++k) c[k][i] = in[3 * i + k];
    }
    return {load(c[0]), load(c[1]), load(c[2])};
  }

  void store_pixels(int row, int col, v3 a) {
    float c[3][kLanes];
    store(c[0], a.x), store(c[1], a.y), store(c[2], a.z);
    uint8_t* out = rgb + 3 * (static_cast<size_t>(row) * f->width + col);
    for (int i = 0; i < std::min(kLanes, f->width - col); ++i) {
      for (int k = 0; k < 3; ++k) {
        out[3 * i + k] = static_cast<uint8_t>(std::min(c[k][i] + 0.5f, 255.0f));
      }
    }
  }

  // One write of the frame buffer, rounded to a byte as there.
  void blend_sample(float alpha, const Color& c, vm mask, v3* under) const {
    const vf over = splat(alpha), left = splat(1 - alpha), half = splat(0.5f);
    auto mixed = [&](vi a, vf b) { return floor(to_float(a) * over + b * left + half); };
    const v3 after = {mixed(c.r, under->x), mixed(c.g, under->y), mixed(c.b, under->z)};
    *under = select(mask, after, *under);
  }

  // Moves lanes of `todo` on to the triangle after number `after`.
  void advance(const ViewGeom& g, int at, vm todo, vi after, Sample* s) {
    Range range = range_of(g, at);
    vm shown = todo;
    if (g.mirrored) shown &= (load(f->id.data() + at) >> 3) == splat(f->reflective);
    range.to = select(shown, range.to, splat(-1.0f));
    vi number = splat(kNoTriangle);
    const Ray r = f->orthographic ? eye_ray<true>(g, s->x, s->y) : eye_ray<false>(g, s->x, s->y);
    const MeshHit h =
        g.hollow ? next_triangle<true>(*g.mesh, r.o, r.d, range.from, range.to, after, &number)
                 : next_triangle<false>(*g.mesh, r.o, r.d, range.from, range.to, after, &number);
    s->number = select(todo, number, s->number);
    s->prim = select(todo, h.prim, s->prim);
    s->t = select(todo, h.t, s->t);
  }

  VLMRM_INLINE void blend(const ViewGeom& g, int row, int col, const Color& c, vf cover) {
    const float keep = 1 - g.alpha;
    const float alpha = g.mirrored ? 1 - keep * keep : g.alpha;
    uint8_t* out = rgb + 3 * (static_cast<size_t>(row) * f->width + col);
    float share[kLanes];
    int32_t over[3][kLanes];
    store(share, cover);
    store(over[0], c.r), store(over[1], c.g), store(over[2], c.b);
    for (int i = 0; i < std::min(kLanes, f->width - col); ++i) {
      if (!(share[i] > 0) || !(lanes >> i & 1)) continue;
      const float a = alpha * share[i], under = g.mirrored ? 1.0f : 1.0f - a;
      for (int k = 0; k < 3; ++k) {
        const float v = a * over[k][i] + under * out[3 * i + k] + 0.5f;
        out[3 * i + k] = static_cast<uint8_t>(std::min(v, 255.0f));
      }
    }
  }
};

// Nearest first and then farthest first, as mjr_render does.
inline void blend_transparent(const Scene& scene, Frame* f, uint8_t* rgb) {
  const int n = f->num_transparent, num_geoms = static_cast<int>(scene.geoms.size());
  for (int k = 0; f->mirror && k < n; ++k) {
    const int view = num_geoms + f->transparent[n - 1 - k];
    if (f->view[view].drawn) {
      with_type(f->view[view].type, BlendGeom{scene, f, rgb, view});
    }
  }
  for (int k = 0; k < 2 * n; ++k) {
    const int view = f->transparent[k < n ? k : 2 * n - 1 - k];
    if (f->view[view].drawn) {
      with_type(f->view[view].type, BlendGeom{scene, f, rgb, view});
    }
  }
}

}  // namespace VLMRM_ISA
}  // namespace vlmrm

#endif  // VLMRM_RAY_TRANSPARENT_H_
