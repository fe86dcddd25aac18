// Shadow rays, as far apart as the texels of MuJoCo's shadow map.
#ifndef VLMRM_RAY_SHADOW_H_
#define VLMRM_RAY_SHADOW_H_

#include <algorithm>

#include "ray/frame.h"
#include "ray/intersect.h"
#include "ray/simd.h"

namespace vlmrm {
namespace VLMRM_ISA {

constexpr float kNowhere = 1e30f;

template <int kType>
VLMRM_INLINE vm blocks(const Caster& c, const ViewGeom& g, const ViewLight& l, v3 o, v3 d, vf limit,
                       vf offset, bool facets) {
  if (kType == kMesh) {
    return any_triangle(*g.mesh, o, d, limit,
                        {to_local(g, splat3(l.side)), to_local(g, splat3(l.up)), offset});
  }
  Hit in = hit_local<kType, false>(o, d, g.size);
  vm shadow = in.mask & (in.t > vf{}) & (in.t < limit);
  if (kType == kPlane) {
    in = hit_local<kPlane, true>(o, d, g.size);
    return in.mask & (in.t > splat(1e-4f)) & (in.t < limit);
  }
  // The plane of a facet may lead into a shape, whose wall is then before the light.
  if (facets) {
    const Hit out = hit_local<kType, true>(o, d, g.size);
    const vf margin = (offset + splat(0.05f * g.size[0])) * rsqrt(max(dot(d, d), splat(1e-20f)));
    return shadow | (out.mask & (out.t > margin) & (out.t < limit));
  }
  // The far wall casts too where the near plane of the map cuts the geom open, and on what is
  // seen inside of glass.
  if (c.inside_near || g.transparent) {
    Hit out = hit_local<kType, true>(o, d, g.size);
    const vm far = out.mask & (out.t > vf{}) & (out.t < limit);
    shadow |= g.transparent ? far : far & (in.t > vf{});
  }
  return shadow;
}

struct CasterTest {
  const Caster& c;
  const ViewGeom& g;
  const ViewLight& l;
  v3 o, d;
  vf limit, offset;
  bool facets;
  vm shadow;
  template <int kType>
  VLMRM_INLINE void run() {
    shadow = blocks<kType>(c, g, l, o, d, limit, offset, facets);
  }
};

// The middle of the texel of the shadow map that holds coordinate u in (-reach, reach), on the same
// plane. The map is drawn inside a border of one texel, but looked up as if there were none.
VLMRM_INLINE vf snap_to_texel(const Scene& scene, vf u, vf reach) {
  vf texel = floor((u * rcp(reach) + splat(1.0f)) * splat(0.5f * scene.shadow_size));
  return ((texel - splat(0.5f)) * splat(2.0f / (scene.shadow_size - 2.0f)) - splat(1.0f)) * reach;
}

inline void widen(const Caster& c, float* box) {
  box[0] = std::min(box[0], c.u0), box[1] = std::max(box[1], c.u1);
  box[2] = std::min(box[2], c.v0), box[3] = std::max(box[3], c.v1);
}

// Half the width of a caster's strip, wider than rounding in the test of a whole packet can matter:
// what is left out there must be what the test of each lane would leave out.
inline float loose_half(const Caster& c) {
  return c.half + 1e-5f * (c.half + std::abs(c.u0) + std::abs(c.u1) + std::abs(c.v0) + std::abs(c.v1));
}

// Lays the casters' bounds out for near_casters.
inline void pack_casters(const Scene& scene, Frame* f) {
  const int pitch = f->caster_pitch;
  f->queues = false;
  // A changing scene may have fewer lights than the frame has room for.
  for (size_t light = 0; light < scene.lights.size(); ++light) {
    float* u0 = f->caster_bounds[light].data();
    float *u1 = u0 + pitch, *v0 = u1 + pitch, *v1 = v0 + pitch, *strip = v1 + pitch;
    float* all = strip + 4 * pitch;
    float* meshes = &f->mesh_bounds[4 * light];
    for (float* box : {all, meshes}) box[0] = box[2] = kNowhere, box[1] = box[3] = -kNowhere;
    auto is_plane = [f](const Caster& c) { return f->view[c.view].type == kPlane; };
    const auto begin = f->casters[light].begin(), end = begin + f->num_casters[light];
    f->lone_plane[light] =
        std::count_if(begin, end, is_plane) == 1 ? std::find_if(begin, end, is_plane)->view : -1;
    for (int i = 0; i < pitch; ++i) {
      u0[i] = v0[i] = kNowhere, u1[i] = v1[i] = -kNowhere;
      for (int k = 0; k < 4; ++k) strip[k * pitch + i] = 0;
      if (i >= f->num_casters[light]) continue;
      Caster& c = f->casters[light][i];
      // A map in perspective would have to be cut at its near plane.
      c.queued = f->view[c.view].type == kMesh &&
                 (scene.lights[light].type == kDirectional || !c.inside_near);
      if (c.queued) widen(c, meshes);
      f->queues |= c.queued;
      u0[i] = c.u0, u1[i] = c.u1, v0[i] = c.v0, v1[i] = c.v1;
      strip[i] = c.across[0], strip[pitch + i] = c.across[1];
      strip[2 * pitch + i] = c.middle, strip[3 * pitch + i] = loose_half(c);
      if (c.view != f->lone_plane[light]) widen(c, all);
    }
  }
}

// The part of the light's image plane that a packet covers.
struct Footprint {
  float u0, u1, v0, v1;
};

VLMRM_INLINE Footprint footprint_of(vm lanes, vf u, vf v) {
  const vf far = splat(kNowhere);
  return {smallest(select(lanes, u, far)), largest(select(lanes, u, -far)),
          smallest(select(lanes, v, far)), largest(select(lanes, v, -far))};
}

// Bit i is set where caster first + i may darken a part of the footprint.
VLMRM_INLINE int near_casters(const Frame& f, int light, int first, const Footprint& p) {
  const int pitch = f.caster_pitch;
  const float* u0 = f.caster_bounds[light].data() + first;
  const vf across = load(u0 + 4 * pitch), along = load(u0 + 5 * pitch);
  const float u = 0.5f * (p.u0 + p.u1), v = 0.5f * (p.v0 + p.v1);
  const vf off = abs(across * splat(u) + along * splat(v) - load(u0 + 6 * pitch));
  const vf reach = abs(across) * splat(p.u1 - u) + abs(along) * splat(p.v1 - v);
  return bits((splat(p.u1) > load(u0)) & (splat(p.u0) < load(u0 + pitch)) &
              (splat(p.v1) > load(u0 + 2 * pitch)) & (splat(p.v0) < load(u0 + 3 * pitch)) &
              (off < reach + load(u0 + 7 * pitch)));
}

// What lies in shadow: a point of a shape, the same without the casters that are queued, or a point in
// the plane of a facet.
enum class ShadowOf { kShape, kUnqueued, kFacet };

// Offsets from a light along the three axes of its shadow map.
struct LightPlace {
  vf depth, u, v, reach;
};

__attribute__((noinline)) static vm trace_shadow(const Scene& scene, const Frame& f, int index,
                                                 int self, v3 p, v3 n, vm todo,
                                                 const LightPlace& at, ShadowOf what);

VLMRM_INLINE LightPlace place_in_light(const Scene& scene, const Frame& f, int index, v3 p) {
  const ViewLight& l = f.light[index];
  auto along = [&](const float* axis) __attribute__((always_inline)) {
    const float start = l.pos[0] * axis[0] + l.pos[1] * axis[1] + l.pos[2] * axis[2];
    return dot(p, axis) - splat(start);
  };
  LightPlace at = {along(l.dir), along(l.side), along(l.up), splat(scene.shadow_clip)};
  if (scene.lights[index].type != kDirectional) {
    at.reach = at.depth * splat(scene.lights[index].tan_shadow);
  }
  return at;
}

VLMRM_INLINE vm in_map(const Scene& scene, const LightPlace& at) {
  return (at.depth > splat(scene.znear)) & (abs(at.u) < at.reach) & (abs(at.v) < at.reach);
}

// Lanes of `todo` that the light does not reach.
VLMRM_INLINE vm in_shadow(const Scene& scene, const Frame& f, int index, int self, v3 p, v3 n,
                          vm todo, ShadowOf what = ShadowOf::kShape) {
  const LightPlace at = place_in_light(scene, f, index, p);
  vf u = at.u, v = at.v;
  if (scene.lights[index].type != kDirectional) u /= at.depth, v /= at.depth;
  const float* all = f.caster_bounds[index].data() + 8 * f.caster_pitch;
  todo &= in_map(scene, at);
  // A floor, which spans them all, does not shade itself.
  if (f.lone_plane[index] < 0 || f.lone_plane[index] == self) {
    todo &= (u > splat(all[0])) & (u < splat(all[1])) & (v > splat(all[2])) & (v < splat(all[3]));
  }
  // Few packets have more to do, and what they do would take registers from all.
  return any(todo) ? trace_shadow(scene, f, index, self, p, n, todo, at, what) : vm{};
}

vm trace_shadow(const Scene& scene, const Frame& f, int index, int self, v3 p, v3 n, vm todo,
                const LightPlace& at, ShadowOf what) {
  const ViewLight& l = f.light[index];
  const bool parallel = scene.lights[index].type == kDirectional;
  v3 from = p - splat3(l.pos);
  const vf depth = at.depth, u = at.u, v = at.v, reach = at.reach;
  const vf bu = parallel ? u : u / depth, bv = parallel ? v : v / depth;
  const Footprint footprint = footprint_of(todo, bu, bv);
  vm shadow = {};
  // mjr_render offsets what the shadow map holds by 1.5 texels times the slope.
  const vf offset = reach * splat(1.5f * 2 / scene.shadow_size);
  vf limit = {};
  v3 dir = {};
  bool snapped = false;
  const bool facets = what == ShadowOf::kFacet;
  const bool mesh = facets || f.view[self].type == kMesh;
  int first = -kLanes, list = 0;
  for (;;) {
    while (!list && (first += kLanes) < f.num_casters[index]) {
      list = near_casters(f, index, first, footprint);
    }
    if (!list) break;
    const Caster& c = f.casters[index][first + __builtin_ctz(list)];
    list &= list - 1;
    if (what == ShadowOf::kUnqueued && c.queued) continue;
    if (c.view == self && !mesh && !scene.lights[index].lights_backs) continue;
    const vf across = bu * splat(c.across[0]) + bv * splat(c.across[1]) - splat(c.middle);
    vm near = todo & ~shadow & (bu > splat(c.u0)) & (bu < splat(c.u1)) & (bv > splat(c.v0)) &
              (bv < splat(c.v1)) & (abs(across) < splat(c.half));
    if (!any(near)) continue;
    const ViewGeom& g = f.view[c.view];
    if (c.view == self && !mesh) {
      // A closed shape lies in its own shadow where it turns away.
      if (g.type != kPlane) shadow |= near & (dot(n, parallel ? splat3(l.dir) : from) >= vf{});
      continue;
    }
    if (!snapped) {
      // The map holds what the light sees through the middle of the texel that p falls into.
      snapped = true;
      p = p + splat3(l.side) * (snap_to_texel(scene, u, reach) - u) +
          splat3(l.up) * (snap_to_texel(scene, v, reach) - v);
      from = p - splat3(l.pos);
      limit = parallel ? depth - splat(scene.znear) : splat(1.0f) - splat(scene.znear) / depth;
      dir = parallel ? v3{splat(-l.dir[0]), splat(-l.dir[1]), splat(-l.dir[2])}
                     : v3{-from.x, -from.y, -from.z};
    }
    CasterTest test{c, g, l, to_local(g, p - splat3(g.center)), to_local(g, dir),
                    select(near, limit, splat(-1.0f)), offset, facets, {}};
    if (g.type == kMesh) {
      test.run<kMesh>();
    } else {
      with_type(g.type, test);
    }
    shadow |= test.shadow & near;
  }
  return shadow;
}

}  // namespace VLMRM_ISA
}  // namespace vlmrm

#endif  // VLMRM_RAY_SHADOW_H_
