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
constexpr int kFacetShift = 30;
constexpr int32_t kFacetBit = 1 << kFacetShift;
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

// A facet's plane in a unit frame: rise.x (around.x x + around.y y) + rise.y apothem z = height, where
// `around` and `rise` are the cosine and sine of the angles of the facet's middle.
struct Angle {
  vf x, y;
};
VLMRM_INLINE Angle turned(Angle a, float cosine, float sine) {
  return {a.x * splat(cosine) - a.y * splat(sine), a.y * splat(cosine) + a.x * splat(sine)};
}
// By a small angle.
VLMRM_INLINE Angle turned(Angle a, vf angle) {
  const vf squared = angle * angle;
  const vf cosine = fma(squared, fma(squared, splat(1 / 24.0f), splat(-0.5f)), splat(1.0f));
  const vf sine = angle * fma(squared, fma(squared, splat(1 / 120.0f), splat(-1 / 6.0f)), splat(1.0f));
  return {a.x * cosine - a.y * sine, a.y * cosine + a.x * sine};
}
VLMRM_INLINE Angle select(vm m, Angle a, Angle b) { return {select(m, a.x, b.x), select(m, a.y, b.y)}; }

template <int kType>
class Lathed {
 public:
  Lathed(const Scene& scene, const ViewGeom& g) : l_(scene.lathe), scale_(unit_scale(scene, g)) {
    // Corners lie on the round shape that the drawn one has the area of.
    const float r = 1 / scene.round;
    const float* s = g.size;
    outer_[0] = s[0] * r, outer_[1] = s[1] * r;
    outer_[2] = kLong ? s[2] : s[2] / scene.round_along;
  }

  // Where a ray in the geom's frame enters; `prim` is the facet, 0 for the cap of a cylinder.
  VLMRM_INLINE Hit hit(const Ray& r) const {
    Hit h = hit_local<kType, false>(r.o, r.d, outer_);
    if (!any(h.mask)) return h;
    Search s;
    s.o = scale_.to_unit(r.o), s.d = scale_.to_unit(r.d);
    const v3 p = kType == kCylinder ? hit_side(s) : fma(s.d, h.t, s.o);
    start(p, &s);
    const Angle middle = s.around, level = s.rise;
    const vi slice = s.slice;
    try_facet(all_lanes(), middle, level, slice, s.row, &s);
    for (int side = -1; side <= 1; side += 2) {
      const Angle beside = turned(middle, l_.step_cosine, l_.step_sine * static_cast<float>(side));
      try_facet(all_lanes(), beside, level, slice + splat(int32_t{side}), s.row, &s);
    }
    // Each lane decides for itself: what it shows must not depend on its company.
    const vm by_ring = kType == kCapsule ? abs(p.z) > splat(scale_.half - 0.2f) : all_lanes();
    if (kType != kCylinder && any(by_ring)) try_rows(by_ring, &s);
    return finish(h, s);
  }

 private:
  static constexpr bool kLong = kType == kCapsule || kType == kCylinder;

  // A ray in the unit frame, and the facet that it enters last of those tried.
  struct Search {
    v3 o, d;
    Angle around, rise;
    vi slice, row;
    vf enter = splat(-1e30f), leave = splat(1e30f);
  };

  // Where the ray meets the side of a cylinder without ends.
  VLMRM_INLINE v3 hit_side(const Search& s) const {
    const vf a = max(fma(s.d.x, s.d.x, s.d.y * s.d.y), splat(1e-12f));
    const vf b = fma(s.o.x, s.d.x, s.o.y * s.d.y);
    const vf disc = fma(b, b, -a * fma(s.o.x, s.o.x, fma(s.o.y, s.o.y, splat(-1.0f))));
    return fma(s.d, root<false>(b, disc, a), s.o);
  }

  // The facet under a point of the round shape.
  VLMRM_INLINE void start(v3 p, Search* s) const {
    const vf squared = max(p.x * p.x + p.y * p.y, splat(1e-12f)), inverse = rsqrt(squared);
    const vf turn = atan2(p.y, p.x) * splat(l_.slices / kTurn), first = whole(turn, l_.slices);
    s->slice = truncate(first + splat(l_.first + 0.5f));
    s->around = turned({p.x * inverse, p.y * inverse}, (first + splat(0.5f) - turn) * splat(kTurn / l_.slices));
    s->row = splat(l_.side);
    s->rise = {splat(1.0f), vf{}};
    if (kType == kCylinder) return;
    const vf h = splat(scale_.half), z = p.z - min(max(p.z, -h), h);
    const vf length = rsqrt(squared + z * z), distance = squared * inverse;
    const float rings = 4 * (l_.side - 1) / kTurn;
    const vf level = atan2(z, distance) * splat(rings), low = whole(level, l_.side - 1.0f);
    // The side of a cylinder lies between the halves.
    const vi row = truncate(low + splat(l_.side + 0.5f));
    const vm on_side = kType == kCapsule ? abs(p.z) <= h : vm{};
    s->row = select(on_side, s->row, select(z < vf{}, row, row + splat(int32_t{1})));
    s->rise = select(on_side, s->rise, turned({distance * length, z * length},
                                              (low + splat(0.5f) - level) * splat(1 / rings)));
  }

