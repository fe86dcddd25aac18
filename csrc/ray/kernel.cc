// Draws one placed frame. Compiled once per instruction set (VLMRM_ISA names it).
#include <algorithm>
#include <cmath>

#include "ray/draw.h"
#include "ray/intersect.h"
#include "ray/raster.h"
#include "ray/resolve.h"
#include "ray/shade_mesh.h"
#include "ray/shadow_grid.h"
#include "ray/shadow_queue.h"
#include "ray/simd.h"
#include "ray/still.h"
#include "ray/still_mesh.h"
#include "ray/transparent.h"

namespace vlmrm {
namespace VLMRM_ISA {
namespace {

// Fills depth and id with the nearest entry of one geom over its rectangle; of surfaces at one
// depth the last in the scene shows, whatever the order of the calls. For the mirrored scene, `over`
// restricts to pixels that show the mirror, behind its surface.
template <bool kGeneral>
struct Rasterize {
  const ViewGeom& g;
  Frame* f;
  int view;
  int over;
  float znear, zfar;
  template <int kType>
  VLMRM_INLINE void run() {
    const bool mirrored = over >= 0;
    float* depth = mirrored ? f->mirror_depth.data() : f->depth.data();
    int32_t* id = mirrored ? f->mirror_id.data() : f->id.data();
    const vi base = splat(int32_t{view * 8});
    const int end = std::min(g.y1, last_row(*f));
    for (int row = std::max(g.y0, first_row(*f)); row < end; ++row) {
      const vf y = splat(f->top - row * f->step_y);
      for (int col = g.x0 & -kLanes; col < g.x1; col += kLanes) {
        const int at = row * f->pitch + col;
        vm allowed = all_lanes();
        if (mirrored) {
          allowed = (load(f->id.data() + at) >> 3) == splat(int32_t{over});
          if (!any(allowed)) continue;
        }
        const vf x = splat(f->left) + (lane_index() + splat(static_cast<float>(col))) * splat(f->step_x);
        const vf old = load(depth + at);
        Hit h = kGeneral ? hit_general<kType>(g, f->orthographic, znear, x, y)
                         : hit_eye<kType>(g, x, y);
        const vi old_id = load(id + at);
        vm win = h.mask & ((h.t < old) | ((h.t == old) & (base > old_id))) & (h.t > splat(znear));
        if (mirrored) win &= allowed & (h.t > load(f->depth.data() + at));
        if (!any(win)) continue;
        store(depth + at, select(win, h.t, old));
        store(id + at, select(win, base + h.face, old_id));
        if (f->background) touched(row, col, at, win);
      }
    }
  }

