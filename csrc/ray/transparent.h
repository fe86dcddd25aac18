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

  // Where the geom is the nearest thing at (x, y) and how deep.
  template <int kType>
  VLMRM_INLINE vm visible(const ViewGeom& g, int at, vf x, vf y, vf beyond, Hit* h) {
    const vf limit = load(f->depth.data() + at), near = max(splat(scene.znear), beyond);
    const Range range = g.mirrored ? Range{max(near, limit), load(f->mirror_depth.data() + at)}
                                   : Range{near, limit};
    *h = f->general ? hit_general<kType>(g, f->orthographic, scene.znear, x, y, range)
                    : hit_eye<kType>(g, x, y, range);
    vm mask = h->mask & (h->t > splat(scene.znear));
    if (!g.mirrored) return mask & (h->t < limit);
    const vm over = (load(f->id.data() + at) >> 3) == splat(f->reflective);
    return mask & over & (h->t > limit) & (h->t < load(f->mirror_depth.data() + at));
  }

  // A mesh shows all its front faces, one behind the other.
  template <int kType>
  VLMRM_INLINE void packet(const ViewGeom& g, int row, int col) {
    vf beyond[5] = {vf{}, vf{}, vf{}, vf{}, vf{}};
    while (layer<kType>(g, row, col, beyond) && kType == kMesh) {
    }
  }

  // Blends what lies beyond the given depths of the centre and the samples, and moves them there.
  template <int kType>
  VLMRM_INLINE bool layer(const ViewGeom& g, int row, int col, vf* beyond) {
    const int at = row * f->pitch + col;
    const vf px = lane_index() + splat(static_cast<float>(col));
    Points q;
    q.x = splat(f->left) + px * splat(f->step_x);
    q.y = splat(f->top - row * f->step_y);
    q.active = all_lanes();
    Hit h;
    vm center = visible<kType>(g, at, q.x, q.y, beyond[4], &h);
    beyond[4] = select(center, h.t, splat(scene.zfar));
    q.t = h.t, q.face = h.face, q.prim = h.prim;
    vf cover = vf{};
    for (int s = 0; s < 4; ++s) {
      vf x = splat(f->left) + (px + splat(kSampleX[s])) * splat(f->step_x);
      vf y = splat(f->top - (row + kSampleY[s]) * f->step_y);
      vm mask = visible<kType>(g, at, x, y, beyond[s], &h);
      beyond[s] = select(mask, h.t, splat(scene.zfar));
      cover += select(mask, splat(0.25f), vf{});
      vm use = mask & ~center;
      q.x = select(use, x, q.x), q.y = select(use, y, q.y), q.t = select(use, h.t, q.t);
      q.face = select(use, h.face, q.face);
      q.prim = select(use, h.prim, q.prim);
      center |= mask;
    }
    if (!any(cover > vf{})) return false;
    blend(g, row, col, shade_any(scene, *f, view, q), cover);
    return true;
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
