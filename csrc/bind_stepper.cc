// Turns Python's addresses and arrays into a Stepper. Addresses are trusted: vlmrm_fast._stepper
// alone passes them, and keeps what they point to alive.
#include "bind_stepper.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "stepper.h"

namespace py = pybind11;

namespace vlmrm {
namespace {

using Addresses = std::vector<uintptr_t>;
// Address in each worker's mjData, address of the worlds' rows, bytes a world.
using FieldTuple = std::tuple<Addresses, uintptr_t, size_t>;

std::vector<void*> pointers(const Addresses& addresses) {
  std::vector<void*> result;
  for (uintptr_t a : addresses) result.push_back(reinterpret_cast<void*>(a));
  return result;
}

StepperField field(const FieldTuple& tuple, size_t num_workers) {
  const auto& [data, rows, bytes] = tuple;
  if (data.size() != num_workers) throw py::value_error("one address a worker is needed");
  return {pointers(data), reinterpret_cast<char*>(rows), bytes};
}

std::unique_ptr<Stepper> make_stepper(const std::string& library, uintptr_t model,
                                      const Addresses& data, py::array_t<double> states,
                                      unsigned spec, py::array_t<uint8_t> failed,
                                      const FieldTuple& warnings,
                                      const std::vector<FieldTuple>& fields,
                                      const FieldTuple& forces) {
  if (states.ndim() != 2 || !(states.flags() & py::array::c_style) ||
      failed.size() != states.shape(0)) {
    throw py::value_error("states must be (N, nstate) and C-contiguous, failed (N,)");
  }
  StepperSetup setup;
  setup.model = reinterpret_cast<const void*>(model);
  setup.data = pointers(data);
  setup.states = states.mutable_data();
  setup.nstate = static_cast<int>(states.shape(1));
  setup.spec = spec;
  setup.failed = failed.mutable_data();
  setup.warnings = field(warnings, data.size());
  for (const FieldTuple& f : fields) setup.fields.push_back(field(f, data.size()));
  setup.forces = field(forces, data.size());
  return std::make_unique<Stepper>(library, std::move(setup));
}

}  // namespace

void bind_stepper(py::module_& m) {
  py::class_<Stepper>(m, "Stepper")
      .def(py::init(&make_stepper), py::arg("library"), py::arg("model"), py::arg("data"),
           py::arg("states").noconvert(), py::arg("spec"), py::arg("failed").noconvert(),
           py::arg("warnings"), py::arg("fields"), py::arg("forces"))
      .def_property_readonly("num_workers", &Stepper::num_workers);
}

}  // namespace vlmrm
