#include "ray/mesh.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace vlmrm {
namespace {

constexpr int kBins = 16;
constexpr int kLeaf = 4;           // triangles that are never split further
constexpr float kBoxCost = 1.0f;   // of testing two boxes, in triangle tests
constexpr float kLimit = 1e15f;    // coordinates beyond overflow in products

struct Box {
  float lo[3] = {1e30f, 1e30f, 1e30f};
  float hi[3] = {-1e30f, -1e30f, -1e30f};
  void add(const float* p) {
    for (int k = 0; k < 3; ++k) {
      lo[k] = std::min(lo[k], p[k]);
      hi[k] = std::max(hi[k], p[k]);
    }
  }
  void add(const Box& b) {
    for (int k = 0; k < 3; ++k) {
      lo[k] = std::min(lo[k], b.lo[k]);
      hi[k] = std::max(hi[k], b.hi[k]);
    }
  }
  float area() const {
    const float x = hi[0] - lo[0], y = hi[1] - lo[1], z = hi[2] - lo[2];
    return x < 0 ? 0.0f : x * y + y * z + z * x;
  }
};

struct Item {
  Box box;
  float middle[3];
  int32_t source;
};

// A whole number of packets of any instruction set.
int32_t padded(int32_t count) { return (count + 15) / 16 * 16; }

void cross(const float* a, const float* b, float* out) {
  out[0] = a[1] * b[2] - a[2] * b[1];
  out[1] = a[2] * b[0] - a[0] * b[2];
  out[2] = a[0] * b[1] - a[1] * b[0];
}

bool drawable(const float* corners) {
  for (int k = 0; k < 9; ++k) {
    if (!(std::abs(corners[k]) < kLimit)) return false;
  }
  float e1[3], e2[3], n[3];
  for (int k = 0; k < 3; ++k) {
    e1[k] = corners[3 + k] - corners[k];
    e2[k] = corners[6 + k] - corners[k];
  }
  cross(e1, e2, n);
  const float area = n[0] * n[0] + n[1] * n[1] + n[2] * n[2];
  return area > std::numeric_limits<float>::min() && area < std::numeric_limits<float>::max();
}

// Splits items [begin, end) below node `at`; recursion is bounded by kMaxMeshDepth.
class Builder {
 public:
  Builder(std::vector<Item>* items, std::vector<NodePair>* nodes) : items_(*items), nodes_(*nodes) {}

  void build() {
    nodes_.emplace_back();
    split(0, 0, static_cast<int32_t>(items_.size()), 1);
  }

 private:
  struct Cut {
    int axis = -1;
    int bin = 0;
    float cost = std::numeric_limits<float>::max();
  };

  MeshNode& node(int32_t at) { return nodes_[at / 2].child[at & 1]; }

  int bin_of(const Item& item, const Box& middles, int axis) const {
    const float width = middles.hi[axis] - middles.lo[axis];
    const float at = (item.middle[axis] - middles.lo[axis]) / width * kBins;
    return std::min(static_cast<int>(at), kBins - 1);
  }

  // The cheapest of the planes between equal slices of one axis (surface area heuristic).
  void try_axis(int32_t begin, int32_t end, const Box& middles, int axis, Cut* best) const {
    if (!(middles.hi[axis] > middles.lo[axis])) return;
    Box box[kBins];
    int32_t count[kBins] = {0};
    for (int32_t i = begin; i < end; ++i) {
      const int b = bin_of(items_[i], middles, axis);
      box[b].add(items_[i].box);
      ++count[b];
    }
    float right_cost[kBins];
    Box right;
    int32_t n = 0;
    for (int b = kBins - 1; b > 0; --b) {
      right.add(box[b]);
      n += count[b];
      right_cost[b] = right.area() * n;
    }
    Box left;
    n = 0;
    for (int b = 1; b < kBins; ++b) {
      left.add(box[b - 1]);
      n += count[b - 1];
      const float cost = left.area() * n + right_cost[b];
      if (n > 0 && n < end - begin && cost < best->cost) *best = {axis, b, cost};
    }
  }

