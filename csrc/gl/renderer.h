// MuJoCo's own classic renderer on a fixed set of threads, each with a context of its own.
#ifndef VLMRM_GL_RENDERER_H_
#define VLMRM_GL_RENDERER_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "gl/egl.h"
#include "mujoco_api.h"
#include "sink.h"
#include "sources.h"

namespace vlmrm {
namespace gl {

// What every worker draws.
struct Setup {
  std::shared_ptr<const MujocoApi> api;
  const void* model = nullptr;            // mjModel, kept alive by the caller
  std::string option, camera;             // bytes of mjvOption and mjvCamera
  std::vector<std::pair<int, bool>> flags;  // mjtRndFlag and its value, where not the default
  Sink sink;                 // of colour pictures; the others are drawn at its drawn size
  std::vector<int> devices;  // as choose_devices returns them
};

// Pictures with the top row first. Only the members of one kind of picture are set.
struct Pictures {
  uint8_t* color = nullptr;         // N times Sink::bytes()
  float* depth = nullptr;           // (N, H, W), as mjr_readPixels gives it with mjDEPTH_ZEROFAR
  uint8_t* orthographic = nullptr;  // (N,), with `depth`: whether the camera was
  int32_t* segmentation = nullptr;  // (N, H, W, 2): object id and type, -1 where nothing is
};

class Renderer {
 public:
  // Waits until all contexts are made; throws std::runtime_error, with none left, if one is not.
  Renderer(Setup setup, int num_threads);
  ~Renderer();
  Renderer(const Renderer&) = delete;
  Renderer& operator=(const Renderer&) = delete;

  // Draws all worlds and returns. Throws std::runtime_error. Calls from several threads take turns.
  void render(const Sources& sources, const Pictures& pictures);

  const Driver& driver() const { return driver_; }
  // What MuJoCo warned of since the last call.
  std::vector<std::string> take_warnings();

 private:
  class Worker;

  void work(int index);
  void serve(Worker* worker, int index);
  void stop();
  void note(const std::exception& error);
  void note(const std::vector<std::string>& warnings);

  Setup setup_;
  Driver driver_;
  std::vector<std::thread> threads_;
  std::mutex turn_, mutex_;
  std::condition_variable start_, done_;
  const Sources* sources_ = nullptr;
  const Pictures* pictures_ = nullptr;
  std::atomic<int> next_{0};
  int running_ = 0;
  unsigned round_ = 0;
  bool stop_ = false;
  std::string error_;
  std::vector<std::string> warnings_;
};

}  // namespace gl
}  // namespace vlmrm

#endif  // VLMRM_GL_RENDERER_H_
