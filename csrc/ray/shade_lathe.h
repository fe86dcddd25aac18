// Fixed-function shading of the facets of round shapes, at the centres of pixels they may not cover.
#ifndef VLMRM_RAY_SHADE_LATHE_H_
#define VLMRM_RAY_SHADE_LATHE_H_

#include "ray/lathe.h"
#include "ray/shade_mesh.h"

namespace vlmrm {
namespace VLMRM_ISA {

// The corners of facets, in the geom's frame, with their normals in the camera's.
struct FacetCorners {
  v3 p[3], n[3];
};

VLMRM_INLINE FacetCorners facet_corners(const Scene& scene, const ViewGeom& g, vi name) {
  const Lathe& l = scene.lathe;
  const UnitScale scale = unit_scale(scene, g);
  const vi row = (name >> kRowShift) & splat(kRowMask), slice = (name >> kSliceShift) & splat(kSliceMask);
  const vm second = (name & splat(int32_t{1})) != vi{};
  const vm side = row == splat(l.side);
  const vf c0 = gather(l.cosine.data(), slice), s0 = gather(l.sine.data(), slice);
  const vf c1 = gather(l.cosine.data() + 1, slice), s1 = gather(l.sine.data() + 1, slice);
  const vf low = gather(l.low_cosine.data(), row), high = gather(l.high_cosine.data(), row);
  const vf low_z = gather(l.low_sine.data(), row), high_z = gather(l.high_sine.data(), row);
  // Of the ends of the diagonal, and of the third corner.
  v3 n[3] = {{c1 * low, s1 * low, low_z}, {c0 * high, s0 * high, high_z},
             select(second, v3{c1 * high, s1 * high, high_z}, v3{c0 * low, s0 * low, low_z})};
  v3 p[3] = {n[0], n[1], n[2]};
  if (g.type == kCapsule || g.type == kCylinder) {
    const vf stack = to_float((name >> kStackShift) & splat(kStackMask)) * splat(2.0f / l.stacks) - splat(1.0f);
    const vf half = splat(scale.half), bottom = stack * half;
    const vf top = fma(splat(2.0f / l.stacks), half, bottom);
    const vf shift = select(row > splat(l.side), half, -half);
    p[0].z = select(side, bottom, low_z + shift);
    p[1].z = select(side, top, high_z + shift);
    p[2].z = select(second, p[1].z, p[0].z);
  }
  FacetCorners c;
  for (int k = 0; k < 3; ++k) {
    c.p[k] = scale.from_unit(p[k]);
    if (g.type == kEllipsoid) {
      n[k] = normalize({n[k].x * splat(scale.x), n[k].y * splat(scale.y), n[k].z * splat(scale.z)});
    }
    c.n[k] = to_camera(g, n[k]);
  }
  return c;
}

VLMRM_INLINE v3 facet_texture(const Scene& scene, const Frame& f, const Geom& geom,
                              const ViewGeom& g, const Points& q, const Triangle& t, v3 local) {
  const v3 n = normalize(t.normal);
  const Steps step = flat_steps(f, g, q, n, dot(n, local - splat3(g.eye)));
  const Texture& tex = scene.textures[geom.texture];
  if (!tex.cube) {
    return sample(tex, surface_coordinates(geom, g, local, step.x, step.y, q.face), &g.level_guess);
  }
  return sample(tex, cube_coordinates(cube_vector(geom, g, local, false, local.z),
                                      cube_vector(geom, g, step.x, true, local.z),
                                      cube_vector(geom, g, step.y, true, local.z)), &g.level_guess);
}

// Camera-space corners, with what does not depend on the light.
struct LitCorners {
  v3 p[3], n[3], to_eye[3];
};

// Colours are limited at the corners, then interpolated.
VLMRM_INLINE v3 blend_corners(const Triangle& t, const v3* c) {
  return clamp01(c[0]) * t.w0 + clamp01(c[1]) * t.w1 + clamp01(c[2]) * t.w2;
}

// The same passes as `shade`, of points p with texture colours.
VLMRM_INLINE Color blend_passes(const Scene& scene, const Frame& f, int view, const Points& q,
                                const Triangle& t, const LitCorners& lit, v3 tex, v3 p) {
  const ViewGeom& g = f.view[view];
  const Geom& geom = scene.geoms[g.geom];
  const float dim = g.mirrored ? scene.geoms[f.reflective].reflectance : 1.0f;
  const float base = (geom.emission + scene.global_ambient) * dim;
  const v3 glow = {splat(base * geom.rgba[0]), splat(base * geom.rgba[1]), splat(base * geom.rgba[2])};
  v3 sum[3] = {glow, glow, glow};
  const ViewLight* lights = g.mirrored ? f.mirror_light.data() : f.light.data();
  const int num_lights = static_cast<int>(scene.lights.size());
  const bool one_pass = g.mirrored || g.transparent;
  auto share = [&](int i, int k) {
    return light_share(scene.lights[i], lights[i], geom, dim, lit.p[k], lit.n[k], lit.to_eye[k]);
  };
  for (int i = 0; i < num_lights; ++i) {
    if (scene.lights[i].shadow && !one_pass) continue;
    for (int k = 0; k < 3; ++k) sum[k] = sum[k] + share(i, k);
  }
  Color out = {vi{}, vi{}, vi{}};
  add_pass(scene, blend_corners(t, sum), tex, q.t, scene.fog_rgb, &out);
  if (one_pass) return out;
  const float black[3] = {0, 0, 0};  // the fog of further passes, so that it does not add up
  for (int i = 0; i < num_lights; ++i) {
    if (!scene.lights[i].shadow) continue;
    const v3 corners[3] = {share(i, 0), share(i, 1), share(i, 2)};
    const v3 c = blend_corners(t, corners);
    const vm todo = q.active & ((c.x > vf{}) | (c.y > vf{}) | (c.z > vf{}));
    if (!any(todo)) continue;
    const vm shadow = in_shadow(scene, f, i, view, p, v3{}, todo, ShadowOf::kFacet);
    add_pass(scene, select(shadow, v3{vf{}, vf{}, vf{}}, c), tex, q.t, black, &out);
  }
  return {limit_byte(out.r), limit_byte(out.g), limit_byte(out.b)};
}

// Where the eye ray meets the plane of a facet.
struct FacetPoint {
  FacetCorners corners;
  Triangle t;
  v3 local;
};

// Moves the points of a packet there.
__attribute__((noinline)) static FacetPoint place_facet(const Scene& scene, const Frame& f,
                                                        const ViewGeom& g, Points* q) {
  FacetPoint at;
  at.corners = facet_corners(scene, g, q->prim);
  const v3* p = at.corners.p;
  at.t.corner = p[0], at.t.e1 = p[1] - p[0], at.t.e2 = p[2] - p[0];
  Triangle& t = at.t;
  t.normal = cross(t.e1, t.e2);
  const vf area = splat(1.0f) / max(dot(t.normal, t.normal), splat(1e-38f));
  t.grad1 = cross(t.e2, t.normal) * area;
  t.grad2 = cross(t.normal, t.e1) * area;
  const v3 from = to_local(g, eye_point(f, q->x, q->y, vf{})) + splat3(g.eye);
  q->t = plane_depth(at.t, from, to_local(g, eye_direction(f, q->x, q->y)), q->t);
  at.local = to_local(g, eye_point(f, q->x, q->y, q->t)) + splat3(g.eye);
  set_weights(at.local, &at.t);
  return at;
}

// The same passes as `shade`.
__attribute__((noinline)) static Color shade_facets(const Scene& scene, const Frame& f, int view,
                                                    const Points& q, const FacetPoint& at) {
  const ViewGeom& g = f.view[view];
  const Geom& geom = scene.geoms[g.geom];
  LitCorners lit;
  for (int k = 0; k < 3; ++k) {
    lit.p[k] = to_camera(g, at.corners.p[k]) + splat3(g.center);
    lit.n[k] = at.corners.n[k];
    lit.to_eye[k] = normalize(lit.p[k] * splat(-1.0f));
  }
  v3 tex = {splat(1.0f), splat(1.0f), splat(1.0f)};
  if (geom.texture >= 0) tex = facet_texture(scene, f, geom, g, q, at.t, at.local);
  return blend_passes(scene, f, view, q, at.t, lit, tex, eye_point(f, q.x, q.y, q.t));
}

}  // namespace VLMRM_ISA
}  // namespace vlmrm

#endif  // VLMRM_RAY_SHADE_LATHE_H_
