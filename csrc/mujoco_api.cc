#include "mujoco_api.h"

#include <dlfcn.h>

#include <algorithm>
#include <csetjmp>
#include <stdexcept>

namespace vlmrm {
namespace {

constexpr int kLogWarning = 2, kLogError = 3;  // mjtLogLevel
constexpr size_t kSubject = 8;                 // mjLogMessage: level, topic, subject[1024]
constexpr int kNumFlags = 12;                  // mjNRNDFLAG, or fewer and padding
constexpr int kFirstGeoms = 1000;

// What a guarded call of this thread leaves behind.
thread_local std::jmp_buf* landing = nullptr;
thread_local char error_text[1024];
thread_local std::vector<std::string>* warning_list = nullptr;

void on_error(const char* text) {
  std::strncpy(error_text, text, sizeof error_text - 1);
  if (landing) std::longjmp(*landing, 1);
}

void on_warning(const char* text) {
  if (warning_list) warning_list->emplace_back(text);
}

void on_message(const void* message) {
  int32_t level;
  std::memcpy(&level, message, sizeof level);
  const char* subject = static_cast<const char*>(message) + kSubject;
  if (level == kLogError) on_error(subject);
  if (level == kLogWarning) on_warning(subject);
}

// MuJoCo's C code owns nothing between the two jumps, and neither does this frame.
bool call(const std::function<void()>& body) {
  std::jmp_buf here;
  landing = &here;
  const bool ok = setjmp(here) == 0;
  if (ok) body();
  landing = nullptr;
  return ok;
}

template <class F>
bool find(void* library, const char* name, F* function) {
  *reinterpret_cast<void**>(function) = dlsym(library, name);
  return *function != nullptr;
}

template <class F>
void need(void* library, const char* name, F* function) {
  if (find(library, name, function)) return;
  throw std::runtime_error(std::string("libmujoco must hold ") + name + ", got none.");
}

}  // namespace

MujocoApi::MujocoApi(const std::string& path, Layout layout) : layout_(std::move(layout)) {
  // Already loaded by Python; never closed, since others use it too.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) throw std::runtime_error(std::string("libmujoco must load, got ") + dlerror() + ".");
  need(library, "mjv_defaultScene", &default_scene);
  need(library, "mjv_makeScene", &make_scene);
  need(library, "mjv_freeScene", &free_scene);
  need(library, "mjv_updateScene", &update_scene);
  need(library, "mjr_defaultContext", &default_context);
  need(library, "mjr_makeContext", &make_context);
  need(library, "mjr_freeContext", &free_context);
  need(library, "mjr_setBuffer", &set_buffer);
  need(library, "mjr_resizeOffscreen", &resize_offscreen);
  need(library, "mjr_render", &render);
  need(library, "mjr_readPixels", &read_pixels);
  if (!find(library, "_mjPRIVATE_setTlsLogHandler", &set_log_handler_)) {
    find(library, "_mjPRIVATE__set_tls_error_fn", &set_error_handler_);
    find(library, "_mjPRIVATE__set_tls_warning_fn", &set_warning_handler_);
  }
  check_size("mjvScene", default_scene);
  check_size("mjrContext", default_context);
}

// Both functions clear their struct: what they leave of a pattern tells its size.
void MujocoApi::check_size(const char* name, void (*reset)(void*)) const {
  const size_t size = at(name);
  constexpr unsigned char kPattern = 0xA5;
  std::vector<uint64_t> room(size / 4 + 64);
  auto* bytes = reinterpret_cast<unsigned char*>(room.data());
  std::memset(bytes, kPattern, room.size() * 8);
  reset(bytes);
  size_t found = room.size() * 8;
  while (found > 0 && bytes[found - 1] == kPattern) --found;
  if (found == size) return;
  throw std::runtime_error("MuJoCo's structs must be laid out as mujoco.introspect says, got " +
                           std::string(name) + " of " + std::to_string(found) +
                           " bytes, expected " + std::to_string(size) + ".");
}

size_t MujocoApi::at(const std::string& name) const {
  auto found = layout_.find(name);
  if (found != layout_.end()) return found->second;
  throw std::runtime_error("mujoco.introspect must describe " + name + ", got nothing.");
}

void MujocoApi::guarded(const std::function<void()>& body,
                        std::vector<std::string>* warnings) const {
  warning_list = warnings;
  void* before = nullptr;
  if (set_log_handler_) before = set_log_handler_(on_message);
  if (set_error_handler_) set_error_handler_(on_error);
  if (set_warning_handler_) set_warning_handler_(on_warning);
  const bool ok = call(body);
  if (set_log_handler_) set_log_handler_(reinterpret_cast<void (*)(const void*)>(before));
  if (set_error_handler_) set_error_handler_(nullptr);
  if (set_warning_handler_) set_warning_handler_(nullptr);
  warning_list = nullptr;
  if (!ok) throw std::runtime_error(std::string("MuJoCo failed: ") + error_text);
}

MjvScene::MjvScene(std::shared_ptr<const MujocoApi> api, const void* model)
    : api_(std::move(api)),
      model_(model),
      block_(api_->at("mjvScene")),
      ngeom_(api_->at("mjvScene.ngeom")),
      geoms_(api_->at("mjvScene.geoms")),
      status_(api_->at("mjvScene.status")),
      flags_(api_->at("mjvScene.flags")) {
  make(kFirstGeoms);
}

MjvScene::~MjvScene() { api_->free_scene(block_.get()); }

void MjvScene::make(int max_geoms) {
  const bool again = max_geoms_ > 0;
  std::string flags(kNumFlags, '\0');
  auto* held = static_cast<char*>(block_.get()) + flags_;
  if (again) {
    std::memcpy(&flags[0], held, kNumFlags);
    api_->free_scene(block_.get());
  }
  max_geoms_ = 0;
  std::vector<std::string> warnings;
  api_->default_scene(block_.get());
  api_->guarded([&] { api_->make_scene(model_, block_.get(), max_geoms); }, &warnings);
  max_geoms_ = max_geoms;
  if (again) std::memcpy(held, flags.data(), kNumFlags);
}

void MjvScene::set_flag(int index, bool value) { block_.write<uint8_t>(flags_ + index, value); }

void MjvScene::update(void* data, const void* option, void* camera,
                      std::vector<std::string>* warnings) {
  while (true) {
    std::vector<std::string> said;
    api_->guarded(
        [&] {
          api_->update_scene(model_, data, option, nullptr, camera, kAllCategories, block_.get());
        },
        &said);
    // A full list leaves geoms out, with a warning and a mark.
    if (block_.read<int32_t>(status_) == 0 && num_geoms() < max_geoms_) {
      warnings->insert(warnings->end(), said.begin(), said.end());
      return;
    }
    make(4 * max_geoms_);
  }
}

}  // namespace vlmrm
