#include "ray/dynamic.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "mjv_reader.h"
#include "ray/triangles.h"

namespace vlmrm {
namespace {

// mjtGeom beyond those that GeomType names.
enum MjGeom : int32_t {
  kMjHfield = 1,
  kMjMesh = 7,
  kMjSdf = 8,
  kMjArrow = 100,
  kMjArrow1 = 101,
  kMjArrow2 = 102,
  kMjLine = 103,
  kMjLineBox = 104,
  kMjFlex = 105,
  kMjSkin = 106,
  kMjTriangle = 108,
};
constexpr int32_t kDecor = 4;        // mjCAT_DECOR
constexpr float kOpaque = 0.995f;    // mjr_render draws anything below as transparent
constexpr float kArrowHead = 1.75f;  // radius of an arrow's head, per radius of its shaft

[[noreturn]] void refuse(int32_t type) {
  throw std::runtime_error("The scene must show only elements that the ray renderer draws, got mjtGeom " +
                           std::to_string(type) + ". Hide it, or use backend='gl'.");
}

}  // namespace

class Refill::Reader {
 public:
  explicit Reader(const RefillSetup& setup)
      : setup_(setup),
        mjv_(setup.api, setup.model),
        option_(setup.option),
        camera_(setup.camera),
        geom_(*setup.api),
        light_(*setup.api),
        eye_reader_(*setup.api),
        at_(*setup.api),
        scene_(*setup.scene) {
    scene_.changing = true;
  }

  void update(void* data) {
    std::vector<std::string> warnings;
    mjv_.update(data, option_.get(), camera_.get(), &warnings);
    scene_.geoms.clear();
    scene_.lights.clear();
    num_own_meshes_ = 0;
    objects_.clear();
    pos_.clear(), mat_.clear(), light_pos_.clear(), light_dir_.clear();
    place_camera();
    add_lights();
    const char* from = mjv_.geoms();
    geoms_.resize(mjv_.num_geoms());
    endless_ = false;
    for (size_t i = 0; i < geoms_.size(); ++i) {
      geom_.read(from + geom_.size * i, &geoms_[i]);
      endless_ |= geoms_[i].type == kPlane && !(geoms_[i].size[0] > 0 && geoms_[i].size[1] > 0);
    }
    for (const MjvGeom& g : geoms_) add(g);
    find_mirror();
  }

  const Scene& scene() const { return scene_; }
  const std::vector<int32_t>& objects() const { return objects_; }

  World world() const {
    return {pos_.data(),       mat_.data(),       nullptr, nullptr,
            light_pos_.data(), light_dir_.data(), eye_,    axes_};
  }

 private:
  void add(const MjvGeom& g) {
    switch (g.type) {
      case kPlane:
      case kSphere:
      case kCapsule:
      case kEllipsoid:
      case kCylinder:
      case kBox:
        return add_shape(g, g.type, g.size, 0);
      case kMjMesh:
      case kMjSdf:
        return add_asset(g, setup_.meshes);
      case kMjHfield:
        return add_asset(g, setup_.hfields);
      case kMjArrow:
      case kMjArrow1:
      case kMjArrow2:
        return add_arrow(g);
      case kMjLine:
        return add_line(g);
      case kMjLineBox:
        return add_line_box(g);
      case kMjTriangle:
        return add_triangle(g);
      case kMjSkin:
        return add_skin(g);
      case kMjFlex:
        return add_flex(g);
      default:
        refuse(g.type);
    }
  }

  // A geom with `g`'s pose and material; its place is moved along its z axis.
  Geom& add_like(const MjvGeom& g, int32_t type, float shift) {
    Geom made;
    made.type = type;
    made.index = static_cast<int32_t>(scene_.geoms.size());
    const bool textured = g.matid >= 0 && g.texid >= 0;
    made.texture = textured ? setup_.textures[g.texid] : -1;
    made.uniform = g.texuniform;
    made.casts = g.casts && g.category != kDecor;
    std::copy(g.rgba, g.rgba + 4, made.rgba);
    made.emission = g.emission, made.specular = g.specular, made.shininess = g.shininess;
    made.reflectance = g.reflectance;
    std::copy(g.texrepeat, g.texrepeat + 2, made.repeat);
    made.set_dim_below();
    for (int k = 0; k < 3; ++k) pos_.push_back(g.pos[k] + shift * g.mat[3 * k + 2]);
    mat_.insert(mat_.end(), g.mat, g.mat + 9);
    objects_.push_back(g.objid);
    objects_.push_back(g.objtype);
    scene_.geoms.push_back(made);
    return scene_.geoms.back();
  }

