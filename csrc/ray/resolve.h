// Pixels that show more than one surface: four sub-samples, each surface shaded once.
//
// Slots are gathered until the tables are full, then resolved together, so that every vector
// lane works on the same geom.
#ifndef VLMRM_RAY_RESOLVE_H_
#define VLMRM_RAY_RESOLVE_H_

#include <algorithm>
#include <limits>

#include "ray/frame.h"
#include "ray/intersect.h"
#include "ray/raster.h"
#include "ray/shade_mesh.h"
#include "ray/simd.h"
#include "ray/still.h"

namespace vlmrm {
namespace VLMRM_ISA {

class Resolve {
 public:
  Resolve(const Scene& scene, Frame* frame, uint8_t* rgb)
      : scene_(scene), f_(*frame), rgb_(rgb), num_views_(2 * static_cast<int>(scene.geoms.size())),
        has_meshes_(!frame->prim.empty()) {
    f_.num_slots = 0;
  }

  // Queues a pixel; a smooth one shows only its centre's surfaces.
  void add_slot(int row, int col, bool smooth) {
    const int s = f_.num_slots++;
    f_.slot_pixel[s] = row * f_.pitch + col;
    f_.slot_x[s] = col;
    f_.slot_y[s] = row;
    f_.slot_smooth[s] = smooth;
    f_.slot_queued[s] = -1;
    if (f_.num_slots == kMaxSlots) flush();
  }

  void flush() {
    if (f_.num_slots == 0) return;
    find_pairs();
    sample_pairs();
    make_fragments();
    if (f_.recorder) record_fragments();
    shade_fragments();
    write_pixels();
    f_.num_slots = 0;
  }

 private:
  // Lists which geoms may cover the sub-samples of each slot: those of the 3 x 3 neighbours.
  void find_pairs() {
    f_.num_pairs = 0;
    clear(&f_.sample_depth, &f_.sample_id);
    if (f_.mirror) clear(&f_.mirror_sample_depth, &f_.mirror_sample_id);
    for (int s = 0; s < f_.num_slots; ++s) {
      if (f_.far) limit_at(s);
      if (f_.slot_smooth[s]) continue;
      if (has_meshes_) take_triangles(f_.samples, s);
      add_neighbours(f_.id, s);
      if (f_.mirror) add_neighbours(f_.mirror_id, s);
    }
  }

  // Starts a slot's samples with the triangles that cover them.
  void take_triangles(const MeshSamples& from, int s) {
    const size_t at = 4 * static_cast<size_t>(f_.slot_pixel[s]);
    const FourFloats t = load_four(&from.depth[at]);
    const Four wins = t < load_four(&f_.sample_depth[4 * s]);
    put_four(&f_.sample_depth[4 * s], wins, t);
    put_four(&f_.sample_id[4 * s], wins, load_four(&from.id[at]));
    put_four(&f_.sample_prim[4 * s], wins, load_four(&from.prim[at]));
  }

  // The same in the mirror, once it is known which samples show that.
  void take_mirrored_triangles(int s) {
    const MeshSamples& from = f_.mirror_samples;
    const size_t at = 4 * static_cast<size_t>(f_.slot_pixel[s]);
    const FourFloats t = load_four(&from.depth[at]);
    Four wins = t < load_four(&f_.mirror_sample_depth[4 * s]);
    wins &= load_four(&f_.sample_id[4 * s]) >> 3 == f_.reflective;
    wins &= t > load_four(&f_.sample_depth[4 * s]);
    put_four(&f_.mirror_sample_depth[4 * s], wins, t);
    put_four(&f_.mirror_sample_id[4 * s], wins, load_four(&from.id[at]));
    put_four(&f_.mirror_sample_prim[4 * s], wins, load_four(&from.prim[at]));
  }

  // Nothing shows beyond the sky box in a slot's pixel.
  void limit_at(int s) {
    float limit[kLanes];
    store(limit, limit_depth(scene_, f_, splat(f_.left + f_.slot_x[s] * f_.step_x),
                             splat(f_.top - f_.slot_y[s] * f_.step_y)));
    std::fill_n(f_.sample_depth.begin() + 4 * s, 4, limit[0]);
  }

  void clear(std::vector<float>* depth, std::vector<int32_t>* id) {
    for (int k = 0; k < 4 * f_.num_slots; k += kLanes) {
      store(depth->data() + k, splat(scene_.zfar));
      store(id->data() + k, splat(int32_t{-1}));
    }
  }

