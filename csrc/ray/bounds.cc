#include "ray/bounds.h"

namespace vlmrm {

float bounding_radius(const ViewGeom& g) {
  const float* s = g.size;
  switch (g.type) {
    case kPlane:
      return s[0] > 0 && s[1] > 0 ? std::hypot(s[0], s[1]) : kFar;
    case kCapsule:
      return s[0] + s[2];
    case kCylinder:
      return std::hypot(s[0], s[2]);
    case kBox:
    case kMesh:
      return std::sqrt(dot3(s, s));
    default:
      return std::max(s[0], std::max(s[1], s[2]));
  }
}

float extent(const ViewGeom& g, const float* dir) {
  float a[3];
  for (int k = 0; k < 3; ++k) a[k] = std::abs(dot3(g.axis[k], dir));
  const float* s = g.size;
  switch (g.type) {
    case kPlane:
      return (s[0] > 0 ? s[0] * a[0] : kFar * (a[0] > 1e-4f)) +
             (s[1] > 0 ? s[1] * a[1] : kFar * (a[1] > 1e-4f));
    case kCapsule:
      return s[0] + s[2] * a[2];
    case kCylinder:
      return s[0] * std::sqrt(std::max(0.0f, 1 - a[2] * a[2])) + s[2] * a[2];
    case kBox:
    case kMesh:
      return s[0] * a[0] + s[1] * a[1] + s[2] * a[2];
    default:
      return std::sqrt(s[0] * a[0] * s[0] * a[0] + s[1] * a[1] * s[1] * a[1] +
                       s[2] * a[2] * s[2] * a[2]);
  }
}

namespace {

// Tangent interval of an ellipsoid along image axis k: planes through the eye, v_k = -m v_z,
// that touch it, where `scaled` holds its axes times its radii. Source: the dual quadric.
void tangents(const float* c, const float scaled[3][3], int k, float* lo, float* hi) {
  double a = 0, b = 0, d = 0;
  for (int i = 0; i < 3; ++i) {
    a += static_cast<double>(scaled[i][k]) * scaled[i][k];
    b += static_cast<double>(scaled[i][k]) * scaled[i][2];
    d += static_cast<double>(scaled[i][2]) * scaled[i][2];
  }
  a -= static_cast<double>(c[k]) * c[k];
  b -= static_cast<double>(c[k]) * c[2];
  d -= static_cast<double>(c[2]) * c[2];
  double disc = std::sqrt(std::max(0.0, b * b - a * d));
  double m0 = (-b - disc) / d, m1 = (-b + disc) / d;
  *lo = static_cast<float>(std::min(m0, m1));
  *hi = static_cast<float>(std::max(m0, m1));
}

void add_ellipsoid(const float* center, const float scaled[3][3], Bounds* bounds) {
  float lo, hi;
  float xs[2], ys[2];
  tangents(center, scaled, 0, &lo, &hi);
  xs[0] = lo, xs[1] = hi;
  tangents(center, scaled, 1, &lo, &hi);
  ys[0] = lo, ys[1] = hi;
  bounds->add(xs[0], ys[0]);
  bounds->add(xs[1], ys[1]);
}

}  // namespace

Bounds parallel_bounds(const ViewGeom& g) {
  Bounds bounds;
  const float x[3] = {1, 0, 0}, y[3] = {0, 1, 0};
  const float half_x = extent(g, x), half_y = extent(g, y);
  bounds.add(g.center[0] - half_x, g.center[1] - half_y);
  bounds.add(g.center[0] + half_x, g.center[1] + half_y);
  return bounds;
}

Bounds image_bounds(const ViewGeom& g) {
  Bounds bounds;
  if (g.type == kSphere || g.type == kEllipsoid || g.type == kCapsule) {
    float scaled[3][3];
    for (int i = 0; i < 3; ++i) {
      float s = g.type == kCapsule ? g.size[0] : g.size[i];
      for (int k = 0; k < 3; ++k) scaled[i][k] = g.axis[i][k] * s;
    }
    const float h = g.type == kCapsule ? g.size[2] : 0.0f;
    for (int end = -1; end <= (h > 0 ? 1 : -1); end += 2) {
      float c[3];
      for (int k = 0; k < 3; ++k) c[k] = g.center[k] + end * h * g.axis[2][k];
      add_ellipsoid(c, scaled, &bounds);
    }
    return bounds;
  }
  for (int corner = 0; corner < 8; ++corner) {
    float p[3];
    for (int k = 0; k < 3; ++k) {
      p[k] = g.center[k] + (corner & 1 ? 1 : -1) * g.size[0] * g.axis[0][k] +
             (corner & 2 ? 1 : -1) * g.size[1] * g.axis[1][k] +
             (g.type == kPlane ? 0.0f : (corner & 4 ? 1 : -1) * g.size[2] * g.axis[2][k]);
    }
    bounds.add(-p[0] / p[2], -p[1] / p[2]);
  }
  return bounds;
}

}  // namespace vlmrm
