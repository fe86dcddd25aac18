// Triangles of meshes into the tables of surfaces: pixel centres and the four sub-samples.
//
// A vertex is placed in the picture once. Then packets of triangles are set up side by side, and
// those that may cover a sample are filled one by one. Coordinates are pixels: the centre of the
// pixel in row y and column x lies at (x, y). What a sample shows does not depend on the order of
// geoms, on rows drawn together, or on neighbours.
#ifndef VLMRM_RAY_RASTER_H_
#define VLMRM_RAY_RASTER_H_

#include <algorithm>
#include <cmath>

#include "ray/bounds.h"
#include "ray/frame.h"
#include "ray/intersect.h"
#include "ray/outline.h"
#include "ray/shade.h"
#include "ray/simd.h"
#include "ray/still.h"

namespace vlmrm {
namespace VLMRM_ISA {

constexpr float kSnap = 256;  // steps a pixel that vertices are rounded to, as in OpenGL drivers
// Pixels from which on each row's part of a triangle is sought: finding it costs about one packet.
constexpr int kWide = 16;
// Samples whose tables are fetched before they are needed: enough work to hide a miss of the cache.
constexpr int kAhead = 8;

// Of a plane at which the mirrored scene begins: what lies behind it is less near.
struct MirrorLimit {
  float at, along_x, along_y;
};

// What a mesh is drawn with and into.
class MeshRaster {
 public:
  MeshRaster(const Scene& scene, Frame* frame, int view)
      : scene_(scene), f_(*frame), g_(f_.view[view]), mesh_(*g_.mesh), view_(view) {
    const bool m = g_.mirrored;
    samples_ = m ? &f_.mirror_samples : &f_.samples;
    depth_ = m ? f_.mirror_depth.data() : f_.depth.data();
    id_ = m ? f_.mirror_id.data() : f_.id.data();
    prim_ = m ? f_.mirror_prim.data() : f_.prim.data();
    if (m) place_limit();
  }

  void draw() {
    const size_t pitch = mesh_.vertex_pitch;
    if (f_.screen.size() < 3 * pitch) f_.screen.resize(3 * pitch);
    first_ = std::max(g_.y0, first_row(f_)), last_ = std::min(g_.y1, last_row(f_)) - 1;
    if (first_ > last_) return;
    x_ = f_.screen.data(), y_ = x_ + pitch, near_ = y_ + pitch;
    place_vertices();
    const int count = mesh_.num_triangles();
    for (int t = 0; t < count; t += kLanes) set_up_packet(t, std::min(kLanes, count - t));
  }

 private:
  // A pixel's place in the tables and in bitmaps.
  struct Place {
    int at, bit;
  };

  VLMRM_INLINE v3 to_eye(v3 local) const { return to_camera(g_, local) + splat3(g_.center); }

  VLMRM_INLINE v3 to_picture(v3 p) const {
    const vf depth = -p.z, half = splat(0.5f), step = splat(1 / kSnap);
    const vf inverse = f_.orthographic ? splat(1.0f) : splat(1.0f) / depth;
    const vf x = (p.x * inverse - splat(f_.left)) * splat(1 / f_.step_x);
    const vf y = (splat(f_.top) - p.y * inverse) * splat(1 / f_.step_y);
    return {floor(fma(x, splat(kSnap), half)) * step, floor(fma(y, splat(kSnap), half)) * step,
            f_.orthographic ? p.z : inverse};
  }

  void place_vertices() {
    const int pitch = mesh_.vertex_pitch;
    const float* at = mesh_.vertices.data();
    vf nearest = splat(-kHuge);
    for (int v = 0; v < mesh_.num_vertices; v += kLanes) {
      const v3 p = to_eye({load(at + v), load(at + pitch + v), load(at + 2 * pitch + v)});
      const v3 s = to_picture(p);
      store(x_ + v, s.x), store(y_ + v, s.y), store(near_ + v, s.z);
      nearest = max(nearest, p.z);
    }
    cut_ = !f_.orthographic && any(nearest > splat(-scene_.znear));
  }

