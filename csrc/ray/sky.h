// The sky box, haze and fog.
#ifndef VLMRM_RAY_SKY_H_
#define VLMRM_RAY_SKY_H_

#include "ray/frame.h"
#include "ray/simd.h"
#include "ray/texture.h"

namespace vlmrm {
namespace VLMRM_ISA {

struct Color {
  vi r, g, b;  // 0..255 per pass, summed over passes
};

VLMRM_INLINE vi limit_byte(vi a) { return min(a, splat(int32_t{255})); }

// The way an eye ray goes, at unit depth.
VLMRM_INLINE v3 eye_direction(const Frame& f, vf x, vf y) {
  if (f.orthographic) return {vf{}, vf{}, splat(-1.0f)};
  return {x, y, splat(-1.0f)};
}

// What an eye ray meets at depth t, in camera space.
VLMRM_INLINE v3 eye_point(const Frame& f, vf x, vf y, vf t) {
  if (f.orthographic) return {x, y, -t};
  return {x * t, y * t, -t};
}

VLMRM_INLINE vi to_byte(vf a) { return truncate(clamp01(a) * splat(255.0f) + splat(0.5f)); }

// OpenGL's linear fog at an eye depth.
VLMRM_INLINE v3 fogged(const Scene& scene, v3 c, vf depth, const float* rgb) {
  vf left = clamp01((splat(scene.fog_end) - depth) * splat(scene.fog_rate));
  return splat3(rgb) + (c - splat3(rgb)) * left;
}

VLMRM_INLINE vi mix_byte(vi under, vf over, vf alpha) {
  vf c = to_float(under);
  return truncate(c + alpha * (over * splat(255.0f) - c) + splat(0.5f));
}

VLMRM_INLINE Color mix(const Color& c, v3 over, vf alpha) {
  return {mix_byte(c.r, over.x, alpha), mix_byte(c.g, over.y, alpha),
          mix_byte(c.b, over.z, alpha)};
}

// How opaque the haze is where `drop` falls from 1 at the plane to 0 at the height of the eye.
VLMRM_INLINE vf haze_alpha(const Scene& scene, vf drop, vm seen) {
  vf rise = splat(1.0f) - drop, peak = splat(scene.haze_peak);
  vf alpha = select(rise < peak, rise / peak, drop / (splat(1.0f) - peak));
  return select(seen, clamp01(alpha), vf{});
}

// Any camera, with fog: where the ray meets the cone.
__attribute__((noinline)) static Color add_haze_general(const Scene& scene, const Frame& f, vf x,
                                                        vf y, Color c) {
  const v3 o = eye_point(f, x, y, vf{}), d = eye_direction(f, x, y), n = splat3(f.haze_normal);
  const vf down0 = -dot(o, n), down = -dot(d, n);
  const v3 level0 = o + n * down0, level = d + n * down;
  // |level0 + t level| = radius + narrowing * t
  const vf tilt = splat(scene.haze / f.haze_height);
  const vf radius = splat(f.sky_height) - tilt * down0, narrowing = -tilt * down;
  const vf qa = dot(level, level) - narrowing * narrowing;
  const vf qb = dot(level0, level) - radius * narrowing;
  const vf qc = dot(level0, level0) - radius * radius;
  const vf root = sqrt(max(qb * qb - qa * qc, vf{}));
  const vf t = -qc / max(qb + root, splat(1e-20f));
  const vf drop = (down0 + t * down) * splat(1 / (f.haze_height * f.sky_height));
  const vm seen = (drop > vf{}) & (drop < splat(1.0f)) & (t > vf{});
  v3 rgb = splat3(scene.haze_rgb);
  if (scene.fog) rgb = fogged(scene, rgb, t, scene.fog_rgb);
  return mix(c, rgb, haze_alpha(scene, drop, seen));
}

// The band that MuJoCo draws between an unbounded plane and the sky box: a cone that rises from
// the plane to the height of the eye, opaque at one height and clear at both ends.
VLMRM_INLINE Color add_haze(const Scene& scene, const Frame& f, vf x, vf y, Color c) {
  if (f.haze_height <= 0) return c;
  if (f.orthographic || scene.fog) return add_haze_general(scene, f, x, y, c);
  v3 d = {x, y, splat(-1.0f)};
  vf down = -dot(d, f.haze_normal);
  vf level = max(dot(d, d) - down * down, splat(1e-12f));
  vf slope = down / sqrt(level);
  vf drop = slope / (splat(f.haze_height) + slope * splat(scene.haze));  // 1 at the plane
  vm seen = (drop > vf{}) & (drop < splat(1.0f));
  if (!any(seen)) return c;
  return mix(c, splat3(scene.haze_rgb), haze_alpha(scene, drop, seen));
}

// MuJoCo turns the sky by 90 degrees around x.
VLMRM_INLINE v3 turned(vf x, vf y, vf z) { return {x, z, -y}; }

VLMRM_INLINE v3 to_world(const Frame& f, v3 c) {
  return {dot(c, f.world[0]), dot(c, f.world[1]), dot(c, f.world[2])};
}

// Any camera, with fog: where the ray leaves the cylinder that mjr_render draws the sky on.
struct SkyHit {
  v3 p, d;  // in world axes, from the eye
  vf t;
  vm on_cap, none;
};

VLMRM_INLINE SkyHit hit_sky(const Frame& f, vf x, vf y) {
  SkyHit h;
  const v3 o = to_world(f, eye_point(f, x, y, vf{})), d = to_world(f, eye_direction(f, x, y));
  const vf r = splat(f.sky_radius);
  const vf a = max(d.x * d.x + d.y * d.y, splat(1e-12f)), b = o.x * d.x + o.y * d.y;
  const vf disc = b * b - a * (o.x * o.x + o.y * o.y - r * r);
  const vf side = (sqrt(max(disc, vf{})) - b) / a;
  const vf dz = select(abs(d.z) > splat(1e-12f), d.z, splat(1e-12f));
  const vf cap = (select(dz > vf{}, splat(f.sky_height), splat(-f.sky_height)) - o.z) / dz;
  h.on_cap = cap < side;
  h.t = select(h.on_cap, cap, side);
  h.none = disc < vf{};
  h.p = o + d * h.t;
  h.d = d;
  return h;
}

__attribute__((noinline)) static Color shade_sky_general(const Scene& scene, const Frame& f, vf x,
                                                         vf y) {
  const SkyHit h = hit_sky(f, x, y);
  const v3 p = h.p, d = h.d;
  const vf t = h.t;
  // How the point moves along the cylinder when the pixel does.
  const v3 n = select(h.on_cap, v3{vf{}, vf{}, splat(1.0f)}, v3{p.x, p.y, vf{}});
  const vf scale = f.orthographic ? splat(1.0f) : t;
  v3 px = to_world(f, {scale * splat(f.step_x), vf{}, vf{}});
  v3 py = to_world(f, {vf{}, scale * splat(-f.step_y), vf{}});
  const vf nd = dot(n, d);
  px = px - d * (dot(n, px) / nd);
  py = py - d * (dot(n, py) / nd);
  v3 c = sample(scene.textures[scene.sky],
                cube_coordinates(turned(p.x, p.y, p.z), turned(px.x, px.y, px.z),
                                 turned(py.x, py.y, py.z)), &f.sky_level_guess);
  if (scene.fog) c = fogged(scene, c, t, scene.fog_rgb);
  c = select(h.none, v3{vf{}, vf{}, vf{}}, c);
  return add_haze(scene, f, x, y, {to_byte(c.x), to_byte(c.y), to_byte(c.z)});
}

// The depth beyond which nothing shows.
VLMRM_INLINE vf limit_depth(const Scene& scene, const Frame& f, vf x, vf y) {
  if (!f.far) return splat(scene.zfar);
  const SkyHit h = hit_sky(f, x, y);
  return min(splat(scene.zfar), select(h.none, splat(scene.zfar), h.t));
}

// What lies behind everything: the sky box, or black.
VLMRM_INLINE Color shade_sky(const Scene& scene, const Frame& f, vf x, vf y) {
  if (scene.sky < 0) return {vi{}, vi{}, vi{}};
  if (f.orthographic || scene.fog) return shade_sky_general(scene, f, x, y);
  const v3 w = to_world(f, {x, y, splat(-1.0f)});
  if (f.sky_magnified) {
    const Texture& tex = scene.textures[scene.sky];
    v3 c = sample_largest(tex, cube_face(turned(w.x, w.y, w.z)));
    return add_haze(scene, f, x, y, {to_byte(c.x), to_byte(c.y), to_byte(c.z)});
  }
  const float sx = f.step_x, sy = -f.step_y;
  v3 px = turned(splat(f.world[0][0] * sx), splat(f.world[1][0] * sx), splat(f.world[2][0] * sx));
  v3 py = turned(splat(f.world[0][1] * sy), splat(f.world[1][1] * sy), splat(f.world[2][1] * sy));
  v3 c = sample(scene.textures[scene.sky], cube_coordinates(turned(w.x, w.y, w.z), px, py),
                &f.sky_level_guess);
  return add_haze(scene, f, x, y, {to_byte(c.x), to_byte(c.y), to_byte(c.z)});
}

}  // namespace VLMRM_ISA
}  // namespace vlmrm

#endif  // VLMRM_RAY_SKY_H_
