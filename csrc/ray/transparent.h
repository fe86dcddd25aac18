// Transparent geoms, blended over the finished picture.
#ifndef VLMRM_RAY_TRANSPARENT_H_
#define VLMRM_RAY_TRANSPARENT_H_

#include <algorithm>

#include "ray/frame.h"
#include "ray/intersect.h"
#include "ray/resolve.h"
#include "ray/simd.h"
#include "ray/still.h"
#include "ray/transparent_mesh.h"

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
    const int at = row * f->pitch + col;
    const Range range = range_of(scene, *f, g, at);
    *h = f->general ? hit_general<kType>(g, f->orthographic, scene.znear, x, y)
                    : hit_eye<kType>(g, x, y);
    vm mask = h->mask & (h->t > range.from) & (h->t < range.to);
    if (g.mirrored) mask &= (load(f->id.data() + at) >> 3) == splat(f->reflective);
    return mask;
  }
};

VLMRM_INLINE v3 load_pixels(const uint8_t* rgb, int count) {
  float c[3][kLanes] = {};
  for (int i = 0; i < count; ++i) {
    for (int k = 0; k < 3; ++k) c[k][i] = rgb[3 * i + k];
  }
  return {load(c[0]), load(c[1]), load(c[2])};
}

VLMRM_INLINE void store_pixels(v3 rgb, int lanes, uint8_t* out) {
  float c[3][kLanes];
  store(c[0], rgb.x), store(c[1], rgb.y), store(c[2], rgb.z);
  for (; lanes; lanes &= lanes - 1) {
    const int i = __builtin_ctz(lanes);
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
      if (g.type == kMesh) light_ahead(scene_, &f_, view_of(k), (g.x1 - g.x0) * (g.y1 - g.y0));
      x0 = std::min(x0, g.x0), x1 = std::max(x1, g.x1);
      y0 = std::min(y0, g.y0), y1 = std::max(y1, g.y1);
    }
    for (int row = std::max(y0, f_.row_begin); row < std::min(y1, f_.row_end); ++row) {
      const uint64_t* dirty = &f_.dirty[static_cast<size_t>(row) * f_.words];
      for (int col = x0 & -kLanes; col < x1; col += kLanes) {
        const int lanes = f_.background ? lanes_of(dirty, col)
                                        : (1 << std::min(kLanes, f_.width - col)) - 1;
        if (lanes) blend_packet(row, col, lanes);
      }
    }
  }

 private:
  static constexpr int kKept = 8;  // layers that the second pass need not shade again

  int view_of(int k) const {
    return f_.transparent[k] + (mirrored_ ? static_cast<int>(scene_.geoms.size()) : 0);
  }

  // A packet while glass goes over it.
  struct Pixels {
    int row, col;
    int lanes;   // that may change
    bool begun;  // some glass covers it: the colours are set
    v3 before, sample[4];
  };

  // Nearest first and then farthest first, as mjr_render does; once if colours add up.
  void blend_packet(int row, int col, int lanes) {
    const int n = f_.num_transparent, passes = scene_.additive ? 1 : 2;
    int layers[kKept];
    Layer keep[kKept], other;
    Pixels pixels = {row, col, lanes, false, {}, {}};
    for (int i = 0; i < passes * n; ++i) {
      const int k = i < n ? i : 2 * n - 1 - i;
      const bool kept = k < kKept;
      if (i >= n && kept && layers[k] == 0) continue;
      if (i >= n && kept && layers[k] == 1) {
        lay(keep[k], f_.view[view_of(k)].alpha, &pixels);
        continue;
      }
      const int count = lay_geom(view_of(k), kept ? &keep[k] : &other, &pixels);
      if (i < n && kept) layers[k] = count;
    }
    if (pixels.begun) finish(pixels);
  }

  // Lays one geom over a packet; returns how often `layer` describes it: a mesh is more than one.
  int lay_geom(int view, Layer* layer, Pixels* pixels) {
    const ViewGeom& g = f_.view[view];
    const int row = pixels->row, col = pixels->col;
    if (!g.drawn || row < g.y0 || row >= g.y1 || col + kLanes <= g.x0 || col >= g.x1) return 0;
    if (g.type == kMesh) {
      MeshGlass mesh(scene_, &f_, view, row, col);
      if (!mesh.start()) return 0;
      begin(pixels);
      mesh.blend(pixels->sample);
      return 2;
    }
    with_type(g.type, CoverPacket{scene_, &f_, g, row, col, layer});
    if (!any(layer->covered)) return 0;
    layer->color = to_float(shade_any(scene_, f_, view, layer->q));
    lay(*layer, g.alpha, pixels);
    return 1;
  }

  void begin(Pixels* pixels) {
    if (pixels->begun) return;
    pixels->before = under(pixels->row, pixels->col);
    std::fill(pixels->sample, pixels->sample + 4, pixels->before);
    pixels->begun = true;
  }

  void lay(const Layer& layer, float alpha, Pixels* pixels) {
    begin(pixels);
    for (int s = 0; s < 4; ++s) {
      v3& c = pixels->sample[s];
      c = select(layer.sample[s], lay_over(c, layer.color, alpha, scene_.additive != 0), c);
    }
  }

  void finish(const Pixels& pixels) {
    const v3* c = pixels.sample;
    const v3 after = (c[0] + c[1] + c[2] + c[3]) * splat(0.25f);
    const int count = std::min(kLanes, f_.width - pixels.col);
    uint8_t* out = rgb_ + 3 * (static_cast<size_t>(pixels.row) * f_.width + pixels.col);
    // The mirror's own surface is added to what it shows: only the latter has glass before it.
    store_pixels(mirrored_ ? load_pixels(out, count) + (after - pixels.before) : after, pixels.lanes,
                 out);
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
    const float* depth = f_.mirror_depth.data() + at;
    const int32_t* prim = f_.mirror_prim.empty() ? nullptr : f_.mirror_prim.data() + at;
    Points q;
    q.x = splat(f_.left) + (lane_index() + splat(static_cast<float>(col))) * splat(f_.step_x);
    q.y = splat(f_.top - row * f_.step_y);
    v3 shown = {vf{}, vf{}, vf{}};
    for (int i = 0; i < kLanes; ++i) {
      const int32_t view = id[i] >> 3;
      bool done = view < 0;
      for (int j = 0; j < i; ++j) done |= id[j] >> 3 == view;
      if (done) continue;
      const vm in = (ids >> 3) == splat(view);
      // The other lanes shade too: as what lane i holds, for their own is another geom's or stale.
      q.active = in;
      q.t = select(in, load(depth), splat(depth[i]));
      q.face = select(in, ids, splat(id[i])) & splat(int32_t{7});
      if (f_.view[view].type == kMesh) q.prim = select(in, load(prim), splat(prim[i]));
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