  void add_neighbours(const std::vector<int32_t>& ids, int s) {
    const int x = f_.slot_x[s], y = f_.slot_y[s], left = std::max(x - 1, 0);
    const int32_t* here = ids.data() + y * f_.pitch + left;
    const int32_t* row[3] = {y > 0 ? here - f_.pitch : here, here,
                             y + 1 < f_.height ? here + f_.pitch : here};
    Four view[3];
    for (int i = 0; i < 3; ++i) view[i] = load_four(row[i]) >> 3;
    // Bit 4 i + j is set for a surface in row i and column j that is not listed yet.
    const int inside = (1 << (std::min(x + 2, f_.width) - left)) - 1;
    int rest = inside * 0x111 & ~(bits_of(view[0] < 0) | bits_of(view[1] < 0) << 4 |
                                  bits_of(view[2] < 0) << 8);
    while (rest) {
      const int at = __builtin_ctz(rest);
      const int32_t one = row[at >> 2][at & 3] >> 3;
      rest &= ~(bits_of(view[0] == one) | bits_of(view[1] == one) << 4 |
                bits_of(view[2] == one) << 8);
      f_.pair_view[f_.num_pairs] = one;
      f_.pair_slot[f_.num_pairs++] = s;
    }
  }

  // What one sample or pixel centre shows; prim only tells triangles of meshes apart.
  struct Surface {
    int32_t id, prim;
    float t;
    bool operator==(const Surface& s) const { return id == s.id && prim == s.prim; }
  };

  bool is_mesh(int32_t id) const { return has_meshes_ && id >= 0 && f_.view[id >> 3].type == kMesh; }

  Surface surface(const std::vector<int32_t>& ids, const std::vector<int32_t>& prims,
                  const std::vector<float>& depths, int at) const {
    return {ids[at], is_mesh(ids[at]) ? prims[at] : 0, depths[at]};
  }

  // Stable counting sort of `keys` into `sorted`; bucket[k] becomes the start of key k.
  void sort_by(const std::vector<int32_t>& keys, int count, int num_keys,
               std::vector<int32_t>* sorted) {
    int32_t* start = f_.bucket.data();
    std::fill(start, start + num_keys + 1, 0);
    for (int i = 0; i < count; ++i) ++start[keys[i] + 1];
    for (int k = 0; k < num_keys; ++k) start[k + 1] += start[k];
    for (int i = 0; i < count; ++i) (*sorted)[start[keys[i]]++] = i;
    for (int k = num_keys; k > 0; --k) start[k] = start[k - 1];
    start[0] = 0;
  }

  struct SamplePair {
    Resolve* self;
    const ViewGeom& g;
    int view, begin, end;
    template <int kType>
    VLMRM_INLINE void run() {
      self->sample_view<kType>(g, view, begin, end);
    }
  };

  void sample_pairs() {
    sort_by(f_.pair_view, f_.num_pairs, num_views_, &f_.pair_sorted);
    for (int v = 0; v < num_views_; ++v) {
      if (2 * v == num_views_ && f_.mirror && has_meshes_) {
        for (int s = 0; s < f_.num_slots; ++s) {
          if (!f_.slot_smooth[s]) take_mirrored_triangles(s);
        }
      }
      const int begin = f_.bucket[v], end = f_.bucket[v + 1];
      if (begin == end || f_.view[v].type == kMesh) continue;
      with_type(f_.view[v].type, SamplePair{this, f_.view[v], v, begin, end});
    }
  }

  // A slot's four samples take four lanes.
  template <int kType>
  VLMRM_INLINE void sample_view(const ViewGeom& g, int view, int begin, int end) {
    constexpr int kSlots = kLanes / 4;
    const vf dx = repeat4(kSampleX), dy = repeat4(kSampleY);
    for (int k = begin; k < end; k += kSlots) {
      const int count = std::min(kSlots, end - k);
      int slot[kSlots];
      float px[kLanes], py[kLanes], t[kLanes];
      int32_t id[kLanes];
      for (int j = 0; j < kSlots; ++j) {
        slot[j] = f_.pair_slot[f_.pair_sorted[k + std::min(j, count - 1)]];
        std::fill(px + 4 * j, px + 4 * j + 4, static_cast<float>(f_.slot_x[slot[j]]));
        std::fill(py + 4 * j, py + 4 * j + 4, static_cast<float>(f_.slot_y[slot[j]]));
      }
      vf x = splat(f_.left) + (load(px) + dx) * splat(f_.step_x);
      vf y = splat(f_.top) - (load(py) + dy) * splat(f_.step_y);
      const Range range = {splat(scene_.znear), splat(scene_.zfar)};
      Hit h = f_.general ? hit_general<kType>(g, f_.orthographic, scene_.znear, x, y, range)
                         : hit_eye<kType>(g, x, y, range);
      const vm hits = h.mask & (h.t > splat(scene_.znear));
      if (!any(hits)) continue;
      store(t, select(hits, h.t, splat(std::numeric_limits<float>::infinity())));
      store(id, h.face + splat(int32_t{view * 8}));
      for (int j = 0; j < count; ++j) {
        keep(g, 4 * slot[j], load_four(t + 4 * j), load_four(id + 4 * j));
      }
    }
  }

