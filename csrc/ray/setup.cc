#include <algorithm>
#include <cmath>

#include "ray/bounds.h"
#include "ray/frame.h"

namespace vlmrm {
namespace {

constexpr float kSkyRadius = 0.7f;  // of zfar, as mjr_render scales the sky box

bool all_finite(const double* a, int n) {
  for (int i = 0; i < n; ++i) {
    if (!(std::abs(a[i]) < 1e15)) return false;
  }
  return true;
}

// World vector to camera space.
void rotate(const double* cam_mat, const double* v, float* out) {
  for (int k = 0; k < 3; ++k) {
    out[k] = static_cast<float>(cam_mat[k] * v[0] + cam_mat[3 + k] * v[1] + cam_mat[6 + k] * v[2]);
  }
}

int clamp_pixel(float v, int limit) {
  return static_cast<int>(std::min(std::max(v, 0.0f), static_cast<float>(limit)));
}

// Whether the near plane may cut the geom open.
bool cut_open(const ViewGeom& g, float znear) {
  const float forward[3] = {0, 0, -1};
  return g.drawn && -g.center[2] - extent(g, forward) <= znear;
}

// Fills the screen rectangle, the sorting key and whether anything can be seen.
void place(const Scene& scene, const Frame& f, ViewGeom* g) {
  const float forward[3] = {0, 0, -1};
  const float middle = -g->center[2], half = extent(*g, forward);
  g->depth = g->type == kPlane ? kFar : middle;
  g->x0 = g->y0 = 0;
  g->x1 = f.width;
  g->y1 = f.height;
  g->drawn = middle + half > scene.znear;
  if (g->endless) return;
  if (!g->drawn || (middle - half < scene.znear && !f.orthographic)) return;
  Bounds b = f.orthographic ? parallel_bounds(*g) : image_bounds(*g);
  // A pixel more on each side, for the sub-samples.
  g->x0 = clamp_pixel((b.x0 - f.left) / f.step_x - 1.0f, f.width);
  g->x1 = clamp_pixel((b.x1 - f.left) / f.step_x + 3.0f, f.width);
  g->y0 = clamp_pixel((f.top - b.y1) / f.step_y - 1.0f, f.height);
  g->y1 = clamp_pixel((f.top - b.y0) / f.step_y + 3.0f, f.height);
  g->drawn = g->x0 < g->x1 && g->y0 < g->y1;
}

void set_local_eye(ViewGeom* g) {
  for (int k = 0; k < 3; ++k) g->eye[k] = -dot3(g->axis[k], g->center);
}

// Finds out what of the geom lies beyond the sky box, which hides it.
void place_far(const Scene& scene, Frame* f, ViewGeom* g) {
  g->endless = g->type == kPlane && !(g->size[0] > 0 && g->size[1] > 0);
  g->reach = 0;
  const bool beyond = std::sqrt(dot3(g->center, g->center)) + g->radius > f->sky_radius;
  if (scene.sky < 0 || f->probe || !beyond) return;
  const float up[3] = {f->world[2][0], f->world[2][1], f->world[2][2]};
  const bool level = g->type == kPlane && std::abs(dot3(g->axis[2], up)) > 0.9999f;
  g->reach = level ? f->sky_radius : 0.0f;
  f->far |= !level;
}

// A mesh is placed by the centre of its box, which the other functions then take for the geom's own.
void set_mesh(const Mesh& mesh, ViewGeom* g) {
  g->mesh = &mesh;
  std::copy(mesh.half, mesh.half + 3, g->size);
  for (int k = 0; k < 3; ++k) {
    for (int i = 0; i < 3; ++i) g->center[k] += g->axis[i][k] * mesh.center[i];
  }
}

void place_geoms(const Scene& scene, const World& w, Frame* f) {
  const int n = static_cast<int>(scene.geoms.size());
  f->general = f->orthographic;
  f->far = false;
  for (int i = 0; i < n; ++i) {
    const Geom& geom = scene.geoms[i];
    ViewGeom& g = f->view[i];
    g.type = geom.type;
    g.geom = i;
    g.mirrored = false;
    const double* pos = (geom.from_site ? w.site_xpos : w.geom_xpos) + 3 * geom.index;
    const double* mat = (geom.from_site ? w.site_xmat : w.geom_xmat) + 9 * geom.index;
    std::copy(geom.size, geom.size + 3, g.size);
    g.drawn = all_finite(pos, 3) && all_finite(mat, 9);
    if (!g.drawn) {
      g.radius = -1;
      continue;
    }
    const double relative[3] = {pos[0] - f->eye[0], pos[1] - f->eye[1], pos[2] - f->eye[2]};
    rotate(w.cam_mat, relative, g.center);
    for (int k = 0; k < 3; ++k) {
      const double column[3] = {mat[k], mat[3 + k], mat[6 + k]};
      rotate(w.cam_mat, column, g.axis[k]);
    }
    g.mesh = nullptr;
    if (g.type == kMesh) set_mesh(scene.mesh(geom), &g);
    set_local_eye(&g);
    g.radius = bounding_radius(g);
    if (g.type == kMesh && g.mesh->nodes.empty()) {
      g.drawn = false;
      g.radius = -1;
      continue;
    }
    // mjr_render shows a plane from behind as glass.
    const bool behind = g.type == kPlane && g.eye[2] < 0;
    g.behind = behind;
    g.alpha = geom.rgba[3] * (behind ? 0.3f : 1.0f);
    g.transparent = !f->probe && (behind || geom.rgba[3] < 0.995f);
    place_far(scene, f, &g);
    place(scene, *f, &g);
    g.hollow = !scene.cull && (g.type == kPlane || g.type == kMesh || cut_open(g, scene.znear));
    f->general |= g.hollow;
  }
}

// Lists the transparent geoms that are seen, directly or in the mirror, nearest first by mjr_render's measure.
void sort_transparent(const Scene& scene, Frame* f) {
  const int n = static_cast<int>(scene.geoms.size());
  f->num_transparent = 0;
  for (int i = 0; i < n; ++i) {
    ViewGeom& g = f->view[i];
    const bool seen = g.drawn || (f->mirror && f->view[n + i].drawn);
    if (g.radius < 0 || !seen || !g.transparent) continue;
    f->transparent[f->num_transparent++] = i;
    float pos[3] = {g.center[0], g.center[1], g.center[2]};
    for (int k = 0; g.mesh && k < 3; ++k) {
      for (int j = 0; j < 3; ++j) pos[j] -= g.axis[k][j] * g.mesh->center[k];
    }
    g.depth = g.type == kPlane ? kFar : std::sqrt(dot3(pos, pos)) - g.radius;
  }
  std::sort(f->transparent.begin(), f->transparent.begin() + f->num_transparent,
            [f](int a, int b) {
              const float da = f->view[a].depth, db = f->view[b].depth;
              return da != db ? da < db : a < b;
            });
}

// Only the first unbounded plane has haze, and only before a sky box.
void place_haze(const Scene& scene, Frame* f) {
  f->haze_height = 0;
  if (scene.sky < 0 || !(scene.haze > 0)) return;
  for (size_t i = 0; i < scene.geoms.size(); ++i) {
    const ViewGeom& g = f->view[i];
    if (g.type != kPlane || g.size[0] > 0 || g.size[1] > 0 || g.radius < 0) continue;
    std::copy(g.axis[2], g.axis[2] + 3, f->haze_normal);
    f->haze_height = std::max(0.0f, g.eye[2] / f->sky_height);
    return;
  }
}

// Mirrors p (a point, or a direction if `point` is null) in the plane through `point`.
void reflect(const float* point, const float* normal, float* p) {
  float d = dot3(p, normal) - (point ? dot3(point, normal) : 0.0f);
  for (int k = 0; k < 3; ++k) p[k] -= 2 * d * normal[k];
}

// The first opaque plane or box with a reflectance, as mjr_render allows one mirror.
int find_mirror(const Scene& scene, const Frame& f) {
  for (int i = std::max(0, scene.reflective); i < static_cast<int>(scene.geoms.size()); ++i) {
    const ViewGeom& g = f.view[i];
    const bool flat = g.type == kPlane || g.type == kBox;
    if (flat && scene.geoms[i].reflectance > 0 && !g.transparent && g.radius >= 0) return i;
  }
  return -1;
}

// The scene as the one reflective plane (or box top) shows it.
void place_mirror(const Scene& scene, Frame* f) {
  f->mirror = false;
  f->reflective = scene.reflective < 0 || f->probe ? -1 : find_mirror(scene, *f);
  if (f->reflective < 0) return;
  const int n = static_cast<int>(scene.geoms.size());
  const ViewGeom& plane = f->view[f->reflective];
  if (!plane.drawn) return;
  float point[3];
  const float lift = plane.type == kBox ? plane.size[2] : 0.0f;
  const float* normal = plane.axis[2];
  for (int k = 0; k < 3; ++k) point[k] = plane.center[k] + lift * normal[k];
  if (dot3(point, normal) >= 0) return;
  f->mirror = true;
  for (int i = 0; i < n; ++i) {
    ViewGeom& g = f->view[n + i];
    g = f->view[i];
    g.mirrored = true;
    if (g.radius < 0 || i == f->reflective) {
      g.drawn = false;
      continue;
    }
    reflect(point, normal, g.center);
    for (int k = 0; k < 3; ++k) reflect(nullptr, normal, g.axis[k]);
    set_local_eye(&g);
    place(scene, *f, &g);
  }
  for (size_t i = 0; i < scene.lights.size(); ++i) {
    ViewLight& l = f->mirror_light[i];
    l = f->light[i];
    reflect(nullptr, normal, l.dir);
    reflect(point, normal, l.pos);
  }
}

void place_lights(const Scene& scene, const World& w, Frame* f) {
  for (size_t i = 0; i < scene.lights.size(); ++i) {
    ViewLight& l = f->light[i];
    const int32_t k = scene.lights[i].index;
    if (k < 0) {
      l.dir[0] = l.dir[1] = 0;
      l.dir[2] = -1;
      l.pos[0] = l.pos[1] = l.pos[2] = 0;
      continue;
    }
    const double* pos = w.light_xpos + 3 * k;
    const double relative[3] = {pos[0] - f->eye[0], pos[1] - f->eye[1], pos[2] - f->eye[2]};
    rotate(w.cam_mat, relative, l.pos);
    rotate(w.cam_mat, w.light_xdir + 3 * k, l.dir);
    normalize3(l.dir);
    // The orientation of the shadow map, as mjr_render chooses it in world coordinates.
    const double* d = w.light_xdir + 3 * k;
    double up[3] = {0, -d[2], d[1]};
    if (up[1] * up[1] + up[2] * up[2] <= 0.01) up[0] = -d[2], up[1] = 0, up[2] = d[0];
    float upf[3];
    rotate(w.cam_mat, up, upf);
    cross3(l.side, l.dir, upf);
    normalize3(l.side);
    cross3(l.up, l.side, l.dir);
  }
}

// Takes the bounds of a geom to a spot light's image plane at unit depth, some texels wider.
void project(const Scene& scene, const Light& light, float depth, float half, Caster* c) {
  if (c->inside_near) {
    c->u0 = c->v0 = -kFar;
    c->u1 = c->v1 = kFar;
    return;
  }
  const float near = 1 / (depth - half), far = 1 / (depth + half);
  c->u0 *= c->u0 < 0 ? near : far;
  c->u1 *= c->u1 > 0 ? near : far;
  c->v0 *= c->v0 < 0 ? near : far;
  c->v1 *= c->v1 > 0 ? near : far;
  const float texels = 4 * light.tan_shadow / scene.shadow_size;
  c->u0 -= texels, c->u1 += texels;
  c->v0 -= texels, c->v1 += texels;
}

// Bounds a geom to a strip along its longest projection onto a parallel light's image plane.
void set_strip(const ViewGeom& g, const ViewLight& l, float u, float v, float texel, Caster* c) {
  float most = 0, n[3];
  c->across[0] = 1, c->across[1] = 0;
  for (int k = 0; k < 3; ++k) {
    const float du = dot3(g.axis[k], l.side), dv = dot3(g.axis[k], l.up);
    const float length = std::sqrt(du * du + dv * dv);
    if (!(g.size[k] * length > most)) continue;
    most = g.size[k] * length;
    c->across[0] = -dv / length, c->across[1] = du / length;
  }
  for (int k = 0; k < 3; ++k) n[k] = c->across[0] * l.side[k] + c->across[1] * l.up[k];
  c->middle = c->across[0] * u + c->across[1] * v;
  c->half = extent(g, n) + texel * (std::abs(c->across[0]) + std::abs(c->across[1]));
}

// Lists, for each shadow light, the geoms that lie behind the near plane of its map.
void place_casters(const Scene& scene, Frame* f) {
  for (size_t i = 0; i < scene.lights.size(); ++i) {
    f->num_casters[i] = 0;
    if (!scene.lights[i].shadow) continue;
    const ViewLight& l = f->light[i];
    const bool parallel = scene.lights[i].type == kDirectional;
    for (size_t j = 0; j < scene.geoms.size(); ++j) {
      const ViewGeom& g = f->view[j];
      if (!scene.geoms[j].casts || g.radius < 0) continue;
      float to[3];
      for (int k = 0; k < 3; ++k) to[k] = g.center[k] - l.pos[k];
      const float depth = dot3(to, l.dir), half = extent(g, l.dir);
      if (depth + half < scene.znear) continue;
      Caster& c = f->casters[i][f->num_casters[i]++];
      c.view = static_cast<int32_t>(j);
      c.inside_near = depth - half < scene.znear;
      const float u = dot3(to, l.side), v = dot3(to, l.up);
      const float texel = 2 * scene.shadow_clip / scene.shadow_size;
      const float eu = extent(g, l.side) + texel, ev = extent(g, l.up) + texel;
      c.u0 = u - eu, c.u1 = u + eu;
      c.v0 = v - ev, c.v1 = v + ev;
      c.across[0] = c.across[1] = c.middle = 0, c.half = kFar;
      if (parallel) {
        set_strip(g, l, u, v, texel, &c);
      } else {
        project(scene, scene.lights[i], depth, half, &c);
      }
    }
  }
}

void resize(SurfaceTable* table, size_t count) {
  table->depth.resize(count);
  table->id.resize(count);
}

}  // namespace

Frame::Frame(const Scene& scene, int h, int w) : height(h), width(w), pitch((w + kMaxLanes - 1) / kMaxLanes * kMaxLanes) {
  const size_t pixels = static_cast<size_t>(pitch) * h;
  const float half_width =
      scene.half_width > 0 ? scene.half_width : scene.half_height * static_cast<float>(w) / h;
  facets = h < kSmallHeight;
  step_x = 2 * half_width / w;
  step_y = 2 * scene.half_height / h;
  orthographic = scene.orthographic != 0;
  sky_height = scene.zfar * kSkyRadius;
  sky_radius = sky_height * scene.round;
  left = scene.center[0] - half_width + 0.5f * step_x;
  top = scene.center[1] + scene.half_height - 0.5f * step_y;
  // A face of the sky changes by at most sqrt(6) / 2 widths per unit of image plane.
  sky_magnified = scene.sky >= 0 && scene.textures[scene.sky].level[0].width * 1.2248f *
                                            std::max(step_x, step_y) <= 1.0f;
  row_end = h;
  words = (pitch + 63) / 64;
  touched.resize(static_cast<size_t>(words) * h);
  dirty.resize(touched.size());
  near_mirror.resize(touched.size());
  mirror_touched.resize(touched.size());
  depth.resize(pixels + 16, 1.0f);
  id.resize(pixels + 16);
  for (auto* table : {&slot_x, &slot_y, &slot_queued}) table->resize(2 * kMaxSlots);
  for (auto* table : {&sample_x, &sample_y}) table->resize(4 * kMaxSlots);
  resize(&center, kMaxSlots);
  resize(&mirror_center, kMaxSlots);
  resize(&sample, 4 * kMaxSlots);
  resize(&mirror_sample, 4 * kMaxSlots);
  for (auto* table : {&center, &mirror_center, &sample, &mirror_sample}) {
    table->prim.resize(table->id.size());
  }
  accumulator.resize(2 * kMaxSlots);
  for (auto* table : {&pair_slot, &pair_sorted}) table->resize(kMaxPairs);
  run.resize(kMaxRuns);
  for (auto* table : {&fragment, &sorted_fragment}) {
    table->depth.resize(kMaxFragments);
    for (auto* column : {&table->id, &table->prim, &table->slot, &table->weight}) {
      column->resize(kMaxFragments);
    }
  }
  fit(scene);
}

void Frame::fit(const Scene& scene) {
  const size_t n = scene.geoms.size(), num_lights = scene.lights.size();
  if (scene.reflective >= 0 && mirror_id.empty()) {
    mirror_depth.resize(depth.size());
    mirror_id.resize(id.size());
  }
  const bool meshes = scene.changing || !scene.assets->meshes.empty();
  if (meshes && prim.empty()) {
    prim.resize(id.size());
    resize(&samples, 4 * depth.size());
    samples.prim.resize(samples.id.size());
  }
  if (meshes && scene.reflective >= 0 && mirror_prim.empty()) {
    mirror_prim.resize(id.size());
    mirror_samples = samples;
  }
  // Grown only, so that a list which comes and goes allocates once.
  if (bucket.empty() || order.size() < n) {
    view.resize(2 * n);
    lit_at.resize(2 * n);
    corners_seen.resize(2 * n);
    order.resize(n);
    transparent.resize(n);
    bucket.resize(4 * n + 4);
  }
  if (light.size() < num_lights) {
    light.resize(num_lights);
    mirror_light.resize(num_lights);
    num_casters.resize(num_lights);
    casters.resize(num_lights);
    caster_bounds.resize(num_lights);
    lone_plane.resize(num_lights);
    mesh_bounds.resize(4 * num_lights);
  }
  for (auto& list : casters) list.resize(order.size());
  caster_pitch = static_cast<int32_t>(order.size() + kMaxLanes - 1) / kMaxLanes * kMaxLanes;
  for (auto& rows : caster_bounds) rows.resize(8 * caster_pitch + 4);
}

void Frame::copy_probe(float background, float* depth_out, int32_t* geom_out) const {
  for (int row = 0; row < height; ++row) {
    for (int col = 0; col < width; ++col) {
      const int at = row * pitch + col;
      const bool shown = valid && id[at] >= 0;
      *depth_out++ = shown ? depth[at] : background;
      *geom_out++ = shown ? id[at] >> 3 : -1;
    }
  }
}

void set_up(const Scene& scene, const World& w, Frame* f) {
  f->valid = all_finite(w.cam_pos, 3) && all_finite(w.cam_mat, 9);
  if (!f->valid) return;
  std::copy(w.cam_pos, w.cam_pos + 3, f->eye);
  for (int k = 0; k < 3; ++k) {
    for (int j = 0; j < 3; ++j) f->world[k][j] = static_cast<float>(w.cam_mat[3 * k + j]);
  }
  place_geoms(scene, w, f);
  place_haze(scene, f);
  place_lights(scene, w, f);
  place_mirror(scene, f);
  place_casters(scene, f);
  sort_transparent(scene, f);
}

}  // namespace vlmrm
