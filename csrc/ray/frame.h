// Scratch memory of one worker: everything a frame needs, allocated once.
#ifndef VLMRM_RAY_FRAME_H_
#define VLMRM_RAY_FRAME_H_

#include <cstdint>
#include <vector>

#include "ray/scene.h"
#include "ray/table.h"

namespace vlmrm {

// A geom in camera space (x right, y up, z backward, eye at the origin).
struct ViewGeom {
  int32_t type;
  int32_t geom;    // index into Scene::geoms
  bool mirrored;   // seen in the reflective plane
  bool drawn;      // front part may be on screen
  bool transparent;
  bool behind;     // the eye is behind this plane
  bool hollow;     // back faces may show: culling is off and the near plane may cut it
  float alpha;
  bool endless;    // a plane without an edge in some direction
  float reach;     // of a plane, around the eye [m], where the sky box cuts it off; 0: nowhere
  float center[3];
  float axis[3][3];  // axis[k]: local axis k in camera space
  float eye[3];      // the eye in local coordinates
  float size[3];
  float radius;      // bounding sphere
  const Mesh* mesh;  // of a geom made of triangles
  int32_t x0, x1, y0, y1;  // pixels [x0, x1) x [y0, y1)
  float depth;       // sorting key
  mutable int32_t level_guess = 0;  // for the next packet's mip level; changes no picture
};

// A light in camera space; `mirrored` lights follow the scene into the mirror.
struct ViewLight {
  float dir[3];  // the way the light travels, unit
  float pos[3];
  float side[3], up[3];  // axes of the shadow map
};

// A shadow caster as one light sees it.
struct Caster {
  int32_t view;
  bool inside_near;      // part of it lies before the near plane of the shadow map
  bool queued;           // triangles whose shadows on triangles the ShadowQueue finds
  float u0, u1, v0, v1;  // bounds on the light's image plane, at unit depth for spot lights
  // And a strip along it, tighter for long shapes: |across . (u, v) - middle| < half.
  float across[2], middle, half;
};

constexpr int kMinLanes = 4;   // of the narrowest instruction set
constexpr int kMaxLanes = 16;  // of the widest instruction set: rows are padded to packets of it
constexpr int kMaxLights = 32;   // MuJoCo draws eight; `bindings.cc` refuses more than these
constexpr int kMaxSlots = 1536;  // pixels of each kind that are shaded together; 2048 take 0.3 MB more
constexpr int kMaxFragments = kMaxSlots * 10 + kMaxLanes;  // room to write whole packets
constexpr int kMaxPairs = kMaxSlots * 6;
constexpr int kMaxRuns = kMaxSlots * 2;

// Points that meshes may keep from one light.
struct QueuedPoints {
  size_t count = 0;
  Table<float> x, y, near;         // texel of the shadow map and nearness to the light
  Table<int32_t> fragment, delta;  // what 0xBBGGRR the light adds to which fragment
  Table<int32_t> dark;             // the answer
};

// The same points in the order of the cells of a grid.
struct PointGrid {
  Table<float> x, y, near;
  Table<int32_t> dark, index, cell, start;
};

// Fragments whose lights are known only when the whole picture is painted, and their pixels.
struct ShadowQueue {
  size_t num_points = 0, num_fragments = 0, num_pixels = 0;
  std::vector<QueuedPoints> light;
  Table<int32_t> rgb, pixel, weight;  // of fragments, 0xBBGGRR; numbers of their pixels
  Table<int32_t> place;               // of pixels, in the picture
  std::vector<uint64_t> sum;                // of their fragments: red, green and blue, 16 bits each
  PointGrid grid;
};

struct Background;  // cache.h

// What is seen at some places; `prim` is empty without meshes.
struct SurfaceTable {
  Table<float> depth;
  Table<int32_t> id, prim;
};
// What of the triangles each of a pixel's four sub-samples shows: tables (height, pitch, 4), where
// depth is zfar if there are none.
using MeshSamples = SurfaceTable;

// Entries of a table that belong to one geom.
struct Run {
  int32_t view, begin, count;
};

// Surfaces to be shaded at the centre of a slot's pixel, and how many of its four samples show them.
struct FragmentTable {
  int count = 0;
  Table<float> depth;
  Table<int32_t> id, prim, slot, weight;
};

constexpr int kSmallHeight = 160;  // of pictures that show facets: they cost about 0.2 ms

struct Frame {
  Frame(const Scene& scene, int height, int width);

  // Makes room for the scene's lists, which may have grown. set_up expects it to have been called.
  void fit(const Scene& scene);

