// Packets of coherent rays against a triangle mesh, in the mesh's own frame.
#ifndef VLMRM_RAY_TRACE_H_
#define VLMRM_RAY_TRACE_H_

#include "ray/mesh.h"
#include "ray/simd.h"

namespace vlmrm {
namespace VLMRM_ISA {

// Nearest triangle along each ray; a lane without one keeps t = the end of its range.
struct MeshHit {
  vf t;
  vi prim;
  vm mask;
};

// Rays o + t d with the parts of the slab test that do not depend on the box.
struct Packet {
  v3 o, d;
  v3 inverse, offset;
};

VLMRM_INLINE vf inverse_of(vf d) {
  const vf tiny = splat(1e-12f);
  return splat(1.0f) / select(abs(d) > tiny, d, select(d < vf{}, -tiny, tiny));
}

VLMRM_INLINE Packet make_packet(v3 o, v3 d) {
  const v3 i = {inverse_of(d.x), inverse_of(d.y), inverse_of(d.z)};
  return {o, d, i, {o.x * i.x, o.y * i.y, o.z * i.z}};
}

VLMRM_INLINE v3 cross(v3 a, v3 b) {
  return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}

// Lanes whose ray meets the box between `from` and `to`; *enter is where. If all rays of the packet
// go the same way along each axis, `near` names the sides that they meet first.
template <bool kSameWay>
VLMRM_INLINE vm meets(const MeshNode& n, const Packet& r, const int* near, vf from, vf to,
                      vf* enter) {
  const vf x0 = splat(n.side[near[0]][0]) * r.inverse.x - r.offset.x;
  const vf x1 = splat(n.side[1 - near[0]][0]) * r.inverse.x - r.offset.x;
  const vf y0 = splat(n.side[near[1]][1]) * r.inverse.y - r.offset.y;
  const vf y1 = splat(n.side[1 - near[1]][1]) * r.inverse.y - r.offset.y;
  const vf z0 = splat(n.side[near[2]][2]) * r.inverse.z - r.offset.z;
  const vf z1 = splat(n.side[1 - near[2]][2]) * r.inverse.z - r.offset.z;
  if (kSameWay) {
    *enter = max(max(x0, y0), max(z0, from));
    return *enter <= min(min(x1, y1), min(z1, to));
  }
  *enter = max(max(min(x0, x1), min(y0, y1)), max(min(z0, z1), from));
  return *enter <= min(min(max(x0, x1), max(y0, y1)), min(max(z0, z1), to));
}

// A ray against a triangle, before the division by the determinant.
struct Crossing {
  vf det;  // > 0 where the ray meets the front
  vf t;    // times det
  vm inside;
};

// Neighbouring triangles share an edge but not its rounding; a margin of 1e-5 of a side keeps
// rays from slipping between them.
template <bool kBothSides>
VLMRM_INLINE Crossing crossing(const float* k, const Packet& r) {
  const v3 s = r.o - splat3(k), e1 = splat3(k + 3), e2 = splat3(k + 6), n = splat3(k + 9);
  const v3 q = cross(s, r.d);
  vf det = -dot(r.d, n), u = dot(q, e2), v = -dot(q, e1), t = dot(s, n);
  vf size = det;
  if (kBothSides) {
    size = abs(det);
    const vm flip = det < vf{};
    u = select(flip, -u, u), v = select(flip, -v, v), t = select(flip, -t, t);
  }
  const vf margin = splat(-1e-5f) * size;
  const vm inside = (size > vf{}) & (u >= margin) & (v >= margin) & (u + v <= size - margin);
  return {det, t, inside};
}

struct StackEntry {
  vf enter;
  int32_t node;
};

// Walks the boxes that some ray meets, nearer ones first, and calls leaf(first, end, &to), which
// may shorten the rays; a ray with to <= from is done.
template <bool kSameWay, class Leaf>
VLMRM_INLINE void walk_boxes(const Mesh& mesh, const Packet& r, const int* near, vf from, vf* to,
                             Leaf&& leaf) {
  StackEntry stack[kMaxMeshDepth];
  int top = 0;
  const MeshNode* nodes = mesh.nodes[0].child;
  vf enter;
  if (!any(meets<kSameWay>(nodes[0], r, near, from, *to, &enter))) return;
  const MeshNode* n = nodes;
  while (true) {
    while (n->count == 0) {
      const MeshNode* a = nodes + n->first;
      const MeshNode* b = a + 1;
      vf enter_a, enter_b;
      const vm meets_a = meets<kSameWay>(*a, r, near, from, *to, &enter_a);
      const vm meets_b = meets<kSameWay>(*b, r, near, from, *to, &enter_b);
      const int hits_a = bits(meets_a), hits_b = bits(meets_b);
      if (hits_a && hits_b) {
        // The children are ranked by most of the rays.
        const int both = hits_a & hits_b, nearer = both & bits(enter_b < enter_a);
        const bool swap = 2 * __builtin_popcount(nearer) > __builtin_popcount(both);
        stack[top++] = {select(swap ? meets_a : meets_b, swap ? enter_a : enter_b, splat(3e38f)),
                        static_cast<int32_t>((swap ? a : b) - nodes)};
        n = swap ? b : a;
      } else if (hits_a || hits_b) {
        n = hits_a ? a : b;
      } else {
        n = nullptr;
        break;
      }
    }
    if (n) leaf(n->first, n->first + n->count, to);
    do {
      if (top == 0) return;
      --top;
    } while (!any(stack[top].enter <= *to));
    n = nodes + stack[top].node;
  }
}

template <class Leaf>
VLMRM_INLINE void walk(const Mesh& mesh, const Packet& r, vf from, vf* to, Leaf&& leaf) {
  if (mesh.nodes.empty()) return;
  const int live = bits(from < *to);
  if (!live) return;
  int near[3];
  bool same_way = true;
  const vf* d[3] = {&r.inverse.x, &r.inverse.y, &r.inverse.z};
  for (int k = 0; k < 3; ++k) {
    const int back = bits(*d[k] < vf{}) & live;
    near[k] = back != 0;
    same_way = same_way && (back == 0 || back == live);
  }
  if (same_way) {
    walk_boxes<true>(mesh, r, near, from, to, leaf);
  } else {
    walk_boxes<false>(mesh, r, near, from, to, leaf);
  }
}

// The first triangle after number `after` in the order in which they are drawn, whatever its depth,
// with from < t <= to. `hit.prim` is its index, *number its place in that order.
template <bool kBothSides>
VLMRM_INLINE MeshHit next_triangle(const Mesh& mesh, v3 o, v3 d, vf from, vf to, vi after,
                                   vi* number) {
  const Packet r = make_packet(o, d);
  MeshHit hit = {to, vi{}, vm{}};
  walk(mesh, r, from, &to, [&](int32_t first, int32_t end, vf*) {
    for (int32_t i = first; i < end; ++i) {
      const vi source = splat(mesh.source[i]);
      const Crossing c = crossing<kBothSides>(mesh.shape[i].number, r);
      const vf t = c.t / abs(c.det);
      const vm win = c.inside & (t > from) & (t <= to) & (source > after) & (source < *number);
      hit.t = select(win, t, hit.t);
      hit.prim = select(win, splat(i), hit.prim);
      *number = select(win, source, *number);
      hit.mask |= win;
    }
  });
  return hit;
}

// Calls keep(lanes, i, t) for each triangle i that some rays meet with from < t <= to.
template <bool kBothSides, class Keep>
VLMRM_INLINE void all_triangles(const Mesh& mesh, v3 o, v3 d, vf from, vf to, Keep&& keep) {
  const Packet r = make_packet(o, d);
  walk(mesh, r, from, &to, [&](int32_t first, int32_t end, vf*) {
    for (int32_t i = first; i < end; ++i) {
      const Crossing c = crossing<kBothSides>(mesh.shape[i].number, r);
      if (!any(c.inside)) continue;
      const vf t = c.t / abs(c.det);
      const vm win = c.inside & (t > from) & (t <= to);
      if (any(win)) keep(win, i, t);
    }
  });
}

// What glPolygonOffset does to a shadow map: a triangle moves away from the light by `amount` times
// its slope along the axis of the map, `side` or `up`, in which it is steeper.
struct SlopeOffset {
  v3 side, up;
  vf amount;
};

// Lanes that some triangle, seen from either side, keeps from reaching `to`.
__attribute__((noinline)) static vm any_triangle(const Mesh& mesh, v3 o, v3 d, vf to, const SlopeOffset& offset) {
  const Packet r = make_packet(o, d);
  vm hit = {};
  walk(mesh, r, vf{}, &to, [&](int32_t first, int32_t end, vf* left) {
    for (int32_t i = first; i < end; ++i) {
      const float* k = mesh.shape[i].number;
      const Crossing c = crossing<true>(k, r);
      if (!any(c.inside)) continue;
      const v3 n = splat3(k + 9);
      const vf slope = max(abs(dot(n, offset.side)), abs(dot(n, offset.up)));
      hit |= c.inside & (c.t > offset.amount * slope) & (c.t > vf{}) & (c.t < *left * abs(c.det));
    }
    *left = select(hit, splat(-1.0f), *left);
  });
  return hit;
}

}  // namespace VLMRM_ISA
}  // namespace vlmrm

#endif  // VLMRM_RAY_TRACE_H_
