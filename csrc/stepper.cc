#include "stepper.h"

#include <dlfcn.h>

#include <csetjmp>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace vlmrm {
namespace {

// The beginning of mjLogMessage, and mjLOG_ERROR.
struct LogMessage {
  int level;
};
constexpr int kError = 3;

using Handler = void (*)(const LogMessage*);
Handler (*set_handler)(Handler) = nullptr;
void (*dispatch)(const LogMessage*) = nullptr;

thread_local std::jmp_buf* landing = nullptr;
thread_local Handler previous = nullptr;

// MuJoCo ends the process after an error unless its handler leaves by a jump, as MuJoCo's own
// Python bindings do. Everything else goes where it would have gone.
void on_message(const LogMessage* message) {
  if (message->level == kError) std::longjmp(*landing, 1);
  set_handler(previous);
  dispatch(message);
  set_handler(on_message);
}

template <class T>
void find(void* library, const char* name, T* function) {
  *function = reinterpret_cast<T>(dlsym(library, name));
  if (!*function) throw std::runtime_error(std::string("libmujoco has no ") + name);
}

void write_rows(const StepperField& field, int worker, int world) {
  std::memcpy(field.rows + field.bytes * world, field.data[worker], field.bytes);
}

}  // namespace

Stepper::Stepper(const std::string& library, StepperSetup setup) : setup_(std::move(setup)) {
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_NOLOAD);
  if (!handle) throw std::runtime_error("not loaded: " + library);
  find(handle, "mj_step", &api_.step);
  find(handle, "mj_rnePostConstraint", &api_.forces);
  find(handle, "mj_setState", &api_.set_state);
  find(handle, "mj_getState", &api_.get_state);
  find(handle, "mj_resetData", &api_.reset);
  find(handle, "_mjPRIVATE_setTlsLogHandler", &set_handler);
  find(handle, "mju_message", &dispatch);
  // Python keeps the library loaded for good.
  dlclose(handle);
}

// Nothing that needs a destructor may live in the two functions that a jump can leave.
bool Stepper::advance(void* data, int count) const {
  std::jmp_buf target;
  landing = &target;
  previous = set_handler(on_message);
  const bool sound = setjmp(target) == 0;
  if (sound) {
    for (int i = 0; i < count; ++i) api_.step(setup_.model, data);
  }
  set_handler(previous);
  return sound;
}

bool Stepper::compute_forces(void* data) const {
  std::jmp_buf target;
  landing = &target;
  previous = set_handler(on_message);
  const bool sound = setjmp(target) == 0;
  if (sound) api_.forces(setup_.model, data);
  set_handler(previous);
  return sound;
}

void Stepper::step(int worker, int world, int count) const {
  void* data = setup_.data[worker];
  double* state = setup_.states + static_cast<size_t>(setup_.nstate) * world;
  const StepperField& warnings = setup_.warnings;
  api_.set_state(setup_.model, data, state, setup_.spec);
  std::memcpy(warnings.data[worker], warnings.rows + warnings.bytes * world, warnings.bytes);
  if (!advance(data, count)) {
    // What the jump left on the stack of mjData goes with it.
    api_.reset(setup_.model, data);
    setup_.failed[world] = 1;
    return;
  }
  api_.get_state(setup_.model, data, state, setup_.spec);
  write_rows(warnings, worker, world);
  for (const StepperField& field : setup_.fields) write_rows(field, worker, world);
  if (setup_.forces.bytes == 0) return;
  if (!compute_forces(data)) {
    api_.reset(setup_.model, data);
    setup_.failed[world] = 1;
    return;
  }
  write_rows(setup_.forces, worker, world);
}

}  // namespace vlmrm
