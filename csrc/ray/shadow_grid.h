// Which queued points of a picture lie in the shadow of meshes.
//
// The points are sorted into the cells of a grid over the shadow map. Each triangle is then held
// against the points in the cells that it reaches, as if it were drawn into the map: a point is dark
// if the triangle, moved away from the light by its slope, is nearer to the light at the middle of the
// point's texel. The map itself, of 16 million texels, is never drawn.
#ifndef VLMRM_RAY_SHADOW_GRID_H_
#define VLMRM_RAY_SHADOW_GRID_H_

#include <algorithm>

#include "ray/frame.h"
#include "ray/outline.h"
#include "ray/shadow_queue.h"
#include "ray/simd.h"

namespace vlmrm {
namespace VLMRM_ISA {

// Along each axis of the grid; its table of starts, 256 kB, still fits the second-level cache.
constexpr int kMostCells = 256;
// Relative, of a depth: a few last bits of a float, as the 24 bits of a map would round them.
constexpr float kRounding = 4e-6f;

class ShadowGrid {
 public:
  ShadowGrid(const Scene& scene, Frame* frame, int light)
      : scene_(scene), f_(*frame), light_(light), l_(f_.light[light]), points_(f_.queue.light[light]),
        parallel_(scene.lights[light].type == kDirectional) {}

  void find_dark() {
    if (points_.count == 0) return;
    sort_points();
    for (int i = 0; i < f_.num_casters[light_]; ++i) {
      const Caster& c = f_.casters[light_][i];
      if (!c.queued) continue;
      // What a closed surface hides from the light lies behind the side that it turns to it.
      facing_ = f_.view[c.view].mesh->closed && !c.inside_near ? 1 : 0;
      cast(f_.view[c.view]);
    }
    for (size_t k = 0; k < points_.count; ++k) points_.dark[grid().index[k]] = grid().dark[k] != 0;
  }

 private:
  PointGrid& grid() const { return f_.queue.grid; }

  int cell_x(float x) const { return std::min(std::max(static_cast<int>((x - x0_) * scale_), 0), columns_ - 1); }
  int cell_y(float y) const { return std::min(std::max(static_cast<int>((y - y0_) * scale_), 0), rows_ - 1); }

  static void bound_by(const float* a, size_t n, float* low, float* high) {
    vf least = splat(a[0]), most = least;
    for (size_t k = 0; k < n; k += kLanes) {
      const vf v = select(first_lanes(static_cast<int>(std::min<size_t>(n - k, kLanes))), load(a + k),
                          splat(a[0]));
      least = min(least, v), most = max(most, v);
    }
    *low = smallest(least), *high = largest(most);
  }

  // Counting sort by cell.
  void sort_points() {
    const size_t n = points_.count;
    bound_by(points_.x.data(), n, &x0_, &x1_);
    bound_by(points_.y.data(), n, &y0_, &y1_);
    const float extent = std::max(x1_ - x0_, y1_ - y0_) + 1;
    float size = 1;  // of a cell, in texels
    while (size * kMostCells < extent) size *= 2;
    scale_ = 1 / size;
    columns_ = static_cast<int>((x1_ - x0_) * scale_) + 1;
    rows_ = static_cast<int>((y1_ - y0_) * scale_) + 1;
    PointGrid& g = grid();
    g.start.assign(static_cast<size_t>(columns_) * rows_ + 2, 0);
    const size_t padded = n + kLanes;
    if (g.x.size() < padded) {
      for (auto* list : {&g.x, &g.y, &g.near}) list->resize(2 * padded);
      for (auto* list : {&g.dark, &g.index, &g.cell}) list->resize(2 * padded);
    }
    if (points_.dark.size() < n) points_.dark.resize(2 * n);
    for (size_t i = 0; i < n; ++i) {
      g.cell[i] = cell_y(points_.y[i]) * columns_ + cell_x(points_.x[i]);
      ++g.start[g.cell[i] + 2];
    }
    for (size_t c = 2; c < g.start.size(); ++c) g.start[c] += g.start[c - 1];
    // start[c + 1] is where cell c is filled next, and so, in the end, where it ends.
    for (size_t i = 0; i < n; ++i) {
      const int32_t k = g.start[g.cell[i] + 1]++;
      g.x[k] = points_.x[i], g.y[k] = points_.y[i], g.near[k] = points_.near[i];
      g.dark[k] = 0, g.index[k] = static_cast<int32_t>(i);
    }
  }

  // Of a camera-space point: texels, whose middles are whole numbers, and nearness to the light.
  VLMRM_INLINE v3 to_map(v3 p) const {
    const v3 from = p - splat3(l_.pos);
    const vf depth = dot(from, l_.dir), half = splat(0.5f * (scene_.shadow_size - 2)), one = splat(1.0f);
    const vf inverse = one / (parallel_ ? splat(scene_.shadow_clip)
                                        : depth * splat(scene_.lights[light_].tan_shadow));
    return {fma(fma(dot(from, l_.side), inverse, one), half, splat(0.5f)),
            fma(fma(dot(from, l_.up), inverse, one), half, splat(0.5f)),
            parallel_ ? -depth : one / depth};
  }

