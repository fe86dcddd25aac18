// Python face of Stepper.
#ifndef VLMRM_BIND_STEPPER_H_
#define VLMRM_BIND_STEPPER_H_

#include <pybind11/pybind11.h>

namespace vlmrm {

void bind_stepper(pybind11::module_& m);

}  // namespace vlmrm

#endif  // VLMRM_BIND_STEPPER_H_
