// Pixels that show more than one surface: four sub-samples, each surface shaded once.
//
// Slots are gathered until the tables are full, then resolved together, so that every vector
// lane works on the same geom.
#ifndef VLMRM_RAY_RESOLVE_H_
#define VLMRM_RAY_RESOLVE_H_

#include <algorithm>

#include "ray/frame.h"
#include "ray/intersect.h"
#include "ray/lathe.h"
#include "ray/raster.h"
#include "ray/shade_lathe.h"
#include "ray/shade_mesh.h"
#include "ray/simd.h"
#include "ray/slots.h"
#include "ray/still.h"

namespace vlmrm {
namespace VLMRM_ISA {

// Added to the weight of a fragment whose surface does not show at its pixel's centre.
constexpr int kBeside = 8;

class Resolve {
 public:
  Resolve(const Scene& scene, Frame* frame, uint8_t* rgb)
      : scene_(scene), f_(*frame), rgb_(rgb), num_views_(2 * static_cast<int>(scene.geoms.size())),
        has_meshes_(!frame->prim.empty()),
        has_prims_(has_meshes_ || frame->facets), queue_(frame) {}

  // Queues pixels of a packet: those whose samples may differ, and those that show their centre.
  void add_slots(int row, int col, int mixed, int smooth) {
    if (queue_.is_full()) flush();
    if (mixed) queue_.add_mixed(row, col, mixed);
    if (smooth) queue_.add_smooth(row, col, smooth);
  }

  void flush() {
    if (queue_.is_empty()) return;
    place_samples();
    if (f_.facets && scene_.lathe.slices > 0) {
      sample_pairs<true>();
    } else {
      sample_pairs<false>();
    }
    make_fragments();
    shade_fragments();
    write_pixels();
    queue_.clear();
  }

 private:
  static constexpr int kSlots = kLanes / 4;  // a slot's four samples take four lanes

  // Puts the sub-samples in their places, before the sky and what triangles cover them.
  void place_samples() {
    const vf dx = repeat4(kSampleX), dy = repeat4(kSampleY);
    const vf left = splat(f_.left), top = splat(f_.top);
    const vf step_x = splat(f_.step_x), step_y = splat(f_.step_y);
    for (int k = 0; k < 4 * f_.num_slots; k += kLanes) {
      const vf col = to_float(each_four_times(f_.slot_x.data() + k / 4));
      const vf row = to_float(each_four_times(f_.slot_y.data() + k / 4));
      store(f_.sample_x.data() + k, left + (col + dx) * step_x);
      store(f_.sample_y.data() + k, top - (row + dy) * step_y);
      clear(&f_.sample, k, limit_depth(scene_, f_, left + col * step_x, top - row * step_y));
      if (f_.mirror) clear(&f_.mirror_sample, k, splat(scene_.zfar));
      if (has_meshes_) take_triangles(f_.samples, k, all_lanes(), vf{}, &f_.sample);
    }
  }

  void clear(SurfaceTable* samples, int k, vf depth) {
    store(samples->depth.data() + k, depth);
    store(samples->id.data() + k, splat(int32_t{-1}));
    if (has_prims_) store(samples->prim.data() + k, vi{});
  }

  // Gives a packet of samples the triangles that cover them, where allowed and behind `front`.
  void take_triangles(const MeshSamples& from, int k, vm allowed, vf front, SurfaceTable* to) {
    int32_t pixel[kSlots];
    for (int j = 0; j < kSlots; ++j) pixel[j] = f_.slot_y[k / 4 + j] * f_.pitch + f_.slot_x[k / 4 + j];
    const vf t = load_fours(from.depth.data(), pixel), old = load(to->depth.data() + k);
    const vm wins = allowed & (t < old) & (t > front);
    if (!any(wins)) return;
    auto keep = [&](auto* table, const auto* source) __attribute__((always_inline)) {
      store(table + k, select(wins, load_fours(source, pixel), load(table + k)));
    };
    keep(to->depth.data(), from.depth.data());
    keep(to->id.data(), from.id.data());
    keep(to->prim.data(), from.prim.data());
  }

  // The same in the mirror, once it is known which samples show that.
  void take_mirrored_triangles() {
    for (int k = 0; k < 4 * f_.num_slots; k += kLanes) {
      const vm over = (load(f_.sample.id.data() + k) >> 3) == splat(f_.reflective);
      take_triangles(f_.mirror_samples, k, over, load(f_.sample.depth.data() + k),
                     &f_.mirror_sample);
    }
  }

