// How far a geom reaches: along a direction, and on the image plane.
#ifndef VLMRM_RAY_BOUNDS_H_
#define VLMRM_RAY_BOUNDS_H_

#include <algorithm>
#include <cmath>

#include "ray/frame.h"

namespace vlmrm {

constexpr float kFar = 1e30f;

inline float dot3(const float* a, const float* b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

inline void cross3(float* r, const float* a, const float* b) {
  r[0] = a[1] * b[2] - a[2] * b[1];
  r[1] = a[2] * b[0] - a[0] * b[2];
  r[2] = a[0] * b[1] - a[1] * b[0];
}

inline void normalize3(float* v) {
  float length = std::sqrt(dot3(v, v));
  if (length < 1e-10f) {
    v[0] = v[1] = 0;
    v[2] = 1;
    return;
  }
  for (int k = 0; k < 3; ++k) v[k] /= length;
}

// On the image plane.
struct Bounds {
  float x0 = kFar, x1 = -kFar, y0 = kFar, y1 = -kFar;
  void add(float x, float y) {
    x0 = std::min(x0, x);
    x1 = std::max(x1, x);
    y0 = std::min(y0, y);
    y1 = std::max(y1, y);
  }
};

// Of the sphere around the geom's centre.
float bounding_radius(const ViewGeom& g);

// Half the extent of the geom along a unit camera-space direction.
float extent(const ViewGeom& g, const float* dir);

// At unit depth, of a geom that lies wholly before the eye.
Bounds image_bounds(const ViewGeom& g);

// The same under parallel rays, for any geom.
Bounds parallel_bounds(const ViewGeom& g);

}  // namespace vlmrm

#endif  // VLMRM_RAY_BOUNDS_H_
