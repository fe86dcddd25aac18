// What is drawn: a description of one model, in plain arrays, built from numpy arrays by bindings.cc.
//
// Assets are immutable and shared by all copies of a Scene. Its lists are read-only to all workers
// where the scene is static; otherwise each worker refills those of a copy of its own every frame.
#ifndef VLMRM_RAY_SCENE_H_
#define VLMRM_RAY_SCENE_H_

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "ray/mesh.h"

namespace vlmrm {

// Numbers are MuJoCo's mjtGeom, so that arrays pass through unchanged.
enum GeomType : int32_t {
  kPlane = 0,
  kSphere = 2,
  kCapsule = 3,
  kEllipsoid = 4,
  kCylinder = 5,
  kBox = 6,
  kMesh = 7,  // and everything else that is made of triangles
};

enum LightType : int32_t { kSpot = 0, kDirectional = 1 };

constexpr int kMaxLevels = 16;

// One mip level inside Texture::columns; a one-texel border is stored around every face, so
// bilinear taps never wrap.
struct TextureLevel {
  int32_t width, height;  // [texels], without the border
  int32_t stride;         // texels from one row to the next
  int32_t face_stride;    // texels from one cube face to the next
  int32_t offset;         // first texel of the level
};

// The same numbers of all levels side by side, for look-ups by packets.
struct LevelTable {
  int32_t width[kMaxLevels], height[kMaxLevels];
  int32_t stride[kMaxLevels], face_stride[kMaxLevels], offset[kMaxLevels];
};

struct Texture {
  bool cube = false;
  int32_t num_levels = 0;
  TextureLevel level[kMaxLevels];
  LevelTable table;  // by pack_columns
  // A texel and the one below it, so that 16 bytes hold the four that a bilinear tap blends: bytes
  // r, r below, g, g below, b, b below, 0, 0, each minus 128.
  std::vector<uint64_t> columns;
};

// Fills `columns` and `table` from 0xXXBBGGRR texels that lie as `level`, already filled, says.
void pack_columns(const uint32_t* texels, size_t count, Texture* texture);

struct Geom {
  int32_t type = 0;
  int32_t from_site = 0;  // pose comes from site_xpos instead of geom_xpos
  int32_t index = 0;      // row of geom_xpos or site_xpos
  int32_t texture = -1;
  int32_t uniform = 0;
  int32_t casts = 1;
  int32_t mesh = -1;  // row of Scene::meshes, or -2 - row of Scene::own_meshes
  int32_t still = 0;      // welded to the world: worth looking for in a background
  int32_t unlit = 0;      // triangles that only shine: lines
  float size[3];     // mjvGeom convention: radius, radius, half length for capsules and cylinders
  float rgba[4];
  float emission, specular, shininess, reflectance;
  float repeat[2];
  float dim_below;  // cosine below which the highlight is too weak to show

  // From `shininess`: cos^exponent = 1 / 1024.
  void set_dim_below() {
    dim_below = shininess > 0 ? std::exp(-6.93f / (128 * shininess)) : -2.0f;
  }
};

struct Light {
  int32_t index = -1;  // row of light_xpos; -1 is the headlight
  int32_t type = kDirectional;
  int32_t shadow = 0;
  float ambient[3], diffuse[3], specular[3];
  float attenuation[3];
  float cos_cutoff, exponent;
  bool lights_backs;  // its ambient part reaches what turns away from it
  float tan_shadow;  // half opening of the shadow map of a spot light
};

// What no frame changes, however its lists do.
struct Assets {
  std::vector<Texture> textures;
  std::vector<Mesh> meshes;
};

// The facets that round shapes are made of: of a unit sphere, cut at the equator for a cylinder. Rows
// go from the lower pole to the upper one with the cylinder's side in the middle, and both ends twice.
struct Lathe {
  float slices = 0, stacks = 0;          // around, along a side; 0 where shapes are drawn round
  int32_t side = 1;                      // row of the cylinder's side
  float first = 0;                       // entry of `cosine` of the slice at 0 degrees
  float apothem = 1;                     // cosine of half a slice
  float half_width = 0;                  // sine of half a slice
  float step_cosine = 1, step_sine = 0;  // of a slice
  float ring_cosine = 1, ring_sine = 0;  // of a ring
  float half_ring_cosine = 1, half_ring_sine = 0;
  std::vector<float> cosine, sine;       // of where slices begin
  std::vector<float> low_cosine, low_sine, high_cosine, high_sine;  // of the latitudes of rows
};

// Source: MuJoCo's makeBuiltin.
Lathe make_lathe(int32_t slices, int32_t stacks);

struct Scene {
  std::shared_ptr<const Assets> assets;
  const Texture* textures = nullptr;  // those of `assets`
  const Mesh* meshes = nullptr;       // those of `assets`
  bool changing = false;              // lists differ from frame to frame
  std::vector<Geom> geoms;
  std::vector<Light> lights;
  std::vector<Mesh> own_meshes;  // triangles that differ from frame to frame
  int32_t num_model_geoms = 0, num_model_sites = 0, num_model_lights = 0;
  int32_t sky = -1;         // texture index
  int32_t reflective = -1;  // geom index of the first that may be the mirror
  float half_height = 0;    // tan of half the vertical field of view, or half height if orthographic
  float half_width = 0;     // 0: from the aspect ratio
  float center[2] = {0, 0}; // principal point offset at unit depth, or in metres
  int32_t orthographic = 0;
  float znear = 0, zfar = 0;
  float shadow_clip = 0;
  float shadow_size = 4096;  // of the shadow map [texels]
  float haze = 0;       // width of the haze cone
  float haze_peak = 0;  // height at which it is opaque
  float haze_rgb[3] = {1, 1, 1};
  float global_ambient = 0;
  float round = 1;       // radius of a circle with the area of MuJoCo's unit polygon
  float round_along = 1; // the same from pole to pole of a sphere
  Lathe lathe;
  int32_t cull = 1;      // back faces are not drawn
  int32_t additive = 0;  // transparent geoms add up
  int32_t fog = 0;
  float fog_end = 0, fog_rate = 0;  // (fog_end - depth) * fog_rate of a surface shows
  float fog_rgb[3] = {0, 0, 0};

  const Mesh& mesh(const Geom& geom) const {
    return geom.mesh >= 0 ? meshes[geom.mesh] : own_meshes[-2 - geom.mesh];
  }
};

// Rows of one world; float64, as MuJoCo stores them.
struct World {
  const double* geom_xpos;
  const double* geom_xmat;
  const double* site_xpos;
  const double* site_xmat;
  const double* light_xpos;
  const double* light_xdir;
  const double* cam_pos;
  const double* cam_mat;
};

}  // namespace vlmrm

#endif  // VLMRM_RAY_SCENE_H_
