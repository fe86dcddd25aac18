// What the Python faces of both renderers share.
#ifndef VLMRM_ARGUMENTS_H_
#define VLMRM_ARGUMENTS_H_

#include <pybind11/pybind11.h>

#include "sink.h"

namespace vlmrm {

// `format` says how bytes become numbers: (type as in Number, bits of all numbers (3, 256) uint16 or
// uint32, mean, std); None for bytes.
Sink make_sink(int height, int width, const pybind11::object& format, bool planar, int supersample);

}  // namespace vlmrm

#endif  // VLMRM_ARGUMENTS_H_
