// Fixed-function shading of points on the triangles of one mesh.
//
// OpenGL 1 lights the corners of a triangle and interpolates their colours. Triangles may be large,
// so that is done here too, where primitives are lit at each pixel.
#ifndef VLMRM_RAY_SHADE_MESH_H_
#define VLMRM_RAY_SHADE_MESH_H_

#include "ray/light_mesh.h"
#include "ray/shade.h"

namespace vlmrm {
namespace VLMRM_ISA {

// The triangle under each lane, in the mesh's frame, and the lane's place in it.
struct Triangle {
  vi vertex[3];
  v3 corner, e1, e2, normal;
  v3 grad1, grad2;   // of the weights of corners 1 and 2
  vf w0, w1, w2;     // of the corners
};

VLMRM_INLINE Triangle triangle_at(const Mesh& mesh, vi prim) {
  Triangle t;
  for (int k = 0; k < 3; ++k) {
    t.vertex[k] = gather(mesh.corners.data() + static_cast<size_t>(k) * mesh.corner_pitch, prim);
  }
  const float* rows = mesh.vertices.data();
  t.corner = gather3(rows, mesh.vertex_pitch, t.vertex[0]);
  t.e1 = gather3(rows, mesh.vertex_pitch, t.vertex[1]) - t.corner;
  t.e2 = gather3(rows, mesh.vertex_pitch, t.vertex[2]) - t.corner;
  t.normal = cross(t.e1, t.e2);
  const vf area = splat(1.0f) / max(dot(t.normal, t.normal), splat(1e-38f));
  t.grad1 = cross(t.e2, t.normal) * area;
  t.grad2 = cross(t.normal, t.e1) * area;
  return t;
}

// Where the eye ray meets the triangle's plane: OpenGL shades a pixel at its centre even where the
// triangle only covers samples beside it. `near` is the depth of such a sample.
VLMRM_INLINE vf plane_depth(const Triangle& t, v3 o, v3 d, vf near) {
  const vf depth = -dot(o - t.corner, t.normal) / dot(d, t.normal);
  const vm usable = (depth > near * splat(0.01f)) & (depth < near * splat(100.0f));
  return select(usable, depth, near);
}

// The same for points on a mesh.
VLMRM_INLINE vf shaded_depth(const Frame& f, const ViewGeom& g, const Triangle& t, const Points& q) {
  const v3 from = to_local(g, eye_point(f, q.x, q.y, vf{})) + splat3(g.eye);
  return plane_depth(t, from, to_local(g, eye_direction(f, q.x, q.y)), q.t);
}

VLMRM_INLINE vf weight(vf w) { return min(max(w, splat(-100.0f)), splat(100.0f)); }

VLMRM_INLINE void set_weights(v3 local, Triangle* t) {
  const v3 from = local - t->corner;
  t->w1 = weight(dot(t->grad1, from));
  t->w2 = weight(dot(t->grad2, from));
  t->w0 = splat(1.0f) - t->w1 - t->w2;
}

// The mesh's own texture coordinates.
VLMRM_INLINE Coordinates explicit_coordinates(const Geom& geom, const Mesh& mesh, vi prim,
                                              const Triangle& t, v3 px, v3 py) {
  const vi at = prim * splat(int32_t{6});
  const float* uv = mesh.texcoords.data();
  const vf u0 = gather(uv, at), v0 = gather(uv + 1, at);
  const vf u1 = gather(uv + 2, at) - u0, v1 = gather(uv + 3, at) - v0;
  const vf u2 = gather(uv + 4, at) - u0, v2 = gather(uv + 5, at) - v0;
  const vf x1 = dot(t.grad1, px), x2 = dot(t.grad2, px);
  const vf y1 = dot(t.grad1, py), y2 = dot(t.grad2, py);
  Coordinates c;
  c.face = vi{};
  c.u = u0 + t.w1 * u1 + t.w2 * u2;
  c.v = v0 + t.w1 * v1 + t.w2 * v2;
  c.du_dx = x1 * u1 + x2 * u2, c.dv_dx = x1 * v1 + x2 * v2;
  c.du_dy = y1 * u1 + y2 * u2, c.dv_dy = y1 * v1 + y2 * v2;
  return repeat(geom, geom.size, c);
}

// Without texture coordinates OpenGL makes them from the position in the geom's frame.
VLMRM_INLINE Coordinates linear_coordinates(const Geom& geom, v3 p, v3 px, v3 py) {
  float scale[2];
  for (int k = 0; k < 2; ++k) {
    const bool metric = geom.uniform || !(geom.size[k] > 0);
    scale[k] = 0.5f * geom.repeat[k] / (metric ? 1.0f : geom.size[k]);
  }
  const vf su = splat(scale[0]), sv = splat(-scale[1]), half = splat(0.5f);
  Coordinates c;
  c.face = vi{};
  c.u = su * p.x - half, c.du_dx = su * px.x, c.du_dy = su * py.x;
  c.v = sv * p.y - half, c.dv_dx = sv * px.y, c.dv_dy = sv * py.y;
  wrap(&c);
  return c;
}

VLMRM_INLINE v3 mesh_texture(const Scene& scene, const Frame& f, const Geom& geom,
                             const ViewGeom& g, const Points& q, const Triangle& t, v3 local) {
  const v3 n = normalize(t.normal);
  const Steps step = flat_steps(f, g, q, n, dot(n, local - splat3(g.eye)));
  const v3 px = step.x, py = step.y;
  const Texture& tex = scene.textures[geom.texture];
  const Mesh& mesh = *g.mesh;
  if (!tex.cube && !mesh.texcoords.empty()) {
    return sample(tex, explicit_coordinates(geom, mesh, q.prim, t, px, py), &g.level_guess);
  }
  const v3 p = local + splat3(mesh.center);
  if (!tex.cube) return sample(tex, linear_coordinates(geom, p, px, py), &g.level_guess);
  auto scaled = [&geom](v3 a) {
    if (!geom.uniform) return a;
    return v3{a.x * splat(geom.size[0]), a.y * splat(geom.size[1]), a.z * splat(geom.size[2])};
  };
  return sample(tex, cube_coordinates(scaled(p), scaled(px), scaled(py)), &g.level_guess);
}

// Colours are limited at the corners, then interpolated.
VLMRM_INLINE v3 blend_corners(const Triangle& t, const CornerColors& c, int pass) {
  return c.at(pass, 0) * t.w0 + c.at(pass, 1) * t.w1 + c.at(pass, 2) * t.w2;
}

// The same passes as `shade`.
VLMRM_INLINE Color shade_mesh(const Scene& scene, const Frame& f, int view, Points q) {
  const ViewGeom& g = f.view[view];
  const Geom& geom = scene.geoms[g.geom];
  Triangle t = triangle_at(*g.mesh, q.prim);
  q.t = shaded_depth(f, g, t, q);
  const v3 p = eye_point(f, q.x, q.y, q.t);
  const v3 local = to_local(g, p) + splat3(g.eye);
  set_weights(local, &t);
  const CornerColors colors(scene, f, view, t.vertex);
  v3 tex = {splat(1.0f), splat(1.0f), splat(1.0f)};
  if (geom.texture >= 0) tex = mesh_texture(scene, f, geom, g, q, t, local);

  Color out = {vi{}, vi{}, vi{}};
  add_pass(scene, blend_corners(t, colors, 0), tex, q.t, scene.fog_rgb, &out);
  if (is_one_pass(g)) return out;
  const float black[3] = {0, 0, 0};  // the fog of further passes, so that it does not add up
  const int num_lights = geom.unlit ? 0 : static_cast<int>(scene.lights.size());
  int pass = 0;
  for (int i = 0; i < num_lights; ++i) {
    if (!scene.lights[i].shadow) continue;
    const v3 c = blend_corners(t, colors, ++pass);
    const vm todo = q.active & ((c.x > vf{}) | (c.y > vf{}) | (c.z > vf{}));
    if (!any(todo)) continue;
    if (!q.queue) {
      const vm shadow = in_shadow(scene, f, i, view, p, v3{}, todo);
      add_pass(scene, select(shadow, v3{vf{}, vf{}, vf{}}, c), tex, q.t, black, &out);
      continue;
    }
    add_queued(scene, f, i, view, p, v3{}, todo, c, tex, q, &out);
  }
  return {limit_byte(out.r), limit_byte(out.g), limit_byte(out.b)};
}

// One copy of the general case, for callers that are not the innermost loop.
__attribute__((noinline)) static Color shade_any(const Scene& scene, const Frame& f, int view,
                                                 const Points& q) {
  if (f.view[view].type == kMesh) return shade_mesh(scene, f, view, q);
  return shade<false>(scene, f, view, q);
}

}  // namespace VLMRM_ISA
}  // namespace vlmrm

#endif  // VLMRM_RAY_SHADE_MESH_H_