  // The four samples of a slot, at infinity where nothing was hit, against what it holds.
  VLMRM_INLINE void keep(const ViewGeom& g, int k, FourFloats t, Four id) {
    float* depth = &(g.mirrored ? f_.mirror_sample_depth : f_.sample_depth)[k];
    Four wins = t <= load_four(depth);
    if (g.mirrored) {
      wins &= load_four(&f_.sample_id[k]) >> 3 == f_.reflective;
      wins &= t > load_four(&f_.sample_depth[k]);
    }
    put_four(depth, wins, t);
    put_four(&(g.mirrored ? f_.mirror_sample_id : f_.sample_id)[k], wins, id);
  }

  void add_fragment(int slot, const Surface& s, int weight) {
    const int k = f_.num_fragments++;
    f_.fragment_slot[k] = slot;
    f_.fragment_id[k] = s.id;
    f_.fragment_depth[k] = s.t;
    if (has_meshes_) f_.fragment_prim[k] = s.prim;
    f_.fragment_x[k] = f_.left + f_.slot_x[slot] * f_.step_x;
    f_.fragment_y[k] = f_.top - f_.slot_y[slot] * f_.step_y;
    f_.fragment_weight[k] = weight;
  }

  // A surface that a sample shows, as if it reached the pixel's centre: OpenGL shades there what
  // covers any sample. Depth changes fast on a plane only, round the edges of what stands on it.
  Surface at_center(int slot, Surface s) const {
    if (s.id < 0 || scene_.orthographic) return s;
    const ViewGeom& g = f_.view[s.id >> 3];
    if (g.type != kPlane) return s;
    const float x = f_.left + f_.slot_x[slot] * f_.step_x, y = f_.top - f_.slot_y[slot] * f_.step_y;
    const float* n = g.axis[2];
    const float t = g.eye[2] / (n[2] - x * n[0] - y * n[1]);
    if (t > 0.5f * s.t && t < 2 * s.t) s.t = t;
    return s;
  }

  // One fragment per distinct surface among the samples.
  void add_samples(int slot, const Surface* sample, const Surface& center, bool sky) {
    int done = 0;
    for (int i = 0; i < 4; ++i) {
      if (done >> i & 1 || (sample[i].id < 0 && !sky)) continue;
      int weight = 0;
      for (int j = i; j < 4; ++j) {
        if (sample[j] == sample[i]) ++weight, done |= 1 << j;
      }
      add_fragment(slot, sample[i] == center ? center : at_center(slot, sample[i]), weight);
    }
  }

  void make_fragments() {
    f_.num_fragments = 0;
    for (int s = 0; s < f_.num_slots; ++s) {
      const int at = f_.slot_pixel[s];
      const Surface center = surface(f_.id, f_.prim, f_.depth, at);
      Surface mirrored = {-1, 0, 0.0f};
      if (f_.mirror) mirrored = surface(f_.mirror_id, f_.mirror_prim, f_.mirror_depth, at);
      if (f_.slot_smooth[s]) {
        add_fragment(s, center, 4);
        if (mirrored.id >= 0) add_fragment(s, mirrored, 4);
        continue;
      }
      Surface sample[4];
      for (int i = 0; i < 4; ++i) {
        sample[i] = surface(f_.sample_id, f_.sample_prim, f_.sample_depth, 4 * s + i);
      }
      add_samples(s, sample, center, true);
      if (!f_.mirror) continue;
      for (int i = 0; i < 4; ++i) {
        sample[i] = surface(f_.mirror_sample_id, f_.mirror_sample_prim, f_.mirror_sample_depth,
                            4 * s + i);
      }
      add_samples(s, sample, mirrored, false);
    }
  }

