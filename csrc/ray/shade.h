// Fixed-function shading of a packet of surface points of one geom.
#ifndef VLMRM_RAY_SHADE_H_
#define VLMRM_RAY_SHADE_H_

#include <algorithm>

#include "ray/frame.h"
#include "ray/intersect.h"
#include "ray/shadow.h"
#include "ray/shadow_queue.h"
#include "ray/simd.h"
#include "ray/sky.h"
#include "ray/texture.h"

namespace vlmrm {
namespace VLMRM_ISA {

constexpr float kTurn = 6.28318530717959f;

VLMRM_INLINE v3 clamp01(v3 c) { return {clamp01(c.x), clamp01(c.y), clamp01(c.z)}; }

// The points to shade: eye rays (x, y, -1), the depth along them, the face that was hit.
struct Points {
  vf x, y, t;
  vi face;
  vi prim;  // triangle, if the geom is a mesh
  vm active;
  ShadowQueue* queue = nullptr;  // takes points that meshes may darken
};

VLMRM_INLINE vf atan2(vf y, vf x) {
  vf ax = abs(x), ay = abs(y);
  vf a = min(ax, ay) / max(max(ax, ay), splat(1e-20f));
  vf s = a * a;
  vf r = a * (splat(0.99997726f) +
              s * (splat(-0.33262347f) +
                   s * (splat(0.19354346f) +
                        s * (splat(-0.11643287f) + s * (splat(0.05265332f) + s * splat(-0.01172120f))))));
  r = select(ay > ax, splat(kTurn / 4) - r, r);
  r = select(x < vf{}, splat(kTurn / 2) - r, r);
  return select(y < vf{}, -r, r);
}

VLMRM_INLINE v3 to_camera(const ViewGeom& g, v3 l) {
  return splat3(g.axis[0]) * l.x + splat3(g.axis[1]) * l.y + splat3(g.axis[2]) * l.z;
}

// Outward unit normal in local coordinates at local point p.
VLMRM_INLINE v3 local_normal(const ViewGeom& g, v3 p, vi face) {
  const vf zero = vf{}, one = splat(1.0f);
  switch (g.type) {
    case kPlane:
      return {zero, zero, one};
    case kCapsule: {
      vf h = splat(g.size[2]);
      return normalize({p.x, p.y, p.z - min(max(p.z, -h), h)});
    }
    case kCylinder: {
      vm side = face == splat(int32_t{0});
      vf cap = select(face == splat(int32_t{1}), one, -one);
      v3 n = normalize({p.x, p.y, zero});
      return select(side, n, v3{zero, zero, cap});
    }
    case kBox: {
      vf sign = select((face & splat(int32_t{1})) != splat(int32_t{0}), one, -one);
      vi axis = face >> 1;
      return {select(axis == splat(int32_t{0}), sign, zero),
              select(axis == splat(int32_t{1}), sign, zero),
              select(axis == splat(int32_t{2}), sign, zero)};
    }
    default: {
      const float* s = g.size;
      return normalize({p.x * splat(1 / (s[0] * s[0])), p.y * splat(1 / (s[1] * s[1])),
                        p.z * splat(1 / (s[2] * s[2]))});
    }
  }
}

// How often the texture repeats along axis k. A uniform one repeats per metre instead of per shape.
VLMRM_INLINE float repeats(const Geom& geom, const float* s, int k) {
  return geom.repeat[k] * (geom.uniform != 0 && s[k] > 0 ? s[k] : 1.0f);
}

// Applies texrepeat and wraps.
VLMRM_INLINE Coordinates repeat(const Geom& geom, const float* s, Coordinates c) {
  vf ru = splat(repeats(geom, s, 0)), rv = splat(repeats(geom, s, 1));
  c.u *= ru, c.du_dx *= ru, c.du_dy *= ru;
  c.v *= rv, c.dv_dx *= rv, c.dv_dy *= rv;
  wrap(&c);
  return c;
}

// The texture's coordinate at the middle, in repetitions. It starts at the edge of a plane; an
// endless one has no edge in some direction and is moved by half a texture.
VLMRM_INLINE float first_texel(const Geom& geom, const ViewGeom& g, int k) {
  const float moved = g.endless ? 0.5f / std::max(repeats(geom, g.size, k), 1e-6f) : 0.0f;
  return moved + (g.type == kPlane && g.size[k] <= 0 ? 0.0f : 0.5f);
}

// Faces of a box, for 2d textures.
VLMRM_INLINE Coordinates box_coordinates(const Geom& geom, const ViewGeom& g, v3 p, v3 px, v3 py,
                                         vi face) {
  Coordinates c;
  c.face = vi{};
  const float* s = g.size;
  vi axis = face >> 1;
  vm on_x = axis == splat(int32_t{0}), on_z = axis == splat(int32_t{2});
  vf sa = select(on_x, splat(0.5f / s[1]), splat(0.5f / s[0]));
  vf sb = select(on_z, splat(0.5f / s[1]), splat(0.5f / s[2]));
  c.u = select(on_x, p.y, p.x) * sa + splat(0.5f);
  c.v = splat(0.5f) - select(on_z, p.y, p.z) * sb;
  c.du_dx = select(on_x, px.y, px.x) * sa, c.du_dy = select(on_x, py.y, py.x) * sa;
  c.dv_dx = -select(on_z, px.y, px.z) * sb, c.dv_dy = -select(on_z, py.y, py.z) * sb;
  return repeat(geom, s, c);
}

// Of one axis of a plane, coordinate = middle + scale * metres.
struct PlaneAxis {
  float middle, scale;
};
VLMRM_INLINE PlaneAxis plane_axis(const Geom& geom, const ViewGeom& g, int k) {
  const float each = repeats(geom, g.size, k);
  return {first_texel(geom, g, k) * each, (g.size[k] > 0 ? 0.5f / g.size[k] : 0.5f) * each};
}

VLMRM_INLINE Coordinates plane_coordinates(const Geom& geom, const ViewGeom& g, v3 p, v3 px,
                                           v3 py) {
  const PlaneAxis x = plane_axis(geom, g, 0), y = plane_axis(geom, g, 1);
  const vf along = splat(x.scale), down = splat(-y.scale);
  Coordinates c = {splat(x.middle) + p.x * along, splat(y.middle) + p.y * down,
                   px.x * along, px.y * down, py.x * along, py.y * down, vi{}};
  wrap(&c);
  return c;
}

// Explicit coordinates of MuJoCo's built-in shapes, for 2d textures.
VLMRM_INLINE Coordinates surface_coordinates(const Geom& geom, const ViewGeom& g, v3 p, v3 px,
                                             v3 py, vi face) {
  if (g.type == kPlane) return plane_coordinates(geom, g, p, px, py);
  if (g.type == kBox) return box_coordinates(geom, g, p, px, py, face);
  Coordinates c;
  c.face = vi{};
  const vf half = splat(0.5f);
  const float* s = g.size;
  {
    // Angle around the local z axis, and height or latitude along it.
    vf ix = splat(1 / s[0]), iy = splat(1 / s[1]);
    vf x = p.x * ix, y = p.y * iy;
    vf rr = max(x * x + y * y, splat(1e-12f));
    vf k = splat(1 / kTurn) / rr;
    vf turn = atan2(y, x) * splat(1 / kTurn);
    c.u = select(turn < vf{}, turn + splat(1.0f), turn);
    c.du_dx = (x * px.y * iy - y * px.x * ix) * k;
    c.du_dy = (x * py.y * iy - y * py.x * ix) * k;
    vf iz = splat(1 / s[2]), z = p.z * iz;
    c.v = half - half * z;
    c.dv_dx = -half * iz * px.z;
    c.dv_dy = -half * iz * py.z;
    if (g.type == kCylinder) {
      vm cap = face != splat(int32_t{0});
      c.u = select(cap, half + half * x, c.u);
      c.v = select(cap, half + half * y, c.v);
      c.du_dx = select(cap, half * ix * px.x, c.du_dx);
      c.du_dy = select(cap, half * ix * py.x, c.du_dy);
      c.dv_dx = select(cap, half * iy * px.y, c.dv_dx);
      c.dv_dy = select(cap, half * iy * py.y, c.dv_dy);
    } else {
      const bool capsule = g.type == kCapsule;
      // Latitude of the sphere, or of the caps: v = 1/2 - el/pi, or 1 - |el| 2/pi above.
      vf h = splat(capsule ? s[2] : 0.0f), iw = splat(capsule ? 1 / s[0] : 1 / s[2]);
      vf w = (p.z - min(max(p.z, -h), h)) * iw;
      vf radial = sqrt(rr);
      vf el = atan2(w, radial) * splat(2 / kTurn);
      vf rate = splat(2 / kTurn) * iw / max(radial, splat(1e-3f));
      vf lat_v = capsule ? select(w > vf{}, splat(1.0f) - splat(2.0f) * el, splat(-2.0f) * el)
                         : half - el;
      vm on_cap = capsule ? abs(p.z) > h : (rr > splat(-1.0f));
      vf scale = splat(capsule ? -2.0f : -1.0f) * rate;
      c.v = select(on_cap, lat_v, c.v);
      c.dv_dx = select(on_cap, scale * px.z, c.dv_dx);
      c.dv_dy = select(on_cap, scale * py.z, c.dv_dy);
    }
  }
  return repeat(geom, s, c);
}

// Object-linear coordinates for cube textures: unit shape, or metres if texuniform.
VLMRM_INLINE v3 cube_vector(const Geom& geom, const ViewGeom& g, v3 p, bool derivative, vf z) {
  const float* s = g.size;
  if (g.type == kPlane) return geom.uniform ? v3{p.x * splat(s[0]), p.y * splat(s[1]), p.z} : p;
  v3 unit = {p.x * splat(1 / s[0]), p.y * splat(1 / s[1]), p.z * splat(1 / s[2])};
  if (g.type == kCapsule) {
    // The caps are scaled by the radius, so their z is not metric.
    vf h = splat(s[2]), ir = splat(1 / s[0]);
    vf beyond = derivative ? p.z * ir
                           : select(p.z > vf{}, splat(1.0f) + (p.z - h) * ir,
                                    splat(-1.0f) + (p.z + h) * ir);
    unit.z = select(abs(z) > h, beyond, unit.z);
  }
  if (!geom.uniform) return unit;
  return {unit.x * splat(s[0]), unit.y * splat(s[1]), unit.z * splat(s[2])};
}

// How a point of a surface moves, in the geom's frame, when the pixel moves by one.
struct Steps {
  v3 x, y;
};

// OpenGL takes differences inside blocks of 2 x 2 pixels, counted from the lower left corner of the
// picture; all four use those of the lower left one, whose ray this is.
struct BlockRay {
  vf x, y;
};
VLMRM_INLINE BlockRay block_ray(const Frame& f, vf x, vf y) {
  const float bottom = f.top - (f.height - 1) * f.step_y;
  auto snap = [](vf a, float first, float step) {
    // A fifth of a block: past what rounding may take from a pixel's centre.
    return splat(first) +
           floor((a - splat(first)) * splat(0.5f / step) + splat(0.2f)) * splat(2 * step);
  };
  return {snap(x, f.left, f.step_x), snap(y, bottom, f.step_y)};
}

VLMRM_INLINE vf not_tiny(vf a) { return select(abs(a) > splat(1e-6f), a, splat(1e-6f)); }

// The exact differences on a flat surface with a local normal and the eye at -height over it.
VLMRM_INLINE Steps flat_steps(const Frame& f, const ViewGeom& g, const Points& q, v3 normal,
                              vf height) {
  const v3 right = {splat(g.axis[0][0]), splat(g.axis[1][0]), splat(g.axis[2][0])};
  const v3 up = {splat(g.axis[0][1]), splat(g.axis[1][1]), splat(g.axis[2][1])};
  const vf rise_x = dot(normal, right), rise_y = dot(normal, up);
  const BlockRay ray = block_ray(f, q.x, q.y);
  const v3 d = f.orthographic ? to_local(g, {vf{}, vf{}, splat(-1.0f)})
                              : to_local(g, {ray.x, ray.y, splat(-1.0f)});
  const vf slope = not_tiny(dot(normal, d));
  vf kx, ky;
  if (f.orthographic) {
    kx = splat(f.step_x) * rcp(slope), ky = splat(f.step_y) * rcp(slope);
  } else {
    const vf t = height * rcp(slope);
    kx = t * splat(f.step_x) * rcp(not_tiny(fma(rise_x, splat(f.step_x), slope)));
    ky = t * splat(f.step_y) * rcp(not_tiny(fma(rise_y, splat(f.step_y), slope)));
  }
  return {(right * slope - d * rise_x) * kx, (up * slope - d * rise_y) * ky};
}

// The same for a plane, where most terms are the same for all lanes.
VLMRM_INLINE Steps plane_steps(const Frame& f, const ViewGeom& g, const Points& q) {
  const float *a = g.axis[0], *b = g.axis[1], *n = g.axis[2];
  vf x = q.x, y = q.y, kx, ky;
  if (f.orthographic) {
    kx = splat(-f.step_x / n[2]), ky = splat(-f.step_y / n[2]);
    return {{splat(b[1]) * -kx, splat(a[1]) * kx, vf{}}, {splat(b[0]) * ky, splat(a[0]) * -ky, vf{}}};
  }
  const BlockRay ray = block_ray(f, q.x, q.y);
  x = ray.x, y = ray.y;
  const vf slope = not_tiny(fma(x, splat(n[0]), fma(y, splat(n[1]), splat(-n[2]))));
  const vf t = splat(-g.eye[2]) * rcp(slope);
  kx = t * splat(f.step_x) * rcp(not_tiny(slope + splat(n[0] * f.step_x)));
  ky = t * splat(f.step_y) * rcp(not_tiny(slope + splat(n[1] * f.step_y)));
  // The axes are perpendicular: products of two of them are the third.
  return {{fma(y, splat(b[2]), splat(b[1])) * -kx, fma(y, splat(a[2]), splat(a[1])) * kx, vf{}},
          {fma(x, splat(b[2]), splat(b[0])) * ky, fma(x, splat(a[2]), splat(a[0])) * -ky, vf{}}};
}

// The same along the tangent plane of what is curved.
VLMRM_INLINE Steps curved_steps(const Frame& f, const ViewGeom& g, const Points& q, v3 n, v3 d,
                                v3 local_d) {
  vf nd = dot(n, d);
  nd = rcp(select(abs(nd) > splat(1e-4f), nd, splat(-1e-4f)));
  const vf scale = f.orthographic ? splat(1.0f) : q.t;
  const vf kx = scale * splat(f.step_x), ky = scale * splat(-f.step_y);
  const vf jx = -kx * n.x * nd, jy = -ky * n.y * nd;
  auto column = [&g](int k) {
    return v3{splat(g.axis[0][k]), splat(g.axis[1][k]), splat(g.axis[2][k])};
  };
  return {fma(local_d, jx, column(0) * kx), fma(local_d, jy, column(1) * ky)};
}

// `local_n` only counts on boxes.
template <bool kOnPlane>
VLMRM_INLINE v3 surface_texture(const Scene& scene, const Frame& f, const Geom& geom,
                                const ViewGeom& g, const Points& q, v3 n, v3 d, v3 local,
                                v3 local_d, v3 local_n) {
  const Texture& tex = scene.textures[geom.texture];
  int32_t* guess = &g.level_guess;
  const Steps step =
      kOnPlane || g.type == kPlane ? plane_steps(f, g, q)
      : g.type == kBox ? flat_steps(f, g, q, local_n, dot(local_n, local - splat3(g.eye)))
                       : curved_steps(f, g, q, n, d, local_d);
  if (!tex.cube && kOnPlane) {
    return sample(tex, plane_coordinates(geom, g, local, step.x, step.y), guess);
  }
  if (!tex.cube) {
    return sample(tex, surface_coordinates(geom, g, local, step.x, step.y, q.face), guess);
  }
  v3 c = cube_vector(geom, g, local, false, local.z);
  return sample(tex, cube_coordinates(c, cube_vector(geom, g, step.x, true, local.z),
                                      cube_vector(geom, g, step.y, true, local.z)), guess);
}

// The strength of a highlight: cosines of the normal against the light and the eye, and of these two.
// Returns whether any lane has one.
VLMRM_INLINE bool highlight(const Geom& geom, vf cosine, vf eye_cosine, vf between, vf* shine) {
  // Against the vector halfway between two unit vectors.
  vf squared = max(splat(2.0f) + splat(2.0f) * between, splat(1e-12f));
  vf nh = (cosine + eye_cosine) * rsqrt(squared);
  // Below this a highlight is less than a quarter of a grey level: most points stop here.
  vm shows = (nh > splat(geom.dim_below)) & (cosine > vf{});
  if (!any(shows)) return false;
  nh = min(max(nh, vf{}), splat(1.0f));
  vf peak = geom.shininess > 0 ? power(nh, 128 * geom.shininess) : splat(1.0f);
  *shine = select(shows, peak * splat(geom.specular), vf{});
  return true;
}

// One light's ambient, diffuse and specular share, as OpenGL 1 adds them per vertex.
VLMRM_INLINE v3 light_share(const Light& light, const ViewLight& l, const Geom& geom,
                            float reflectance, v3 p, v3 n, v3 to_eye) {
  v3 to_light;
  vf strength = splat(1.0f);
  if (light.type == kDirectional) {
    to_light = {splat(-l.dir[0]), splat(-l.dir[1]), splat(-l.dir[2])};
  } else {
    v3 away = splat3(l.pos) - p;
    vf squared = max(dot(away, away), splat(1e-20f)), inverse = rsqrt(squared);
    vf distance = squared * inverse;
    to_light = away * inverse;
    strength /= splat(light.attenuation[0]) + distance * splat(light.attenuation[1]) +
                distance * distance * splat(light.attenuation[2]);
    vf c = -dot(to_light, l.dir);
    vm lit = c >= splat(light.cos_cutoff);
    vf cone = light.exponent > 0 ? power(clamp01(c), light.exponent) : splat(1.0f);
    strength = select(lit, light.cos_cutoff > -1.0f ? strength * cone : strength, vf{});
  }
  const vf cosine = dot(n, to_light), facing = max(cosine, vf{});
  vf shine = vf{};
  if (geom.specular > 0) {
    highlight(geom, cosine, dot(n, to_eye), dot(to_light, to_eye), &shine);
  }
  v3 c;
  vf* out[3] = {&c.x, &c.y, &c.z};
  for (int k = 0; k < 3; ++k) {
    float rgb = geom.rgba[k] * reflectance;
    *out[k] = strength * (splat(light.ambient[k] * rgb) + facing * splat(light.diffuse[k] * rgb) +
                          shine * splat(light.specular[k]));
  }
  return c;
}

// The same for a directional light on a plane: but for the highlight it is one number.
VLMRM_INLINE v3 light_share_flat(const Light& light, const ViewLight& l, const Geom& geom,
                                 float reflectance, const float* n, vf eye_cosine, v3 to_eye) {
  const float cosine = -(n[0] * l.dir[0] + n[1] * l.dir[1] + n[2] * l.dir[2]);
  const float facing = std::max(cosine, 0.0f);
  float c[3];
  for (int k = 0; k < 3; ++k) {
    c[k] = geom.rgba[k] * reflectance * (light.ambient[k] + facing * light.diffuse[k]);
  }
  v3 sum = splat3(c);
  vf shine;
  if (geom.specular > 0 && cosine > 0 &&
      highlight(geom, splat(cosine), eye_cosine, -dot(to_eye, l.dir), &shine)) {
    sum = sum + splat3(light.specular) * shine;
  }
  return sum;
}

VLMRM_INLINE void add_pass(const Scene& scene, v3 c, v3 tex, vf depth, const float* fog,
                           Color* out) {
  c = {clamp01(c.x) * tex.x, clamp01(c.y) * tex.y, clamp01(c.z) * tex.z};
  if (scene.fog) c = fogged(scene, c, depth, fog);
  // In 0..1 but for rounding, so that no clamp is needed.
  auto byte = [](vf a) { return truncate(fma(a, splat(255.0f), splat(0.5f))); };
  out->r += byte(c.x);
  out->g += byte(c.y);
  out->b += byte(c.z);
}

// The pass of light `index`, of colour c, where it reaches `todo` lanes for sure; points that a mesh
// may darken are queued.
__attribute__((noinline)) static void add_queued(const Scene& scene, const Frame& f, int index,
                                                 int view, v3 p, v3 n, vm todo, v3 c, v3 tex,
                                                 const Points& q, Color* out) {
  const float black[3] = {0, 0, 0};
  Color delta = {vi{}, vi{}, vi{}};
  add_pass(scene, c, tex, q.t, black, &delta);
  const vm lit = light_reaches(scene, f, index, view, p, n, todo, delta, q.queue) | ~todo;
  *out = {out->r + (lit & delta.r), out->g + (lit & delta.g), out->b + (lit & delta.b)};
}

// The colour that MuJoCo's passes leave on a surface: unshadowed lights first, then one additive
// pass per shadow light, each clamped to 8 bits. Mirrored and transparent surfaces take all lights in
// one pass.
template <bool kOnPlane>
VLMRM_INLINE Color shade(const Scene& scene, const Frame& f, int view, const Points& q) {
  const ViewGeom& g = f.view[view];
  const Geom& geom = scene.geoms[g.geom];
  const float dim = g.mirrored ? scene.geoms[f.reflective].reflectance : 1.0f;
  v3 p = eye_point(f, q.x, q.y, q.t);
  const v3 d = eye_direction(f, q.x, q.y), local_d = to_local(g, d);
  v3 local = f.orthographic ? splat3(g.eye) + to_local(g, p) : fma(local_d, q.t, splat3(g.eye));
  const v3 local_n = kOnPlane ? v3{} : local_normal(g, local, q.face);
  v3 n = kOnPlane ? splat3(g.axis[2]) : to_camera(g, local_n);
  v3 to_eye = normalize({-p.x, -p.y, -p.z});
  v3 tex = {splat(1.0f), splat(1.0f), splat(1.0f)};
  if (geom.texture >= 0) {
    tex = surface_texture<kOnPlane>(scene, f, geom, g, q, n, d, local, local_d, local_n);
  }

  float base = (geom.emission + scene.global_ambient) * dim;
  v3 sum = {splat(base * geom.rgba[0]), splat(base * geom.rgba[1]), splat(base * geom.rgba[2])};
  const ViewLight* lights = g.mirrored ? f.mirror_light.data() : f.light.data();
  const vf eye_cosine = dot(n, to_eye);
  auto share = [&](int i) __attribute__((always_inline)) {
    const Light& light = scene.lights[i];
    if (kOnPlane && light.type == kDirectional) {
      return light_share_flat(light, lights[i], geom, dim, g.axis[2], eye_cosine, to_eye);
    }
    return light_share(light, lights[i], geom, dim, p, n, to_eye);
  };
  const int num_lights = static_cast<int>(scene.lights.size());
  const bool one_pass = g.mirrored || g.transparent;
  for (int i = 0; i < num_lights; ++i) {
    if (scene.lights[i].shadow && !one_pass) continue;
    sum = sum + share(i);
  }
  Color out = {vi{}, vi{}, vi{}};
  add_pass(scene, sum, tex, q.t, scene.fog_rgb, &out);
  if (one_pass) return out;
  const float black[3] = {0, 0, 0};  // the fog of further passes, so that it does not add up
  for (int i = 0; i < num_lights; ++i) {
    if (!scene.lights[i].shadow) continue;
    v3 c = share(i);
    vm todo = q.active & ((c.x > vf{}) | (c.y > vf{}) | (c.z > vf{}));
    if (!any(todo)) continue;
    if (q.queue) {
      add_queued(scene, f, i, view, p, n, todo, c, tex, q, &out);
      continue;
    }
    vm shadow = in_shadow(scene, f, i, view, p, n, todo);
    add_pass(scene, select(shadow, v3{vf{}, vf{}, vf{}}, c), tex, q.t, black, &out);
  }
  out = {limit_byte(out.r), limit_byte(out.g), limit_byte(out.b)};
  return g.endless ? add_haze(scene, f, q.x, q.y, out) : out;
}

// One copy of each case: inlined together they would not fit the registers.
__attribute__((noinline)) static Color shade_plane(const Scene& scene, const Frame& f, int view,
                                                   const Points& q) {
  return shade<true>(scene, f, view, q);
}

}  // namespace VLMRM_ISA
}  // namespace vlmrm

#endif  // VLMRM_RAY_SHADE_H_
