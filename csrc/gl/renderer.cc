#include "gl/renderer.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace vlmrm {
namespace gl {
namespace {

constexpr int kFontScale = 150;               // mujoco.Renderer's default
constexpr int32_t kDepthZeroFar = 1;          // mjDEPTH_ZEROFAR

// OpenGL's rows start at the bottom.
template <class T>
void flip(const std::vector<T>& from, int height, T* to) {
  const size_t row = from.size() / height;
  for (int y = 0; y < height; ++y) {
    std::copy_n(from.data() + row * (height - 1 - y), row, to + row * y);
  }
}

}  // namespace

// All that lives on one thread.
class Renderer::Worker {
 public:
  explicit Worker(const Setup& setup)
      : setup_(setup),
        gl_(setup.devices),
        scene_(setup.api, setup.model),
        context_(setup.api->at("mjrContext")),
        option_(setup.option),
        camera_(setup.camera),
        sink_scratch_(setup.sink) {
    for (auto [flag, value] : setup.flags) scene_.set_flag(flag, value);
    make_context();
    const MujocoApi& api = *setup.api;
    const bool resized = context_.read<int32_t>(api.at("mjrContext.offWidth")) == width_ &&
                         context_.read<int32_t>(api.at("mjrContext.offHeight")) == height_;
    if (!resized || context_.read<int32_t>(api.at("mjrContext.currentBuffer")) != kOffscreen) {
      free_context();
      throw std::runtime_error("OpenGL must offer an off-screen buffer of " +
                               std::to_string(width_) + " x " + std::to_string(height_) +
                               " pixels, got none.");
    }
  }

  ~Worker() { free_context(); }

  const Driver& driver() const { return gl_.driver(); }
  std::vector<std::string>* warnings() { return &warnings_; }

  void draw(void* data, int world, const Pictures& pictures) {
    scene_.update(data, option_.get(), camera_.get(), &warnings_);
    const size_t pixels = static_cast<size_t>(height_) * width_;
    if (pictures.color) {
      const Sink& sink = setup_.sink;
      uint8_t* const place = pictures.color + sink.bytes() * world;
      read(&color_, nullptr);
      flip(color_, height_, sink.direct() ? place : sink_scratch_.drawn.data());
      if (!sink.direct()) convert(sink, &sink_scratch_, place);
    }
    if (!pictures.depth && !pictures.segmentation) return;
    number_geoms(true);
    if (pictures.depth) {
      read(nullptr, &depth_);
      flip(depth_, height_, pictures.depth + pixels * world);
      pictures.orthographic[world] = orthographic();
    } else {
      read(&color_, nullptr);
      name_objects(pictures.segmentation + 2 * pixels * world);
    }
    number_geoms(false);
  }

 private:
  void make_context() {
    const MujocoApi& api = *setup_.api;
    api.default_context(context_.get());
    api.guarded(
        [&] {
          api.make_context(setup_.model, context_.get(), kFontScale);
          api.resize_offscreen(width_, height_, context_.get());
          api.set_buffer(kOffscreen, context_.get());
        },
        &warnings_);
    context_.write(api.at("mjrContext.readDepthMap"), kDepthZeroFar);
  }

  void free_context() {
    if (gl_.alive()) setup_.api->free_context(context_.get());
  }

  void read(std::vector<uint8_t>* color, std::vector<float>* depth) {
    const size_t pixels = static_cast<size_t>(height_) * width_;
    if (color) color->resize(3 * pixels);
    if (depth) depth->resize(pixels);
    uint8_t* rgb = color ? color->data() : nullptr;
    float* z = depth ? depth->data() : nullptr;
    const MujocoApi& api = *setup_.api;
    const MjrRect all = {0, 0, width_, height_};
    api.guarded(
        [&] {
          api.render(all, scene_.get(), context_.get());
          api.read_pixels(rgb, z, all, context_.get());
        },
        &warnings_);
  }

  // In colours that are numbers; depth too is drawn so, as mujoco.Renderer does.
  void number_geoms(bool on) {
    scene_.set_flag(static_cast<int>(setup_.api->at("mjRND_SEGMENT")), on);
    scene_.set_flag(static_cast<int>(setup_.api->at("mjRND_IDCOLOR")), on);
  }

  bool orthographic() const {
    const MujocoApi& api = *setup_.api;
    const size_t at = api.at("mjvScene.camera") + api.at("mjvGLCamera.orthographic");
    return scene_.read<int32_t>(at) != 0;
  }

