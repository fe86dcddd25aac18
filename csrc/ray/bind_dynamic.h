// Python face of scenes that change from frame to frame.
#ifndef VLMRM_RAY_BIND_DYNAMIC_H_
#define VLMRM_RAY_BIND_DYNAMIC_H_

#include <pybind11/pybind11.h>

namespace vlmrm {

void bind_dynamic(pybind11::module_& m);

}  // namespace vlmrm

#endif  // VLMRM_RAY_BIND_DYNAMIC_H_
