// Light on the vertices of meshes, as OpenGL 1 computes it: once a vertex, if most are seen.
//
// A vertex has a colour for each pass of mjr_render: the lights without shadow, or all if there is
// one pass, and each light with a shadow. A vertex lit ahead has the bits of one lit where it is seen.
#ifndef VLMRM_RAY_LIGHT_MESH_H_
#define VLMRM_RAY_LIGHT_MESH_H_

#include "ray/shade.h"

namespace vlmrm {
namespace VLMRM_ISA {

constexpr size_t kUnlit = ~size_t{0};
constexpr int kWorthwhile = 4;  // vertices in a row are lit in the time of one corner, or less

// Three rows of the mesh's vertices.
VLMRM_INLINE v3 gather3(const float* rows, size_t pitch, vi index) {
  return {gather(rows, index), gather(rows + pitch, index), gather(rows + 2 * pitch, index)};
}

VLMRM_INLINE bool is_one_pass(const ViewGeom& g) { return g.mirrored || g.transparent; }

// Calls f(pass, colour in 0..1) for each pass; `place` and `normal` are local.
template <class F>
VLMRM_INLINE void light_vertices(const Scene& scene, const Frame& f, const ViewGeom& g, v3 place,
                                 v3 normal, F&& give) {
  const Geom& geom = scene.geoms[g.geom];
  const float dim = g.mirrored ? scene.geoms[f.reflective].reflectance : 1.0f;
  const float base = (geom.emission + scene.global_ambient) * dim;
  const v3 p = to_camera(g, place) + splat3(g.center), n = to_camera(g, normal);
  const v3 to_eye = normalize(p * splat(-1.0f));
  const ViewLight* lights = g.mirrored ? f.mirror_light.data() : f.light.data();
  const int num_lights = geom.unlit ? 0 : static_cast<int>(scene.lights.size());
  const bool one_pass = is_one_pass(g);
  v3 sum = {splat(base * geom.rgba[0]), splat(base * geom.rgba[1]), splat(base * geom.rgba[2])};
  int pass = 0;
  for (int i = 0; i < num_lights; ++i) {
    const v3 share = light_share(scene.lights[i], lights[i], geom, dim, p, n, to_eye);
    if (one_pass || !scene.lights[i].shadow) {
      sum = sum + share;
    } else {
      give(++pass, clamp01(share));
    }
  }
  give(0, clamp01(sum));
}

// Passes of a geom's vertices.
inline int count_passes(const Scene& scene, const ViewGeom& g) {
  int passes = 1;
  if (is_one_pass(g) || scene.geoms[g.geom].unlit) return passes;
  for (const Light& light : scene.lights) passes += light.shadow != 0;
  return passes;
}

// Lights all vertices of a view's mesh, once so many corners were seen that it pays.
inline void light_ahead(const Scene& scene, Frame* f, int view, int corners) {
  const ViewGeom& g = f->view[view];
  const Mesh& mesh = *g.mesh;
  if (f->lit_at[view] != kUnlit) return;
  f->corners_seen[view] += corners;
  if (f->corners_seen[view] < mesh.num_vertices / kWorthwhile) return;
  const size_t pitch = mesh.vertex_pitch, size = 3 * pitch * count_passes(scene, g);
  if (f->lit.size() < f->num_lit + size) f->lit.resize(2 * (f->num_lit + size));
  float* to = f->lit.data() + f->num_lit;
  f->lit_at[view] = f->num_lit;
  f->num_lit += size;
  const float* from = mesh.vertices.data();
  for (int v = 0; v < mesh.num_vertices; v += kLanes) {
    auto row = [&](int k) { return load(from + k * pitch + v); };
    light_vertices(scene, *f, g, {row(0), row(1), row(2)}, {row(3), row(4), row(5)},
                   [&](int pass, v3 c) __attribute__((always_inline)) {
                     float* rows = to + 3 * pitch * pass + v;
                     store(rows, c.x), store(rows + pitch, c.y), store(rows + 2 * pitch, c.z);
                   });
  }
}

// The colours of three vertices a lane, in each pass.
class CornerColors {
 public:
  CornerColors(const Scene& scene, const Frame& f, int view, const vi* vertex)
      : pitch_(f.view[view].mesh->vertex_pitch), vertex_(vertex) {
    if (f.lit_at[view] != kUnlit) {
      lit_ = f.lit.data() + f.lit_at[view];
    } else {
      light(scene, f, f.view[view]);
    }
  }

  VLMRM_INLINE v3 at(int pass, int corner) const {
    if (!lit_) return color_[pass][corner];
    return gather3(lit_ + 3 * pitch_ * pass, pitch_, vertex_[corner]);
  }

 private:
  __attribute__((noinline)) void light(const Scene& scene, const Frame& f, const ViewGeom& g) {
    const float* rows = g.mesh->vertices.data();
    for (int k = 0; k < 3; ++k) {
      light_vertices(scene, f, g, gather3(rows, pitch_, vertex_[k]),
                     gather3(rows + 3 * pitch_, pitch_, vertex_[k]),
                     [&](int pass, v3 c) __attribute__((always_inline)) { color_[pass][k] = c; });
    }
  }

  const size_t pitch_;
  const vi* vertex_;
  const float* lit_ = nullptr;
  v3 color_[kMaxLights + 1][3];
};

}  // namespace VLMRM_ISA
}  // namespace vlmrm

#endif  // VLMRM_RAY_LIGHT_MESH_H_
