// What the Python faces of both renderers share.
#ifndef VLMRM_ARGUMENTS_H_
#define VLMRM_ARGUMENTS_H_

#include <pybind11/pybind11.h>

#include "sink.h"

namespace vlmrm {

// `table` holds the bits of the numbers that bytes become, (3, 256) uint16 or uint32, or is None.
Sink make_sink(int height, int width, const pybind11::object& table, bool planar, int supersample);

}  // namespace vlmrm

#endif  // VLMRM_ARGUMENTS_H_