  VLMRM_INLINE v3 vertex(vi index) const { return {gather(x_, index), gather(y_, index), gather(near_, index)}; }

  void set_up_packet(int first, int count) {
    const int pitch = mesh_.corner_pitch;
    const int32_t* corner = mesh_.corners.data() + first;
    const vi v[3] = {load(corner), load(corner + pitch), load(corner + 2 * pitch)};
    const int lanes = static_cast<int>((int64_t{1} << count) - 1);
    if (!cut_) return fill_some({{vertex(v[0]), vertex(v[1]), vertex(v[2])}}, first, -1, lanes);
    // A mesh that reaches behind the near plane: what does is cut off.
    const float* at = mesh_.vertices.data();
    const int p = mesh_.vertex_pitch;
    v3 eye[3];
    int behind[3];
    for (int k = 0; k < 3; ++k) {
      eye[k] = to_eye({gather(at, v[k]), gather(at + p, v[k]), gather(at + 2 * p, v[k])});
      behind[k] = ~bits(eye[k].z <= splat(-scene_.znear));
    }
    const int some = (behind[0] | behind[1] | behind[2]) & lanes;
    fill_some({{vertex(v[0]), vertex(v[1]), vertex(v[2])}}, first, -1, lanes & ~some);
    for (int rest = some & ~(behind[0] & behind[1] & behind[2]); rest; rest &= rest - 1) {
      fill_cut(eye, __builtin_ctz(rest), first);
    }
  }

  // Cuts the triangle of one lane at the near plane, which leaves one or two.
  void fill_cut(const v3* eye, int lane, int first) {
    v3 in[3], out[4];
    for (int k = 0; k < 3; ++k) {
      in[k] = {splat(eye[k].x.v[lane]), splat(eye[k].y.v[lane]), splat(eye[k].z.v[lane])};
    }
    const vf wall = splat(-scene_.znear);
    int n = 0;
    for (int k = 0; k < 3; ++k) {
      const v3 a = in[k], b = in[(k + 1) % 3];
      const bool here = any(a.z <= wall), next = any(b.z <= wall);
      if (here) out[n++] = a;
      if (here == next) continue;
      // From the end before the eye, so that triangles with this edge agree.
      const v3 from = here ? a : b, to = here ? b : a;
      const v3 cut = from + (to - from) * ((wall - from.z) / (to.z - from.z));
      out[n++] = {cut.x, cut.y, wall};
    }
    for (int k = 0; k < n; ++k) out[k] = to_picture(out[k]);
    for (int k = 2; k < n; ++k) fill_some({{out[0], out[k - 1], out[k]}}, first, lane, 1);
  }

  // Fills triangles of a packet: those of `lanes`, or, if `only` is not negative, that one, which all
  // lanes hold.
  void fill_some(const Corners& c, int first, int only, int lanes) {
    Outlines o;
    lanes &= bound(c, g_.hollow ? 0 : g_.mirrored ? 1 : -1, &o);
    lanes &= bits((load(o.left) < splat(static_cast<float>(g_.x1))) &
                  (load(o.right) >= splat(static_cast<float>(g_.x0))) &
                  (load(o.top) <= splat(static_cast<float>(last_))) &
                  (load(o.bottom) >= splat(static_cast<float>(first_))));
    if (!lanes) return;
    outline(c, &o);
    cover_small(lanes, &o);
    if (lanes & o.small) fill_small(o, lanes & o.small, first, only);
    for (lanes &= ~o.small; lanes; lanes &= lanes - 1) {
      const int i = __builtin_ctz(lanes);
      fill(o, i, first + (only < 0 ? i : only));
    }
  }

