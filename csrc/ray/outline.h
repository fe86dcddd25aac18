// Triangles in the picture, set up side by side: edges, depths and which samples they may cover.
//
// Coordinates are pixels: the centre of the pixel in row y and column x lies at (x, y).
#ifndef VLMRM_RAY_OUTLINE_H_
#define VLMRM_RAY_OUTLINE_H_

#include "ray/simd.h"

namespace vlmrm {
namespace VLMRM_ISA {

// OpenGL's standard 4x pattern, in pixels from the centre, y down.
constexpr float kSampleX[4] = {-0.125f, 0.375f, -0.375f, 0.125f};
constexpr float kSampleY[4] = {0.375f, 0.125f, -0.125f, -0.375f};
constexpr float kSampleReach = 0.375f;

constexpr float kHuge = 1e30f;
constexpr int kCenterBits = 16;  // where a cover's bits of pixel centres begin

// Three corners; the third number of each is how near it is: 1 / depth, or minus the depth under
// parallel rays, so that it is linear over the picture.
struct Corners {
  v3 p[3];
};

// A packet of triangles, one a lane.
struct Outlines {
  // Of each edge a point and its direction. Both triangles that share it take the same ones, but for
  // a factor of -1 if the triangle lies on the other side: no sample falls between. Points on an
  // edge belong to the triangle to the right of it or below.
  float x[3][kLanes], y[3][kLanes], dx[3][kLanes], dy[3][kLanes], bias[3][kLanes];
  // Nearness at (x0, y0), its slopes and bounds.
  float x0[kLanes], y0[kLanes], near0[kLanes], near_x[kLanes], near_y[kLanes];
  float nearest[kLanes], farthest[kLanes];
  // Pixels that may hold covered samples, the last included; `has_center` where one's centre may be.
  float left[kLanes], right[kLanes], top[kLanes], bottom[kLanes];
  int has_center;
  // Of triangles within 2 x 2 blocks of 2 x 2 pixels, `small`, for each block: bit
  // 4 (2 row + column) + s for sample s of a pixel, then a bit for each centre.
  int small;
  int32_t cover[4][kLanes];
};

VLMRM_INLINE vf round_up(vf a) { return -floor(-a); }

// Bounds and orientation. Returns the lanes whose triangle may cover a sample: those that face the
// eye, where `facing` is 1 for positive areas, -1 for negative ones and 0 for both.
VLMRM_INLINE int bound(const Corners& c, int facing, Outlines* o) {
  const v3 &a = c.p[0], &b = c.p[1], &d = c.p[2];
  const vf area = (b.x - a.x) * (d.y - a.y) - (d.x - a.x) * (b.y - a.y);
  const vf front = facing == 0 ? abs(area) : facing > 0 ? area : -area;
  const vf x0 = min(min(a.x, b.x), d.x), x1 = max(max(a.x, b.x), d.x);
  const vf y0 = min(min(a.y, b.y), d.y), y1 = max(max(a.y, b.y), d.y);
  const vf reach = splat(kSampleReach), most = splat(1e6f), three = splat(3.0f);
  // Far outside of any picture nothing need be exact, but has to fit integers.
  const vf left = max(round_up(x0 - reach), -most), right = min(floor(x1 + reach), most);
  const vf top = max(round_up(y0 - reach), -most), bottom = min(floor(y1 + reach), most);
  store(o->left, left), store(o->right, right), store(o->top, top), store(o->bottom, bottom);
  o->has_center = bits((round_up(x0) <= floor(x1)) & (round_up(y0) <= floor(y1)));
  o->small = bits((right - left <= three) & (bottom - top <= three));
  return bits((front > vf{}) & (front < splat(kHuge)) & (left <= right) & (top <= bottom));
}

// Edges and the plane of nearness.
VLMRM_INLINE void outline(const Corners& c, Outlines* o) {
  const v3 &p = c.p[0], &q = c.p[1], &r = c.p[2];
  const vf ax = q.x - p.x, ay = q.y - p.y, bx = r.x - p.x, by = r.y - p.y;
  const vf area = ax * by - bx * ay, inverse = splat(1.0f) / area;
  const vm positive = area > vf{};
  for (int k = 0; k < 3; ++k) {
    const v3 &from = c.p[k], &to = c.p[k == 2 ? 0 : k + 1];
    const vm down = (from.y < to.y) | ((from.y == to.y) & (from.x > to.x));
    const vm same = (down & positive) | (~down & ~positive);
    const vf x = select(down, from.x, to.x), y = select(down, from.y, to.y);
    const vf dx = select(down, to.x, from.x) - x, dy = select(down, to.y, from.y) - y;
    store(o->x[k], x), store(o->y[k], y);
    store(o->dx[k], select(same, dx, -dx)), store(o->dy[k], select(same, dy, -dy));
    store(o->bias[k], select(same, vf{}, splat(-1 / kHuge)));
  }
  const vf a = q.z - p.z, b = r.z - p.z;
  store(o->x0, p.x), store(o->y0, p.y), store(o->near0, p.z);
  store(o->near_x, (a * by - b * ay) * inverse), store(o->near_y, (b * ax - a * bx) * inverse);
  store(o->nearest, max(p.z, max(q.z, r.z))), store(o->farthest, min(p.z, min(q.z, r.z)));
}

// Finds which samples triangles cover in the 2 x 2 pixels from (left, top), all lanes at once.
VLMRM_INLINE vi cover_block(const Outlines& o, vf left, vf top) {
  vf x[3], y[3], dx[3], dy[3], bias[3];
  for (int k = 0; k < 3; ++k) {
    x[k] = load(o.x[k]), y[k] = load(o.y[k]), bias[k] = load(o.bias[k]);
    dx[k] = load(o.dx[k]), dy[k] = -load(o.dy[k]);
  }
  vi cover = vi{};
  for (int j = 0; j < 10; ++j) {
    const int row = j / 5, s = j % 5;  // sample 4 is the centre
    const vf py = top + splat(row + (s < 4 ? kSampleY[s & 3] : 0.0f));
    vf base[3];
    for (int k = 0; k < 3; ++k) base[k] = dx[k] * (py - y[k]);
    for (int col = 0; col < 2; ++col) {
      const vf px = left + splat(col + (s < 4 ? kSampleX[s & 3] : 0.0f));
      vm in = fma(dy[0], px - x[0], base[0]) > bias[0];
      for (int k = 1; k < 3; ++k) in &= fma(dy[k], px - x[k], base[k]) > bias[k];
      const int pixel = 2 * row + col, bit = s < 4 ? 4 * pixel + s : kCenterBits + pixel;
      cover = cover | (in & splat(int32_t{1} << bit));
    }
  }
  return cover;
}

// The same in all blocks of the small triangles among `lanes`.
VLMRM_INLINE void cover_small(int lanes, Outlines* o) {
  const vf left = load(o->left), top = load(o->top);
  for (int block = 0; block < 4; ++block) {
    const vf x = left + splat(2.0f * (block % 2)), y = top + splat(2.0f * (block / 2));
    vi cover = vi{};
    const int reached = bits((x <= load(o->right)) & (y <= load(o->bottom))) & lanes & o->small;
    if (reached) cover = cover_block(*o, x, y);
    store(o->cover[block], cover);
  }
}

}  // namespace VLMRM_ISA
}  // namespace vlmrm

#endif  // VLMRM_RAY_OUTLINE_H_
