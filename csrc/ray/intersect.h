// Ray against primitive, in the primitive's own frame.
//
// Each function returns where the ray o + t d enters (or leaves) the surface and a mask of the
// lanes that hit. Culling is OpenGL's: only the entry counts for the eye.
#ifndef VLMRM_RAY_INTERSECT_H_
#define VLMRM_RAY_INTERSECT_H_

#include "ray/frame.h"
#include "ray/simd.h"
#include "ray/trace.h"

namespace vlmrm {
namespace VLMRM_ISA {

struct Hit {
  vf t;
  vi face;  // 0..5 where the surface has edges
  vm mask;
  vi prim;  // facet of a round shape; 0 elsewhere
};

// The part of an eye ray that counts.
struct Range {
  vf from, to;
};

template <bool kExit>
VLMRM_INLINE vf root(vf b, vf disc, vf a) {
  vf s = root_of(disc);
  return ((kExit ? s : -s) - b) * rcp(a);
}

template <bool kExit>
VLMRM_INLINE Hit hit_ellipsoid(v3 o, v3 d, const float* size) {
  vf ix = splat(1.0f / size[0]), iy = splat(1.0f / size[1]), iz = splat(1.0f / size[2]);
  v3 os = {o.x * ix, o.y * iy, o.z * iz}, ds = {d.x * ix, d.y * iy, d.z * iz};
  vf a = dot(ds, ds), b = dot(os, ds), c = dot(os, os) - splat(1.0f);
  vf disc = fma(b, b, -a * c);
  return {root<kExit>(b, disc, a), vi{}, disc > splat(0.0f), vi{}};
}

template <bool kExit>
VLMRM_INLINE Hit hit_capsule(v3 o, v3 d, const float* size) {
  vf r2 = splat(size[0] * size[0]), h = splat(size[2]);
  vf a = max(fma(d.x, d.x, d.y * d.y), splat(1e-12f));
  vf b = fma(o.x, d.x, o.y * d.y);
  vf disc = fma(b, b, -a * fma(o.x, o.x, fma(o.y, o.y, -r2)));
  vf t = root<kExit>(b, disc, a);
  vf z = fma(t, d.z, o.z);
  // Beyond the side, the ray can only meet the cap on that side.
  vf oz = o.z - select(z > splat(0.0f), h, -h);
  vf as = a + d.z * d.z;
  vf bs = b + oz * d.z;
  vf ds = bs * bs - as * (o.x * o.x + o.y * o.y + oz * oz - r2);
  vm side = abs(z) <= h;
  vf tc = root<kExit>(bs, ds, as);
  return {select(side, t, tc), vi{}, (disc > splat(0.0f)) & (side | (ds > splat(0.0f))), vi{}};
}

template <bool kExit>
VLMRM_INLINE Hit hit_cylinder(v3 o, v3 d, const float* size) {
  vf r2 = splat(size[0] * size[0]), h = splat(size[2]);
  vf a = max(fma(d.x, d.x, d.y * d.y), splat(1e-12f));
  vf b = fma(o.x, d.x, o.y * d.y);
  vf disc = fma(b, b, -a * fma(o.x, o.x, fma(o.y, o.y, -r2)));
  vf s = root_of(disc), ia = rcp(a);
  vf t0 = (-b - s) * ia, t1 = (s - b) * ia;
  vf dz = select(abs(d.z) > splat(1e-12f), d.z, splat(1e-12f));
  vf iz = rcp(dz);
  vf z0 = (-h - o.z) * iz, z1 = (h - o.z) * iz;
  vf zmin = min(z0, z1), zmax = max(z0, z1);
  vf enter = max(t0, zmin), leave = min(t1, zmax);
  vm cap = zmin > t0;
  vi face = select(cap, select(d.z < splat(0.0f), splat(int32_t{1}), splat(int32_t{2})), vi{});
  return {kExit ? leave : enter, face, (disc > splat(0.0f)) & (enter < leave), vi{}};
}

template <bool kExit>
VLMRM_INLINE Hit hit_box(v3 o, v3 d, const float* size) {
  const vf tiny = splat(1e-12f);
  vf ix = rcp(select(abs(d.x) > tiny, d.x, tiny));
  vf iy = rcp(select(abs(d.y) > tiny, d.y, tiny));
  vf iz = rcp(select(abs(d.z) > tiny, d.z, tiny));
  vf sx = abs(ix) * splat(size[0]), sy = abs(iy) * splat(size[1]), sz = abs(iz) * splat(size[2]);
  vf mx = -o.x * ix, my = -o.y * iy, mz = -o.z * iz;
  vf ex = mx - sx, ey = my - sy, ez = mz - sz;
  vf enter = max(ex, max(ey, ez));
  vf leave = min(mx + sx, min(my + sy, mz + sz));
  // Faces 0..5 are -x, +x, -y, +y, -z, +z: the one that looks against the ray.
  vi face = splat(int32_t{4}) + ((d.z < splat(0.0f)) & splat(int32_t{1}));
  face = select(ey >= enter, splat(int32_t{2}) + ((d.y < splat(0.0f)) & splat(int32_t{1})), face);
  face = select(ex >= enter, (d.x < splat(0.0f)) & splat(int32_t{1}), face);
  return {kExit ? leave : enter, face, enter < leave, vi{}};
}

enum Side { kFront, kBack, kBoth };

// A size of zero has no edge but the reach around the eye.
VLMRM_INLINE Hit hit_plane(v3 o, v3 d, const float* size, Side side, float reach,
                           const float* eye) {
  vf t = -o.z * rcp(d.z);
  vm mask = side == kFront ? d.z < vf{} : side == kBack ? d.z > vf{} : d.z != vf{};
  vf x = o.x + t * d.x, y = o.y + t * d.y;
  if (size[0] > 0) mask &= abs(x) <= splat(size[0]);
  if (size[1] > 0) mask &= abs(y) <= splat(size[1]);
  if (reach > 0) {
    x -= splat(eye[0]), y -= splat(eye[1]);
    mask &= x * x + y * y <= splat(reach * reach);
  }
  return {t, vi{}, mask, vi{}};
}

template <int kType, bool kExit>
VLMRM_INLINE Hit hit_local(v3 o, v3 d, const float* size) {
  if (kType == kCapsule) return hit_capsule<kExit>(o, d, size);
  if (kType == kCylinder) return hit_cylinder<kExit>(o, d, size);
  if (kType == kBox) return hit_box<kExit>(o, d, size);
  if (kType == kPlane) return hit_plane(o, d, size, kExit ? kBoth : kFront, 0.0f, nullptr);
  return hit_ellipsoid<kExit>(o, d, size);
}

VLMRM_INLINE v3 to_local(const ViewGeom& g, v3 d) {
  return {dot(d, g.axis[0]), dot(d, g.axis[1]), dot(d, g.axis[2])};
}

// The local ray o + t d that reaches depth t in the pixel at (x, y) of the image plane.
struct Ray {
  v3 o, d;
};
template <bool kOrthographic>
VLMRM_INLINE Ray eye_ray(const ViewGeom& g, vf x, vf y) {
  if (kOrthographic) {
    return {splat3(g.eye) + to_local(g, {x, y, vf{}}), to_local(g, {vf{}, vf{}, splat(-1.0f)})};
  }
  return {splat3(g.eye), to_local(g, {x, y, splat(-1.0f)})};
}

template <int kType>
VLMRM_INLINE Hit hit_ray(const ViewGeom& g, const Ray& r) {
  if (kType == kPlane) {
    const Side side = g.hollow ? kBoth : g.behind ? kBack : kFront;
    return hit_plane(r.o, r.d, g.size, side, g.reach, g.eye);
  }
  return hit_local<kType, false>(r.o, r.d, g.size);
}

// The face that holds a local point of the surface.
template <int kType>
VLMRM_INLINE vi face_at(v3 p, const float* size) {
  const vf ax = abs(p.x) * splat(1 / size[0]), ay = abs(p.y) * splat(1 / size[1]);
  const vf az = abs(p.z) * splat(1 / size[2]);
  const vi one = splat(int32_t{1}), two = splat(int32_t{2});
  if (kType == kCylinder) {
    vm cap = az * az >= max(ax * ax + ay * ay, splat(1 - 1e-5f));
    return select(cap, select(p.z > vf{}, one, two), vi{});
  }
  if (kType != kBox) return vi{};
  vi face = splat(int32_t{4}) + ((p.z > vf{}) & one);
  face = select((ay >= az) & (ay >= ax), two + ((p.y > vf{}) & one), face);
  return select((ax >= az) & (ax >= ay), (p.x > vf{}) & one, face);
}

// The same with what few scenes need: parallel rays, and back faces where the front is cut away.
template <int kType>
VLMRM_INLINE Hit hit_general(const ViewGeom& g, bool orthographic, float znear, vf x, vf y) {
  const Ray r = orthographic ? eye_ray<true>(g, x, y) : eye_ray<false>(g, x, y);
  Hit h = hit_ray<kType>(g, r);
  if (kType == kPlane || !g.hollow) return h;
  const Hit out = hit_local<kType, true>(r.o, r.d, g.size);
  const vm use = out.mask & ~(h.mask & (h.t > splat(znear)));
  h.t = select(use, out.t, h.t);
  h.face = select(use, face_at<kType>(r.o + r.d * out.t, g.size), h.face);
  h.mask |= use;
  return h;
}

// The eye ray through (x, y, -1).
template <int kType>
VLMRM_INLINE Hit hit_eye(const ViewGeom& g, vf x, vf y) {
  return hit_ray<kType>(g, eye_ray<false>(g, x, y));
}

// Calls f.run<kType>() for the type of a primitive shape, no mesh: one switch for a whole loop.
template <class F>
VLMRM_INLINE void with_type(int type, F&& f) {
  switch (type) {
    case kPlane: f.template run<kPlane>(); break;
    case kCapsule: f.template run<kCapsule>(); break;
    case kCylinder: f.template run<kCylinder>(); break;
    case kBox: f.template run<kBox>(); break;
    default: f.template run<kEllipsoid>(); break;
  }
}

}  // namespace VLMRM_ISA
}  // namespace vlmrm

#endif  // VLMRM_RAY_INTERSECT_H_
