// The functions of the libmujoco that Python has loaded, and the layout of its visual structs.
//
// Nothing here needs MuJoCo's headers: functions are found by name, structs are opaque blocks whose
// sizes and offsets are read at run time. Immutable once made, shared by all threads.
#ifndef VLMRM_MUJOCO_API_H_
#define VLMRM_MUJOCO_API_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace vlmrm {

// mjrRect, the one struct that is passed by value.
struct MjrRect {
  int32_t left, bottom, width, height;
};

// Sizes [bytes] by struct and offsets by "struct.field", as _mujoco_api.py reads them.
using Layout = std::map<std::string, size_t>;

// Memory of an opaque struct, zeroed.
class Block {
 public:
  explicit Block(size_t size) : words_((size + 7) / 8), size_(size) {}
  explicit Block(const std::string& bytes) : Block(bytes.size()) {
    std::memcpy(words_.data(), bytes.data(), bytes.size());
  }
  void* get() { return words_.data(); }
  const void* get() const { return words_.data(); }
  size_t size() const { return size_; }

  template <class T>
  T read(size_t offset) const {
    T value;
    std::memcpy(&value, reinterpret_cast<const char*>(words_.data()) + offset, sizeof value);
    return value;
  }
  template <class T>
  void write(size_t offset, T value) {
    std::memcpy(reinterpret_cast<char*>(words_.data()) + offset, &value, sizeof value);
  }

 private:
  std::vector<uint64_t> words_;
  size_t size_;
};

class MujocoApi {
 public:
  // Throws std::runtime_error if the library or one of its functions is missing, or if its structs
  // are not of the layout's sizes.
  MujocoApi(const std::string& path, Layout layout);
  MujocoApi(const MujocoApi&) = delete;
  MujocoApi& operator=(const MujocoApi&) = delete;

  // A size or an offset; throws std::runtime_error for an unknown name.
  size_t at(const std::string& name) const;
  bool has(const std::string& name) const { return layout_.count(name) > 0; }

  // Calls `body`, which may call the functions below; an mju_error inside throws std::runtime_error
  // with its text instead of ending the process. `body` must own nothing that needs a destructor.
  // Warnings are appended to `warnings` instead of being printed.
  void guarded(const std::function<void()>& body, std::vector<std::string>* warnings) const;

  void (*default_scene)(void* scene);
  void (*make_scene)(const void* model, void* scene, int max_geoms);
  void (*free_scene)(void* scene);
  void (*update_scene)(const void* model, void* data, const void* option, const void* perturb,
                       void* camera, int categories, void* scene);
  void (*default_context)(void* context);
  void (*make_context)(const void* model, void* context, int font_scale);
  void (*free_context)(void* context);
  void (*set_buffer)(int buffer, void* context);
  void (*resize_offscreen)(int width, int height, void* context);
  void (*render)(MjrRect viewport, void* scene, const void* context);
  void (*read_pixels)(uint8_t* rgb, float* depth, MjrRect viewport, const void* context);

 private:
  void check_size(const char* name, void (*reset)(void*)) const;

  Layout layout_;
  // Handlers of one thread's errors: MuJoCo 4's, or before it one each for errors and warnings.
  void* (*set_log_handler_)(void (*)(const void*)) = nullptr;
  void (*set_error_handler_)(void (*)(const char*)) = nullptr;
  void (*set_warning_handler_)(void (*)(const char*)) = nullptr;
};

constexpr int kAllCategories = 7;  // mjCAT_ALL
constexpr int kOffscreen = 1;      // mjFB_OFFSCREEN

// An mjvScene that grows until nothing is left out. Of one thread at a time.
class MjvScene {
 public:
  MjvScene(std::shared_ptr<const MujocoApi> api, const void* model);
  ~MjvScene();
  MjvScene(const MjvScene&) = delete;
  MjvScene& operator=(const MjvScene&) = delete;

  // mjv_updateScene with all categories; `camera` is a block of mjvCamera.
  void update(void* data, const void* option, void* camera, std::vector<std::string>* warnings);

  void set_flag(int index, bool value);
  int num_geoms() const { return block_.read<int32_t>(ngeom_); }
  // The first of num_geoms() structs of mjvGeom.
  const char* geoms() const { return block_.read<const char*>(geoms_); }
  void* get() { return block_.get(); }
  template <class T>
  T read(size_t offset) const {
    return block_.read<T>(offset);
  }

 private:
  void make(int max_geoms);

  std::shared_ptr<const MujocoApi> api_;
  const void* model_;
  Block block_;
  size_t ngeom_, geoms_, status_, flags_;
  int max_geoms_ = 0;
};

}  // namespace vlmrm

#endif  // VLMRM_MUJOCO_API_H_
