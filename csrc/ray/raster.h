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
#include "ray/shade.h"
#include "ray/simd.h"
#include "ray/still.h"

namespace vlmrm {
namespace VLMRM_ISA {

// OpenGL's standard 4x pattern, in pixels from the centre, y down.
constexpr float kSampleX[4] = {-0.125f, 0.375f, -0.375f, 0.125f};
constexpr float kSampleY[4] = {0.375f, 0.125f, -0.125f, -0.375f};
constexpr float kSampleReach = 0.375f;

constexpr float kSnap = 256;     // steps a pixel that vertices are rounded to, as in OpenGL drivers
constexpr int kWide = 16;        // pixels from which on each row's part of a triangle is sought
constexpr float kHuge = 1e30f;

// A triangle that may cover a sample.
struct Outline {
  // Of each edge, directed so that both triangles that share it agree: a point on it and its
  // direction, both times -1 if the triangle lies on the other side. Points on an edge belong to
  // the triangle to the right of it or below.
  float x[3], y[3], dx[3], dy[3], bias[3];
  // 1 / depth, or minus the depth under parallel rays, at (x0, y0) and its slopes and bounds.
  float x0, y0, near0, near_x, near_y, nearest, farthest;
  int left, right, first, last;      // columns and rows that may be covered, last included
  bool centers;                      // some pixel's centre may be
};

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
  // Three corners in the picture; the third number is how near they are.
  struct Corners {
    v3 p[3];
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
    const v3 *a = &c.p[0], *b = &c.p[1], *d = &c.p[2];
    const vf area = (b->x - a->x) * (d->y - a->y) - (d->x - a->x) * (b->y - a->y);
    const vf front = g_.hollow ? abs(area) : g_.mirrored ? area : -area;
    const vf reach = splat(kSampleReach), one = splat(1.0f), most = splat(1e6f);
    const vf x0 = min(min(a->x, b->x), d->x), x1 = max(max(a->x, b->x), d->x);
    const vf y0 = min(min(a->y, b->y), d->y), y1 = max(max(a->y, b->y), d->y);
    auto up = [&](vf v) { return -floor(-v); };
    const vf left = max(up(x0 - reach), splat(static_cast<float>(g_.x0)));
    const vf right = min(floor(x1 + reach), splat(g_.x1 - 1.0f));
    const vf top = max(up(y0 - reach), splat(static_cast<float>(first_)));
    const vf bottom = min(floor(y1 + reach), splat(static_cast<float>(last_)));
    const vm shown = (front > vf{}) & (front < splat(kHuge)) & (left <= right) & (top <= bottom) &
                     (abs(x0) < most * one) & (abs(x1) < splat(kHuge));
    lanes &= bits(shown);
    if (!lanes) return;
    float box[4][kLanes], corner[9][kLanes];
    int32_t centers = bits((up(x0) <= floor(x1)) & (up(y0) <= floor(y1)));
    store(box[0], left), store(box[1], right), store(box[2], top), store(box[3], bottom);
    for (int k = 0; k < 3; ++k) {
      store(corner[3 * k], c.p[k].x), store(corner[3 * k + 1], c.p[k].y);
      store(corner[3 * k + 2], c.p[k].z);
    }
    for (; lanes; lanes &= lanes - 1) {
      const int i = __builtin_ctz(lanes);
      Outline o;
      o.left = static_cast<int>(box[0][i]), o.right = static_cast<int>(box[1][i]);
      o.first = static_cast<int>(box[2][i]), o.last = static_cast<int>(box[3][i]);
      o.centers = centers >> i & 1;
      float p[9];
      for (int k = 0; k < 9; ++k) p[k] = corner[k][i];
      outline(p, &o);
      fill(o, first + (only < 0 ? i : only));
    }
  }

  // From x, y and nearness of three corners.
  VLMRM_INLINE void outline(const float* p, Outline* o) const {
    const float ax = p[3] - p[0], ay = p[4] - p[1], bx = p[6] - p[0], by = p[7] - p[1];
    const float area = ax * by - bx * ay, inverse = 1 / area, side = area > 0 ? 1.0f : -1.0f;
    for (int k = 0; k < 3; ++k) {
      const float *from = p + 3 * k, *to = p + 3 * (k == 2 ? 0 : k + 1);
      const bool down = from[1] < to[1] || (from[1] == to[1] && from[0] > to[0]);
      const float* begin = down ? from : to;
      const float* end = down ? to : from;
      const float sign = down ? side : -side;
      o->x[k] = begin[0], o->y[k] = begin[1];
      o->dx[k] = sign * (end[0] - begin[0]), o->dy[k] = sign * (end[1] - begin[1]);
      o->bias[k] = sign < 0 ? -1 / kHuge : 0.0f;
    }
    const float a = p[5] - p[2], b = p[8] - p[2];
    o->x0 = p[0], o->y0 = p[1], o->near0 = p[2];
    o->near_x = (a * by - b * ay) * inverse, o->near_y = (b * ax - a * bx) * inverse;
    o->nearest = std::max(p[2], std::max(p[5], p[8]));
    o->farthest = std::min(p[2], std::min(p[5], p[8]));
  }

