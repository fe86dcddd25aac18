// Transparent geoms, blended over the finished picture.
#ifndef VLMRM_RAY_TRANSPARENT_H_
#define VLMRM_RAY_TRANSPARENT_H_

#include <algorithm>

#include "ray/frame.h"
#include "ray/intersect.h"
#include "ray/resolve.h"
#include "ray/shade.h"
#include "ray/simd.h"

namespace vlmrm {
namespace VLMRM_ISA {

// One transparent geom in a packet of pixels: where its sub-samples show it, and its colour.
struct Layer {
  Points q;
  vm sample[4], covered;
  v3 color;
};

struct CoverPacket {
  const Scene& scene;
  Frame* f;
  const ViewGeom& g;
  int row, col;
  Layer* out;

  template <int kType>
  VLMRM_INLINE void run() {
    const vf px = lane_index() + splat(static_cast<float>(col));
    Points& q = out->q;
    q.x = splat(f->left) + px * splat(f->step_x);
    q.y = splat(f->top - row * f->step_y);
    q.active = all_lanes();
    Hit h;
    vm known = visible<kType>(q.x, q.y, &h);
    q.t = h.t, q.face = h.face;
    out->covered = vm{};
    for (int s = 0; s < 4; ++s) {
      vf x = splat(f->left) + (px + splat(kSampleX[s])) * splat(f->step_x);
      vf y = splat(f->top - (row + kSampleY[s]) * f->step_y);
      const vm mask = visible<kType>(x, y, &h);
      out->sample[s] = mask;
      out->covered |= mask;
      vm use = mask & ~known;
      q.x = select(use, x, q.x), q.y = select(use, y, q.y), q.t = select(use, h.t, q.t);
      q.face = select(use, h.face, q.face);
      known |= mask;
    }
  }

  // Where the geom is the nearest thing at (x, y) and how deep.
  template <int kType>
  VLMRM_INLINE vm visible(vf x, vf y, Hit* h) {
    *h = f->general ? hit_general<kType>(g, f->orthographic, scene.znear, x, y)
                    : hit_eye<kType>(g, x, y);
    const int at = row * f->pitch + col;
    const vf limit = load(f->depth.data() + at);
    vm mask = h->mask & (h->t > splat(scene.znear));
    if (!g.mirrored) return mask & (h->t < limit);
    const vm over = (load(f->id.data() + at) >> 3) == splat(f->reflective);
    return mask & over & (h->t > limit) & (h->t < load(f->mirror_depth.data() + at));
  }
};

VLMRM_INLINE v3 to_float(const Color& c) { return {to_float(c.r), to_float(c.g), to_float(c.b)}; }

// Blends as OpenGL does in 8 bits: rounded after each layer.
VLMRM_INLINE v3 lay_over(v3 under, v3 over, float alpha, bool additive) {
  const vf half = splat(0.5f), most = splat(255.0f);
  const v3 c = under + (additive ? over : over - under) * splat(alpha);
  return {min(floor(c.x + half), most), min(floor(c.y + half), most),
          min(floor(c.z + half), most)};
}

VLMRM_INLINE v3 load_pixels(const uint8_t* rgb, int count) {
  float c[3][kLanes] = {};
  for (int i = 0; i < count; ++i) {
    for (int k = 0; k < 3; ++k) c[k][i] = rgb[3 * i + k];
  }
  return {load(c[0]), load(c[1]), load(c[2])};
}

VLMRM_INLINE void store_pixels(v3 rgb, int count, uint8_t* out) {
  float c[3][kLanes];
  store(c[0], rgb.x), store(c[1], rgb.y), store(c[2], rgb.z);
  for (int i = 0; i < count; ++i) {
    for (int k = 0; k < 3; ++k) {
      out[3 * i + k] = static_cast<uint8_t>(std::min(std::max(c[k][i] + 0.5f, 0.0f), 255.0f));
    }
  }
}

// All transparent geoms over one packet after another, in the scene or in its mirror.
class Glass {
 public:
  Glass(const Scene& scene, Frame* frame, uint8_t* rgb, bool mirrored)
      : scene_(scene), f_(*frame), rgb_(rgb), mirrored_(mirrored) {}

