// The kernels' side of the static-background cache: what to redo over a background, and what to
// note while one is drawn.
//
// A pixel has to be shaded anew if a moving geom covers it or a neighbour (whose surfaces its
// sub-samples see), if a shadow may fall on its packet, or if something transparent moves before it.
// All else that its colour depends on is equal in background and frame.
#ifndef VLMRM_RAY_STILL_H_
#define VLMRM_RAY_STILL_H_

#include <algorithm>
#include <cmath>
#include <cstring>

#include "ray/cache.h"
#include "ray/frame.h"
#include "ray/shadow.h"
#include "ray/simd.h"

namespace vlmrm {
namespace VLMRM_ISA {

// Calls f(col, lanes) for each packet with a bit set in a row of `words` words, one bit a pixel.
template <class F>
VLMRM_INLINE void for_each_packet(const uint64_t* row, int words, F&& f) {
  for (int w = 0; w < words; ++w) {
    for (uint64_t rest = row[w]; rest != 0;) {
      const int at = __builtin_ctzll(rest) & -kLanes;
      f(64 * w + at, static_cast<int>(rest >> at) & kAllBits);
      rest &= ~(static_cast<uint64_t>(kAllBits) << at);
    }
  }
}

// The bits of the packet at col.
VLMRM_INLINE int lanes_of(const uint64_t* row, int col) {
  return static_cast<int>(row[col >> 6] >> (col & 63)) & kAllBits;
}
VLMRM_INLINE void set_lanes(uint64_t* row, int col, int lanes) {
  row[col >> 6] |= static_cast<uint64_t>(static_cast<uint32_t>(lanes)) << (col & 63);
}

// The rows whose surfaces are needed: those to draw and their neighbours.
VLMRM_INLINE int first_row(const Frame& f) { return std::max(f.row_begin - 1, 0); }
VLMRM_INLINE int last_row(const Frame& f) { return std::min(f.row_end + 1, f.height); }

// Everything in a background that geoms which are hidden from it could still change.
inline bool fits(const Frame& f, const Background& b) {
  return f.general == b.general && f.reflective == b.reflective && f.mirror == b.mirror &&
         f.far == b.far &&
         f.haze_height == b.haze_height &&
         (f.haze_height == 0 || std::memcmp(f.haze_normal, b.haze_normal, sizeof b.haze_normal) == 0);
}

// Notes that lanes `won` of a packet show a moving geom, or that their mirror image is another.
VLMRM_INLINE void touch(Frame* f, int row, int col, int won) {
  set_lanes(&f->touched[static_cast<size_t>(row) * f->words], col, won);
}
VLMRM_INLINE void touch_mirror(Frame* f, int row, int col, int won) {
  set_lanes(&f->mirror_touched[static_cast<size_t>(row) * f->words], col, won);
}

inline void copy_samples(const MeshSamples& from, MeshSamples* to) {
  std::copy(from.depth.begin(), from.depth.end(), to->depth.begin());
  std::copy(from.id.begin(), from.id.end(), to->id.begin());
  std::copy(from.prim.begin(), from.prim.end(), to->prim.begin());
}

// Those of a packet of pixels.
VLMRM_INLINE void restore_samples(const MeshSamples& from, int at, MeshSamples* to) {
  for (int k = 4 * at; k < 4 * (at + kLanes); k += kLanes) {
    store(to->depth.data() + k, load(from.depth.data() + k));
    store(to->id.data() + k, load(from.id.data() + k));
    store(to->prim.data() + k, load(from.prim.data() + k));
  }
}

// Makes the worker's buffers equal to the background's in the rows needed.
inline void restore(Frame* f, const Background& b) {
  if (f->held != b.serial) {
    std::copy(b.depth.begin(), b.depth.end(), f->depth.begin());
    std::copy(b.id.begin(), b.id.end(), f->id.begin());
    std::copy(b.mirror_depth.begin(), b.mirror_depth.end(), f->mirror_depth.begin());
    std::copy(b.mirror_id.begin(), b.mirror_id.end(), f->mirror_id.begin());
    std::copy(b.prim.begin(), b.prim.end(), f->prim.begin());
    std::copy(b.mirror_prim.begin(), b.mirror_prim.end(), f->mirror_prim.begin());
    copy_samples(b.samples, &f->samples);
    copy_samples(b.mirror_samples, &f->mirror_samples);
    std::fill(f->touched.begin(), f->touched.end(), 0);
    std::fill(f->mirror_touched.begin(), f->mirror_touched.end(), 0);
    f->held = b.serial;
  }
  for (int row = first_row(*f); row < last_row(*f); ++row) {
    uint64_t* touched = &f->touched[static_cast<size_t>(row) * f->words];
    for_each_packet(touched, f->words, [&](int col, int) {
      const int at = row * f->pitch + col;
      store(f->depth.data() + at, load(b.depth.data() + at));
      store(f->id.data() + at, load(b.id.data() + at));
      if (b.prim.empty()) return;
      store(f->prim.data() + at, load(b.prim.data() + at));
      restore_samples(b.samples, at, &f->samples);
    });
    std::fill(touched, touched + f->words, 0);
    touched = &f->mirror_touched[static_cast<size_t>(row) * f->words];
    for_each_packet(touched, f->words, [&](int col, int) {
      const int at = row * f->pitch + col;
      store(f->mirror_depth.data() + at, load(b.mirror_depth.data() + at));
      store(f->mirror_id.data() + at, load(b.mirror_id.data() + at));
      if (b.prim.empty()) return;
      store(f->mirror_prim.data() + at, load(b.mirror_prim.data() + at));
      restore_samples(b.mirror_samples, at, &f->mirror_samples);
    });
    std::fill(touched, touched + f->words, 0);
  }
}

// Marks the packets of one row whose surface points a caster's bounds may hold.
VLMRM_INLINE void mark_row(const Frame& f, const Background& b, const LightBounds& l, int row,
                           const Caster& c, uint64_t* dirty) {
  const int packets = f.pitch / kLanes;
  const size_t at = static_cast<size_t>(row) * b.stride;
  const vf half = splat(0.5f), across = splat(c.across[0]), along = splat(c.across[1]);
  for (int p = 0; p < packets; p += kLanes) {
    const vf u0 = load(&l.u0[at + p]), u1 = load(&l.u1[at + p]);
    const vf v0 = load(&l.v0[at + p]), v1 = load(&l.v1[at + p]);
    const vf off = abs(across * ((u0 + u1) * half) + along * ((v0 + v1) * half) - splat(c.middle));
    const vf reach = abs(across) * ((u1 - u0) * half) + abs(along) * ((v1 - v0) * half);
    const vm meets = (u0 < splat(c.u1)) & (u1 > splat(c.u0)) & (v0 < splat(c.v1)) &
                     (v1 > splat(c.v0)) & (off < reach + splat(loose_half(c)));
    for (int rest = bits(meets); rest; rest &= rest - 1) {
      set_lanes(dirty, (p + __builtin_ctz(rest)) * kLanes, kAllBits);
    }
  }
}

// Marks what moving casters may darken.
inline void mark_shadows(const Scene& scene, Frame* f, const Background& b) {
  for (const LightBounds& l : b.lights) {
    for (int k = 0; k < f->num_casters[l.light]; ++k) {
      const Caster& c = f->casters[l.light][k];
      if (scene.geoms[c.view].still) continue;
      for (int row = f->row_begin; row < f->row_end; ++row) {
        const float* whole = &l.row[4 * static_cast<size_t>(row)];
        if (!(whole[0] < c.u1 && whole[1] > c.u0 && whole[2] < c.v1 && whole[3] > c.v0)) {
          continue;
        }
        mark_row(*f, b, l, row, c, &f->dirty[static_cast<size_t>(row) * f->words]);
      }
    }
  }
}

// Marks the rectangles of moving transparent geoms and of their mirror images.
inline void mark_transparent(const Scene& scene, Frame* f) {
  const int n = static_cast<int>(scene.geoms.size());
  for (int k = 0; k < f->num_transparent; ++k) {
    const int geom = f->transparent[k];
    if (scene.geoms[geom].still) continue;
    for (int view = geom; view < (f->mirror ? 2 * n : n); view += n) {
      const ViewGeom& g = f->view[view];
      if (!g.drawn) continue;
      for (int row = std::max(g.y0, f->row_begin); row < std::min(g.y1, f->row_end); ++row) {
        uint64_t* dirty = &f->dirty[static_cast<size_t>(row) * f->words];
        // Whole packets, for a geom of no size meets rays beside its rectangle too.
        for (int col = g.x0 & -kLanes; col < g.x1; col += kLanes) set_lanes(dirty, col, kAllBits);
      }
    }
  }
}

// Lists in `dirty` the pixels to be shaded, once the moving geoms' surfaces are in place.
inline void mark_dirty(const Scene& scene, Frame* f, const Background& b) {
  const int first = first_row(*f), last = last_row(*f), words = f->words;
  for (int row = f->row_begin; row < f->row_end; ++row) {
    uint64_t* dirty = &f->dirty[static_cast<size_t>(row) * words];
    std::fill(dirty, dirty + words, 0);
    for (int from = std::max(row - 1, first); from < std::min(row + 2, last); ++from) {
      const uint64_t* touched = &f->touched[static_cast<size_t>(from) * words];
      for (int w = 0; w < words; ++w) {
        const uint64_t t = touched[w];
        dirty[w] |= t | t << 1 | t >> 1;
        if (w > 0) dirty[w] |= touched[w - 1] >> 63;
        if (w + 1 < words) dirty[w] |= touched[w + 1] << 63;
      }
    }
  }
  mark_shadows(scene, f, b);
  mark_transparent(scene, f);
  // Nothing beyond the picture's edge.
  for (int row = f->row_begin; row < f->row_end; ++row) {
    for (int w = f->width / 64; w < words; ++w) {
      const int left = std::max(f->width - 64 * w, 0);
      f->dirty[static_cast<size_t>(row) * words + w] &= (uint64_t{1} << left) - 1;
    }
  }
}

// Widens the bounds of a packet by the point at depth t along the eye ray (x, y, -1).
inline void record_point(const Scene& scene, const Frame& f, int row, int col, float x, float y,
                         float t, Background* b) {
  const float p[3] = {f.orthographic ? x : x * t, f.orthographic ? y : y * t, -t};
  const size_t at = static_cast<size_t>(row) * b->stride + col / kLanes;
  for (LightBounds& bounds : b->lights) {
    const ViewLight& l = f.light[bounds.light];
    const Light& light = scene.lights[bounds.light];
    float depth = 0, u = 0, v = 0, scale = 0;
    for (int k = 0; k < 3; ++k) {
      depth += (p[k] - l.pos[k]) * l.dir[k];
      u += (p[k] - l.pos[k]) * l.side[k];
      v += (p[k] - l.pos[k]) * l.up[k];
      scale += std::abs(p[k]) + std::abs(l.pos[k]);
    }
    // The kernels round these numbers differently, by less than this.
    float slack = 1e-5f * scale;
    const bool parallel = light.type == kDirectional;
    const float reach = parallel ? scene.shadow_clip : depth * light.tan_shadow;
    // Outside of the shadow map nothing is dark.
    if (depth < scene.znear - slack || std::abs(u) > reach + slack || std::abs(v) > reach + slack) {
      continue;
    }
    if (!parallel) {
      const float near = std::max(depth, scene.znear);
      u /= near, v /= near;
      slack *= (1 + std::abs(u) + std::abs(v)) / near;
    }
    bounds.u0[at] = std::min(bounds.u0[at], u - slack);
    bounds.u1[at] = std::max(bounds.u1[at], u + slack);
    bounds.v0[at] = std::min(bounds.v0[at], v - slack);
    bounds.v1[at] = std::max(bounds.v1[at], v + slack);
  }
}

// Keeps what a worker has just drawn without moving geoms. Fragments were noted on the way.
inline void record_frame(const Scene& scene, Frame* f, Background* b) {
  const int n = static_cast<int>(scene.geoms.size());
  for (int row = 0; row < f->height; ++row) {
    for (int col = 0; col < f->width; ++col) {
      const int at = row * f->pitch + col;
      if (f->id[at] < 0 || f->id[at] >> 3 >= n) continue;
      record_point(scene, *f, row, col, f->left + col * f->step_x, f->top - row * f->step_y,
                   f->depth[at], b);
    }
  }
  for (LightBounds& l : b->lights) {
    for (int row = 0; row < f->height; ++row) {
      const size_t at = static_cast<size_t>(row) * b->stride, end = at + b->stride;
      float* whole = &l.row[4 * static_cast<size_t>(row)];
      whole[0] = *std::min_element(l.u0.begin() + at, l.u0.begin() + end);
      whole[1] = *std::max_element(l.u1.begin() + at, l.u1.begin() + end);
      whole[2] = *std::min_element(l.v0.begin() + at, l.v0.begin() + end);
      whole[3] = *std::max_element(l.v1.begin() + at, l.v1.begin() + end);
    }
  }
  std::copy(f->depth.begin(), f->depth.end(), b->depth.begin());
  std::copy(f->id.begin(), f->id.end(), b->id.begin());
  std::copy(f->mirror_depth.begin(), f->mirror_depth.end(), b->mirror_depth.begin());
  std::copy(f->mirror_id.begin(), f->mirror_id.end(), b->mirror_id.begin());
  std::copy(f->prim.begin(), f->prim.end(), b->prim.begin());
  std::copy(f->mirror_prim.begin(), f->mirror_prim.end(), b->mirror_prim.begin());
  copy_samples(f->samples, &b->samples);
  copy_samples(f->mirror_samples, &b->mirror_samples);
  b->mirror_shows = std::any_of(b->mirror_id.begin(), b->mirror_id.end(), [](int32_t i) { return i >= 0; });
}

// Copies the background's rows; the dirty packets in them are then drawn over.
inline void copy_rows(const Frame& f, const Background& b, uint8_t* rgb) {
  const size_t stride = static_cast<size_t>(3) * f.width;
  std::memcpy(rgb + stride * f.row_begin, b.rgb.data() + stride * f.row_begin,
              stride * (f.row_end - f.row_begin));
}

}  // namespace VLMRM_ISA
}  // namespace vlmrm

#endif  // VLMRM_RAY_STILL_H_
