// Which triangles of a mesh look like one surface.
#ifndef VLMRM_RAY_FACETS_H_
#define VLMRM_RAY_FACETS_H_

#include <cstdint>
#include <vector>

namespace vlmrm {

constexpr int kFacetColors = 8;  // what the face bits of a pixel id can tell apart

// Joins triangles whose corners agree in place and normal along an edge, and returns a colour in
// [0, 8) for each, such that joined triangles have the same and neighbours that a crease parts mostly
// have not. Edges between colours are anti-aliased. corners and normals: (count, 3, 3).
std::vector<int32_t> color_facets(const float* corners, const float* normals, int32_t count);

}  // namespace vlmrm

#endif  // VLMRM_RAY_FACETS_H_
