#include "ray/facets.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

namespace vlmrm {
namespace {

constexpr float kSmooth = 0.98f;  // cosine between normals of a corner that still looks smooth

// An edge of a triangle, found by where its ends are.
struct Edge {
  uint64_t key;
  int32_t triangle;
  int8_t from, to;  // corners, in an order that both triangles agree on
};

uint64_t hash_point(const float* p) {
  uint64_t h = 0x9e3779b97f4a7c15u;
  for (int k = 0; k < 3; ++k) {
    const float v = p[k] + 0.0f;  // -0 is 0
    uint32_t bits;
    std::memcpy(&bits, &v, sizeof bits);
    h = (h ^ bits) * 0xff51afd7ed558ccdu;
    h ^= h >> 32;
  }
  return h;
}

std::vector<Edge> sorted_edges(const float* corners, int32_t count) {
  std::vector<Edge> edges;
  edges.reserve(3 * static_cast<size_t>(count));
  for (int32_t t = 0; t < count; ++t) {
    uint64_t h[3];
    for (int k = 0; k < 3; ++k) h[k] = hash_point(corners + 9 * static_cast<size_t>(t) + 3 * k);
    for (int k = 0; k < 3; ++k) {
      const int next = (k + 1) % 3;
      const bool swap = h[k] > h[next];
      edges.push_back({h[k] + h[next], t, static_cast<int8_t>(swap ? next : k),
                       static_cast<int8_t>(swap ? k : next)});
    }
  }
  std::sort(edges.begin(), edges.end(), [](const Edge& a, const Edge& b) {
    return a.key != b.key ? a.key < b.key : a.triangle < b.triangle;
  });
  return edges;
}

bool agree(const float* a, const float* b) {
  const float ab = a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  const float aa = a[0] * a[0] + a[1] * a[1] + a[2] * a[2];
  const float bb = b[0] * b[0] + b[1] * b[1] + b[2] * b[2];
  return ab > 0 && ab * ab >= kSmooth * kSmooth * aa * bb;
}

int32_t root_of(std::vector<int32_t>* parent, int32_t t) {
  std::vector<int32_t>& p = *parent;
  while (p[t] != t) t = p[t] = p[p[t]];
  return t;
}

}  // namespace

std::vector<int32_t> color_facets(const float* corners, const float* normals, int32_t count) {
  std::vector<int32_t> parent(count);
  std::iota(parent.begin(), parent.end(), 0);
  std::vector<std::pair<int32_t, int32_t>> creases;
  const std::vector<Edge> edges = sorted_edges(corners, count);
  for (size_t i = 1; i < edges.size(); ++i) {
    const Edge &a = edges[i - 1], &b = edges[i];
    if (a.key != b.key) continue;
    const float* na = normals + 9 * static_cast<size_t>(a.triangle);
    const float* nb = normals + 9 * static_cast<size_t>(b.triangle);
    if (agree(na + 3 * a.from, nb + 3 * b.from) && agree(na + 3 * a.to, nb + 3 * b.to)) {
      parent[root_of(&parent, a.triangle)] = root_of(&parent, b.triangle);
    } else {
      creases.emplace_back(a.triangle, b.triangle);
    }
  }
  for (auto& c : creases) c = {root_of(&parent, c.first), root_of(&parent, c.second)};
  const size_t n = creases.size();
  for (size_t i = 0; i < n; ++i) creases.emplace_back(creases[i].second, creases[i].first);
  std::sort(creases.begin(), creases.end());
  // Greedy: the first colour that no neighbour has; with more than seven, any.
  std::vector<int32_t> color(count, -1);
  for (size_t i = 0; i < creases.size();) {
    const int32_t facet = creases[i].first;
    int used = 0;
    for (; i < creases.size() && creases[i].first == facet; ++i) {
      const int32_t other = color[creases[i].second];
      if (other >= 0 && creases[i].second != facet) used |= 1 << other;
    }
    const int free = ~used & ((1 << kFacetColors) - 1);
    color[facet] = free ? __builtin_ctz(free) : facet % kFacetColors;
  }
  std::vector<int32_t> result(count);
  for (int32_t t = 0; t < count; ++t) result[t] = std::max(color[root_of(&parent, t)], 0);
  return result;
}

}  // namespace vlmrm
