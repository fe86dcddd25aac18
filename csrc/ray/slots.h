// Slots: the pixels that have to be drawn one by one, queued with what their resolution needs.
//
// A slot holds what its centre shows. A pair is a slot and a geom that one of its sub-samples may
// show: those that its 3 x 3 neighbours show. Both come a packet at a time, before the buffers leave
// the cache.
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

  void clear() { f_.num_slots = f_.num_pairs = 0; }
  bool is_full() const { return f_.num_slots > kMaxSlots - kLanes; }

  // Queues the pixels `lanes` of a packet, unless is_full(); `smooth` ones show their centre only.
  void add(int row, int col, int lanes, int smooth) {
    const int n = f_.num_slots, at = row * f_.pitch + col;
    const vm in = mask_of(lanes);
    append(f_.slot_x.data() + n, in, splat(int32_t{col}) + lane_number());
    store(f_.slot_y.data() + n, splat(int32_t{row}));
    store(f_.slot_queued.data() + n, splat(int32_t{-1}));
    append(f_.slot_smooth.data() + n, in, mask_of(smooth) & splat(int32_t{1}));
    add_centers(f_.center, f_.id, f_.depth, f_.prim, at, in);
    if (f_.mirror) {
      add_centers(f_.mirror_center, f_.mirror_id, f_.mirror_depth, f_.mirror_prim, at, in);
    }
    f_.num_slots += __builtin_popcount(lanes);
    if (lanes == smooth) return;
    const vi slot = splat(int32_t{n}) + ranks(in);
    const vm edges = mask_of(lanes & ~smooth);
    add_pairs(f_.id.data(), row, col, edges, slot);
    if (f_.mirror) add_pairs(f_.mirror_id.data(), row, col, edges, slot);
  }

 private:
  void add_centers(SurfaceTable& to, const std::vector<int32_t>& id,
                   const std::vector<float>& depth, const std::vector<int32_t>& prim, int at,
                   vm in) {
    const int n = f_.num_slots;
    append(to.id.data() + n, in, load(id.data() + at));
    append(to.depth.data() + n, in, load(depth.data() + at));
    if (prim.empty()) return;
    const int meshes = meshes_of(f_, id.data() + at, kLanes) & bits(in);
    append(to.prim.data() + n, in, mask_of(meshes) & load(prim.data() + at));
  }

  // What lies one column before table[at]; the first entry of all has nothing before it.
  static vi load_before(const int32_t* table, int at) {
    if (at > 0) return load(table + at - 1);
    int32_t shifted[kLanes] = {table[0]};
    std::memcpy(shifted + 1, table, (kLanes - 1) * sizeof(int32_t));
    return load(shifted);
  }

  void add_pairs(const int32_t* ids, int row, int col, vm edges, vi slot) {
    const vi center = load(ids + row * f_.pitch + col) >> 3;
    const vi x = splat(int32_t{col}) + lane_number();
    const vm has_left = x > vi{}, has_right = x < splat(int32_t{f_.width - 1});
    vi seen[8];
    int count = 0;
    add_pairs(edges & (center >= vi{}), center, slot);
    auto look = [&](vi view) __attribute__((always_inline)) {
      vm fresh = edges & (view >= vi{}) & (view != center);
      if (!any(fresh)) return;
      for (int i = 0; i < count; ++i) fresh &= view != seen[i];
      seen[count++] = view;
      add_pairs(fresh, view, slot);
    };
    for (int y = row > 0 ? row - 1 : row; y <= row + 1 && y < f_.height; ++y) {
      const int at = y * f_.pitch + col;
      look(select(has_left, load_before(ids, at) >> 3, center));
      if (y != row) look(load(ids + at) >> 3);
      look(select(has_right, load(ids + at + 1) >> 3, center));
    }
  }

  VLMRM_INLINE void add_pairs(vm in, vi view, vi slot) {
    append(f_.pair_view.data() + f_.num_pairs, in, view);
    append(f_.pair_slot.data() + f_.num_pairs, in, slot);
    f_.num_pairs += __builtin_popcount(bits(in));
  }

  Frame& f_;
};

}  // namespace VLMRM_ISA
}  // namespace vlmrm

#endif  // VLMRM_RAY_SLOTS_H_
