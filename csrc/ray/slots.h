// Slots: the pixels that have to be drawn one by one, queued with what their resolution needs.
//
// A pixel whose samples may differ is queued with what its centre shows. A pair is such a slot and a
// geom that one of its samples may show: those that its 3 x 3 neighbours show. A smooth pixel, which
// shows its centre only, is queued as the fragments that it is made of.
#ifndef VLMRM_RAY_SLOTS_H_
#define VLMRM_RAY_SLOTS_H_

#include "ray/frame.h"
#include "ray/simd.h"

namespace vlmrm {
namespace VLMRM_ISA {

// Bit i is set where lane i is of a mesh.
VLMRM_INLINE int meshes_of(const Frame& f, const int32_t* ids, int count) {
  int mask = 0;
  for (int i = 0; i < count; ++i) {
    if (ids[i] >= 0 && f.view[ids[i] >> 3].type == kMesh) mask |= 1 << i;
  }
  return mask;
}

class SlotQueue {
 public:
  explicit SlotQueue(Frame* frame) : f_(*frame) { clear(); }

  void clear() {
    f_.num_slots = f_.num_smooth = f_.num_pairs = f_.num_runs = 0;
    f_.fragment.count = 0;
  }
  bool is_empty() const { return f_.num_slots + f_.num_smooth == 0; }
  bool is_full() const {
    return f_.num_slots > kMaxSlots - kLanes || f_.num_smooth > kMaxSlots - kLanes ||
           f_.num_pairs > kMaxPairs - 19 * kLanes || f_.num_runs > kMaxRuns - 18 * kLanes;
  }

  // Queues pixels of a packet whose samples differ, unless is_full().
  void add_mixed(int row, int col, int lanes) {
    const int n = f_.num_slots, at = row * f_.pitch + col;
    const vm in = mask_of(lanes);
    add_places(n, row, col, in);
    append_centers(f_.center, f_.id, f_.depth, f_.prim, at, in);
    if (f_.mirror) {
      append_centers(f_.mirror_center, f_.mirror_id, f_.mirror_depth, f_.mirror_prim, at, in);
    }
    f_.num_slots += __builtin_popcount(lanes);
    const vi slot = splat(int32_t{n}) + ranks(in);
    add_runs(f_.id.data(), row, col, lanes, slot);
    if (f_.mirror) add_runs(f_.mirror_id.data(), row, col, lanes, slot);
  }

  // Queues pixels of a packet that show their centre only, unless is_full().
  void add_smooth(int row, int col, int lanes) {
    const int n = kMaxSlots + f_.num_smooth, at = row * f_.pitch + col;
    const vm in = mask_of(lanes);
    add_places(n, row, col, in);
    f_.num_smooth += __builtin_popcount(lanes);
    const vi slot = splat(int32_t{n}) + ranks(in);
    add_fragments(f_.id, f_.depth, f_.prim, at, in, slot);
    if (!f_.mirror) return;
    const vm mirrored = in & (load(f_.mirror_id.data() + at) >= vi{});
    add_fragments(f_.mirror_id, f_.mirror_depth, f_.mirror_prim, at, mirrored, slot);
  }

 private:
  VLMRM_INLINE void add_places(int n, int row, int col, vm in) {
    append(f_.slot_x.data() + n, in, splat(int32_t{col}) + lane_number());
    store(f_.slot_y.data() + n, splat(int32_t{row}));
    store(f_.slot_queued.data() + n, splat(int32_t{-1}));
  }

  VLMRM_INLINE vi triangles(const Table<int32_t>& id, const Table<int32_t>& prim,
                            int at, vm in) const {
    const int meshes = meshes_of(f_, id.data() + at, kLanes) & bits(in);
    return mask_of(meshes) & load(prim.data() + at);
  }

  VLMRM_INLINE void append_centers(SurfaceTable& to, const Table<int32_t>& id,
                                   const Table<float>& depth,
                                   const Table<int32_t>& prim, int at, vm in) {
    const int n = f_.num_slots;
    append(to.id.data() + n, in, load(id.data() + at));
    append(to.depth.data() + n, in, load(depth.data() + at));
    if (!prim.empty()) append(to.prim.data() + n, in, triangles(id, prim, at, in));
  }

  VLMRM_INLINE void add_fragments(const Table<int32_t>& id, const Table<float>& depth,
                                  const Table<int32_t>& prim, int at, vm in, vi slot) {
    if (!any(in)) return;
    FragmentTable& to = f_.fragment;
    append(to.id.data() + to.count, in, load(id.data() + at));
    append(to.depth.data() + to.count, in, load(depth.data() + at));
    append(to.slot.data() + to.count, in, slot);
    store(to.weight.data() + to.count, splat(int32_t{4}));
    if (!prim.empty()) {
      append(to.prim.data() + to.count, in, triangles(id, prim, at, in));
    } else if (f_.facets) {
      store(to.prim.data() + to.count, vi{});
    }
    to.count += __builtin_popcount(bits(in));
  }

  // What lies one column before table[at]; the first entry of all has nothing before it.
  static VLMRM_INLINE vi load_before(const int32_t* table, int at) {
    if (at > 0) return load(table + at - 1);
    int32_t shifted[kLanes] = {table[0]};
    std::memcpy(shifted + 1, table, (kLanes - 1) * sizeof(int32_t));
    return load(shifted);
  }

  // Pairs the pixels `lanes` of a packet with what they and their neighbours show, a run for each geom.
  void add_runs(const int32_t* ids, int row, int col, int lanes, vi slot) {
    const vi none = splat(int32_t{-1}), x = splat(int32_t{col}) + lane_number();
    const vm in = mask_of(lanes), has_left = in & (x > vi{});
    const vm has_right = in & (x < splat(int32_t{f_.width - 1}));
    const int rows[3] = {row, row > 0 ? row - 1 : row, row + 1 < f_.height ? row + 1 : row};
    vi view[9], last = none;
    for (int k = 0; k < 3; ++k) {
      const int at = rows[k] * f_.pitch + col;
      view[3 * k] = select(in, load(ids + at) >> 3, none);
      view[3 * k + 1] = select(has_left, load_before(ids, at) >> 3, none);
      view[3 * k + 2] = select(has_right, load(ids + at + 1) >> 3, none);
      last = max(last, max(view[3 * k], max(view[3 * k + 1], view[3 * k + 2])));
    }
    while (const int left = bits(last >= vi{})) {
      int32_t each[kLanes];
      store(each, last);
      const int32_t one = each[__builtin_ctz(left)];
      vm found = {};
      last = none;
      for (vi& v : view) {
        const vm same = v == splat(one);
        found |= same;
        v = select(same, none, v);
        last = max(last, v);
      }
      const int count = __builtin_popcount(bits(found));
      append(f_.pair_slot.data() + f_.num_pairs, found, slot);
      f_.run[f_.num_runs++] = {one, f_.num_pairs, count};
      f_.num_pairs += count;
    }
  }

  Frame& f_;
};

}  // namespace VLMRM_ISA
}  // namespace vlmrm

#endif  // VLMRM_RAY_SLOTS_H_
