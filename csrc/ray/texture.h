// Trilinear texture look-up.
#ifndef VLMRM_RAY_TEXTURE_H_
#define VLMRM_RAY_TEXTURE_H_

#include <algorithm>

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

// Adds weight * bilinear(level) to rgb, channels in 0..255.
VLMRM_INLINE void add_level(const Texture& tex, int index, const Coordinates& c, vf weight,
                            v3* rgb) {
  const TextureLevel& l = tex.level[index];
  vf x = c.u * splat(static_cast<float>(l.width)) - splat(0.5f);
  vf y = c.v * splat(static_cast<float>(l.height)) - splat(0.5f);
  vf x0 = floor(x), y0 = floor(y);
  vf fx = x - x0, fy = y - y0;
  // The border makes texel -1 and texel `width` exist.
  vi at = (truncate(y0) + splat(int32_t{1})) * splat(l.stride) + truncate(x0) + splat(l.offset + 1);
  if (tex.cube) at += c.face * splat(l.face_stride);
  const uint32_t* t = tex.texels.data();
  vi t00 = gather(t, at), t10 = gather(t + 1, at);
  vi t01 = gather(t + l.stride, at), t11 = gather(t + l.stride + 1, at);
  vf wy = fy * weight, w11 = fx * wy, w01 = wy - w11, w10 = fx * weight - w11;
  vf w00 = weight - wy - w10;
  const vi byte = splat(int32_t{255});
  rgb->x += to_float(t00 & byte) * w00 + to_float(t10 & byte) * w10 + to_float(t01 & byte) * w01 +
            to_float(t11 & byte) * w11;
  rgb->y += to_float((t00 >> 8) & byte) * w00 + to_float((t10 >> 8) & byte) * w10 +
            to_float((t01 >> 8) & byte) * w01 + to_float((t11 >> 8) & byte) * w11;
  rgb->z += to_float((t00 >> 16) & byte) * w00 + to_float((t10 >> 16) & byte) * w10 +
            to_float((t01 >> 16) & byte) * w01 + to_float((t11 >> 16) & byte) * w11;
}

// Colour in 0..1. As in OpenGL, log2 of the longer side of the pixel's footprint, in texels,
// blends two mip levels.
VLMRM_INLINE v3 sample(const Texture& tex, const Coordinates& c) {
  vf w = splat(static_cast<float>(tex.level[0].width));
  vf h = splat(static_cast<float>(tex.level[0].height));
  vf ux = c.du_dx * w, vx = c.dv_dx * h, uy = c.du_dy * w, vy = c.dv_dy * h;
  vf footprint = max(ux * ux + vx * vx, uy * uy + vy * vy);
  const int32_t last = tex.num_levels - 1;
  vf lod = splat(0.5f) * log2(min(max(footprint, splat(1.0f)), splat(1e9f)));
  lod = min(lod, splat(static_cast<float>(last)));
  vi level = truncate(lod);
  vf blend = lod - to_float(level);

  // Neighbours mostly share a level.
  v3 rgb = {vf{}, vf{}, vf{}};
  int32_t lo = first(level), hi = lo;
  if (bits(level == splat(lo)) == kAllBits) {
    add_level(tex, lo, c, splat(1.0f) - blend, &rgb);
    if (any(blend > vf{})) add_level(tex, lo + 1, c, blend, &rgb);
    return rgb * splat(1.0f / 255.0f);
  }
  int32_t each[kLanes];
  store(each, level);
  for (int32_t i : each) {
    lo = std::min(lo, i);
    hi = std::max(hi, i);
  }
  hi = hi < last ? hi + 1 : last;
  for (int k = lo; k <= hi; ++k) {
    vf weight = select(level == splat(k), splat(1.0f) - blend, vf{}) +
                select(level == splat(k - 1), blend, vf{});
    if (any(weight > vf{})) add_level(tex, k, c, weight, &rgb);
  }
  return rgb * splat(1.0f / 255.0f);
}

// The same for textures that are only ever magnified.
VLMRM_INLINE v3 sample_largest(const Texture& tex, const Coordinates& c) {
  v3 rgb = {vf{}, vf{}, vf{}};
  add_level(tex, 0, c, splat(1.0f), &rgb);
  return rgb * splat(1.0f / 255.0f);
}

VLMRM_INLINE void wrap(Coordinates* c) {
  c->u = clamp01(c->u - floor(c->u));
  c->v = clamp01(c->v - floor(c->v));
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
  vf inv = splat(0.5f) / ma;
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
  vf mx = m_of(px) / ma, my = m_of(py) / ma;
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
