// Static-background cache: the still part of a picture, drawn once for a camera that does not move.
//
// A background is the world without its moving geoms. A frame drawn over one redoes only the
// packets (runs of pixels) that moving geoms, their shadows or their mirror images touch, and is
// the same, bit for bit, as one drawn in full. Nothing is taken on trust: a background fits a
// world only if camera, lights and still geoms are bitwise what it was drawn from.
#ifndef VLMRM_RAY_CACHE_H_
#define VLMRM_RAY_CACHE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "ray/draw.h"
#include "ray/frame.h"
#include "ray/scene.h"

namespace vlmrm {

// Where the surface points that a packet shows lie on the image plane of one shadow light.
// Tables of (height, stride) floats; empty packets hold an empty interval.
struct LightBounds {
  int32_t light;
  Table<float> u0, u1, v0, v1;
  Table<float> row;  // (height, 4): u0, u1, v0, v1 of a whole row
};

struct Background {
  uint64_t serial = 0;  // unique, so that a worker knows what its buffers hold
  uint64_t last_call = 0, uses = 0;
  std::vector<double> key;
  Table<float> depth, mirror_depth;
  Table<int32_t> id, mirror_id, prim, mirror_prim;
  MeshSamples samples, mirror_samples;
  std::vector<uint8_t> rgb;
  std::vector<LightBounds> lights;
  int stride = 0;  // packets from one row of LightBounds to the next
  // Of the frame that it was drawn from: what moving geoms could change for still ones.
  bool general = false, mirror = false, far = false;
  bool mirror_shows = false;  // something still is seen in the mirror
  int32_t reflective = -1;
  float haze_normal[3] = {0, 0, 0};
  float haze_height = 0;
};

// The backgrounds of one renderer. Workers look them up; between calls, while no worker runs, they
// may be drawn.
class BackgroundCache {
 public:
  BackgroundCache(const Scene& scene, const Frame& frame, DrawFunction draw);

  // The background that fits, or null where the world has to be drawn in full. Thread safe.
  const Background* find(const World& world) const;

  // To be called before learn(), once per call of the renderer.
  void begin_call() { ++call_; }

  // Takes note of a world that was drawn over `used`, or in full if null. A still world that comes
  // twice in a row has its background drawn, in `frame`.
  void learn(const World& world, const Background* used, Frame* frame);

  size_t num_backgrounds() const { return backgrounds_.size(); }
  uint64_t num_found() const { return num_found_; }

 private:
  bool worth_drawing(const World& world);
  Background* make_room();
  void record(const World& world, Frame* frame, Background* background);

  const Scene& scene_;
  DrawFunction draw_;
  size_t capacity_ = 0;
  size_t key_size_ = 0;
  std::vector<std::unique_ptr<Background>> backgrounds_;
  std::vector<double> last_key_;  // of the last world without a background
  uint64_t call_ = 0, next_serial_ = 1, num_found_ = 0;
  int seen_ = 0;      // times in a row that `last_key_` came
  int patience_ = 2;  // times in a row before a background is drawn
};

}  // namespace vlmrm

#endif  // VLMRM_RAY_CACHE_H_