  void add_shape(const MjvGeom& g, int32_t type, const float* size, float shift) {
    Geom& made = add_like(g, type, shift);
    std::copy(size, size + 3, made.size);
    if (type == kPlane || type == kBox) return;
    made.size[0] *= setup_.around, made.size[1] *= setup_.around;
    if (type == kSphere || type == kEllipsoid) made.size[2] *= setup_.along;
  }

  void add_asset(const MjvGeom& g, const std::vector<int32_t>& rows) {
    if (g.dataid < 0) return;
    if (g.dataid >= static_cast<int32_t>(rows.size()) || rows[g.dataid] < 0) refuse(g.type);
    Geom& made = add_like(g, kMesh, 0);
    std::copy(g.size, g.size + 3, made.size);
    made.mesh = rows[g.dataid];
  }

  // A geom of the triangles in `made_`, which are in its own frame.
  void add_triangles(const MjvGeom& g) {
    const auto count = static_cast<int32_t>(made_.corners.size() / 9);
    Geom& made = add_like(g, kMesh, 0);
    std::copy(g.size, g.size + 3, made.size);
    made.mesh = -2 - num_own_meshes_;
    if (num_own_meshes_ == static_cast<int>(scene_.own_meshes.size())) scene_.own_meshes.emplace_back();
    const float* uv = made_.texcoords.empty() ? nullptr : made_.texcoords.data();
    // Rays that pass often need a hierarchy: through glass, and from a floor under haze to the light.
    // The few others, from outlines of round shapes, test every triangle.
    refill_mesh({made_.corners.data(), made_.normals.data(), uv, count}, endless_ || g.rgba[3] < kOpaque,
                &scene_.own_meshes[num_own_meshes_++]);
  }

  void add_arrow(const MjvGeom& g) {
    const float wide = g.type == kMjArrow1 ? 1.0f : kArrowHead;
    const float rx = wide * g.size[0], ry = wide * g.size[1];
    const bool both = g.type == kMjArrow2;
    const float unit = g.size[2] / (both ? 3.0f : 6.0f);
    const float shaft[3] = {g.size[0], g.size[1], unit};
    if (!(rx > 0 && ry > 0 && unit > 0)) return;
    add_shape(g, kCylinder, shaft, both ? 0.0f : unit);
    made_.clear();
    if (both) {
      add_cone(rx, ry, unit, unit / 2, setup_.slices, &made_);
      add_cone(rx, ry, -unit, -unit / 2, setup_.slices, &made_);
    } else {
      add_cone(rx, ry, 2 * unit, unit, setup_.slices, &made_);
    }
    add_triangles(g);
  }

  // Seen from both sides, lit by the normal of its front.
  void add_triangle(const MjvGeom& g) {
    const float a[3] = {0, 0, 0}, b[3] = {g.size[0], 0, 0}, c[3] = {0, g.size[1], 0};
    const float front[3] = {0, 0, 1};
    made_.clear();
    for (const float* p : {a, b, c, c, b, a}) made_.add(p, front);
    // The axes are edges, not at right angles: the corners are put into the world's frame.
    MjvGeom placed = g;
    for (size_t i = 0; i < made_.corners.size(); i += 3) {
      turn(g.mat, &made_.corners[i]);
      turn(g.mat, &made_.normals[i]);
    }
    const float identity[9] = {1, 0, 0, 0, 1, 0, 0, 0, 1};
    std::copy(identity, identity + 9, placed.mat);
    add_triangles(placed);
  }

  static void turn(const float* mat, float* v) {
    float out[3];
    for (int k = 0; k < 3; ++k) out[k] = mat[3 * k] * v[0] + mat[3 * k + 1] * v[1] + mat[3 * k + 2] * v[2];
    std::copy(out, out + 3, v);
  }

  void add_line(const MjvGeom& g) {
    float a[3] = {0, 0, 0}, b[3] = {0, 0, g.size[2]};
    made_.clear();
    add_stroke(g, a, b, g.size[0] * setup_.line_width);
    add_strokes(g);
  }