  // Small triangles: lists the pixels that each covers, then goes through them without branches.
  void fill_small(const Outlines& o, int lanes, int first, int only) {
    const vi column = truncate(load(o.left)), row = truncate(load(o.top));
    const vi low = splat(int32_t{15});
    int32_t item[17 * kLanes], at[kLanes], bit[kLanes];
    store(at, row * splat(int32_t{f_.pitch}) + column);
    store(bit, row * splat(int32_t{64 * f_.words}) + column);
    int count = 0;
    for (int k = 0; k < 16; ++k) {
      const int block = k / 4, pixel = k % 4;
      const vi cover = load(o.cover[block]);
      const vi samples = cover >> 4 * pixel & low;
      const vi bits5 = samples | ((cover >> (kCenterBits + pixel) & splat(int32_t{1})) << 4);
      const vi x = column + splat(column_of(k)), y = row + splat(row_of(k));
      const vm in = mask_of(lanes) & (bits5 > vi{}) & (y >= splat(int32_t{first_})) &
                    (y <= splat(int32_t{last_})) & (x >= splat(g_.x0)) & (x < splat(g_.x1));
      append(item + count, in, lane_number() | splat(int32_t{k << 4}) | bits5 << 8);
      count += __builtin_popcount(bits(in));
    }
    auto place = [&](int k) {
      const int part = item[k] >> 4 & 15;
      return at[item[k] & 15] + row_of(part) * f_.pitch + column_of(part);
    };
    for (int k = 0; k < count; ++k) {
      const size_t next = 4 * static_cast<size_t>(place(std::min(k + kAhead, count - 1)));
      __builtin_prefetch(samples_->depth.data() + next);
      __builtin_prefetch(samples_->id.data() + next);
      __builtin_prefetch(samples_->prim.data() + next);
      const int i = item[k] & 15, part = item[k] >> 4 & 15, prim = first + (only < 0 ? i : only);
      const int dx = column_of(part), dy = row_of(part);
      const Place to = {place(k), bit[i] + dy * 64 * f_.words + dx};
      const float x = o.left[i] + dx, y = o.top[i] + dy;
      if (g_.mirrored && !shows_mirror(to.bit)) continue;
      if (!f_.probe) fill_samples(o, i, item[k] >> 8 & 15, x, y, to, prim);
      if (item[k] >> 12) fill_center(o, i, x, y, to, prim);
    }
  }

  // Of the k-th pixel of 2 x 2 blocks of 2 x 2.
  static int column_of(int k) { return (k >> 1 & 2) | (k & 1); }
  static int row_of(int k) { return (k >> 2 & 2) | (k >> 1 & 1); }

  VLMRM_INLINE void fill_samples(const Outlines& o, int i, int samples, float col, float row,
                                 Place to, int prim) {
    const size_t at = 4 * static_cast<size_t>(to.at);
    float* depth = samples_->depth.data() + at;
    int32_t *id = samples_->id.data() + at, *prims = samples_->prim.data() + at;
    const FourFloats x = load_four(kSampleX) + col, y = load_four(kSampleY) + row;
    FourFloats near = o.near0[i] + (x - o.x0[i]) * o.near_x[i] + (y - o.y0[i]) * o.near_y[i];
    near = near < o.farthest[i] ? FourFloats{} + o.farthest[i] : near;
    near = near > o.nearest[i] ? FourFloats{} + o.nearest[i] : near;
    const FourFloats t = f_.orthographic ? -near : 1.0f / near, old = load_four(depth);
    const Four bit = {1, 2, 4, 8}, old_id = load_four(id), old_prim = load_four(prims);
    Four wins = (bit & samples) != 0;
    wins &= t > scene_.znear;
    wins &= (t < old) | ((t == old) & ((old_id < 8 * view_) |
                                       ((old_id == 8 * view_) & (old_prim < prim))));
    if (g_.mirrored) wins &= near < limit_.at + x * limit_.along_x + y * limit_.along_y;
    put_four(depth, wins, t);
    put_four(id, wins, Four{} + 8 * view_);
    put_four(prims, wins, Four{} + prim);
    if (f_.background && bits_of(wins)) touch_pixel(to.bit);
  }

