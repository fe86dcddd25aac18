// Draws one placed frame. Compiled once per instruction set (VLMRM_ISA names it).
#include <algorithm>
#include <cmath>

#include "ray/draw.h"
#include "ray/intersect.h"
#include "ray/resolve.h"
#include "ray/shade.h"
#include "ray/simd.h"
#include "ray/transparent.h"

namespace vlmrm {
namespace VLMRM_ISA {
namespace {

// Fills depth and id with the nearest entry of one geom over its rectangle. For the mirrored
// scene, `over` restricts to pixels that show the mirror, behind its surface.
template <bool kGeneral>
struct Rasterize {
  const ViewGeom& g;
  Frame* f;
  int view;
  int over;
  float znear;
  template <int kType>
  VLMRM_INLINE void run() {
    const bool mirrored = over >= 0;
    float* depth = mirrored ? f->mirror_depth.data() : f->depth.data();
    int32_t* id = mirrored ? f->mirror_id.data() : f->id.data();
    const vi base = splat(int32_t{view * 8});
    for (int row = g.y0; row < g.y1; ++row) {
      const vf y = splat(f->top - row * f->step_y);
      for (int col = g.x0 & -kLanes; col < g.x1; col += kLanes) {
        const int at = row * f->pitch + col;
        vm allowed = all_lanes();
        if (mirrored) {
          allowed = (load(f->id.data() + at) >> 3) == splat(int32_t{over});
          if (!any(allowed)) continue;
        }
        const vf x = splat(f->left) + (lane_index() + splat(static_cast<float>(col))) * splat(f->step_x);
        Hit h = kGeneral ? hit_general<kType>(g, f->orthographic, znear, x, y)
                         : hit_eye<kType>(g, x, y);
        const vf old = load(depth + at);
        vm win = h.mask & (h.t <= old) & (h.t > splat(znear));
        if (mirrored) win &= allowed & (h.t > load(f->depth.data() + at));
        if (!any(win)) continue;
        store(depth + at, select(win, h.t, old));
        store(id + at, select(win, base + h.face, load(id + at)));
      }
    }
  }
};

void rasterize_geom(const Scene& scene, Frame* f, int view, int over) {
  const ViewGeom& g = f->view[view];
  if (f->general) {
    with_type(g.type, Rasterize<true>{g, f, view, over, scene.znear});
  } else {
    with_type(g.type, Rasterize<false>{g, f, view, over, scene.znear});
  }
}

void rasterize(const Scene& scene, Frame* f) {
  const int n = static_cast<int>(scene.geoms.size());
  const int pixels = f->pitch * f->height;
  for (int i = 0; i < pixels; i += kLanes) {
    store(f->depth.data() + i, splat(scene.zfar));
    store(f->id.data() + i, splat(int32_t{-1}));
  }
  int count = 0;
  for (int i = 0; i < n; ++i) {
    if (f->view[i].drawn && !f->view[i].transparent) f->order[count++] = i;
  }
  std::sort(f->order.data(), f->order.data() + count, [f](int a, int b) {
    return f->view[a].depth != f->view[b].depth ? f->view[a].depth < f->view[b].depth : a < b;
  });
  for (int k = 0; k < count; ++k) {
    rasterize_geom(scene, f, f->order[k], -1);
  }
  if (!f->mirror) return;
  for (int i = 0; i < pixels; i += kLanes) {
    store(f->mirror_depth.data() + i, splat(scene.zfar));
    store(f->mirror_id.data() + i, splat(int32_t{-1}));
  }
  for (int i = n; i < 2 * n; ++i) {
    const ViewGeom& g = f->view[i];
    if (!g.drawn || g.transparent) continue;
    rasterize_geom(scene, f, i, f->reflective);
  }
}

// Bit i is set where pixel col + i differs from one of its four neighbours inside the image.
VLMRM_INLINE int edges_of(const int32_t* ids, const Frame& f, int row, int col) {
  const int32_t* here = ids + row * f.pitch + col;
  const vi c = load(here);
  const vm vertical = (load(here - (row > 0 ? f.pitch : 0)) != c) |
                      (load(here + (row + 1 < f.height ? f.pitch : 0)) != c);
  // The table has spare entries at its end; at its start the left neighbour is masked.
  vi before = row + col > 0 ? load(here - 1) : c;
  int left = bits(before != c), right = bits(load(here + 1) != c);
  if (col == 0) left &= ~1;
  if (f.width - 1 - col < kLanes) right &= ~(1 << (f.width - 1 - col));
  return bits(vertical) | left | right;
}

// From this many pixels on, shading a packet is faster than queueing its pixels one by one.
constexpr int kFew = kLanes / 8 + 1;

class Painter {
 public:
  Painter(const Scene& scene, Frame* frame, uint8_t* rgb)
      : scene_(scene), f_(*frame), rgb_(rgb), resolve_(scene, frame, rgb) {}