  void add_line_box(const MjvGeom& g) {
    made_.clear();
    for (int corner = 0; corner < 8; ++corner) {
      for (int axis = 0; axis < 3; ++axis) {
        if (corner >> axis & 1) continue;
        float a[3], b[3];
        for (int k = 0; k < 3; ++k) a[k] = b[k] = (corner >> k & 1 ? 1 : -1) * g.size[k];
        b[axis] = -b[axis];
        add_stroke(g, a, b, 1.5f * setup_.line_width);
      }
    }
    add_strokes(g);
  }

  void add_stroke(const MjvGeom& g, const float* from, const float* to, float pixels);

  // Lines are not lit: each pass adds their colour as it is.
  void add_strokes(const MjvGeom& g) {
    MjvGeom placed = in_world(g);
    int passes = 1;
    for (const Light& l : scene_.lights) passes += g.rgba[3] >= kOpaque && l.shadow;
    placed.emission = static_cast<float>(passes) - scene_.global_ambient;
    placed.matid = -1;
    placed.casts = false;
    add_triangles(placed);
    scene_.geoms.back().unlit = 1;
  }

  template <class T>
  const T* array(size_t at) const {
    return mjv_.read<const T*>(at);
  }

  // Vertices of skins and flexes are in the world's frame.
  static MjvGeom in_world(const MjvGeom& g) {
    MjvGeom placed = g;
    const float identity[9] = {1, 0, 0, 0, 1, 0, 0, 0, 1};
    std::fill(placed.pos, placed.pos + 3, 0.0f);
    std::copy(identity, identity + 9, placed.mat);
    return placed;
  }

  void add_skin(const MjvGeom& g) {
    const SkinFaces& faces = setup_.skins.at(g.objid);
    const size_t first = 3 * static_cast<size_t>(array<int32_t>(at_.skinvertadr)[g.objid]);
    const float* vertices = array<float>(at_.skinvert) + first;
    const float* normals = array<float>(at_.skinnormal) + first;
    made_.clear();
    for (int32_t corner : faces.corners) {
      made_.add(vertices + 3 * corner, normals + 3 * corner);
      if (faces.texcoords.empty()) continue;
      const float* uv = &faces.texcoords[2 * static_cast<size_t>(corner)];
      made_.texcoords.insert(made_.texcoords.end(), uv, uv + 2);
    }
    add_triangles(in_world(g));
  }

  void add_flex(const MjvGeom& g) {
    const int32_t used = array<int32_t>(at_.flexfaceused)[g.objid];
    const bool skin = mjv_.read<uint8_t>(at_.flexskinopt) && used > 0;
    if (g.size[0] > 0 && !skin) add_flex_lattice(g);
    if (used <= 0) return;
    const size_t first = array<int32_t>(at_.flexfaceadr)[g.objid];
    const float* corners = array<float>(at_.flexface) + 9 * first;
    const float* normals = array<float>(at_.flexnormal) + 9 * first;
    made_.clear();
    made_.corners.assign(corners, corners + 9 * static_cast<size_t>(used));
    made_.normals.assign(normals, normals + 9 * static_cast<size_t>(used));
    if (g.texcoord && g.matid >= 0) {
      const float* uv = array<float>(at_.flextexcoord) + 6 * first;
      made_.texcoords.assign(uv, uv + 6 * static_cast<size_t>(used));
    }
    add_triangles(in_world(g));
  }

  // Spheres at the vertices and cylinders along the edges.
  void add_flex_lattice(const MjvGeom& g) {
    MjvGeom part = in_world(g);
    part.matid = -1;
    const int32_t first = array<int32_t>(at_.flexvertadr)[g.objid];
    const int32_t count = array<int32_t>(at_.flexvertnum)[g.objid];
    const float* vertices = array<float>(at_.flexvert) + 3 * static_cast<size_t>(first);
    if (mjv_.read<uint8_t>(at_.flexvertopt)) {
      const float size[3] = {g.size[0], g.size[0], g.size[0]};
      for (int32_t v = 0; v < count; ++v) {
        std::copy(vertices + 3 * v, vertices + 3 * v + 3, part.pos);
        add_shape(part, kSphere, size, 0);
      }
    }
    if (!mjv_.read<uint8_t>(at_.flexedgeopt)) return;
    const int32_t edge = array<int32_t>(at_.flexedgeadr)[g.objid];
    const int32_t num_edges = array<int32_t>(at_.flexedgenum)[g.objid];
    const int32_t* ends = array<int32_t>(at_.flexedge) + 2 * static_cast<size_t>(edge);
    for (int32_t e = 0; e < num_edges; ++e) {
      add_edge(part, vertices + 3 * ends[2 * e], vertices + 3 * ends[2 * e + 1], g.size[0]);
    }
  }