  VLMRM_INLINE void fill_center(const Outlines& o, int i, float x, float y, Place to, int prim) {
    const int at = to.at;
    float near = o.near0[i] + (x - o.x0[i]) * o.near_x[i] + (y - o.y0[i]) * o.near_y[i];
    near = std::min(std::max(near, o.farthest[i]), o.nearest[i]);
    const float t = f_.orthographic ? -near : 1 / near, old = depth_[at];
    const bool later = id_[at] < 8 * view_ || (id_[at] == 8 * view_ && prim_[at] < prim);
    if (!(t > scene_.znear && (t < old || (t == old && later)))) return;
    if (g_.mirrored && !(f_.id[at] >> 3 == f_.reflective && t > f_.depth[at])) return;
    depth_[at] = t, id_[at] = 8 * view_, prim_[at] = prim;
    if (f_.background) touch_center(to);
  }

  void fill(const Outlines& o, int i, int prim) {
    const int left = std::max(static_cast<int>(o.left[i]), g_.x0);
    const int right = std::min(static_cast<int>(o.right[i]), g_.x1 - 1);
    const int last = std::min(static_cast<int>(o.bottom[i]), last_);
    const bool wide = right - left >= kWide;
    for (int row = std::max(static_cast<int>(o.top[i]), first_); row <= last; ++row) {
      int from = left, to = right;
      if (wide) narrow(o, i, row, &from, &to);
      if (!f_.probe) fill_row<true>(o, i, row, from, to, prim);
      if (o.has_center >> i & 1) fill_row<false>(o, i, row, from, to, prim);
    }
  }

  // Leaves out pixels of a row that lie beside all edges.
  static void narrow(const Outlines& o, int i, int row, int* left, int* right) {
    for (int k = 0; k < 3; ++k) {
      const float dy = o.dy[k][i];
      if (dy == 0) continue;
      const float slope = o.dx[k][i] / dy, middle = o.x[k][i] + (row - o.y[k][i]) * slope;
      const float reach = 1 + 0.5f * std::abs(slope);
      if (!(std::abs(middle) + reach < 1e6f)) continue;
      if (dy < 0) *left = std::max(*left, static_cast<int>(middle - reach));
      if (dy > 0) *right = std::min(*right, static_cast<int>(middle + reach) + 1);
    }
  }

  template <bool kSamples>
  VLMRM_INLINE void fill_row(const Outlines& o, int i, int row, int left, int right, int prim) {
    constexpr int kStep = kSamples ? kLanes / 4 : kLanes;
    vf y = splat(static_cast<float>(row)), x = lane_index();
    if (kSamples) {
      y += repeat4(kSampleY);
      x = floor(x * splat(0.25f));
    }
    vf base[3];
    for (int k = 0; k < 3; ++k) base[k] = splat(o.dx[k][i]) * (y - splat(o.y[k][i]));
    const vf start = fma(y - splat(o.y0[i]), splat(o.near_y[i]), splat(o.near0[i]));
    const vf offset = kSamples ? repeat4(kSampleX) : vf{}, end = splat(static_cast<float>(right));
    for (int col = left; col <= right; col += kStep) {
      const vf column = x + splat(static_cast<float>(col)), px = column + offset;
      vm in = column <= end;
      for (int k = 0; k < 3; ++k) {
        in &= fma(splat(-o.dy[k][i]), px - splat(o.x[k][i]), base[k]) > splat(o.bias[k][i]);
      }
      if (!any(in)) continue;
      vf near = fma(px - splat(o.x0[i]), splat(o.near_x[i]), start);
      near = min(max(near, splat(o.farthest[i])), splat(o.nearest[i]));
      const Place to = {row * f_.pitch + col, row * 64 * f_.words + col};
      if (kSamples) {
        keep_samples(in, near, px, y, to, prim);
      } else {
        keep_centers(in, near, to, prim);
      }
    }
  }

  VLMRM_INLINE vf depth_of(vf near) const { return f_.orthographic ? -near : splat(1.0f) / near; }

  // Of surfaces at one depth the last triangle of the last geom shows, whatever the order of calls.
  VLMRM_INLINE vm wins(vf t, vf old, vi old_id, vi old_prim, int prim) const {
    const vi id = splat(int32_t{8 * view_});
    const vm later = (old_id < id) | ((old_id == id) & (old_prim < splat(int32_t{prim})));
    return (t > splat(scene_.znear)) & ((t < old) | ((t == old) & later));
  }

