#include "gl/egl.h"

#include <dlfcn.h>
#include <link.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <stdexcept>

namespace vlmrm {
namespace gl {
namespace {

// Names and numbers of the EGL 1.5 registry; the headers are not needed to build.
using Handle = void*;
using Attribute = int32_t;
constexpr Attribute kNone = 0x3038, kSuccess = 0x3000, kExtensions = 0x3055, kVersion = 0x3054;
constexpr Attribute kOpenGl = 0x30A2, kPlatformDevice = 0x313F, kCudaDevice = 0x323A;
constexpr Attribute kConfig[] = {
    0x3024, 8,       // EGL_RED_SIZE
    0x3023, 8,       // EGL_GREEN_SIZE
    0x3022, 8,       // EGL_BLUE_SIZE
    0x3021, 8,       // EGL_ALPHA_SIZE
    0x3025, 24,      // EGL_DEPTH_SIZE
    0x3026, 8,       // EGL_STENCIL_SIZE
    0x303F, 0x308E,  // EGL_COLOR_BUFFER_TYPE, EGL_RGB_BUFFER
    0x3033, 0x0001,  // EGL_SURFACE_TYPE, EGL_PBUFFER_BIT
    0x3040, 0x0008,  // EGL_RENDERABLE_TYPE, EGL_OPENGL_BIT
    kNone};
constexpr Attribute kTinySurface[] = {0x3057, 1, 0x3056, 1, kNone};  // EGL_WIDTH, EGL_HEIGHT
constexpr uint32_t kGlVendor = 0x1F00, kGlRenderer = 0x1F01, kGlVersion = 0x1F02;

struct Egl {
  Handle (*get_proc_address)(const char*);
  const char* (*query_string)(Handle display, Attribute name);
  Attribute (*get_error)();
  unsigned (*initialize)(Handle display, Attribute* major, Attribute* minor);
  unsigned (*choose_config)(Handle display, const Attribute*, Handle* configs, Attribute size,
                            Attribute* count);
  unsigned (*bind_api)(unsigned api);
  Handle (*create_context)(Handle display, Handle config, Handle share, const Attribute*);
  Handle (*create_pbuffer)(Handle display, Handle config, const Attribute*);
  unsigned (*make_current)(Handle display, Handle draw, Handle read, Handle context);
  unsigned (*destroy_context)(Handle display, Handle context);
  unsigned (*destroy_surface)(Handle display, Handle surface);
  unsigned (*release_thread)();
  unsigned (*query_devices)(Attribute size, Handle* devices, Attribute* count);
  unsigned (*query_device_attribute)(Handle device, Attribute name, intptr_t* value);
  const char* (*query_device_string)(Handle device, Attribute name);
  Handle (*get_platform_display)(Attribute platform, Handle device, const Attribute*);
};

// Whether a driver was at work in the parent when this process was forked from it.
std::atomic<bool> in_use_at_fork{false}, forked_in_use{false};

int find_driver(dl_phdr_info* info, size_t, void*) {
  const char* slash = std::strrchr(info->dlpi_name, '/');
  const char* name = slash ? slash + 1 : info->dlpi_name;
  return std::strstr(name, "_dri.so") || !std::strncmp(name, "libgallium", 10) ||
         !std::strncmp(name, "libnvidia-eglcore", 17) || !std::strncmp(name, "libnvidia-glcore", 16);
}

void before_fork() { in_use_at_fork = dl_iterate_phdr(find_driver, nullptr) != 0; }
void after_fork() { forked_in_use = forked_in_use || in_use_at_fork; }

// Registered when the extension is loaded.
[[maybe_unused]] const int watch_forks = pthread_atfork(before_fork, nullptr, after_fork);

template <class F>
void need(void* library, const char* name, F* function) {
  *reinterpret_cast<void**>(function) = dlsym(library, name);
  if (!*function) throw std::runtime_error(std::string("libEGL must hold ") + name + ", got none.");
}

template <class F>
void extension(const Egl& egl, const char* name, F* function) {
  *reinterpret_cast<void**>(function) = egl.get_proc_address(name);
}

Egl load() {
  // Global, as MuJoCo looks OpenGL's functions up among the process's symbols.
  void* library = dlopen("libEGL.so.1", RTLD_NOW | RTLD_GLOBAL);
  if (!library) library = dlopen("libEGL.so", RTLD_NOW | RTLD_GLOBAL);
  if (!library) throw std::runtime_error(std::string("EGL must be installed, got ") + dlerror() + ".");
  Egl egl{};
  need(library, "eglGetProcAddress", &egl.get_proc_address);
  need(library, "eglQueryString", &egl.query_string);
  need(library, "eglGetError", &egl.get_error);
  need(library, "eglInitialize", &egl.initialize);
  need(library, "eglChooseConfig", &egl.choose_config);
  need(library, "eglBindAPI", &egl.bind_api);
  need(library, "eglCreateContext", &egl.create_context);
  need(library, "eglCreatePbufferSurface", &egl.create_pbuffer);
  need(library, "eglMakeCurrent", &egl.make_current);
  need(library, "eglDestroyContext", &egl.destroy_context);
  need(library, "eglDestroySurface", &egl.destroy_surface);
  need(library, "eglReleaseThread", &egl.release_thread);
  extension(egl, "eglQueryDevicesEXT", &egl.query_devices);
  extension(egl, "eglQueryDeviceAttribEXT", &egl.query_device_attribute);
  extension(egl, "eglQueryDeviceStringEXT", &egl.query_device_string);
  extension(egl, "eglGetPlatformDisplayEXT", &egl.get_platform_display);
  if (!egl.query_devices || !egl.get_platform_display) {
    throw std::runtime_error("EGL must offer EGL_EXT_platform_device, got a driver without it.");
  }
  return egl;
}

const Egl& egl() {
  if (forked_in_use) {
    throw std::runtime_error(
        "OpenGL must start in a process that was not forked while OpenGL was in use, got such a "
        "child. Start it with multiprocessing's 'spawn' method, or draw in the parent.");
  }
  static const Egl loaded = load();
  return loaded;
}

std::vector<Handle> device_handles() {
  Handle handles[64];
  Attribute count = 0;
  if (!egl().query_devices(64, handles, &count) || count < 1) {
    throw std::runtime_error("EGL must find a device, got none.");
  }
  return std::vector<Handle>(handles, handles + count);
}

// Initialised displays by device, and the lock under which contexts come and go.
std::mutex lock;
std::map<int, Handle> displays;

Handle display_of(int index) {
  auto known = displays.find(index);
  if (known != displays.end() && egl().query_string(known->second, kVersion)) return known->second;
  std::vector<Handle> handles = device_handles();
  if (index >= static_cast<int>(handles.size())) return nullptr;
  Handle display = egl().get_platform_display(kPlatformDevice, handles[index], nullptr);
  if (!display || !egl().initialize(display, nullptr, nullptr)) return nullptr;
  displays[index] = display;
  return display;
}

Handle open_display(const std::vector<int>& devices) {
  std::string tried;
  for (int i : devices) {
    if (Handle display = display_of(i)) return display;
    tried += (tried.empty() ? "" : ", ") + std::to_string(i);
  }
  throw std::runtime_error("EGL must open a display on a device, got none on device " + tried + ".");
}

// The numbers of a comma-separated list; none if anything else is in it.
std::vector<int> parse_ordinals(const std::string& list) {
  std::vector<int> ordinals;
  const char* text = list.c_str();
  while (*text) {
    char* end = nullptr;
    const long value = std::strtol(text, &end, 10);
    if (end == text || (*end && *end != ',') || value < 0) return {};
    ordinals.push_back(static_cast<int>(value));
    text = *end ? end + 1 : end;
  }
  return ordinals;
}

// EGL's devices in CUDA's visible order; empty where the driver does not tell them apart.
std::vector<int> cuda_order(const std::vector<Device>& devices, const std::string& cuda_devices) {
  std::map<int, int> by_cuda;
  for (const Device& d : devices) {
    if (d.cuda >= 0 && !by_cuda.emplace(d.cuda, d.index).second) return {};
  }
  std::vector<int> order;
  const std::vector<int> visible = parse_ordinals(cuda_devices);
  auto hidden = [&](int c) { return by_cuda.count(c) == 0; };
  if (visible.empty() || by_cuda.empty()) {
    for (auto [cuda, index] : by_cuda) order.push_back(index);
  } else if (std::none_of(visible.begin(), visible.end(), hidden)) {
    for (int c : visible) order.push_back(by_cuda[c]);
  } else {
    // A driver in a container numbers what is visible from 0 again.
    for (int c = 0; c < static_cast<int>(visible.size()) && !hidden(c); ++c) order.push_back(by_cuda[c]);
  }
  return order;
}

}  // namespace

std::vector<Device> list_devices() {
  std::vector<Device> devices;
  for (Handle handle : device_handles()) {
    Device d;
    d.index = static_cast<int>(devices.size());
    intptr_t cuda = -1;
    if (egl().query_device_string) {
      const char* text = egl().query_device_string(handle, kExtensions);
      d.extensions = text ? text : "";
    }
    if (d.extensions.find("EGL_NV_device_cuda") != std::string::npos &&
        egl().query_device_attribute && egl().query_device_attribute(handle, kCudaDevice, &cuda)) {
      d.cuda = static_cast<int>(cuda);
    }
    devices.push_back(d);
  }
  return devices;
}

std::vector<int> choose_devices(const std::vector<Device>& devices, int device,
                                const std::string& mujoco_device, const std::string& cuda_devices) {
  std::vector<int> order = cuda_order(devices, cuda_devices);
  int wanted = device;
  if (wanted < 0 && !mujoco_device.empty()) {
    const std::vector<int> given = parse_ordinals(mujoco_device);
    if (given.size() != 1) {
      throw std::runtime_error("MUJOCO_EGL_DEVICE_ID must be a number from 0, got '" + mujoco_device +
                               "'.");
    }
    wanted = given[0];
  }
  if (wanted < 0) {
    for (const Device& d : devices) {
      if (std::find(order.begin(), order.end(), d.index) == order.end()) order.push_back(d.index);
    }
    return order;
  }
  if (wanted < static_cast<int>(order.size())) return {order[wanted]};
  for (const Device& d : devices) {
    if (d.cuda == wanted) return {d.index};
  }
  if (wanted < static_cast<int>(devices.size())) return {wanted};
  throw std::runtime_error("`device` must be between 0 and " + std::to_string(devices.size() - 1) +
                           ", got " + std::to_string(wanted) + ".");
}

Context::Context(const std::vector<int>& devices) {
  std::lock_guard<std::mutex> turn(lock);
  display_ = open_display(devices);
  Handle config = nullptr;
  Attribute count = 0;
  if (!egl().choose_config(display_, kConfig, &config, 1, &count) || count < 1) {
    throw std::runtime_error("EGL must offer 8-bit RGBA with 24-bit depth and OpenGL, got no such "
                             "configuration.");
  }
  // The choice of OpenGL over OpenGL ES is a thread's own.
  egl().bind_api(kOpenGl);
  context_ = egl().create_context(display_, config, nullptr, nullptr);
  if (!context_) throw std::runtime_error("EGL must make an OpenGL context, got none.");
  if (!egl().make_current(display_, nullptr, nullptr, context_)) {
    // Drivers without EGL_KHR_surfaceless_context want a surface, however small.
    surface_ = egl().create_pbuffer(display_, config, kTinySurface);
    if (!surface_ || !egl().make_current(display_, surface_, surface_, context_)) {
      egl().destroy_context(display_, context_);
      throw std::runtime_error("EGL must make its context current, got a refusal.");
    }
  }
  const char* (*get_string)(uint32_t);
  extension(egl(), "glGetString", &get_string);
  auto text = [&](uint32_t name) {
    const char* found = get_string ? get_string(name) : nullptr;
    return std::string(found ? found : "unknown");
  };
  driver_ = {text(kGlVendor), text(kGlRenderer), text(kGlVersion), false};
  for (const char* name : {"llvmpipe", "softpipe", "swrast", "SWR", "Software"}) {
    driver_.software |= driver_.renderer.find(name) != std::string::npos;
  }
}

bool Context::alive() const { return egl().query_string(display_, kVersion) != nullptr; }

Context::~Context() {
  std::lock_guard<std::mutex> turn(lock);
  if (alive()) {
    egl().make_current(display_, nullptr, nullptr, nullptr);
    egl().destroy_context(display_, context_);
    if (surface_) egl().destroy_surface(display_, surface_);
  }
  egl().release_thread();
}

}  // namespace gl
}  // namespace vlmrm
