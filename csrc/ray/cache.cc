#include "ray/cache.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <new>

namespace vlmrm {
namespace {

constexpr size_t kMaxBackgrounds = 4;            // cameras that take turns on one renderer
constexpr size_t kMaxBytes = size_t{128} << 20;  // of all backgrounds of a renderer
constexpr int kMaxPatience = 64;  // sightings before a background is drawn, where others did not pay
constexpr uint64_t kFewUses = 8;  // a background that served less was not worth its drawing

// Calls f(rows, count) for each run of numbers that the still part of the picture depends on,
// until one returns false. The camera comes first: it is what changes most often.
template <class F>
bool for_each_input(const Scene& scene, const World& w, F&& f) {
  if (!f(w.cam_pos, 3) || !f(w.cam_mat, 9)) return false;
  for (const Light& light : scene.lights) {
    if (light.index < 0) continue;
    if (!f(w.light_xpos + 3 * light.index, 3) || !f(w.light_xdir + 3 * light.index, 3)) return false;
  }
  for (const Geom& geom : scene.geoms) {
    if (!geom.still) continue;
    const double* pos = geom.from_site ? w.site_xpos : w.geom_xpos;
    const double* mat = geom.from_site ? w.site_xmat : w.geom_xmat;
    if (!f(pos + 3 * geom.index, 3) || !f(mat + 9 * geom.index, 9)) return false;
  }
  return true;
}

bool equals(const Scene& scene, const World& world, const std::vector<double>& key) {
  const double* at = key.data();
  return for_each_input(scene, world, [&](const double* rows, int count) {
    if (std::memcmp(at, rows, count * sizeof(double)) != 0) return false;
    at += count;
    return true;
  });
}

void copy_inputs(const Scene& scene, const World& world, std::vector<double>* key) {
  double* at = key->data();
  for_each_input(scene, world, [&](const double* rows, int count) {
    at = std::copy(rows, rows + count, at);
    return true;
  });
}

bool finite_camera(const World& w) {
  auto fine = [](double a) { return std::abs(a) < 1e15; };
  return std::all_of(w.cam_pos, w.cam_pos + 3, fine) && std::all_of(w.cam_mat, w.cam_mat + 9, fine);
}

// A mirror that moves shows everything anew.
bool cacheable(const Scene& scene) {
  return scene.reflective < 0 || scene.geoms[scene.reflective].still;
}

// Takes the moving geoms out of a placed frame.
void hide_moving(const Scene& scene, Frame* f) {
  const int n = static_cast<int>(scene.geoms.size());
  for (int i = 0; i < n; ++i) {
    if (!scene.geoms[i].still) f->view[i].drawn = f->view[n + i].drawn = false;
  }
  for (size_t i = 0; i < scene.lights.size(); ++i) {
    auto begin = f->casters[i].begin(), end = begin + f->num_casters[i];
    end = std::remove_if(begin, end, [&](const Caster& c) { return !scene.geoms[c.view].still; });
    f->num_casters[i] = static_cast<int32_t>(end - begin);
  }
  auto begin = f->transparent.begin(), end = begin + f->num_transparent;
  end = std::remove_if(begin, end, [&](int32_t i) { return !scene.geoms[i].still; });
  f->num_transparent = static_cast<int>(end - begin);
}

void allocate(const Scene& scene, const Frame& frame, Background* b) {
  b->depth.resize(frame.depth.size());
  b->id.resize(frame.id.size());
  b->mirror_depth.resize(frame.mirror_depth.size());
  b->mirror_id.resize(frame.mirror_id.size());
  b->prim.resize(frame.prim.size());
  b->mirror_prim.resize(frame.mirror_prim.size());
  b->samples = frame.samples;
  b->mirror_samples = frame.mirror_samples;
  b->rgb.resize(static_cast<size_t>(3) * frame.height * frame.width);
  // Rows of the tables are read a vector at a time.
  b->stride = (frame.pitch / kMinLanes + kMaxLanes - 1) / kMaxLanes * kMaxLanes;
  const float inf = std::numeric_limits<float>::infinity();
  const size_t cells = static_cast<size_t>(b->stride) * frame.height;
  b->lights.clear();
  for (size_t i = 0; i < scene.lights.size(); ++i) {
    if (!scene.lights[i].shadow) continue;
    LightBounds bounds;
    bounds.light = static_cast<int32_t>(i);
    for (auto* low : {&bounds.u0, &bounds.v0}) low->assign(cells, inf);
    for (auto* high : {&bounds.u1, &bounds.v1}) high->assign(cells, -inf);
    bounds.row.resize(static_cast<size_t>(4) * frame.height);
    b->lights.push_back(std::move(bounds));
  }
}

}  // namespace

BackgroundCache::BackgroundCache(const Scene& scene, const Frame& frame, DrawFunction draw)
    : scene_(scene), draw_(draw) {
  if (!cacheable(scene)) return;
  size_t shadows = 0;
  key_size_ = 12;
  for (const Light& light : scene.lights) {
    shadows += light.shadow != 0;
    if (light.index >= 0) key_size_ += 6;
  }
  for (const Geom& geom : scene.geoms) key_size_ += geom.still ? 12 : 0;
  const size_t pixels = static_cast<size_t>(frame.pitch) * frame.height;
  const size_t views = scene.reflective >= 0 ? 2 : 1;
  const size_t each = 12 + (frame.samples.id.empty() ? 0 : 48);
  const size_t bytes = pixels * (views * each + 3 + 4 * shadows);
  capacity_ = std::min(kMaxBackgrounds, kMaxBytes / std::max(bytes, size_t{1}));
  last_key_.resize(key_size_);
}

const Background* BackgroundCache::find(const World& world) const {
  for (auto& b : backgrounds_) {
    if (b->serial && equals(scene_, world, b->key)) return b.get();
  }
  return nullptr;
}

void BackgroundCache::learn(const World& world, const Background* used, Frame* frame) {
  if (capacity_ == 0) return;
  num_found_ += used != nullptr;
  // A worker's background may have been replaced since, a missing one drawn.
  if (const Background* found = find(world)) {
    auto* b = const_cast<Background*>(found);
    b->last_call = call_;
    ++b->uses;
    return;
  }
  if (used || !finite_camera(world) || !worth_drawing(world)) return;
  if (Background* b = make_room()) record(world, frame, b);
}

// A camera that moves must not pay for backgrounds: what comes once is only remembered.
bool BackgroundCache::worth_drawing(const World& world) {
  if (seen_ > 0 && equals(scene_, world, last_key_)) {
    ++seen_;
  } else {
    copy_inputs(scene_, world, &last_key_);
    seen_ = 1;
  }
  return seen_ >= patience_;
}

// A new background, or the one unused for longest; null while all are in use.
Background* BackgroundCache::make_room() {
  if (backgrounds_.size() < capacity_) {
    backgrounds_.push_back(std::make_unique<Background>());
    return backgrounds_.back().get();
  }
  Background* oldest = nullptr;
  for (auto& b : backgrounds_) {
    if (b->last_call == call_) continue;
    if (!oldest || b->last_call < oldest->last_call) oldest = b.get();
  }
  if (!oldest) return nullptr;
  patience_ = oldest->uses < kFewUses ? std::min(2 * patience_, kMaxPatience) : 2;
  return oldest;
}

void BackgroundCache::record(const World& world, Frame* frame, Background* b) {
  seen_ = 0;
  b->serial = 0;
  b->last_call = call_;
  b->uses = 1;
  set_up(scene_, world, frame);
  if (frame->reflective >= 0 && !scene_.geoms[frame->reflective].still) {
    patience_ = kMaxPatience;
    return;
  }
  try {
    b->key.resize(key_size_);
    allocate(scene_, *frame, b);
  } catch (const std::bad_alloc&) {
    *b = Background();
    capacity_ = 0;
    return;
  }
  copy_inputs(scene_, world, &b->key);
  b->general = frame->general;
  b->mirror = frame->mirror;
  b->far = frame->far;
  b->reflective = frame->reflective;
  std::copy(frame->haze_normal, frame->haze_normal + 3, b->haze_normal);
  b->haze_height = frame->haze_height;
  hide_moving(scene_, frame);
  frame->background = nullptr;
  frame->recorder = b;
  frame->row_begin = 0;
  frame->row_end = frame->height;
  draw_(scene_, frame, b->rgb.data());
  frame->recorder = nullptr;
  b->serial = next_serial_++;
}

}  // namespace vlmrm