  VLMRM_INLINE void keep_samples(vm in, vf near, vf x, vf y, Place to, int prim) {
    const size_t at = 4 * static_cast<size_t>(to.at);
    float* depth = samples_->depth.data() + at;
    int32_t *id = samples_->id.data() + at, *prims = samples_->prim.data() + at;
    const vf t = depth_of(near), old = load(depth);
    const vi old_id = load(id), old_prim = load(prims);
    in &= wins(t, old, old_id, old_prim, prim);
    if (g_.mirrored) {
      in &= near < fma(x, splat(limit_.along_x), fma(y, splat(limit_.along_y), splat(limit_.at)));
    }
    const int won = bits(in);
    if (!won) return;
    store(depth, select(in, t, old));
    store(id, select(in, splat(int32_t{8 * view_}), old_id));
    store(prims, select(in, splat(int32_t{prim}), old_prim));
    if (!f_.background) return;
    for (int k = 0; k < kLanes / 4; ++k) {
      if (won >> 4 * k & 15) touch_pixel(to.bit + k);
    }
  }

  VLMRM_INLINE void keep_centers(vm in, vf near, Place to, int prim) {
    const int at = to.at;
    const vf t = depth_of(near), old = load(depth_ + at);
    const vi old_id = load(id_ + at), old_prim = load(prim_ + at);
    in &= wins(t, old, old_id, old_prim, prim);
    if (g_.mirrored) {
      in &= ((load(f_.id.data() + at) >> 3) == splat(int32_t{f_.reflective})) &
            (t > load(f_.depth.data() + at));
    }
    int won = bits(in);
    if (!won) return;
    store(depth_ + at, select(in, t, old));
    store(id_ + at, select(in, splat(int32_t{8 * view_}), old_id));
    store(prim_ + at, select(in, splat(int32_t{prim}), old_prim));
    if (!f_.background) return;
    for (; won; won &= won - 1) {
      const int k = __builtin_ctz(won);
      touch_center({at + k, to.bit + k});
    }
  }

  void touch_center(Place to) {
    touch_pixel(to.bit);
    if (g_.mirrored || !f_.mirror) return;
    // What covers the mirror takes away what the background shows in it.
    f_.mirror_depth[to.at] = scene_.zfar;
    f_.mirror_id[to.at] = -1;
  }

  void touch_pixel(int bit) {
    f_.touched[bit >> 6] |= uint64_t{1} << (bit & 63);
    if (f_.mirror) f_.mirror_touched[bit >> 6] |= uint64_t{1} << (bit & 63);
  }
  bool shows_mirror(int bit) const { return f_.near_mirror[bit >> 6] >> (bit & 63) & 1; }

  // A plane n . p = d is at the nearness that is linear over the picture.
  void place_limit() {
    const ViewGeom& m = f_.view[f_.reflective];
    const float *n = m.axis[2], lift = m.type == kBox ? m.size[2] : 0.0f;
    const float d = dot3(n, m.center) + lift;
    const float x = n[0] * f_.left + n[1] * f_.top, y = n[0] * f_.step_x, z = -n[1] * f_.step_y;
    const float scale = f_.orthographic ? -1 / n[2] : 1 / d;
    limit_ = {(f_.orthographic ? x - d : x - n[2]) * scale, y * scale, z * scale};
  }

  const Scene& scene_;
  Frame& f_;
  const ViewGeom& g_;
  const Mesh& mesh_;
  const int view_;
  MeshSamples* samples_;
  float* depth_;
  int32_t *id_, *prim_;
  float *x_ = nullptr, *y_ = nullptr, *near_ = nullptr;
  int first_ = 0, last_ = 0;
  bool cut_ = false;
  MirrorLimit limit_ = {};
};

}  // namespace VLMRM_ISA
}  // namespace vlmrm

#endif  // VLMRM_RAY_RASTER_H_