  void cast(const ViewGeom& g) {
    const Mesh& mesh = *g.mesh;
    const size_t pitch = mesh.vertex_pitch;
    if (f_.screen.size() < 3 * pitch) f_.screen.resize(3 * pitch);
    float *x = f_.screen.data(), *y = x + pitch, *near = y + pitch;
    const float* at = mesh.vertices.data();
    for (int v = 0; v < mesh.num_vertices; v += kLanes) {
      const v3 p = {load(at + v), load(at + pitch + v), load(at + 2 * pitch + v)};
      const v3 m = to_map(to_camera(g, p) + splat3(g.center));
      store(x + v, m.x), store(y + v, m.y), store(near + v, m.z);
    }
    auto vertex = [&](vi i) { return v3{gather(x, i), gather(y, i), gather(near, i)}; };
    const int count = mesh.num_triangles();
    for (int t = 0; t < count; t += kLanes) {
      const int32_t* corner = mesh.corners.data() + t;
      const int lanes = static_cast<int>((int64_t{1} << std::min(kLanes, count - t)) - 1);
      cast_some({{vertex(load(corner)), vertex(load(corner + mesh.corner_pitch)),
                  vertex(load(corner + 2 * mesh.corner_pitch))}}, lanes);
    }
  }

  // A packet of triangles.
  void cast_some(const Corners& c, int lanes) {
    Outlines o;
    lanes &= bound(c, facing_, &o) & o.has_center;
    lanes &= bits((load(o.left) <= splat(x1_)) & (load(o.right) >= splat(x0_)) &
                  (load(o.top) <= splat(y1_)) & (load(o.bottom) >= splat(y0_)));
    if (!lanes) return;
    outline(c, &o);
    for (; lanes; lanes &= lanes - 1) cast_one(o, __builtin_ctz(lanes));
  }

  void cast_one(const Outlines& o, int i) {
    const int first = cell_x(o.left[i]), last = cell_x(o.right[i]), end = cell_y(o.bottom[i]);
    for (int row = cell_y(o.top[i]); row <= end; ++row) {
      const int32_t* start = &grid().start[static_cast<size_t>(row) * columns_];
      const int32_t from = start[first], to = start[last + 1];
      if (from < to) darken(o, i, from, to);
    }
  }

  // Holds a triangle against sorted points [from, to).
  VLMRM_INLINE void darken(const Outlines& o, int i, int32_t from, int32_t to) {
    PointGrid& g = grid();
    // As glPolygonOffset(1.5, 0), in texels of a map without its border.
    const float offset = 1.5f * (1 - 2 / scene_.shadow_size) *
                         std::max(std::abs(o.near_x[i]), std::abs(o.near_y[i]));
    for (int32_t k = from; k < to; k += kLanes) {
      const vf x = load(&g.x[k]), y = load(&g.y[k]);
      vm in = lane_index() < splat(static_cast<float>(to - k));
      for (int e = 0; e < 3; ++e) {
        const vf base = splat(o.dx[e][i]) * (y - splat(o.y[e][i]));
        in &= fma(splat(-o.dy[e][i]), x - splat(o.x[e][i]), base) > splat(o.bias[e][i]);
      }
      if (!any(in)) continue;
      vf near = fma(x - splat(o.x0[i]), splat(o.near_x[i]),
                    fma(y - splat(o.y0[i]), splat(o.near_y[i]), splat(o.near0[i])));
      near = min(max(near, splat(o.farthest[i])), splat(o.nearest[i]));
      const vf limit = splat(parallel_ ? -scene_.znear : 1 / scene_.znear);
      // A face turned to the light has no slope: rounding must not let it shade itself.
      const vf slack = splat(offset) + abs(near) * splat(kRounding);
      in &= (near - slack > load(&g.near[k])) & (near < limit);
      if (any(in)) store(&g.dark[k], select(in, splat(int32_t{1}), load(&g.dark[k])));
    }
  }

  const Scene& scene_;
  Frame& f_;
  const int light_;
  const ViewLight& l_;
  QueuedPoints& points_;
  const bool parallel_;
  float x0_ = 0, x1_ = 0, y0_ = 0, y1_ = 0, scale_ = 1;  // of the grid, in texels
  int columns_ = 1, rows_ = 1;
  int facing_ = 0;  // as `bound` takes it
};

}  // namespace VLMRM_ISA
}  // namespace vlmrm

#endif  // VLMRM_RAY_SHADOW_GRID_H_
