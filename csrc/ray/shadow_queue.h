// Shadows of meshes, found for a whole picture at once.
//
// A point that a mesh may darken is not traced: it is queued, with what it adds to its pixel if the
// light reaches it. When the picture is painted, shadow_grid.h tells which points are dark, and
// `finish` puts the pixels together.
#ifndef VLMRM_RAY_SHADOW_QUEUE_H_
#define VLMRM_RAY_SHADOW_QUEUE_H_

#include <algorithm>

#include "ray/frame.h"
#include "ray/shadow.h"
#include "ray/simd.h"
#include "ray/sky.h"

namespace vlmrm {
namespace VLMRM_ISA {

VLMRM_INLINE vi pack_bytes(const Color& c) { return c.r | c.g << 8 | c.b << 16; }

// The three bytes in 16 bits each.
VLMRM_INLINE uint64_t spread(int32_t rgb) {
  const uint64_t r = rgb & 0xff, g = rgb & 0xff00, b = rgb & 0xff0000;
  return r | g << 8 | b << 16;
}

// The sums of four pairs of bytes, no more than 255 each.
VLMRM_INLINE int32_t add_bytes(int32_t a, int32_t b) {
  const uint32_t x = a, y = b, low = 0x7f7f7f7f, high = ~low;
  const uint32_t sum = ((x & low) + (y & low)) ^ ((x ^ y) & high);
  const uint32_t over = ((x & y) | ((x | y) & ~sum)) & high;
  return static_cast<int32_t>(sum | (over >> 7) * 255);
}

// A quarter of each of three sums of 16 bits.
VLMRM_INLINE void write_quarter(uint64_t sum, uint8_t* out) {
  sum = (sum + 0x000200020002) >> 2;
  sum |= (sum >> 8 & 0x000100010001) * 255;  // no more than 255
  out[0] = static_cast<uint8_t>(sum);
  out[1] = static_cast<uint8_t>(sum >> 16);
  out[2] = static_cast<uint8_t>(sum >> 32);
}

// Makes room for one more packet in each list.
template <class... List>
VLMRM_INLINE void make_room(size_t count, List*... lists) {
  auto grow = [count](auto* list) {
    if (list->size() < count + kLanes) list->resize(2 * (count + kLanes));
  };
  (grow(lists), ...);
}

// The queue for a view's points, or null if nothing may be queued: haze is laid over finished colours.
VLMRM_INLINE ShadowQueue* queue_for(Frame* f, int view) {
  if (!f->queues || view < 0) return nullptr;
  const ViewGeom& g = f->view[view];
  const bool hazy = g.endless && f->haze_height > 0;
  return hazy || g.mirrored ? nullptr : &f->queue;
}

// Forgets the picture before.
inline void clear_queue(const Scene& scene, Frame* f) {
  ShadowQueue& queue = f->queue;
  queue.num_fragments = queue.num_pixels = queue.num_points = 0;
  if (queue.light.size() < scene.lights.size()) queue.light.resize(scene.lights.size());
  for (QueuedPoints& points : queue.light) points.count = 0;
}

// Lanes of `todo` that lie in the bounds of some queued caster.
VLMRM_INLINE vm near_queued(const Frame& f, int index, vf u, vf v, vm todo) {
  const float* all = f.mesh_bounds.data() + 4 * index;
  todo &= (u > splat(all[0])) & (u < splat(all[1])) & (v > splat(all[2])) & (v < splat(all[3]));
  vm near = {};
  if (!any(todo)) return near;
  const Footprint footprint = footprint_of(todo, u, v);
  for (int first = 0; first < f.num_casters[index]; first += kLanes) {
    for (int list = near_casters(f, index, first, footprint); list; list &= list - 1) {
      const Caster& c = f.casters[index][first + __builtin_ctz(list)];
      if (!c.queued) continue;
      const vf across = u * splat(c.across[0]) + v * splat(c.across[1]) - splat(c.middle);
      near |= (u > splat(c.u0)) & (u < splat(c.u1)) & (v > splat(c.v0)) & (v < splat(c.v1)) &
              (abs(across) < splat(c.half));
    }
  }
  return near & todo;
}

// Lanes of `todo` that light `index` reaches for sure; `delta` is what it adds to them. Points that
// a mesh may darken are queued, for fragments numbered from the queue's next on.
VLMRM_INLINE vm light_reaches(const Scene& scene, const Frame& f, int index, int self, v3 p, v3 n,
                              vm todo, const Color& delta, ShadowQueue* queue) {
  const vm dark = in_shadow(scene, f, index, self, p, n, todo, ShadowOf::kUnqueued);
  const LightPlace at = place_in_light(scene, f, index, p);
  const bool parallel = scene.lights[index].type == kDirectional;
  const vf u = parallel ? at.u : at.u / at.depth, v = parallel ? at.v : at.v / at.depth;
  const vm near = near_queued(f, index, u, v, todo & ~dark & in_map(scene, at));
  int rest = bits(near);
  if (!rest) return todo & ~dark;
  const vf half = splat(0.5f * scene.shadow_size), one = splat(1.0f), inverse = rcp(at.reach);
  float x[kLanes], y[kLanes], nearness[kLanes];
  int32_t bytes[kLanes];
  store(x, floor((at.u * inverse + one) * half)), store(y, floor((at.v * inverse + one) * half));
  store(nearness, parallel ? -at.depth : one / at.depth);
  store(bytes, pack_bytes(delta));
  QueuedPoints& to = queue->light[index];
  make_room(to.count, &to.x, &to.y, &to.near, &to.fragment, &to.delta);
  for (; rest; rest &= rest - 1) {
    const int i = __builtin_ctz(rest);
    const size_t k = to.count++;
    to.x[k] = x[i], to.y[k] = y[i], to.near[k] = nearness[i], to.delta[k] = bytes[i];
    to.fragment[k] = static_cast<int32_t>(queue->num_fragments) + i;
  }
  queue->num_points += __builtin_popcount(bits(near));
  return todo & ~dark & ~near;
}

// A pixel to be put together at the end, at `place` in the picture, from what `sum` holds and
// fragments; returns its number.
inline int32_t queue_pixel(ShadowQueue* queue, int32_t place, uint64_t sum) {
  const size_t k = queue->num_pixels++;
  make_room(k, &queue->place, &queue->sum);
  queue->place[k] = place;
  queue->sum[k] = sum;
  return static_cast<int32_t>(k);
}

// The fragments of one packet, numbered by lane: colours, and pixels and weights of `count` of them.
inline void queue_fragments(ShadowQueue* queue, vi rgb, const int32_t* pixel, const int32_t* weight,
                            int count) {
  const size_t k = queue->num_fragments;
  make_room(k, &queue->rgb, &queue->pixel, &queue->weight);
  store(queue->rgb.data() + k, rgb);
  std::copy(pixel, pixel + count, queue->pixel.begin() + k);
  std::copy(weight, weight + count, queue->weight.begin() + k);
  queue->num_fragments += count;
}

// Adds the lights that were found to reach their points, and writes the pixels.
inline void finish(ShadowQueue* queue, uint8_t* rgb) {
  for (const QueuedPoints& points : queue->light) {
    for (size_t i = 0; i < points.count; ++i) {
      int32_t& to = queue->rgb[points.fragment[i]];
      to = add_bytes(to, points.dark[i] ? 0 : points.delta[i]);
    }
  }
  for (size_t i = 0; i < queue->num_fragments; ++i) {
    queue->sum[queue->pixel[i]] += queue->weight[i] * spread(queue->rgb[i]);
  }
  for (size_t i = 0; i < queue->num_pixels; ++i) {
    write_quarter(queue->sum[i], rgb + 3 * static_cast<size_t>(queue->place[i]));
  }
}

}  // namespace VLMRM_ISA
}  // namespace vlmrm

#endif  // VLMRM_RAY_SHADOW_QUEUE_H_