  // Notes where the background's surfaces lie, for shadows that fall on them later.
  void record_fragments() {
    for (int i = 0; i < f_.num_fragments; ++i) {
      const int view = f_.fragment_id[i] >> 3, s = f_.fragment_slot[i];
      if (view < 0 || f_.view[view].mirrored) continue;
      record_point(scene_, f_, f_.slot_y[s], f_.slot_x[s], f_.fragment_x[i], f_.fragment_y[i],
                   f_.fragment_depth[i], f_.recorder);
    }
  }

  void shade_fragments() {
    // Bucket 0 is the sky; `pair_view` is free by now and holds the keys.
    std::fill(f_.accumulator.begin(), f_.accumulator.begin() + 4 * f_.num_slots, uint16_t{0});
    for (int i = 0; i < f_.num_fragments; ++i) f_.pair_view[i] = (f_.fragment_id[i] >> 3) + 1;
    sort_by(f_.pair_view, f_.num_fragments, num_views_ + 1, &f_.fragment_sorted);
    for (int v = 0; v <= num_views_; ++v) {
      for (int k = f_.bucket[v]; k < f_.bucket[v + 1]; k += kLanes) {
        shade_packet(v - 1, k, std::min(kLanes, f_.bucket[v + 1] - k));
      }
    }
  }

  void shade_packet(int view, int begin, int count) {
    int32_t index[kLanes], face[kLanes], prim[kLanes], rgb[3][kLanes];
    const bool mesh = view >= 0 && f_.view[view].type == kMesh;
    float x[kLanes], y[kLanes], t[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      const int k = f_.fragment_sorted[begin + std::min(i, count - 1)];
      index[i] = k;
      x[i] = f_.fragment_x[k];
      y[i] = f_.fragment_y[k];
      t[i] = f_.fragment_depth[k];
      face[i] = f_.fragment_id[k] & 7;
      prim[i] = mesh ? f_.fragment_prim[k] : 0;
    }
    Points q = {load(x), load(y), load(t), load(face), load(prim), all_lanes()};
    // The spare lanes repeat the last point.
    if (mesh) q.queue = &f_.queue, q.active = lane_index() < splat(static_cast<float>(count));
    const size_t queued = f_.queue.num_points;
    Color c = view < 0 ? shade_sky(scene_, f_, q.x, q.y) : shade_any(scene_, f_, view, q);
    if (f_.queue.num_points != queued) return queue_packet(c, index, count);
    store(rgb[0], c.r), store(rgb[1], c.g), store(rgb[2], c.b);
    for (int i = 0; i < count; ++i) {
      const int weight = f_.fragment_weight[index[i]];
      uint16_t* a = &f_.accumulator[4 * f_.fragment_slot[index[i]]];
      for (int j = 0; j < 3; ++j) a[j] = static_cast<uint16_t>(a[j] + weight * rgb[j][i]);
    }
  }

  // Leaves fragments to the end of the picture.
  void queue_packet(const Color& c, const int32_t* fragment, int count) {
    int32_t pixel[kLanes], weight[kLanes];
    for (int i = 0; i < count; ++i) {
      const int s = f_.fragment_slot[fragment[i]];
      int32_t* number = &f_.slot_queued[s];
      if (*number < 0) *number = queue_pixel(&f_.queue, f_.slot_y[s] * f_.width + f_.slot_x[s]);
      pixel[i] = *number;
      weight[i] = f_.fragment_weight[fragment[i]];
    }
    queue_fragments(&f_.queue, pack_bytes(c), pixel, weight, count);
  }

  void write_pixels() {
    for (int s = 0; s < f_.num_slots; ++s) {
      if (f_.slot_queued[s] >= 0) {
        int32_t* sum = &f_.queue.sum[3 * static_cast<size_t>(f_.slot_queued[s])];
        for (int k = 0; k < 3; ++k) sum[k] = f_.accumulator[4 * s + k];
        continue;
      }
      uint8_t* out = rgb_ + 3 * (static_cast<size_t>(f_.slot_y[s]) * f_.width + f_.slot_x[s]);
      for (int k = 0; k < 3; ++k) {
        out[k] = static_cast<uint8_t>(std::min((f_.accumulator[4 * s + k] + 2) >> 2, 255));
      }
    }
  }

  const Scene& scene_;
  Frame& f_;
  uint8_t* rgb_;
  int num_views_;
  bool has_meshes_;
};

}  // namespace VLMRM_ISA
}  // namespace vlmrm

#endif  // VLMRM_RAY_RESOLVE_H_
