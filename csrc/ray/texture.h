// Trilinear texture look-up.
#ifndef VLMRM_RAY_TEXTURE_H_
#define VLMRM_RAY_TEXTURE_H_

#include "ray/columns.h"
#include "ray/scene.h"
#include "ray/simd.h"

namespace vlmrm {
namespace VLMRM_ISA {

// Texture coordinates and their change per pixel step in x and y.
struct Coordinates {
  vf u, v;
  vf du_dx, dv_dx, du_dy, dv_dy;
  vi face;
};

// Where a level's numbers lie: the same for all lanes, or not.
struct LevelOf {
  vf width, height;
  vi stride, face_stride, offset;
};

VLMRM_INLINE LevelOf level_of(const TextureLevel& l) {
  return {splat(static_cast<float>(l.width)), splat(static_cast<float>(l.height)),
          splat(l.stride), splat(l.face_stride), splat(l.offset)};
}
VLMRM_INLINE LevelOf level_of(const LevelTable& table, vi level) {
  return {to_float(look_up(table.width, level)), to_float(look_up(table.height, level)),
          look_up(table.stride, level), look_up(table.face_stride, level),
          look_up(table.offset, level)};
}

// Adds share / 32768 times the bilinear sample of a level. As on a GPU, the place inside a texel
// has eight bits.
VLMRM_INLINE void add_level(const Texture& tex, const LevelOf& l, const Coordinates& c, vi share,
                            Blend* sum) {
  // In 1/256 texels, counted from the centre of the border's first texel.
  vi x = truncate(fma(c.u, l.width * splat(256.0f), splat(128.5f)));
  vi y = truncate(fma(c.v, l.height * splat(256.0f), splat(128.5f)));
  vi at = (y >> 8) * l.stride + (x >> 8) + l.offset;
  if (tex.cube) at += c.face * l.face_stride;
  const vi fraction = splat(int32_t{255});
  vi right = (share * (x & fraction)) >> 8;
  // 255 - f in the first byte, f in the second.
  vi below = ((y & fraction) + splat(int32_t{1})) * splat(int32_t{255});
  add_columns(tex.columns.data(), at, below, share - right, right, sum);
}

// Colour in 0..1. As in OpenGL, log2 of the longer side of the pixel's footprint, in texels,
// blends two mip levels. `guess` is the level of the last packet: where it is right, which is nearly
// always, texels are fetched before the level is known.
VLMRM_INLINE v3 sample(const Texture& tex, const Coordinates& c, int32_t* guess) {
  vf w = splat(static_cast<float>(tex.level[0].width));
  vf h = splat(static_cast<float>(tex.level[0].height));
  vf ux = c.du_dx * w, vx = c.dv_dx * h, uy = c.du_dy * w, vy = c.dv_dy * h;
  vf footprint = max(fma(ux, ux, vx * vx), fma(uy, uy, vy * vy));
  // Half of log2 in steps of 1/256, straight between powers of two as software OpenGL takes it: the
  // bits of a float are that already.
  const vi bits_of_one = splat(int32_t{127 << 23});
  vi steps = (as_int(max(footprint, splat(1.0f))) - bits_of_one) >> 16;
  steps = min(steps, splat((tex.num_levels - 1) << 8));
  vi level = steps >> 8;
  vi next = (steps & splat(int32_t{255})) << 7;
  vi share = splat(int32_t{32767}) - next;
  const bool two = any(next > vi{});

  Blend sum = {};
  const int32_t one = *guess;
  if (bits(level == splat(one)) == kAllBits) {
    add_level(tex, level_of(tex.level[one]), c, share, &sum);
    if (two) add_level(tex, level_of(tex.level[one + 1]), c, next, &sum);
  } else {
    *guess = first(level);
    add_level(tex, level_of(tex.table, level), c, share, &sum);
    level = select(next > vi{}, level + splat(int32_t{1}), level);
    if (two) add_level(tex, level_of(tex.table, level), c, next, &sum);
  }
  return color_of(sum);
}

// The same for textures that are only ever magnified.
VLMRM_INLINE v3 sample_largest(const Texture& tex, const Coordinates& c) {
  Blend sum = {};
  add_level(tex, level_of(tex.level[0]), c, splat(int32_t{32767}), &sum);
  return color_of(sum);
}

VLMRM_INLINE void wrap(Coordinates* c) {
  // At most 1; the maximum is for what is not a number.
  c->u = max(c->u - floor(c->u), vf{});
  c->v = max(c->v - floor(c->v), vf{});
}

// OpenGL's cube map: the largest of |p| picks the face, the others over it are the coordinates.
VLMRM_INLINE Coordinates cube_coordinates(v3 p, v3 px, v3 py) {
  vf ax = abs(p.x), ay = abs(p.y), az = abs(p.z);
  vm is_x = (ax >= ay) & (ax >= az);
  vm is_y = ~is_x & (ay >= az);
  vf major = select(is_x, p.x, select(is_y, p.y, p.z));
  vm neg = major < vf{};
  vf sign = select(neg, splat(-1.0f), splat(1.0f));
  const vi one = splat(int32_t{1});
  Coordinates c;
  c.face = select(is_x, vi{}, select(is_y, splat(int32_t{2}), splat(int32_t{4}))) + (neg & one);
  vf ma = max(abs(major), splat(1e-20f));
  vf im = rcp(ma), inv = splat(0.5f) * im;
  // (s, t) of a vector: linear, so the derivatives use the same map.
  auto s_of = [&](v3 q) {
    return select(is_x, -sign * q.z, select(is_y, q.x, sign * q.x));
  };
  auto t_of = [&](v3 q) { return select(is_y, sign * q.z, -q.y); };
  auto m_of = [&](v3 q) { return sign * select(is_x, q.x, select(is_y, q.y, q.z)); };
  vf s = s_of(p), t = t_of(p);
  vf su = s * inv, tu = t * inv;
  c.u = su + splat(0.5f);
  c.v = tu + splat(0.5f);
  vf mx = m_of(px) * im, my = m_of(py) * im;
  c.du_dx = s_of(px) * inv - su * mx;
  c.dv_dx = t_of(px) * inv - tu * mx;
  c.du_dy = s_of(py) * inv - su * my;
  c.dv_dy = t_of(py) * inv - tu * my;
  c.u = clamp01(c.u);
  c.v = clamp01(c.v);
  return c;
}

// Without the change per pixel.
VLMRM_INLINE Coordinates cube_face(v3 p) {
  const v3 still = {vf{}, vf{}, vf{}};
  return cube_coordinates(p, still, still);
}

}  // namespace VLMRM_ISA
}  // namespace vlmrm

#endif  // VLMRM_RAY_TEXTURE_H_
