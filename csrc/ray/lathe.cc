#include <algorithm>
#include <cmath>

#include "ray/scene.h"

namespace vlmrm {
namespace {

constexpr double kPi = 3.14159265358979323846;
// Facets are numbered in so many bits; finer shapes may as well be round.
constexpr int32_t kMostSlices = 1000, kMostStacks = 250;

void push(double angle, std::vector<float>* cosine, std::vector<float>* sine) {
  cosine->push_back(static_cast<float>(std::cos(angle)));
  sine->push_back(static_cast<float>(std::sin(angle)));
}

}  // namespace

Lathe make_lathe(int32_t slices, int32_t stacks) {
  Lathe l;
  if (slices < 3 || slices > kMostSlices || stacks < 4 || stacks > kMostStacks) return l;
  const int32_t rings = stacks / 2, half = slices / 2 + 2;
  const double step = 2 * kPi / slices, ring_step = kPi / 2 / rings;
  auto set = [](double angle, float* cosine, float* sine) {
    *cosine = static_cast<float>(std::cos(angle)), *sine = static_cast<float>(std::sin(angle));
  };
  l.slices = static_cast<float>(slices);
  l.stacks = static_cast<float>(stacks);
  l.side = rings + 1;
  l.first = static_cast<float>(half);
  set(step / 2, &l.apothem, &l.half_width);
  set(step, &l.step_cosine, &l.step_sine);
  set(ring_step, &l.ring_cosine, &l.ring_sine);
  set(ring_step / 2, &l.half_ring_cosine, &l.half_ring_sine);
  for (int32_t i = -half; i <= half; ++i) push(i * step, &l.cosine, &l.sine);
  for (int32_t row = 0; row <= 2 * l.side; ++row) {
    int32_t ring = row < l.side ? row - l.side : row - l.side - 1;
    ring = std::min(std::max(ring, -rings), rings - 1);
    push(row == l.side ? 0 : ring * ring_step, &l.low_cosine, &l.low_sine);
    push(row == l.side ? 0 : (ring + 1) * ring_step, &l.high_cosine, &l.high_sine);
  }
  return l;
}

}  // namespace vlmrm
