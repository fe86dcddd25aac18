// Advances worlds one at a time with the libmujoco that Python has loaded, on the calling thread,
// so that a world can be drawn on the core that has just stepped it.
//
// Source: mujoco.batch.Batch, whose results it gives bit for bit: a world is its row of
// mjSTATE_INTEGRATION; an mjData of the worker runs it.
#ifndef VLMRM_STEPPER_H_
#define VLMRM_STEPPER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace vlmrm {

// An array of each mjData that is kept for every world.
struct StepperField {
  std::vector<void*> data;  // its address in each worker's mjData
  char* rows;               // of the worlds
  size_t bytes;             // a world
};

// All pointers are trusted and must outlive the stepper.
struct StepperSetup {
  const void* model;
  std::vector<void*> data;  // one mjData a worker
  double* states;           // (N, nstate)
  int nstate;
  unsigned spec;            // what a state row holds (mjtState)
  uint8_t* failed;          // (N,) set to 1 where MuJoCo raised
  StepperField warnings;    // mjData.warning: read before a step and written after it
  std::vector<StepperField> fields;  // written after a step
  // Filled by mj_rnePostConstraint, which runs last, where bytes > 0.
  StepperField forces;
};

class Stepper {
 public:
  // Throws std::runtime_error if the library lacks a function.
  Stepper(const std::string& library, StepperSetup setup);

  int num_workers() const { return static_cast<int>(setup_.data.size()); }

  // Calls mj_step `count` times from the world's row and writes back its rows. Where MuJoCo raises
  // (mju_error) the world's rows stay and it is marked as failed. Worker ids must not be shared by
  // threads that run at once.
  void step(int worker, int world, int count) const;

 private:
  struct Api {
    void (*step)(const void* model, void* data);
    void (*forces)(const void* model, void* data);
    void (*set_state)(const void* model, void* data, const double* state, unsigned spec);
    void (*get_state)(const void* model, const void* data, double* state, unsigned spec);
    void (*reset)(const void* model, void* data);
  };

  bool advance(void* data, int count) const;
  bool compute_forces(void* data) const;

  Api api_;
  StepperSetup setup_;
};

}  // namespace vlmrm

#endif  // VLMRM_STEPPER_H_