  // Counting sort: bucket[k + 1] holds how many things have key k, then where the next of them goes,
  // and in the end where those of key k + 1 begin.
  int32_t* clear_buckets(int num_keys) {
    std::fill_n(f_.bucket.begin(), num_keys + 1, 0);
    return f_.bucket.data() + 1;
  }
  int32_t* start_buckets(int num_keys) {
    int32_t* bucket = f_.bucket.data();
    for (int k = 0, sum = 0; k <= num_keys; ++k) sum += bucket[k], bucket[k] = sum - bucket[k];
    return bucket + 1;
  }

  template <bool kFacets>
  struct SamplePair {
    Resolve* self;
    const ViewGeom& g;
    int view, begin, end;
    template <int kType>
    VLMRM_INLINE void run() {
      SurfaceTable* to = g.mirrored ? &self->f_.mirror_sample : &self->f_.sample;
      for (int k = begin; k < end; k += kSlots) {
        self->sample_view<kType, kFacets>(g, view, k, std::min(kSlots, end - k), to);
      }
    }
  };

  // Brings the runs of each geom together.
  void sort_pairs() {
    int32_t* count = clear_buckets(num_views_);
    const Run* const end = f_.run.data() + f_.num_runs;
    for (const Run* r = f_.run.data(); r < end; ++r) count[r->view] += r->count;
    int32_t* next = start_buckets(num_views_);
    for (const Run* r = f_.run.data(); r < end; ++r) {
      store_first(&f_.pair_sorted[next[r->view]], load(&f_.pair_slot[r->begin]), r->count);
      next[r->view] += r->count;
    }
  }

  // One copy of each case: the search for facets would take registers from the other.
  template <bool kFacets>
  __attribute__((noinline)) void sample_pairs() {
    sort_pairs();
    for (int v = 0; v < num_views_; ++v) {
      if (2 * v == num_views_ && f_.mirror && has_meshes_) take_mirrored_triangles();
      const int begin = f_.bucket[v], end = f_.bucket[v + 1];
      if (begin == end || f_.view[v].type == kMesh) continue;
      with_type(f_.view[v].type, SamplePair<kFacets>{this, f_.view[v], v, begin, end});
    }
  }

  template <int kType, bool kFacets>
  VLMRM_INLINE Hit sample_hit(const ViewGeom& g, vf x, vf y) const {
    if constexpr (kFacets && is_lathed(kType)) {
      if (!g.hollow) {
        const Lathed<kType> shape(scene_, g);
        return shape.hit(f_.orthographic ? eye_ray<true>(g, x, y) : eye_ray<false>(g, x, y));
      }
    }
    return f_.general ? hit_general<kType>(g, f_.orthographic, scene_.znear, x, y)
                      : hit_eye<kType>(g, x, y);
  }

  // Keeps what the samples of `count` slots show of a geom, where it is the nearest so far.
  template <int kType, bool kFacets>
  VLMRM_INLINE void sample_view(const ViewGeom& g, int view, int begin, int count,
                                SurfaceTable* to) {
    int32_t slot[kSlots];
    for (int j = 0; j < kSlots; ++j) slot[j] = f_.pair_sorted[begin + std::min(j, count - 1)];
    const vf x = load_fours(f_.sample_x.data(), slot), y = load_fours(f_.sample_y.data(), slot);
    const vf old = load_fours(to->depth.data(), slot);
    const Hit h = sample_hit<kType, kFacets>(g, x, y);
    vm wins = h.mask & (h.t > splat(scene_.znear)) & (h.t <= old);
    if (g.mirrored) {
      const vi under = load_fours(f_.sample.id.data(), slot) >> 3;
      wins &= (under == splat(f_.reflective)) & (h.t > load_fours(f_.sample.depth.data(), slot));
    }
    if (!any(wins)) return;
    auto keep = [&](auto* table, auto a) __attribute__((always_inline)) {
      store_fours(table, slot, select(wins, a, load_fours(table, slot)));
    };
    keep(to->depth.data(), h.t);
    keep(to->id.data(), h.face + splat(int32_t{view * 8}));
    if (has_prims_) keep(to->prim.data(), h.prim);
  }

  // One fragment per distinct surface among the samples of a slot.
  void make_fragments() {
    for (int s = 0; s < f_.num_slots; s += kSlots) {
      add_fragments(s, f_.sample, f_.center, true);
      if (f_.mirror) add_fragments(s, f_.mirror_sample, f_.mirror_center, false);
    }
  }

