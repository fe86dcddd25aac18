// Triangles in the making, before they become a Mesh.
#ifndef VLMRM_RAY_TRIANGLES_H_
#define VLMRM_RAY_TRIANGLES_H_

#include <algorithm>
#include <cmath>
#include <vector>

namespace vlmrm {

// (T, 3, 3) corners and normals; (T, 3, 2) texture coordinates, or none.
struct Triangles {
  std::vector<float> corners, normals, texcoords;

  void clear() {
    corners.clear();
    normals.clear();
    texcoords.clear();
  }
  void add(const float* corner, const float* normal) {
    corners.insert(corners.end(), corner, corner + 3);
    normals.insert(normals.end(), normal, normal + 3);
  }
};

// mjr_render's cone of radii rx, ry and height h on the plane z, towards +z for a positive h, with
// the disk that closes it.
inline void add_cone(float rx, float ry, float z, float h, int slices, Triangles* out) {
  const float flip = h < 0 ? -1.0f : 1.0f, tip[3] = {0, 0, z + h}, foot[3] = {0, 0, z};
  const float down[3] = {0, 0, -flip};
  for (int j = 0; j < slices; ++j) {
    float p[2][3], n[3][3];
    for (int k = 0; k < 2; ++k) {
      const float turn = 6.2831853f * static_cast<float>(j + k) / static_cast<float>(slices);
      // Turning the cone about x to point down swaps the sense of y.
      const float c = std::cos(turn), s = std::sin(turn) * flip;
      const float at[3] = {rx * c, ry * s, z}, normal[3] = {c / rx, s / ry, 1 / h};
      std::copy(at, at + 3, p[k]);
      std::copy(normal, normal + 3, n[k]);
    }
    for (int k = 0; k < 3; ++k) n[2][k] = n[0][k] + n[1][k];
    out->add(p[0], n[0]);
    out->add(p[1], n[1]);
    out->add(tip, n[2]);
    out->add(foot, down);
    out->add(p[1], down);
    out->add(p[0], down);
  }
}

}  // namespace vlmrm

#endif  // VLMRM_RAY_TRIANGLES_H_