  void split(int32_t at, int32_t begin, int32_t end, int depth) {
    Box box, middles;
    for (int32_t i = begin; i < end; ++i) {
      box.add(items_[i].box);
      middles.add(items_[i].middle);
    }
    for (int k = 0; k < 3; ++k) {
      // Rounding of the slab test must not let a ray through at the box's faces.
      const float pad = 1e-6f * (std::abs(box.lo[k]) + std::abs(box.hi[k])) + 1e-30f;
      node(at).side[0][k] = box.lo[k] - pad;
      node(at).side[1][k] = box.hi[k] + pad;
    }
    node(at).first = begin;
    node(at).count = end - begin;
    if (end - begin <= 1 || depth == kMaxMeshDepth) return;
    Cut cut;
    for (int axis = 0; axis < 3; ++axis) try_axis(begin, end, middles, axis, &cut);
    const float area = box.area();
    const bool worth = cut.axis >= 0 && cut.cost + kBoxCost * area < area * (end - begin);
    if (end - begin <= kLeaf && !worth) return;
    int32_t middle = begin + (end - begin) / 2;
    if (cut.axis >= 0) {
      middle = static_cast<int32_t>(
          std::partition(items_.begin() + begin, items_.begin() + end,
                         [&](const Item& i) { return bin_of(i, middles, cut.axis) < cut.bin; }) -
          items_.begin());
    }
    const int32_t child = 2 * static_cast<int32_t>(nodes_.size());
    nodes_.emplace_back();
    node(at).first = child;
    node(at).count = 0;
    split(child, begin, middle, depth + 1);
    split(child + 1, middle, end, depth + 1);
  }

  std::vector<Item>& items_;
  std::vector<NodePair>& nodes_;
};

TriangleShape shape_of(const float* corners, const float* center) {
  TriangleShape shape = {};
  float* t = shape.number;
  for (int k = 0; k < 3; ++k) {
    t[k] = corners[k] - center[k];
    t[3 + k] = corners[3 + k] - corners[k];
    t[6 + k] = corners[6 + k] - corners[k];
  }
  cross(t + 3, t + 6, t + 9);
  return shape;
}

uint64_t hash_of(const float* numbers, int count) {
  uint64_t h = 0x9e3779b97f4a7c15u;
  for (int k = 0; k < count; ++k) {
    const float v = numbers[k] + 0.0f;  // -0 is 0
    uint32_t bits;
    std::memcpy(&bits, &v, sizeof bits);
    h = (h ^ bits) * 0xff51afd7ed558ccdu;
    h ^= h >> 32;
  }
  return h;
}

// Whether each edge is met as often one way as the other, and the volume inside is positive. Edges
// are told apart by the sum of their hashes.
bool is_closed(const float* corners, int32_t count) {
  uint64_t sum = 0;
  double volume = 0;
  for (int32_t t = 0; t < count; ++t) {
    const float* c = corners + 9 * static_cast<size_t>(t);
    uint64_t h[3];
    for (int k = 0; k < 3; ++k) h[k] = hash_of(c + 3 * k, 3);
    for (int k = 0; k < 3; ++k) {
      const uint64_t from = h[k], to = h[(k + 1) % 3];
      const uint64_t edge = (from ^ to) * 0xc4ceb9fe1a85ec53u + from * to;
      sum += from < to ? edge : from > to ? -edge : 0;
    }
    volume += c[0] * (static_cast<double>(c[4]) * c[8] - static_cast<double>(c[5]) * c[7]) -
              c[1] * (static_cast<double>(c[3]) * c[8] - static_cast<double>(c[5]) * c[6]) +
              c[2] * (static_cast<double>(c[3]) * c[7] - static_cast<double>(c[4]) * c[6]);
  }
  return sum == 0 && volume > 0;
}

struct Vertex {
  float number[6];  // place and unit normal
};

// A corner of a triangle, whose own normal is used where the corner's has no length.
Vertex vertex_of(const float* place, const float* normal, const TriangleShape& shape,
                 const float* center) {
  Vertex v;
  const float* own = shape.number + 9;
  const float length = std::sqrt(normal[0] * normal[0] + normal[1] * normal[1] + normal[2] * normal[2]);
  const bool usable = length > 1e-20f && length < 1e20f;
  const float norm = usable ? length : std::sqrt(own[0] * own[0] + own[1] * own[1] + own[2] * own[2]);
  for (int k = 0; k < 3; ++k) {
    v.number[k] = place[k] - center[k];
    v.number[3 + k] = (usable ? normal : own)[k] / norm + 0.0f;  // -0 is 0
  }
  return v;
}

// Numbers vertices; those of equal bits have one number.
class VertexTable {
 public:
  explicit VertexTable(size_t most) {
    vertices_.reserve(most);
    size_t size = 16;
    while (size < 2 * most) size *= 2;
    slot_.assign(size, -1);
  }