  void blend() {
    int x0 = f_.width, x1 = 0, y0 = f_.height, y1 = 0;
    for (int k = 0; k < f_.num_transparent; ++k) {
      const ViewGeom& g = f_.view[view_of(k)];
      if (!g.drawn) continue;
      x0 = std::min(x0, g.x0), x1 = std::max(x1, g.x1);
      y0 = std::min(y0, g.y0), y1 = std::max(y1, g.y1);
    }
    for (int row = y0; row < y1; ++row) {
      for (int col = x0 & -kLanes; col < x1; col += kLanes) blend_packet(row, col);
    }
  }

 private:
  static constexpr int kKept = 8;  // layers that the second pass need not shade again

  int view_of(int k) const {
    return f_.transparent[k] + (mirrored_ ? static_cast<int>(scene_.geoms.size()) : 0);
  }

  // Nearest first and then farthest first, as mjr_render does; once if colours add up.
  void blend_packet(int row, int col) {
    const int n = f_.num_transparent, passes = scene_.additive ? 1 : 2;
    bool kept[kKept] = {}, begun = false;
    Layer keep[kKept], other;
    v3 before = {}, sample[4] = {};
    for (int i = 0; i < passes * n; ++i) {
      const int k = i < n ? i : 2 * n - 1 - i;
      if (i >= n && k < kKept && !kept[k]) continue;
      Layer* layer = k < kKept ? &keep[k] : &other;
      if (i < n || k >= kKept) {
        if (!show(view_of(k), row, col, layer)) continue;
        if (k < kKept) kept[k] = true;
      }
      if (!begun) {
        before = under(row, col);
        std::fill(sample, sample + 4, before);
        begun = true;
      }
      const float alpha = f_.view[view_of(k)].alpha;
      for (int s = 0; s < 4; ++s) {
        const v3 over = lay_over(sample[s], layer->color, alpha, scene_.additive != 0);
        sample[s] = select(layer->sample[s], over, sample[s]);
      }
    }
    if (!begun) return;
    const v3 after = (sample[0] + sample[1] + sample[2] + sample[3]) * splat(0.25f);
    const int count = std::min(kLanes, f_.width - col);
    uint8_t* out = rgb_ + 3 * (static_cast<size_t>(row) * f_.width + col);
    // The mirror's own surface is added to what it shows: only the latter has glass before it.
    store_pixels(mirrored_ ? load_pixels(out, count) + (after - before) : after, count, out);
  }

  // Fills the layer of one geom; false where the packet does not show it.
  bool show(int view, int row, int col, Layer* layer) {
    const ViewGeom& g = f_.view[view];
    if (!g.drawn || row < g.y0 || row >= g.y1 || col + kLanes <= g.x0 || col >= g.x1) return false;
    with_type(g.type, CoverPacket{scene_, &f_, g, row, col, layer});
    if (!any(layer->covered)) return false;
    layer->color = to_float(shade_any(scene_, f_, view, layer->q));
    return true;
  }

  v3 under(int row, int col) {
    if (mirrored_) return mirrored_surfaces(row, col);
    return load_pixels(rgb_ + 3 * (static_cast<size_t>(row) * f_.width + col),
                       std::min(kLanes, f_.width - col));
  }

  // The opaque surfaces in the mirror at the centres of pixels, black where there are none.
  v3 mirrored_surfaces(int row, int col) {
    const int at = row * f_.pitch + col;
    const vi ids = load(f_.mirror_id.data() + at);
    int32_t id[kLanes];
    store(id, ids);
    Points q;
    q.x = splat(f_.left) + (lane_index() + splat(static_cast<float>(col))) * splat(f_.step_x);
    q.y = splat(f_.top - row * f_.step_y);
    q.t = load(f_.mirror_depth.data() + at);
    q.face = ids & splat(int32_t{7});
    v3 shown = {vf{}, vf{}, vf{}};
    for (int i = 0; i < kLanes; ++i) {
      const int32_t view = id[i] >> 3;
      bool done = view < 0;
      for (int j = 0; j < i; ++j) done |= id[j] >> 3 == view;
      if (done) continue;
      q.active = (ids >> 3) == splat(view);
      shown = select(q.active, to_float(shade_any(scene_, f_, view, q)), shown);
    }
    return shown;
  }

  const Scene& scene_;
  Frame& f_;
  uint8_t* rgb_;
  bool mirrored_;
};

inline void blend_transparent(const Scene& scene, Frame* f, uint8_t* rgb) {
  if (f->num_transparent == 0) return;
  if (f->mirror) Glass(scene, f, rgb, true).blend();
  Glass(scene, f, rgb, false).blend();
}

}  // namespace VLMRM_ISA
}  // namespace vlmrm

#endif  // VLMRM_RAY_TRANSPARENT_H_