  // A geom over the mirror also takes away what the background shows in it.
  VLMRM_INLINE void touched(int row, int col, int at, vm win) {
    touch(f, row, col, bits(win));
    if (over < 0 && !(f->mirror && f->background->mirror_shows)) return;
    touch_mirror(f, row, col, bits(win));
    if (over >= 0) return;
    float* depth = f->mirror_depth.data() + at;
    int32_t* id = f->mirror_id.data() + at;
    store(depth, select(win, splat(zfar), load(depth)));
    store(id, select(win, splat(int32_t{-1}), load(id)));
  }
};

void rasterize_geom(const Scene& scene, Frame* f, int view, int over) {
  const ViewGeom& g = f->view[view];
  if (g.type == kMesh) return MeshRaster(scene, f, view).draw();
  if (f->general) {
    with_type(g.type, Rasterize<true>{g, f, view, over, scene.znear, scene.zfar});
  } else {
    with_type(g.type, Rasterize<false>{g, f, view, over, scene.znear, scene.zfar});
  }
}

// Geoms may pass through the sky box: only what lies before it is seen.
void clip_at_sky(const Scene& scene, Frame* f) {
  for (int row = first_row(*f); row < last_row(*f); ++row) {
    const vf y = splat(f->top - row * f->step_y);
    for (int col = 0; col < f->pitch; col += kLanes) {
      const vf px = lane_index() + splat(static_cast<float>(col));
      const vf x = splat(f->left) + px * splat(f->step_x);
      store(f->depth.data() + row * f->pitch + col, limit_depth(scene, *f, x, y));
    }
  }
}

void clear(const Scene& scene, Frame* f, float* depth, int32_t* id) {
  const int end = f->pitch * last_row(*f);
  for (int i = f->pitch * first_row(*f); i < end; i += kLanes) {
    store(depth + i, splat(scene.zfar));
    store(id + i, splat(int32_t{-1}));
  }
}

void clear(const Scene& scene, Frame* f, MeshSamples* samples) {
  const size_t first = static_cast<size_t>(f->pitch) * first_row(*f);
  const size_t end = static_cast<size_t>(f->pitch) * last_row(*f);
  std::fill(samples->depth.begin() + 4 * first, samples->depth.begin() + 4 * end, scene.zfar);
}

// Lists the pixels that may show a mirror image: those that show the mirror, and their neighbours.
void mark_mirror(Frame* f) {
  std::fill(f->near_mirror.begin(), f->near_mirror.end(), 0);
  for (int row = first_row(*f); row < last_row(*f); ++row) {
    uint64_t before = 0;  // the last bit of the word before
    for (int w = 0; w < f->words; ++w) {
      uint64_t shown = 0;
      for (int col = 64 * w; col < std::min(64 * w + 64, f->pitch); col += kLanes) {
        const vi id = load(f->id.data() + row * f->pitch + col);
        const int lanes = bits((id >> 3) == splat(f->reflective));
        shown |= static_cast<uint64_t>(static_cast<uint32_t>(lanes)) << (col & 63);
      }
      for (int to = std::max(row - 1, 0); to < std::min(row + 2, f->height); ++to) {
        uint64_t* words = &f->near_mirror[static_cast<size_t>(to) * f->words];
        words[w] |= shown | shown << 1 | shown >> 1 | before;
        if (w > 0) words[w - 1] |= shown << 63;
      }
      before = shown >> 63;
    }
  }
}

// Finds the surface that each pixel shows: of all geoms, or of the moving ones over a background.
void rasterize(const Scene& scene, Frame* f) {
  const int n = static_cast<int>(scene.geoms.size());
  const bool whole = !f->background;
  if (whole) {
    f->held = 0;
    clear(scene, f, f->depth.data(), f->id.data());
    if (f->mirror) clear(scene, f, f->mirror_depth.data(), f->mirror_id.data());
    if (!f->samples.id.empty() && !f->probe) {
      clear(scene, f, &f->samples);
      if (f->mirror) clear(scene, f, &f->mirror_samples);
    }
  } else {
    restore(f, *f->background);
  }
  if (whole && f->far) clip_at_sky(scene, f);
  auto shows = [&](int geom, const ViewGeom& g) {
    return g.drawn && !g.transparent && (whole || !scene.geoms[geom].still);
  };
  int count = 0;
  for (int i = 0; i < n; ++i) {
    if (shows(i, f->view[i])) f->order[count++] = i;
  }
  std::sort(f->order.data(), f->order.data() + count, [f](int a, int b) {
    return f->view[a].depth != f->view[b].depth ? f->view[a].depth < f->view[b].depth : a < b;
  });
  for (int k = 0; k < count; ++k) {
    rasterize_geom(scene, f, f->order[k], -1);
  }
  if (!f->mirror) return;
  if (!f->prim.empty()) mark_mirror(f);
  for (int i = n; i < 2 * n; ++i) {
    const ViewGeom& g = f->view[i];
    if (!shows(i - n, g)) continue;
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

// Bit i is set where the triangles at pixel col + i are not the same in all samples.
inline int mixed_of(const Frame& f, const MeshSamples& samples, const Table<int32_t>& ids,
                    const Table<int32_t>& prims, const Table<float>& depths, float zfar,
                    int row, int col, int count) {
  const size_t first = static_cast<size_t>(row) * f.pitch + col;
  vm some = {};
  for (int k = 0; k < 4 * kLanes; k += kLanes) {
    some |= load(samples.depth.data() + 4 * first + k) < splat(zfar);
  }
  if (!any(some)) return 0;
  int mask = 0;
  for (int i = 0; i < count; ++i) {
    const size_t at = first + i;
    const FourFloats t = load_four(samples.depth.data() + 4 * at);
    const bool mesh = ids[at] >= 0 && f.view[ids[at] >> 3].type == kMesh;
    Four differs = t < depths[at];
    if (mesh) {
      differs = (load_four(samples.id.data() + 4 * at) != ids[at]) |
                (load_four(samples.prim.data() + 4 * at) != prims[at]) | (t >= zfar);
    }
    if (bits_of(differs)) mask |= 1 << i;
  }
  return mask;
}

// From this many pixels on, shading a packet is faster than queueing its pixels to be shaded in the
// full packets of their geom (bench/test_render.py: 9 of 16 against 3 is 5 to 10 % of a still picture).
constexpr int kFew = kLanes / 2 + 1;

class Painter {
 public:
  Painter(const Scene& scene, Frame* frame, uint8_t* rgb)
      : scene_(scene), f_(*frame), rgb_(rgb), resolve_(scene, frame, rgb) {}

  void paint() {
    clear_queue(scene_, &f_);
    std::fill(f_.lit_at.begin(), f_.lit_at.end(), kUnlit);
    std::fill(f_.corners_seen.begin(), f_.corners_seen.end(), 0);
    f_.num_lit = 0;
    for (int row = f_.row_begin; row < f_.row_end; ++row) {
      if (f_.background) {
        for_each_packet(&f_.dirty[static_cast<size_t>(row) * f_.words], f_.words,
                        [&](int col, int lanes) { paint_packet(row, col, lanes); });
        continue;
      }
      for (int col = 0; col < f_.width; col += kLanes) {
        paint_packet(row, col, (1 << std::min(kLanes, f_.width - col)) - 1);
      }
    }
    resolve_.flush();
    if (f_.queue.num_points == 0) return;
    for (size_t i = 0; i < scene_.lights.size(); ++i) {
      ShadowGrid(scene_, &f_, static_cast<int>(i)).find_dark();
    }
    finish(&f_.queue, rgb_);
  }

 private:
  // A surface that several pixels of a packet show away from edges is shaded for the whole packet
  // at once; the other pixels become slots. Only `todo` lanes change.
  void paint_packet(int row, int col, int todo) {
    const int at = row * f_.pitch + col;
    const int count = std::min(kLanes, f_.width - col);
    const vi ids = load(f_.id.data() + at);
    vi mirrored = splat(int32_t{-1});
    int edges = edges_of(f_.id.data(), f_, row, col);
    if (f_.mirror) {
      mirrored = load(f_.mirror_id.data() + at);
      edges |= edges_of(f_.mirror_id.data(), f_, row, col);
    }
    if (!f_.prim.empty()) edges |= mixed(row, col, count);
    int slots = edges & todo;
    vi rgb = {};
    for (int rest = todo & ~edges; rest;) {
      const int i = __builtin_ctz(rest);
      const int32_t id = f_.id[at + i], reflected = f_.mirror ? f_.mirror_id[at + i] : -1;
      const vm in = (ids == splat(id)) & (mirrored == splat(reflected));
      const int group = rest & bits(in);
      rest &= ~group;
      if (__builtin_popcount(group) < kFew) {
        slots |= group;
      } else {
        rgb = select(in, shade_surface(row, col, i, group, id, reflected, in), rgb);
      }
    }
    if (slots != todo) write(rgb_ + 3 * (static_cast<size_t>(row) * f_.width + col), rgb, count, todo);
    if (slots) resolve_.add_slots(row, col, slots & edges, slots & ~edges);
  }

  // Writes the `todo` lanes of a packet of `count` pixels.
  static void write(uint8_t* out, vi rgb, int count, int todo) {
    if (todo == (1 << count) - 1) return store_rgb(out, rgb, count);
    uint8_t all[3 * kLanes];
    store_rgb(all, rgb, kLanes);
    for (; todo; todo &= todo - 1) {
      const int i = 3 * __builtin_ctz(todo);
      out[i] = all[i], out[i + 1] = all[i + 1], out[i + 2] = all[i + 2];
    }
  }

  // Pixels that show several triangles.
  int mixed(int row, int col, int count) const {
    int lanes = mixed_of(f_, f_.samples, f_.id, f_.prim, f_.depth, scene_.zfar, row, col, count);
    if (!f_.mirror) return lanes;
    const vm over = (load(f_.id.data() + row * f_.pitch + col) >> 3) == splat(f_.reflective);
    if (!any(over)) return lanes;
    return lanes | (bits(over) & mixed_of(f_, f_.mirror_samples, f_.mirror_id, f_.mirror_prim,
                                          f_.mirror_depth, scene_.zfar, row, col, count));
  }

  // The lanes `in` of a table; the others shade too, so they are given what lane `one` holds.
  template <class T>
  static auto only(vm in, const T* p, int one) {
    return select(in, load(p), splat(p[one]));
  }

  // Leaves pixels to the end of the picture: their surface `c`, and what it mirrors.
  void queue_packet(const Color& c, vi mirrored, int row, int col, int group) {
    int32_t pixel[kLanes], weight[kLanes], rgb[kLanes], some = 0;
    store(rgb, mirrored);
    for (int i = 0; i < kLanes; ++i) {
      const bool wanted = group >> i & 1;
      if (wanted) some = queue_pixel(&f_.queue, row * f_.width + col + i, 4 * spread(rgb[i]));
      pixel[i] = some;
      weight[i] = wanted ? 4 : 0;
    }
    queue_fragments(&f_.queue, pack_bytes(c), pixel, weight, kLanes);
  }

  // The lanes `in`, of which `one` is one and `group` are wanted, as 0xBBGGRR.
  vi shade_surface(int row, int col, int one, int group, int32_t id, int32_t reflected, vm in) {
    const int at = row * f_.pitch + col, view = id >> 3;
    Points q;
    q.x = splat(f_.left) + (lane_index() + splat(static_cast<float>(col))) * splat(f_.step_x);
    q.y = splat(f_.top - row * f_.step_y);
    q.active = in;
    if (id < 0) return pack_bytes(shade_sky(scene_, f_, q.x, q.y));
    q.t = only(in, f_.depth.data() + at, one);
    q.face = splat(int32_t{id & 7});
    if (f_.view[view].type == kMesh) q.prim = only(in, f_.prim.data() + at, one);
    q.queue = queue_for(&f_, view);
    const size_t queued = f_.queue.num_points;
    const Color c = f_.view[view].type == kPlane ? shade_plane(scene_, f_, view, q)
                                                 : shade_any(scene_, f_, view, q);
    const Color r = reflected >= 0 ? shade_reflected(at, one, reflected, in, q) : Color{{}, {}, {}};
    if (f_.queue.num_points != queued) queue_packet(c, pack_bytes(r), row, col, group);
    return pack_bytes({limit_byte(c.r + r.r), limit_byte(c.g + r.g), limit_byte(c.b + r.b)});
  }

  Color shade_reflected(int at, int one, int32_t reflected, vm in, Points q) {
    q.t = only(in, f_.mirror_depth.data() + at, one);
    q.face = splat(int32_t{reflected & 7});
    if (f_.view[reflected >> 3].type == kMesh) q.prim = only(in, f_.mirror_prim.data() + at, one);
    q.queue = nullptr;
    return shade_any(scene_, f_, reflected >> 3, q);
  }

  const Scene& scene_;
  Frame& f_;
  uint8_t* rgb_;
  Resolve resolve_;
};

}  // namespace

void draw(const Scene& scene, Frame* frame, uint8_t* rgb) {
  if (frame->probe) {
    if (frame->valid) rasterize(scene, frame);
    return;
  }
  if (!frame->valid) {
    const size_t stride = static_cast<size_t>(3) * frame->width;
    std::memset(rgb + stride * frame->row_begin, 0, stride * (frame->row_end - frame->row_begin));
    return;
  }
  if (frame->background && !fits(*frame, *frame->background)) frame->background = nullptr;
  pack_casters(scene, frame);
  rasterize(scene, frame);
  if (frame->background) {
    mark_dirty(scene, frame, *frame->background);
    copy_rows(*frame, *frame->background, rgb);
  }
  Painter(scene, frame, rgb).paint();
  blend_transparent(scene, frame, rgb);
  if (!frame->recorder) return;
  record_meshes(scene, *frame, frame->recorder);
  record_frame(scene, frame, frame->recorder);
}

}  // namespace VLMRM_ISA
}  // namespace vlmrm