  // Down to an integer, in [-limit, limit); what is not a number counts as -limit, for `max` returns
  // its second argument then.
  static VLMRM_INLINE vf whole(vf a, float limit) {
    return floor(min(max(a, splat(-limit)), splat(limit - 0.5f)));
  }

  // The rings above and below, in lanes of `wanted`.
  VLMRM_INLINE void try_rows(vm wanted, Search* s) const {
    const Angle around = s->around, rise = s->rise;
    const vi slice = s->slice, row = s->row, middle = splat(l_.side);
    for (int side = -1; side <= 1; side += 2) {
      vi next = row + splat(int32_t{side});
      Angle level = turned(rise, l_.ring_cosine, l_.ring_sine * static_cast<float>(side));
      if (kType == kCapsule) {
        // Next to the side, rings are half a step away.
        const float half = static_cast<float>(side) * l_.half_ring_sine;
        level = select(row == middle, turned(rise, l_.half_ring_cosine, half), level);
        level = select(next == middle, Angle{splat(1.0f), vf{}}, level);
      } else {
        next = select(next == middle, next + splat(int32_t{side}), next);
      }
      try_facet(wanted, around, level, slice, next, s);
    }
  }

  VLMRM_INLINE vf along(Angle around, Angle rise, v3 d) const {
    const vf out = fma(around.x, d.x, around.y * d.y);
    return kType == kCylinder ? out : fma(rise.x, out, rise.y * (d.z * splat(l_.apothem)));
  }

  VLMRM_INLINE void try_facet(vm wanted, Angle around, Angle rise, vi slice, vi row,
                              Search* s) const {
    vf height = splat(l_.apothem * l_.half_ring_cosine);
    if (kType == kCylinder) height = splat(l_.apothem);
    if (kType == kCapsule) {
      height = select(row == splat(l_.side), splat(l_.apothem), height);
      height = fma(abs(rise.y), splat(l_.apothem * scale_.half), height);
    }
    const vf b = along(around, rise, s->d);
    const vf t = (height - along(around, rise, s->o)) * rcp(b);
    s->leave = select(wanted & (b > vf{}), min(t, s->leave), s->leave);
    const vm later = wanted & (b < vf{}) & (t > s->enter);
    s->enter = select(later, t, s->enter);
    s->around = select(later, around, s->around);
    s->rise = select(later, rise, s->rise);
    s->slice = select(later, slice, s->slice);
    s->row = select(later, row, s->row);
  }

  VLMRM_INLINE Hit finish(Hit h, const Search& s) const {
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

  // The facet with that of its two triangles which holds a point.
  VLMRM_INLINE vi name(const Search& s, v3 p) const {
    const vf across = p.y * s.around.x - p.x * s.around.y;
    vf low = splat(1.0f), high = low, part = vf{};
    vi stack = {};
    vm on_side = kType == kCylinder ? all_lanes() : vm{};
    if (kType != kCylinder) {
      on_side = s.row == splat(l_.side);
      const Angle bottom = turned(s.rise, l_.half_ring_cosine, -l_.half_ring_sine);
      const Angle top = turned(s.rise, l_.half_ring_cosine, l_.half_ring_sine);
      const vf shift = select(s.rise.y < vf{}, splat(-scale_.half), splat(scale_.half));
      low = bottom.x, high = top.x;
      part = (p.z - shift - bottom.y) * rcp(top.y - bottom.y);
    }
    if (kLong) {
      const vf at = (p.z * splat(1 / scale_.half) + splat(1.0f)) * splat(0.5f * l_.stacks);
      const vf floor_at = floor(min(max(at, vf{}), splat(l_.stacks - 0.5f)));
      stack = select(on_side, truncate(floor_at), vi{});
      part = select(on_side, at - floor_at, part);
      low = select(on_side, splat(1.0f), low), high = select(on_side, splat(1.0f), high);
    }
    const vf diagonal = (low - part * (low + high)) * splat(l_.half_width);
    const vi second = select(across > diagonal, splat(int32_t{1}), vi{});
    return splat(kFacetBit) | s.row << kRowShift | stack << kStackShift | s.slice << kSliceShift | second;
  }

  const Lathe& l_;
  UnitScale scale_;
  float outer_[3];
};

}  // namespace VLMRM_ISA
}  // namespace vlmrm

#endif  // VLMRM_RAY_LATHE_H_