  void add_edge(MjvGeom part, const float* a, const float* b, float radius) {
    float z[3], length = 0;
    for (int k = 0; k < 3; ++k) z[k] = b[k] - a[k], length += z[k] * z[k];
    length = std::sqrt(length);
    if (!(length > 0)) return;
    for (int k = 0; k < 3; ++k) z[k] /= length, part.pos[k] = 0.5f * (a[k] + b[k]);
    // Any axes across it will do: it is round and has no texture.
    const int least = std::abs(z[0]) < std::abs(z[1]) ? (std::abs(z[0]) < std::abs(z[2]) ? 0 : 2)
                                                      : (std::abs(z[1]) < std::abs(z[2]) ? 1 : 2);
    float x[3], norm = std::sqrt(1 - z[least] * z[least]);
    for (int k = 0; k < 3; ++k) x[k] = ((k == least) - z[least] * z[k]) / norm;
    const float y[3] = {z[1] * x[2] - z[2] * x[1], z[2] * x[0] - z[0] * x[2],
                        z[0] * x[1] - z[1] * x[0]};
    for (int k = 0; k < 3; ++k) {
      part.mat[3 * k] = x[k], part.mat[3 * k + 1] = y[k], part.mat[3 * k + 2] = z[k];
    }
    const float size[3] = {radius, radius, 0.5f * length};
    add_shape(part, kCylinder, size, 0);
  }

  void add_lights();
  void place_camera();

  void find_mirror() {
    scene_.reflective = -1;
    for (size_t i = 0; setup_.reflection && i < scene_.geoms.size(); ++i) {
      const Geom& g = scene_.geoms[i];
      if ((g.type == kPlane || g.type == kBox) && g.reflectance > 0 && g.rgba[3] >= kOpaque) {
        scene_.reflective = static_cast<int32_t>(i);
        return;
      }
    }
  }

