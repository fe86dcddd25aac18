// Scenes whose elements come, go or change shape: their lists are read from an mjvScene every frame.
//
// What MuJoCo lists beyond a model's geoms and sites (tendons, skins, flexes, decor) is known only
// after mjv_updateScene has looked at a world. A Refill holds such an mjvScene, and a copy of the
// ray scene whose lists it fills from there. Of one worker.
#ifndef VLMRM_RAY_DYNAMIC_H_
#define VLMRM_RAY_DYNAMIC_H_

#include <memory>
#include <string>
#include <vector>

#include "mujoco_api.h"
#include "ray/scene.h"

namespace vlmrm {

// Triangles of a skin: corners as indices of its vertices.
struct SkinFaces {
  std::vector<int32_t> corners;   // (T, 3)
  std::vector<float> texcoords;   // (V, 2), or empty
};

// What stays the same from frame to frame.
struct RefillSetup {
  std::shared_ptr<const MujocoApi> api;
  std::shared_ptr<const Scene> scene;  // its lists are not used
  const void* model = nullptr;         // mjModel, kept alive by the caller
  std::string option, camera;          // bytes of mjvOption and mjvCamera
  std::vector<int32_t> textures;       // row of Scene::textures by texture of the model, or -1
  std::vector<int32_t> meshes;         // row of Scene::meshes by mjvGeom::dataid of a mesh, or -1
  std::vector<int32_t> hfields;        // likewise of a height field
  std::vector<SkinFaces> skins;
  float around = 1, along = 1;         // how much smaller round shapes are drawn, as in _drawn_size
  int32_t slices = 28;                 // sides of a cone
  bool shadows = true;
  bool reflection = true;
  float shadow_scale = 0.6f;           // of a spot light's cutoff
  int32_t max_lights = 8;
  float line_width = 1;                // [pixels], times a line's own
  int32_t height = 0;                  // of the picture as it is drawn [pixels]
};

class Refill {
 public:
  explicit Refill(const RefillSetup& setup);
  ~Refill();
  Refill(const Refill&) = delete;
  Refill& operator=(const Refill&) = delete;

  // Lists what mjData `data` shows. Throws std::runtime_error for an element that is not drawn.
  void update(void* data);

  // As of the last update.
  const Scene& scene() const;
  World world() const;
  // Object id and mjtObj of each of the scene's geoms.
  const std::vector<int32_t>& objects() const;

 private:
  class Reader;
  std::unique_ptr<Reader> reader_;
};

}  // namespace vlmrm

#endif  // VLMRM_RAY_DYNAMIC_H_
