// Triangle meshes: built once from corner arrays, then shared read-only by all workers.
//
// A mesh lies around the centre of its bounding box, so that a placed mesh is bounded like a box
// of half sizes `half`. Its triangles are stored in the order of the leaves of a bounding volume
// hierarchy; a triangle's index means its place in that order.
#ifndef VLMRM_RAY_MESH_H_
#define VLMRM_RAY_MESH_H_

#include <cstdint>
#include <vector>

namespace vlmrm {

// Corner 0 of a triangle, two edges from it and their cross product; a line of the cache.
constexpr int kTriangleFloats = 16;
struct alignas(64) TriangleShape {
  float number[kTriangleFloats];
};

constexpr int kMaxMeshDepth = 64;  // levels of a hierarchy

// A box of the hierarchy: `count` triangles from `first`, or, if there are none, the two nodes
// at `first`.
struct MeshNode {
  float side[2][3];  // lowest and highest coordinates
  int32_t first;
  int32_t count;
};

// Sister nodes share a line of the cache.
struct alignas(64) NodePair {
  MeshNode child[2];
};

struct Mesh {
  float center[3] = {0, 0, 0};  // of the bounding box, in the geom's frame
  float half[3] = {0, 0, 0};
  bool closed = false;  // has an inside, which its triangles turn their backs to
  std::vector<NodePair> nodes;     // node 0 is the root, 1 unused; empty where nothing can be seen
  std::vector<TriangleShape> shape;  // (T)
  std::vector<float> texcoords;    // (T, 3 corners, 2), or empty
  std::vector<int32_t> source;     // (T) index in the arrays that it was built from
  // Whole packets are read of both tables: their rows are longer than needed.
  int32_t num_vertices = 0, vertex_pitch = 0, corner_pitch = 0;
  std::vector<float> vertices;   // (6, vertex_pitch): x, y, z and the unit normal
  std::vector<int32_t> corners;  // (3, corner_pitch): the vertices of each triangle

  int32_t num_triangles() const { return static_cast<int32_t>(source.size()); }
};

// Triangles to be drawn: corners (count, 3, 3), normals (count, 3, 3) of any length, texcoords
// (count, 3, 2) or null.
struct TriangleList {
  const float *corners, *normals, *texcoords;
  int32_t count;
};

// Builds a mesh that is drawn more than once: with a hierarchy of boxes, and corners that agree in
// place and normal joined to one vertex. Triangles without area or with a number that is not finite
// are left out: OpenGL draws nothing for them.
Mesh build_mesh(const TriangleList& triangles);

// The same for one frame, in the memory of the mesh before: corners are not joined, and without
// `boxes` one box holds all triangles, which only rays through it notice.
void refill_mesh(const TriangleList& triangles, bool boxes, Mesh* mesh);

}  // namespace vlmrm

#endif  // VLMRM_RAY_MESH_H_
