#include <algorithm>
#include <cmath>

#include "ray/scene.h"

namespace vlmrm {

Lathe make_lathe(int32_t slices, int32_t stacks) {
  constexpr double kPi = 3.14159265358979323846;
  const int32_t rings = stacks / 2, half = slices / 2 + 1;
  const double step = 2 * kPi / slices, apothem = std::cos(step / 2);
  Lathe l;
  l.slices = static_cast<float>(slices);
  l.stacks = static_cast<float>(stacks);
  l.half_width = static_cast<float>(std::sin(step / 2));
  l.side = rings + 1;
  l.first = static_cast<float>(half);
  l.step_cosine = static_cast<float>(std::cos(step));
  l.step_sine = static_cast<float>(std::sin(step));
  for (int32_t i = -half; i <= half; ++i) {
    l.cosine.push_back(static_cast<float>(std::cos((i + 0.5) * step)));
    l.sine.push_back(static_cast<float>(std::sin((i + 0.5) * step)));
  }
  for (int32_t i = -half; i <= half + 1; ++i) {
    l.corner_cosine.push_back(static_cast<float>(std::cos(i * step)));
    l.corner_sine.push_back(static_cast<float>(std::sin(i * step)));
  }
  for (int32_t row = 0; row <= 2 * l.side; ++row) {
    double radial = 1, axial = 0, height = apothem, low = 0, high = 0;
    if (row != l.side) {
      int32_t ring = row < l.side ? row - l.side : row - l.side - 1;
      ring = std::min(std::max(ring, -rings), rings - 1);
      low = kPi / 2 * ring / rings, high = kPi / 2 * (ring + 1) / rings;
      radial = std::sin(high) - std::sin(low);
      axial = (std::cos(low) - std::cos(high)) * apothem;
      height = radial * std::cos(low) * apothem + axial * std::sin(low);
    }
    l.radial.push_back(static_cast<float>(radial));
    l.axial.push_back(static_cast<float>(axial));
    l.height.push_back(static_cast<float>(height));
    l.low_cosine.push_back(static_cast<float>(std::cos(low)));
    l.low_sine.push_back(static_cast<float>(std::sin(low)));
    l.high_cosine.push_back(static_cast<float>(std::cos(high)));
    l.high_sine.push_back(static_cast<float>(std::sin(high)));
  }
  return l;
}

}  // namespace vlmrm
