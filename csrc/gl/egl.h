// OpenGL contexts without a window, through an EGL library that is loaded at run time.
//
// Devices and displays are those of the process and live until it ends: terminating a display would
// take the contexts of others on it (mujoco.Renderer's, for one) along.
#ifndef VLMRM_GL_EGL_H_
#define VLMRM_GL_EGL_H_

#include <string>
#include <vector>

namespace vlmrm {
namespace gl {

struct Device {
  int index;             // in EGL's order
  int cuda = -1;         // CUDA ordinal, -1 where the driver does not say
  std::string extensions;
};

// What a context draws with.
struct Driver {
  std::string vendor, renderer, version;
  bool software = false;  // drawn by the CPU
};

// The devices of this system; throws std::runtime_error where there is no EGL.
std::vector<Device> list_devices();

// Indices into list_devices() to try in turn: `device` counts CUDA's visible devices where the driver
// tells them apart, else EGL's devices; -1 leaves the choice to MUJOCO_EGL_DEVICE_ID, and without it
// all may be tried, CUDA's first. Throws std::runtime_error for a device that is not there.
std::vector<int> choose_devices(const std::vector<Device>& devices, int device,
                                const std::string& mujoco_device, const std::string& cuda_devices);

// A compatibility-profile context with no surface. Made, used and destroyed on one thread, where it
// stays current from first to last.
class Context {
 public:
  // On the first of `devices` that works. Throws std::runtime_error, also in a process forked after
  // OpenGL was in use: its drivers wait for threads that no longer exist.
  explicit Context(const std::vector<int>& devices);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  const Driver& driver() const { return driver_; }
  // False where someone has terminated the display, and OpenGL may not be called any more.
  bool alive() const;

 private:
  void* display_;
  void* context_ = nullptr;
  void* surface_ = nullptr;
  Driver driver_;
};

}  // namespace gl
}  // namespace vlmrm

#endif  // VLMRM_GL_EGL_H_