  // Those of slots s to s + kSlots - 1; mirror images have no sky.
  VLMRM_INLINE void add_fragments(int s, const SurfaceTable& sample, const SurfaceTable& center,
                                  bool sky) {
    const vi id = load(sample.id.data() + 4 * s), center_id = each_four_times(center.id.data() + s);
    vm shown = first_lanes(4 * (f_.num_slots - s));
    if (!sky) shown &= id >= vi{};
    if (!any(shown)) return;
    // Which of the samples 1, 2 and 3 further on show the same surface, and whether the centre does.
    vm same[3] = {turn<1>(id) == id, turn<2>(id) == id, turn<3>(id) == id};
    vm centered = id == center_id;
    vi prim = vi{};
    if (has_prims_) {
      prim = load(sample.prim.data() + 4 * s);
      same[0] &= turn<1>(prim) == prim, same[1] &= turn<2>(prim) == prim;
      same[2] &= turn<3>(prim) == prim, centered &= prim == each_four_times(center.prim.data() + s);
    }
    const vi at = lane_number() & splat(int32_t{3}), one = splat(int32_t{1});
    shown &= ~((same[2] & (at > vi{})) | (same[1] & (at > one)) | (same[0] & (at > one + one)));
    const vi weight = one + (same[0] & one) + (same[1] & one) + (same[2] & one);
    FragmentTable& to = f_.fragment;
    const int n = to.count;
    append(to.id.data() + n, shown, id);
    append(to.depth.data() + n, shown, select(centered, each_four_times(center.depth.data() + s),
                                              load(sample.depth.data() + 4 * s)));
    append(to.weight.data() + n, shown, weight + (~centered & splat(int32_t{kBeside})));
    append(to.slot.data() + n, shown, splat(int32_t{s}) + (lane_number() >> 2));
    if (has_prims_) append(to.prim.data() + n, shown, prim);
    to.count += __builtin_popcount(bits(shown));
  }

  void sort_fragments() {
    const FragmentTable& from = f_.fragment;
    FragmentTable& to = f_.sorted_fragment;
    const int keys = 2 * (num_views_ + 1);
    auto key = [&](int i) {
      const int facet = has_prims_ ? from.prim[i] >> kFacetShift : 0;
      return 2 * ((from.id[i] >> 3) + 1) + facet;  // the sky's view is -1
    };
    int32_t* count = clear_buckets(keys);
    for (int i = 0; i < from.count; ++i) ++count[key(i)];
    int32_t* next = start_buckets(keys);
    for (int i = 0; i < from.count; ++i) {
      const int k = next[key(i)]++;
      to.id[k] = from.id[i], to.depth[k] = from.depth[i];
      to.slot[k] = from.slot[i], to.weight[k] = from.weight[i];
      if (has_prims_) to.prim[k] = from.prim[i];
    }
  }

  // Shades them sorted by geom, facets after the rest of it; the first two buckets are the sky.
  void shade_fragments() {
    sort_fragments();
    std::fill_n(f_.accumulator.begin(), f_.num_slots, uint64_t{0});
    std::fill_n(f_.accumulator.begin() + kMaxSlots, f_.num_smooth, uint64_t{0});
    for (int v = 0; v < 2 * (num_views_ + 1); ++v) {
      if (v > 1 && f_.view[(v >> 1) - 1].type == kMesh && f_.bucket[v] < f_.bucket[v + 1]) {
        light_ahead(scene_, &f_, (v >> 1) - 1, 3 * (f_.bucket[v + 1] - f_.bucket[v]));
      }
      for (int k = f_.bucket[v]; k < f_.bucket[v + 1]; k += kLanes) {
        const int count = std::min(kLanes, f_.bucket[v + 1] - k);
        if (v & 1) {
          shade_packet<true>((v >> 1) - 1, k, count);
        } else {
          shade_packet<false>((v >> 1) - 1, k, count);
        }
      }
    }
  }