  // Colours are numbers of geoms, from 1; those become the objects' ids and types.
  void name_objects(int32_t* out) {
    const MujocoApi& api = *setup_.api;
    const size_t size = api.at("mjvGeom"), segid = api.at("mjvGeom.segid");
    const size_t objid = api.at("mjvGeom.objid"), objtype = api.at("mjvGeom.objtype");
    objects_.assign(2 * (static_cast<size_t>(scene_.num_geoms()) + 1), -1);
    for (int i = 0; i < scene_.num_geoms(); ++i) {
      const char* geom = scene_.geoms() + size * i;
      int32_t number;
      std::memcpy(&number, geom + segid, sizeof number);
      if (number < 0) continue;
      std::memcpy(&objects_[2 * (number + 1)], geom + objid, sizeof number);
      std::memcpy(&objects_[2 * (number + 1) + 1], geom + objtype, sizeof number);
    }
    for (int y = height_ - 1; y >= 0; --y) {
      const uint8_t* row = color_.data() + static_cast<size_t>(3) * width_ * y;
      for (int x = 0; x < width_; ++x, out += 2) {
        const size_t k = row[3 * x] | row[3 * x + 1] << 8 | row[3 * x + 2] << 16;
        out[0] = 2 * k < objects_.size() ? objects_[2 * k] : -1;
        out[1] = 2 * k < objects_.size() ? objects_[2 * k + 1] : -1;
      }
    }
  }

  const Setup& setup_;
  const int height_ = setup_.sink.drawn_height(), width_ = setup_.sink.drawn_width();
  Context gl_;
  MjvScene scene_;
  Block context_, option_, camera_;
  SinkScratch sink_scratch_;
  std::vector<uint8_t> color_;
  std::vector<float> depth_;
  std::vector<int32_t> objects_;
  std::vector<std::string> warnings_;
};

Renderer::Renderer(Setup setup, int num_threads) : setup_(std::move(setup)) {
  std::unique_lock<std::mutex> lock(mutex_);
  // One after the other: drivers compile shaders and MuJoCo loads OpenGL's functions on the way.
  for (int i = 0; i < num_threads && error_.empty(); ++i) {
    running_ = 1;
    try {
      threads_.emplace_back([this, i] { work(i); });
    } catch (const std::exception& error) {
      error_ = error.what();
      break;
    }
    done_.wait(lock, [&] { return running_ == 0; });
  }
  if (error_.empty()) return;
  lock.unlock();
  stop();
  throw std::runtime_error(error_);
}

Renderer::~Renderer() { stop(); }

void Renderer::stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  start_.notify_all();
  for (auto& thread : threads_) thread.join();
  threads_.clear();
}

void Renderer::note(const std::exception& error) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (error_.empty()) error_ = error.what();
}

void Renderer::note(const std::vector<std::string>& warnings) {
  std::lock_guard<std::mutex> lock(mutex_);
  warnings_.insert(warnings_.end(), warnings.begin(), warnings.end());
}

void Renderer::work(int index) {
  try {
    Worker worker(setup_);
    serve(&worker, index);
    return;
  } catch (const std::exception& error) {
    note(error);
  }
  std::lock_guard<std::mutex> lock(mutex_);
  running_ = 0;
  done_.notify_all();
}

void Renderer::serve(Worker* worker, int index) {
  std::unique_lock<std::mutex> lock(mutex_);
  unsigned seen = round_;
  driver_ = worker->driver();
  while (true) {
    warnings_.insert(warnings_.end(), worker->warnings()->begin(), worker->warnings()->end());
    worker->warnings()->clear();
    if (--running_ == 0) done_.notify_all();
    start_.wait(lock, [&] { return stop_ || round_ != seen; });
    if (stop_) return;
    seen = round_;
    lock.unlock();
    try {
      for (int i = next_.fetch_add(1); i < sources_->count; i = next_.fetch_add(1)) {
        worker->draw(sources_->get(index, i), i, *pictures_);
      }
    } catch (const std::exception& error) {
      note(error);
    }
    lock.lock();
  }
}

void Renderer::render(const Sources& sources, const Pictures& pictures) {
  std::lock_guard<std::mutex> turn(turn_);
  std::unique_lock<std::mutex> lock(mutex_);
  error_.clear();
  sources_ = &sources;
  pictures_ = &pictures;
  next_ = 0;
  running_ = static_cast<int>(threads_.size());
  ++round_;
  start_.notify_all();
  done_.wait(lock, [&] { return running_ == 0; });
  if (!error_.empty()) throw std::runtime_error(error_);
}

std::vector<std::string> Renderer::take_warnings() {
  std::lock_guard<std::mutex> lock(mutex_);
  return std::exchange(warnings_, {});
}

}  // namespace gl
}  // namespace vlmrm
