// The flat facets that OpenGL draws in place of round shapes.
//
// They matter along outlines: there a facet is seen at a grazing angle, and what OpenGL shades is
// where the eye ray through the pixel's centre meets its plane, far from the shape. The colours of
// outlines are those of such places.
#ifndef VLMRM_RAY_LATHE_H_
#define VLMRM_RAY_LATHE_H_

#include "ray/frame.h"
#include "ray/intersect.h"
#include "ray/simd.h"

namespace vlmrm {
namespace VLMRM_ISA {

constexpr bool is_lathed(int type) {
  return type == kSphere || type == kEllipsoid || type == kCapsule || type == kCylinder;
}

// A facet's name: a bit that no other surface has, row, stack of a side, slice, triangle.
constexpr int32_t kFacetBit = 1 << 30;
constexpr int kRowShift = 20, kStackShift = 12, kSliceShift = 1;
constexpr int32_t kRowMask = 0x3ff, kStackMask = 0xff, kSliceMask = 0x7ff;

// From a geom's frame to a unit sphere or cylinder, its half length along.
struct UnitScale {
  float x, y, z, half;
  VLMRM_INLINE v3 to_unit(v3 a) const { return {a.x * splat(x), a.y * splat(y), a.z * splat(z)}; }
  VLMRM_INLINE v3 from_unit(v3 a) const {
    return {a.x * splat(1 / x), a.y * splat(1 / y), a.z * splat(1 / z)};
  }
};

inline UnitScale unit_scale(const Scene& scene, const ViewGeom& g) {
  const float* s = g.size;
  const float around = scene.round / s[0];
  if (g.type == kCapsule) return {around, around, around, s[2] * around};
  if (g.type == kCylinder) return {around, around, 1 / s[2], 1.0f};
  return {around, scene.round / s[1], scene.round_along / s[2], 0.0f};
}

// The plane radial (cosine x + sine y) + axial z = height in a unit frame.
struct FacetPlane {
  vf cosine, sine, radial, axial, height;
  VLMRM_INLINE vf along(v3 d) const {
    return fma(radial, fma(cosine, d.x, sine * d.y), axial * d.z);
  }
};

// A ray in a unit frame against planes, one after the other.
struct FacetSearch {
  v3 o, d;
  FacetPlane best;
  vf enter, leave;
  vi row, slice;

  VLMRM_INLINE void take(const FacetPlane& next, vi next_row, vi next_slice) {
    const vf b = next.along(d), t = (next.height - next.along(o)) / b;
    leave = select(b > vf{}, min(t, leave), leave);
    const vm later = (b < vf{}) & (t > enter);
    enter = select(later, t, enter);
    best.cosine = select(later, next.cosine, best.cosine);
    best.sine = select(later, next.sine, best.sine);
    best.radial = select(later, next.radial, best.radial);
    best.axial = select(later, next.axial, best.axial);
    best.height = select(later, next.height, best.height);
    row = select(later, next_row, row);
    slice = select(later, next_slice, slice);
  }
};

template <int kType>
class Lathed {
 public:
  Lathed(const Scene& scene, const ViewGeom& g) : l_(scene.lathe), scale_(unit_scale(scene, g)) {
    // Corners lie on the round shape that the drawn one has the area of.
    const float r = 1 / scene.round;
    const float* s = g.size;
    const bool half_length = kType == kCapsule || kType == kCylinder;
    outer_[0] = s[0] * r, outer_[1] = s[1] * r;
    outer_[2] = half_length ? s[2] : s[2] / scene.round_along;
  }

  // Where a ray in the geom's frame enters; `prim` is the facet, 0 for the cap of a cylinder.
  VLMRM_INLINE Hit hit(const Ray& r) const {
    Hit h = hit_local<kType, false>(r.o, r.d, outer_);
    if (!any(h.mask)) return h;
    FacetSearch s;
    s.o = scale_.to_unit(r.o), s.d = scale_.to_unit(r.d);
    v3 p = fma(s.d, h.t, s.o);
    if (kType == kCylinder) {
      // Under the cap: where the ray would meet the side.
      const vf a = max(fma(s.d.x, s.d.x, s.d.y * s.d.y), splat(1e-12f)), b = fma(s.o.x, s.d.x, s.o.y * s.d.y);
      const vf disc = fma(b, b, -a * fma(s.o.x, s.o.x, fma(s.o.y, s.o.y, splat(-1.0f))));
      p = fma(s.d, root<false>(b, disc, a), s.o);
    }
    s.enter = splat(-1e30f), s.leave = splat(1e30f);
    const vi row = row_of(p);
    const vi slice = entry(atan2(p.y, p.x) * splat(l_.slices / kTurn) + splat(l_.first), l_.cosine);
    s.row = row, s.slice = slice;
    const FacetPlane middle = plane(gather(l_.cosine.data(), slice), gather(l_.sine.data(), slice), row);
    s.best = middle;
    s.take(middle, row, slice);
    turn(middle, row, slice, &s);
    if (kType != kCylinder) {
      const vf cosine = s.best.cosine, sine = s.best.sine;
      const vi at = s.slice;
      for (int side = -1; side <= 1; side += 2) {
        const vi other = row + splat(int32_t{side});
        s.take(plane(cosine, sine, other), other, at);
      }
    }
    return finish(h, s);
  }