  // Writes (height, width) tables of depths and geoms, `background` and -1 beyond all geoms.
  void copy_probe(float background, float* depth_out, int32_t* geom_out) const;

  int height, width, pitch;
  bool facets;  // round shapes show MuJoCo's facets along their outlines
  float step_x, step_y;  // size of a pixel at unit depth
  bool sky_magnified;  // no pixel covers a whole texel of the sky
  float left, top;     // centre of pixel (0, 0) at unit depth
  Table<float> depth, mirror_depth;
  Table<int32_t> id, mirror_id;
  Table<int32_t> prim, mirror_prim;  // triangle, where `id` is of a mesh; empty without meshes
  MeshSamples samples, mirror_samples;     // likewise
  Table<float> screen;   // places of one mesh's vertices in the picture
  // Colours of vertices that were lit ahead, and where those of each view begin.
  Table<float> lit;
  std::vector<size_t> lit_at;
  Table<int32_t> corners_seen;
  size_t num_lit = 0;
  std::vector<ViewGeom> view;  // all geoms, then all mirrored geoms
  Table<int32_t> order;
  std::vector<ViewLight> light, mirror_light;
  std::vector<std::vector<Caster>> casters;  // per light
  Table<int32_t> num_casters;
  // Per light the casters' u0, u1, v0, v1 and strips as eight rows of `caster_pitch`, then bounds of
  // all together but for `lone_plane`, the one plane among them, if there is one.
  int32_t caster_pitch;
  Table<int32_t> lone_plane;
  Table<float> mesh_bounds;  // (lights, 4): u0, u1, v0, v1 of the queued casters
  bool queues;  // some light has such casters
  ShadowQueue queue;
  std::vector<Table<float>> caster_bounds;
  float world[3][3];  // world axes in camera space
  double eye[3];      // world position of the eye
  bool far;           // some geom may pass through the sky box
  bool general;       // parallel rays or hollow geoms: eye rays need hit_general
  bool probe = false; // only surfaces are wanted: no sky box, no glass, no mirror, no light
  bool orthographic;  // rays are parallel, a pixel is step_x by step_y metres
  int32_t reflective; // geom index of the mirror, -1 if none
  bool mirror;        // it faces the eye
  bool valid;         // the camera pose is finite
  float haze_normal[3];
  float haze_height;  // of the eye above the hazy plane, per sky box radius; 0: no haze
  float sky_radius, sky_height;  // of the cylinder that is the sky box, half its height
  mutable int32_t sky_level_guess = 0;
  int num_transparent;
  Table<int32_t> transparent;  // nearest first

  // The static-background cache. Each bitmap has `words` words a row and one bit a pixel.
  int row_begin = 0, row_end;              // rows to draw
  const Background* background = nullptr;  // of this world, or null: draw in full
  Background* recorder = nullptr;          // takes what is drawn, or null
  uint64_t held = 0;  // serial of the background in the buffers above, but for `touched`; 0: none
  int words;
  std::vector<uint64_t> touched;  // shows another surface than the background
  std::vector<uint64_t> mirror_touched;  // does so in the mirror
  std::vector<uint64_t> dirty;    // to be shaded
  std::vector<uint64_t> near_mirror;  // shows the mirror, or a neighbour does

  // After a picture that was broken off: nothing of it is taken for whole.
  void forget() {
    probe = false;
    recorder = nullptr;
    held = 0;
  }

  // Slots: pixels drawn one by one. The first kMaxSlots show several surfaces; tables of four a slot
  // hold their sub-samples. The others show one, and its mirror image.
  int num_slots = 0, num_smooth = 0;
  Table<int32_t> slot_x, slot_y;
  Table<int32_t> slot_queued;  // number in the ShadowQueue, or -1
  SurfaceTable center, mirror_center;
  Table<float> sample_x, sample_y;
  SurfaceTable sample, mirror_sample;
  std::vector<uint64_t> accumulator;  // red, green and blue, 16 bits each
  // Slots that may show a geom: runs in the order of discovery, then sorted by geom.
  int num_pairs = 0, num_runs = 0;
  Table<int32_t> pair_slot, pair_sorted;
  std::vector<Run> run;
  FragmentTable fragment, sorted_fragment;
  Table<int32_t> bucket;
};

// Places the camera, geoms, lights and shadow casters of one world.
void set_up(const Scene& scene, const World& world, Frame* frame);

}  // namespace vlmrm

#endif  // VLMRM_RAY_FRAME_H_