  const RefillSetup& setup_;
  MjvScene mjv_;
  Block option_, camera_;
  GeomReader geom_;
  LightReader light_;
  CameraReader eye_reader_;
  SceneReader at_;
  Scene scene_;
  int num_own_meshes_ = 0;
  bool endless_ = false;  // some plane has no end, and so may have haze
  std::vector<MjvGeom> geoms_;
  Triangles made_;
  std::vector<int32_t> objects_;
  std::vector<double> pos_, mat_, light_pos_, light_dir_;
  double eye_[3], axes_[9];
};

// Point and image lights are left out, as mjr_render leaves them out.
void Refill::Reader::add_lights() {
  const char* lights = static_cast<const char*>(mjv_.get()) + at_.lights;
  const int count = mjv_.read<int32_t>(at_.nlight);
  for (int i = 0; i < count; ++i) {
    const char* from = lights + light_.size * i;
    Light l;
    l.type = get<int32_t>(from, light_.type);
    if (l.type != kSpot && l.type != kDirectional) continue;
    if (static_cast<int>(scene_.lights.size()) == setup_.max_lights) break;
    const bool head = get<uint8_t>(from, light_.headlight) != 0;
    l.index = head ? -1 : static_cast<int32_t>(light_pos_.size() / 3);
    l.shadow = setup_.shadows && get<uint8_t>(from, light_.castshadow) != 0;
    get(from, light_.ambient, l.ambient, 3);
    get(from, light_.diffuse, l.diffuse, 3);
    get(from, light_.specular, l.specular, 3);
    get(from, light_.attenuation, l.attenuation, 3);
    const float cutoff = get<float>(from, light_.cutoff);
    const float exponent = get<float>(from, light_.exponent);
    // OpenGL keeps its defaults (no cone, no falloff) for values out of range.
    const float degree = 0.017453292f;
    l.cos_cutoff = l.type == kSpot && cutoff >= 0 && cutoff <= 90 ? std::cos(cutoff * degree) : -2.0f;
    l.exponent = exponent >= 0 && exponent <= 128 ? exponent : 0.0f;
    const float opening = std::min(2 * cutoff * setup_.shadow_scale, 160.0f);
    l.tan_shadow = std::tan(0.5f * opening * degree);
    scene_.lights.push_back(l);
    if (head) continue;
    float pos[3], dir[3];
    get(from, light_.pos, pos, 3);
    get(from, light_.dir, dir, 3);
    light_pos_.insert(light_pos_.end(), pos, pos + 3);
    light_dir_.insert(light_dir_.end(), dir, dir + 3);
  }
  scene_.global_ambient = scene_.lights.empty() ? 0.3f : 0.0f;
}

// The mean of the two eyes, as mjv_averageCamera takes it for one picture.
void Refill::Reader::place_camera() {
  const char* left = static_cast<const char*>(mjv_.get()) + at_.camera;
  const char* right = left + eye_reader_.size;
  auto mean = [&](size_t at, double* out) {
    float a[3], b[3];
    get(left, at, a, 3);
    get(right, at, b, 3);
    for (int k = 0; k < 3; ++k) out[k] = 0.5 * (static_cast<double>(a[k]) + b[k]);
  };
  auto unit = [](double* v) {
    const double length = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
    for (int k = 0; k < 3; ++k) v[k] /= length;
  };
  double forward[3], up[3];
  mean(eye_reader_.pos, eye_);
  mean(eye_reader_.forward, forward);
  mean(eye_reader_.up, up);
  unit(forward);
  const double along = up[0] * forward[0] + up[1] * forward[1] + up[2] * forward[2];
  for (int k = 0; k < 3; ++k) up[k] -= along * forward[k];
  unit(up);
  const double side[3] = {forward[1] * up[2] - forward[2] * up[1],
                          forward[2] * up[0] - forward[0] * up[2],
                          forward[0] * up[1] - forward[1] * up[0]};
  for (int k = 0; k < 3; ++k) {
    axes_[3 * k] = side[k], axes_[3 * k + 1] = up[k], axes_[3 * k + 2] = -forward[k];
  }
}

// A line between two points in the geom's frame, as a strip that faces the eye.
void Refill::Reader::add_stroke(const MjvGeom& g, const float* from, const float* to, float pixels) {
  const bool parallel = scene_.orthographic != 0;
  double end[2][3];  // right, up and depth from the eye
  for (int e = 0; e < 2; ++e) {
    float p[3];
    std::copy(e ? to : from, (e ? to : from) + 3, p);
    turn(g.mat, p);
    for (int k = 0; k < 3; ++k) {
      end[e][k] = 0;
      for (int i = 0; i < 3; ++i) {
        end[e][k] += (k == 2 ? -1 : 1) * axes_[3 * i + k] * (p[i] + g.pos[i] - eye_[i]);
      }
    }
  }
  // What lies before the near plane is cut off.
  const double near = 1.001 * scene_.znear;
  for (int e = 0; e < 2; ++e) {
    const double *in = end[1 - e], gap = in[2] - end[e][2];
    if (end[e][2] >= near) continue;
    if (!(in[2] > near)) return;
    for (int k = 0; k < 3; ++k) end[e][k] = in[k] + (end[e][k] - in[k]) * (in[2] - near) / gap;
  }
  const double scale[2] = {parallel ? 1 : end[0][2], parallel ? 1 : end[1][2]};
  const double dx = end[1][0] / scale[1] - end[0][0] / scale[0];
  const double dy = end[1][1] / scale[1] - end[0][1] / scale[0];
  const double length = std::sqrt(dx * dx + dy * dy), half = pixels * scene_.half_height / setup_.height;
  if (!(length > 0)) return;
  float corner[4][3], normal[3];
  for (int c = 0; c < 4; ++c) {
    const int e = c >> 1;
    const double side = (c & 1 ? half : -half) * scale[e] / length;
    const double x = end[e][0] - dy * side, y = end[e][1] + dx * side;
    for (int i = 0; i < 3; ++i) {
      const double* axis = axes_ + 3 * i;
      corner[c][i] = static_cast<float>(eye_[i] + x * axis[0] + y * axis[1] - end[e][2] * axis[2]);
      normal[i] = static_cast<float>(axis[2]);
    }
  }
  // Both ways round, for the mirror.
  for (int c : {0, 1, 2, 2, 1, 0, 2, 1, 3, 3, 1, 2}) made_.add(corner[c], normal);
}

Refill::Refill(const RefillSetup& setup) : reader_(std::make_unique<Reader>(setup)) {}
Refill::~Refill() = default;
void Refill::update(void* data) { reader_->update(data); }
const Scene& Refill::scene() const { return reader_->scene(); }
World Refill::world() const { return reader_->world(); }
const std::vector<int32_t>& Refill::objects() const { return reader_->objects(); }

}  // namespace vlmrm