  int32_t add(const Vertex& v) {
    int32_t* slot = find(v);
    if (*slot >= 0) return *slot;
    *slot = static_cast<int32_t>(vertices_.size());
    vertices_.push_back(v);
    return *slot;
  }

  const std::vector<Vertex>& vertices() const { return vertices_; }

 private:
  int32_t* find(const Vertex& v) {
    size_t at = hash_of(v.number, 6) & (slot_.size() - 1);
    while (slot_[at] >= 0 && std::memcmp(&vertices_[slot_[at]], &v, sizeof v) != 0) {
      at = (at + 1) & (slot_.size() - 1);
    }
    return &slot_[at];
  }

  std::vector<Vertex> vertices_;
  std::vector<int32_t> slot_;
};

// Writes a triangle in its final form, but for its vertices.
void put_triangle(const TriangleList& list, const Item& item, int32_t t, Mesh* mesh) {
  mesh->source[t] = item.source;
  mesh->shape[t] = shape_of(list.corners + 9 * static_cast<size_t>(item.source), mesh->center);
  if (!list.texcoords) return;
  const float* uv = list.texcoords + 6 * static_cast<size_t>(item.source);
  std::copy(uv, uv + 6, mesh->texcoords.begin() + 6 * static_cast<size_t>(t));
}

// Corner k of triangle t.
Vertex corner_of(const TriangleList& list, const Mesh& mesh, int32_t t, int k) {
  const size_t at = 9 * static_cast<size_t>(mesh.source[t]) + 3 * k;
  return vertex_of(list.corners + at, list.normals + at, mesh.shape[t], mesh.center);
}

void make_vertices(int32_t count, Mesh* mesh) {
  mesh->num_vertices = count;
  mesh->vertex_pitch = padded(count);
  mesh->vertices.resize(6 * static_cast<size_t>(mesh->vertex_pitch));
}

void put_vertex(const Vertex& v, int32_t at, Mesh* mesh) {
  for (int k = 0; k < 6; ++k) mesh->vertices[k * static_cast<size_t>(mesh->vertex_pitch) + at] = v.number[k];
}

void put_joined(const TriangleList& list, Mesh* mesh) {
  const int32_t count = mesh->num_triangles();
  VertexTable table(3 * static_cast<size_t>(count));
  for (int32_t t = 0; t < count; ++t) {
    for (int k = 0; k < 3; ++k) {
      mesh->corners[k * mesh->corner_pitch + t] = table.add(corner_of(list, *mesh, t, k));
    }
  }
  const std::vector<Vertex>& vertices = table.vertices();
  make_vertices(static_cast<int32_t>(vertices.size()), mesh);
  for (int32_t i = 0; i < mesh->num_vertices; ++i) put_vertex(vertices[i], i, mesh);
}

void put_apart(const TriangleList& list, Mesh* mesh) {
  make_vertices(3 * mesh->num_triangles(), mesh);
  for (int32_t t = 0; t < mesh->num_triangles(); ++t) {
    for (int k = 0; k < 3; ++k) {
      mesh->corners[k * mesh->corner_pitch + t] = 3 * t + k;
      put_vertex(corner_of(list, *mesh, t, k), 3 * t + k, mesh);
    }
  }
}

// Fills `items` with what can be drawn and bounds it; false if there is nothing.
bool take_items(const TriangleList& list, std::vector<Item>* items, Mesh* mesh) {
  Box all;
  for (int32_t i = 0; i < list.count; ++i) {
    const float* c = list.corners + 9 * static_cast<size_t>(i);
    if (!drawable(c)) continue;
    for (int k = 0; k < 3; ++k) all.add(c + 3 * k);
    items->emplace_back();
    items->back().source = i;
  }
  if (items->empty()) return false;
  for (int k = 0; k < 3; ++k) {
    mesh->center[k] = 0.5f * all.lo[k] + 0.5f * all.hi[k];
    mesh->half[k] = std::max(all.hi[k] - mesh->center[k], mesh->center[k] - all.lo[k]);
  }
  return true;
}

// Sorts the items into a hierarchy of boxes.
void build_boxes(const TriangleList& list, std::vector<Item>* items, Mesh* mesh) {
  // Wide enough for the triangles' margins and for rounding: a ray that meets a triangle meets its
  // boxes, so that what it meets does not depend on the other rays of its packet.
  const float slack = 2e-5f * std::max({mesh->half[0], mesh->half[1], mesh->half[2]});
  for (Item& item : *items) {
    const float* c = list.corners + 9 * static_cast<size_t>(item.source);
    for (int k = 0; k < 9; ++k) {
      const float v = c[k] - mesh->center[k % 3];
      item.box.lo[k % 3] = std::min(item.box.lo[k % 3], v);
      item.box.hi[k % 3] = std::max(item.box.hi[k % 3], v);
    }
    for (int k = 0; k < 3; ++k) {
      item.middle[k] = 0.5f * (item.box.lo[k] + item.box.hi[k]);
      item.box.lo[k] -= slack;
      item.box.hi[k] += slack;
    }
  }
  Builder(items, &mesh->nodes).build();
}

void one_box(int32_t count, Mesh* mesh) {
  mesh->nodes.emplace_back();
  MeshNode* root = &mesh->nodes[0].child[0];
  const float slack = 1e-4f * std::max({mesh->half[0], mesh->half[1], mesh->half[2]});
  for (int k = 0; k < 3; ++k) {
    root->side[1][k] = mesh->half[k] + slack;
    root->side[0][k] = -root->side[1][k];
  }
  root->first = 0;
  root->count = count;
}

void put_triangles(const TriangleList& list, const std::vector<Item>& items, Mesh* mesh) {
  const auto count = static_cast<int32_t>(items.size());
  mesh->source.resize(count);
  mesh->shape.resize(count);
  mesh->texcoords.resize(list.texcoords ? 6 * static_cast<size_t>(count) : 0);
  mesh->corner_pitch = padded(count);
  mesh->corners.assign(3 * static_cast<size_t>(mesh->corner_pitch), 0);
  for (int32_t t = 0; t < count; ++t) put_triangle(list, items[t], t, mesh);
}

}  // namespace

Mesh build_mesh(const TriangleList& triangles) {
  Mesh mesh;
  std::vector<Item> items;
  if (!take_items(triangles, &items, &mesh)) return mesh;
  build_boxes(triangles, &items, &mesh);
  put_triangles(triangles, items, &mesh);
  put_joined(triangles, &mesh);
  mesh.closed = is_closed(triangles.corners, triangles.count);
  return mesh;
}

void refill_mesh(const TriangleList& triangles, bool boxes, Mesh* mesh) {
  thread_local std::vector<Item> items;
  items.clear();
  mesh->nodes.clear();
  mesh->closed = false;
  const bool any = take_items(triangles, &items, mesh);
  if (any && boxes) build_boxes(triangles, &items, mesh);
  if (any && !boxes) one_box(static_cast<int32_t>(items.size()), mesh);
  put_triangles(triangles, items, mesh);
  put_apart(triangles, mesh);
}

}  // namespace vlmrm