  void paint() {
    for (int row = 0; row < f_.height; ++row) {
      for (int col = 0; col < f_.width; col += kLanes) paint_packet(row, col);
    }
    resolve_.flush();
  }

 private:
  // A surface that several pixels of a packet show away from edges is shaded for the whole packet
  // at once; the other pixels become slots.
  void paint_packet(int row, int col) {
    const int at = row * f_.pitch + col;
    const int count = std::min(kLanes, f_.width - col);
    const int valid = (1 << count) - 1;
    const vi ids = load(f_.id.data() + at);
    vi mirrored = splat(int32_t{-1});
    int edges = edges_of(f_.id.data(), f_, row, col);
    if (f_.mirror) {
      mirrored = load(f_.mirror_id.data() + at);
      edges |= edges_of(f_.mirror_id.data(), f_, row, col);
    }
    int slots = edges & valid;
    vi rgb = {};
    for (int rest = valid & ~edges; rest;) {
      const int i = __builtin_ctz(rest);
      const int32_t id = f_.id[at + i], reflected = f_.mirror ? f_.mirror_id[at + i] : -1;
      const vm in = (ids == splat(id)) & (mirrored == splat(reflected));
      const int group = rest & bits(in);
      rest &= ~group;
      if (__builtin_popcount(group) < kFew) {
        slots |= group;
      } else {
        rgb = select(in, shade_surface(row, col, i, id, reflected, in), rgb);
      }
    }
    if (slots != valid) {
      store_rgb(rgb_ + 3 * (static_cast<size_t>(row) * f_.width + col), rgb, count);
    }
    for (; slots; slots &= slots - 1) {
      const int i = __builtin_ctz(slots);
      resolve_.add_slot(row, col + i, !(edges >> i & 1));
    }
  }

  // The lanes `in`, of which `one` is one, as 0xBBGGRR.
  vi shade_surface(int row, int col, int one, int32_t id, int32_t reflected, vm in) {
    const int at = row * f_.pitch + col;
    Points q;
    q.x = splat(f_.left) + (lane_index() + splat(static_cast<float>(col))) * splat(f_.step_x);
    q.y = splat(f_.top - row * f_.step_y);
    q.active = in;
    Color c;
    if (id < 0) {
      c = shade_sky(scene_, f_, q.x, q.y);
    } else {
      // The other lanes take part, so give them something ordinary.
      q.t = select(in, load(f_.depth.data() + at), splat(f_.depth[at + one]));
      q.face = splat(int32_t{id & 7});
      c = f_.view[id >> 3].type == kPlane ? shade<true>(scene_, f_, id >> 3, q)
                                          : shade_any(scene_, f_, id >> 3, q);
      if (reflected >= 0) {
        q.t = select(in, load(f_.mirror_depth.data() + at), splat(f_.mirror_depth[at + one]));
        q.face = splat(int32_t{reflected & 7});
        Color r = shade_any(scene_, f_, reflected >> 3, q);
        c = {limit_byte(c.r + r.r), limit_byte(c.g + r.g), limit_byte(c.b + r.b)};
      }
    }
    return c.r | c.g << 8 | c.b << 16;
  }

  const Scene& scene_;
  Frame& f_;
  uint8_t* rgb_;
  Resolve resolve_;
};

}  // namespace

void draw(const Scene& scene, Frame* frame, uint8_t* rgb) {
  if (!frame->valid) {
    std::memset(rgb, 0, static_cast<size_t>(3) * frame->height * frame->width);
    return;
  }
  pack_casters(frame);
  rasterize(scene, frame);
  Painter(scene, frame, rgb).paint();
  blend_transparent(scene, frame, rgb);
}

}  // namespace VLMRM_ISA
}  // namespace vlmrm
