// Python face of the `gl` renderer.
#ifndef VLMRM_GL_BINDINGS_H_
#define VLMRM_GL_BINDINGS_H_

#include <pybind11/pybind11.h>

namespace vlmrm {
namespace gl {

void bind(pybind11::module_& m);

}  // namespace gl
}  // namespace vlmrm

#endif  // VLMRM_GL_BINDINGS_H_