  template <bool kFacets>
  __attribute__((noinline)) void shade_packet(int view, int begin, int count) {
    const FragmentTable& from = f_.sorted_fragment;
    // Lanes beyond the last hold the first once more.
    const vm in = first_lanes(count);
    auto take = [&](const auto& table) __attribute__((always_inline)) {
      return select(in, load(table.data() + begin), splat(table[begin]));
    };
    const vi id = take(from.id), slot = take(from.slot), weight = load(from.weight.data() + begin);
    Points q;
    q.x = splat(f_.left) + to_float(gather(f_.slot_x.data(), slot)) * splat(f_.step_x);
    q.y = splat(f_.top) - to_float(gather(f_.slot_y.data(), slot)) * splat(f_.step_y);
    q.t = take(from.depth);
    q.face = id & splat(int32_t{7});
    q.prim = has_prims_ ? take(from.prim) : vi{};
    q.active = all_lanes();
    if (view >= 0 && f_.view[view].type == kPlane) {
      move_to_center(f_.view[view], weight >= splat(int32_t{kBeside}), &q);
    }
    FacetPoint point;
    if (kFacets) point = place_facet(scene_, f_, f_.view[view], &q);
    if (f_.recorder && view >= 0 && !f_.view[view].mirrored) record(view, q, from, begin, count);
    q.queue = queue_for(&f_, view);
    if (q.queue) q.active = in;
    const size_t queued = f_.queue.num_points;
    const Color c = kFacets    ? shade_facets(scene_, f_, view, q, point)
                    : view < 0 ? shade_sky(scene_, f_, q.x, q.y)
                               : shade_any(scene_, f_, view, q);
    if (f_.queue.num_points != queued) return queue_packet(c, from, begin, count);
    int32_t rgb[kLanes];
    store(rgb, pack_bytes(c));
    for (int i = 0; i < count; ++i) {
      f_.accumulator[from.slot[begin + i]] +=
          (from.weight[begin + i] & (kBeside - 1)) * spread(rgb[i]);
    }
  }

  // OpenGL shades a surface at the pixel's centre even if it covers only samples beside it. Depth
  // changes fast on a plane only, round the edges of what stands on it.
  void move_to_center(const ViewGeom& g, vm beside, Points* q) const {
    if (scene_.orthographic || !any(beside)) return;
    const float* n = g.axis[2];
    const vf t = splat(g.eye[2]) / (splat(n[2]) - q->x * splat(n[0]) - q->y * splat(n[1]));
    beside &= (t > splat(0.01f) * q->t) & (t < splat(100.0f) * q->t);
    q->t = select(beside, t, q->t);
  }

  // Notes where the background's surfaces are shaded, for shadows that fall on them later.
  void record(int view, const Points& q, const FragmentTable& from, int begin, int count) {
    const ViewGeom& g = f_.view[view];
    float x[kLanes], y[kLanes], t[kLanes];
    store(x, q.x), store(y, q.y);
    store(t, g.type == kMesh ? shaded_depth(f_, g, triangle_at(*g.mesh, q.prim), q) : q.t);
    for (int i = 0; i < count; ++i) {
      const int s = from.slot[begin + i];
      record_point(scene_, f_, f_.slot_y[s], f_.slot_x[s], x[i], y[i], t[i], f_.recorder);
    }
  }

  // Leaves fragments to the end of the picture.
  void queue_packet(const Color& c, const FragmentTable& from, int begin, int count) {
    int32_t pixel[kLanes], weight[kLanes];
    for (int i = 0; i < count; ++i) {
      const int s = from.slot[begin + i];
      int32_t* number = &f_.slot_queued[s];
      if (*number < 0) *number = queue_pixel(&f_.queue, f_.slot_y[s] * f_.width + f_.slot_x[s], 0);
      pixel[i] = *number;
      weight[i] = from.weight[begin + i] & (kBeside - 1);
    }
    queue_fragments(&f_.queue, pack_bytes(c), pixel, weight, count);
  }

  void write_pixels() {
    for (int s = 0; s < f_.num_slots; ++s) write_pixel(s);
    for (int s = 0; s < f_.num_smooth; ++s) write_pixel(kMaxSlots + s);
  }

  void write_pixel(int s) {
    if (f_.slot_queued[s] >= 0) {
      f_.queue.sum[f_.slot_queued[s]] = f_.accumulator[s];
      return;
    }
    write_quarter(f_.accumulator[s],
                  rgb_ + 3 * (static_cast<size_t>(f_.slot_y[s]) * f_.width + f_.slot_x[s]));
  }

  const Scene& scene_;
  Frame& f_;
  uint8_t* rgb_;
  int num_views_;
  bool has_meshes_;
  bool has_prims_;  // of triangles or facets
  SlotQueue queue_;
};

}  // namespace VLMRM_ISA
}  // namespace vlmrm

#endif  // VLMRM_RAY_RESOLVE_H_