 private:
  // The slices beside.
  VLMRM_INLINE void turn(const FacetPlane& middle, vi row, vi slice, FacetSearch* s) const {
    const vf c = splat(l_.step_cosine);
    for (int side = -1; side <= 1; side += 2) {
      const vf turned = splat(l_.step_sine * static_cast<float>(side));
      FacetPlane next = middle;
      next.cosine = middle.cosine * c - middle.sine * turned;
      next.sine = middle.sine * c + middle.cosine * turned;
      s->take(next, row, slice + splat(int32_t{side}));
    }
  }

  VLMRM_INLINE Hit finish(Hit h, const FacetSearch& s) const {
    vf enter = s.enter, leave = s.leave;
    vm cap = {};
    if (kType == kCylinder) {
      const vf iz = rcp(select(abs(s.d.z) > splat(1e-12f), s.d.z, splat(1e-12f)));
      const vf z0 = (splat(-1.0f) - s.o.z) * iz, z1 = (splat(1.0f) - s.o.z) * iz;
      const vf first = min(z0, z1);
      cap = first > enter;
      enter = max(enter, first), leave = min(leave, max(z0, z1));
      h.face = select(cap, select(s.d.z < vf{}, splat(int32_t{1}), splat(int32_t{2})), vi{});
    }
    h.t = enter;
    h.mask &= (enter < leave) & (enter > splat(-1e29f));
    h.prim = select(cap, vi{}, name(s, fma(s.d, enter, s.o)));
    return h;
  }

  // Which of a facet's two triangles holds a point of it.
  VLMRM_INLINE vi name(const FacetSearch& s, v3 p) const {
    const vf across = p.y * s.best.cosine - p.x * s.best.sine;
    const vi side_row = splat(l_.side);
    const vm on_side = kType == kCylinder ? all_lanes() : kType == kCapsule ? s.row == side_row : vm{};
    vf low = splat(1.0f), high = low, part = vf{};
    vi stack = {};
    if (kType != kCylinder) {
      const vf z = p.z - select(s.row > side_row, splat(scale_.half), splat(-scale_.half));
      low = gather(l_.low_cosine.data(), s.row), high = gather(l_.high_cosine.data(), s.row);
      const vf bottom = gather(l_.low_sine.data(), s.row), top = gather(l_.high_sine.data(), s.row);
      part = ((kType == kCapsule ? z : p.z) - bottom) / (top - bottom);
    }
    if (kType == kCylinder || kType == kCapsule) {
      const vf at = (p.z * splat(1 / scale_.half) + splat(1.0f)) * splat(0.5f * l_.stacks);
      const vf floor_at = floor(min(max(at, vf{}), splat(l_.stacks - 1.0f)));
      stack = select(on_side, truncate(floor_at), vi{});
      part = select(on_side, at - floor_at, part);
      low = select(on_side, splat(1.0f), low), high = select(on_side, splat(1.0f), high);
    }
    const vf diagonal = (low - part * (low + high)) * splat(l_.half_width);
    const vi second = select(across > diagonal, splat(int32_t{1}), vi{});
    return splat(kFacetBit) | s.row << kRowShift | stack << kStackShift | s.slice << kSliceShift | second;
  }

  // An index into a table; zero for what is not a number.
  static VLMRM_INLINE vi entry(vf at, const std::vector<float>& table) {
    return truncate(min(max(at, vf{}), splat(table.size() - 1.0f)));
  }

  VLMRM_INLINE vi row_of(v3 p) const {
    if (kType == kCylinder) return splat(l_.side);
    const vf h = splat(scale_.half), z = p.z - min(max(p.z, -h), h);
    const vf el = atan2(z, sqrt(p.x * p.x + p.y * p.y));
    // Past the side of a cylinder, which lies between the halves.
    const vf up = el * splat(4 * (l_.side - 1) / kTurn) + splat(static_cast<float>(l_.side));
    const vi row = entry(select(el >= vf{}, up + splat(1.0f), up), l_.radial);
    return kType == kCapsule ? select(abs(p.z) <= h, splat(l_.side), row) : row;
  }

  VLMRM_INLINE FacetPlane plane(vf cosine, vf sine, vi row) const {
    if (kType == kCylinder) return {cosine, sine, splat(1.0f), vf{}, splat(l_.height[l_.side])};
    FacetPlane f = {cosine, sine, gather(l_.radial.data(), row), gather(l_.axial.data(), row),
                    gather(l_.height.data(), row)};
    if (kType == kCapsule) f.height = fma(abs(f.axial), splat(scale_.half), f.height);
    return f;
  }

  const Lathe& l_;
  UnitScale scale_;
  float outer_[3];
};

}  // namespace VLMRM_ISA
}  // namespace vlmrm

#endif  // VLMRM_RAY_LATHE_H_