  void fill(const Outline& o, int prim) {
    const bool wide = o.right - o.left >= kWide;
    for (int row = o.first; row <= o.last; ++row) {
      int left = o.left, right = o.right;
      if (wide) narrow(o, row, &left, &right);
      if (!f_.probe) fill_row<true>(o, row, left, right, prim);
      if (o.centers) fill_row<false>(o, row, left, right, prim);
    }
  }

  // Leaves out pixels of a row that lie beside all edges.
  static void narrow(const Outline& o, int row, int* left, int* right) {
    for (int k = 0; k < 3; ++k) {
      if (o.dy[k] == 0) continue;
      const float slope = o.dx[k] / o.dy[k], middle = o.x[k] + (row - o.y[k]) * slope;
      const float reach = 1 + 0.5f * std::abs(slope);
      if (!(std::abs(middle) + reach < 1e6f)) continue;
      if (o.dy[k] < 0) *left = std::max(*left, static_cast<int>(middle - reach));
      if (o.dy[k] > 0) *right = std::min(*right, static_cast<int>(middle + reach) + 1);
    }
  }

  template <bool kSamples>
  VLMRM_INLINE void fill_row(const Outline& o, int row, int left, int right, int prim) {
    constexpr int kStep = kSamples ? kLanes / 4 : kLanes;
    vf y = splat(static_cast<float>(row)), x = lane_index();
    if (kSamples) {
      y += repeat4(kSampleY);
      x = floor(x * splat(0.25f));
    }
    vf base[3];
    for (int k = 0; k < 3; ++k) base[k] = splat(o.dx[k]) * (y - splat(o.y[k]));
    const vf start = fma(y - splat(o.y0), splat(o.near_y), splat(o.near0));
    const vf offset = kSamples ? repeat4(kSampleX) : vf{}, end = splat(static_cast<float>(right));
    for (int col = left; col <= right; col += kStep) {
      const vf column = x + splat(static_cast<float>(col)), px = column + offset;
      vm in = column <= end;
      for (int k = 0; k < 3; ++k) {
        in &= fma(splat(-o.dy[k]), px - splat(o.x[k]), base[k]) > splat(o.bias[k]);
      }
      if (!any(in)) continue;
      vf near = fma(px - splat(o.x0), splat(o.near_x), start);
      near = min(max(near, splat(o.farthest)), splat(o.nearest));
      if (kSamples) {
        keep_samples(in, near, px, y, row, col, prim);
      } else {
        keep_centers(in, near, row, col, prim);
      }
    }
  }

  VLMRM_INLINE vf depth_of(vf near) const { return f_.orthographic ? -near : splat(1.0f) / near; }

  // Of surfaces at one depth the last of the last geom shows.
  VLMRM_INLINE vm wins(vf t, vf old, vi old_id) const {
    return (t > splat(scene_.znear)) &
           ((t < old) | ((t == old) & (old_id < splat(int32_t{8 * view_ + 8}))));
  }

  VLMRM_INLINE void keep_samples(vm in, vf near, vf x, vf y, int row, int col, int prim) {
    const size_t at = 4 * (static_cast<size_t>(row) * f_.pitch + col);
    float* depth = samples_->depth.data() + at;
    int32_t* id = samples_->id.data() + at;
    const vf t = depth_of(near), old = load(depth);
    const vi old_id = load(id);
    in &= wins(t, old, old_id);
    if (g_.mirrored) {
      in &= near < fma(x, splat(limit_.along_x), fma(y, splat(limit_.along_y), splat(limit_.at)));
    }
    const int won = bits(in);
    if (!won) return;
    store(depth, select(in, t, old));
    store(id, select(in, splat(int32_t{8 * view_}), old_id));
    int32_t* prims = samples_->prim.data() + at;
    store(prims, select(in, splat(int32_t{prim}), load(prims)));
    if (!f_.background) return;
    for (int k = 0; k < kLanes / 4; ++k) {
      if (won >> 4 * k & 15) touch_pixel(row, col + k);
    }
  }

  VLMRM_INLINE void keep_centers(vm in, vf near, int row, int col, int prim) {
    const size_t at = static_cast<size_t>(row) * f_.pitch + col;
    const vf t = depth_of(near), old = load(depth_ + at);
    const vi old_id = load(id_ + at);
    in &= wins(t, old, old_id);
    if (g_.mirrored) {
      in &= ((load(f_.id.data() + at) >> 3) == splat(int32_t{f_.reflective})) &
            (t > load(f_.depth.data() + at));
    }
    int won = bits(in);
    if (!won) return;
    store(depth_ + at, select(in, t, old));
    store(id_ + at, select(in, splat(int32_t{8 * view_}), old_id));
    store(prim_ + at, select(in, splat(int32_t{prim}), load(prim_ + at)));
    if (!f_.background) return;
    for (; won; won &= won - 1) {
      const int k = __builtin_ctz(won);
      touch_pixel(row, col + k);
      if (g_.mirrored || !f_.mirror) continue;
      // What covers the mirror takes away what the background shows in it.
      f_.mirror_depth[at + k] = scene_.zfar;
      f_.mirror_id[at + k] = -1;
    }
  }

  void touch_pixel(int row, int col) {
    f_.touched[static_cast<size_t>(row) * f_.words + (col >> 6)] |= uint64_t{1} << (col & 63);
  }

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
