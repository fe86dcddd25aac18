#include "gl/bindings.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>
#include <unistd.h>

#include "arguments.h"
#include "gl/renderer.h"

namespace py = pybind11;

namespace vlmrm {
namespace gl {
namespace {

void* pointer(uintptr_t address) { return reinterpret_cast<void*>(address); }

// Rows of C-contiguous arrays; their owners stay alive through Python for the length of a call.
Sources make_sources(int count, const std::vector<uintptr_t>& data,
                     const std::vector<py::array>& fields, const std::vector<uintptr_t>& scratch,
                     const std::vector<std::vector<uintptr_t>>& places) {
  Sources sources;
  sources.count = count;
  for (uintptr_t address : data) sources.data.push_back(pointer(address));
  for (const py::array& field : fields) {
    if (!(field.flags() & py::array::c_style) || (count > 0 && field.shape(0) != count)) {
      throw py::value_error("fields must be C-contiguous with a row for each world.");
    }
    const size_t bytes = count > 0 ? field.nbytes() / count : 0;
    sources.fields.push_back({static_cast<const char*>(field.data()), bytes});
  }
  for (uintptr_t address : scratch) sources.scratch.push_back(pointer(address));
  for (const auto& row : places) {
    sources.places.emplace_back();
    for (uintptr_t place : row) sources.places.back().push_back(static_cast<char*>(pointer(place)));
  }
  if (data.empty() ? scratch.size() != places.size() : data.size() != static_cast<size_t>(count)) {
    throw py::value_error("sources must hold a mjData for each world or worker.");
  }
  return sources;
}

template <class T>
T* writeable(py::array_t<T>* out, const std::vector<py::ssize_t>& shape) {
  const bool fits = out->ndim() == static_cast<py::ssize_t>(shape.size()) &&
                    std::equal(shape.begin(), shape.end(), out->shape());
  if (!fits || !(out->flags() & py::array::c_style) || !out->writeable()) {
    throw py::value_error("`out` must be writeable, C-contiguous and of the pictures' shape.");
  }
  return out->mutable_data();
}

// The renderer with its Python arguments; in a forked child it is left as it is.
class Face {
 public:
  Face(std::shared_ptr<const MujocoApi> api, uintptr_t model, const py::bytes& option,
       const py::bytes& camera, std::vector<std::pair<int, bool>> flags, const py::tuple& sink,
       int num_threads, std::vector<int> devices) {
    if (option.cast<std::string>().size() != api->at("mjvOption") ||
        camera.cast<std::string>().size() != api->at("mjvCamera")) {
      throw py::value_error("option and camera must be bytes of mjvOption and mjvCamera.");
    }
    setup_ = {std::move(api),
              pointer(model),
              option,
              camera,
              std::move(flags),
              make_sink(sink[0].cast<int>(), sink[1].cast<int>(), sink[2], sink[3].cast<bool>(),
                        sink[4].cast<int>()),
              std::move(devices)};
    num_threads_ = num_threads;
    py::gil_scoped_release release;
    renderer_ = std::make_unique<Renderer>(setup_, num_threads);
  }

  ~Face() {
    if (getpid() != process_) {
      renderer_.release();
    } else {
      py::gil_scoped_release release;
      renderer_.reset();
    }
  }
  Face(const Face&) = delete;
  Face& operator=(const Face&) = delete;

  void render(const Sources& sources, py::array out) {
    if (!(out.flags() & py::array::c_style) || !out.writeable() ||
        static_cast<size_t>(out.nbytes()) != setup_.sink.bytes() * sources.count) {
      throw py::value_error("`out` must be a writeable C-contiguous array of N pictures.");
    }
    Pictures pictures;
    pictures.color = static_cast<uint8_t*>(out.mutable_data());
    run(sources, pictures);
  }

  void render_depth(const Sources& sources, py::array_t<float> out,
                    py::array_t<uint8_t> orthographic) {
    Pictures pictures;
    pictures.depth = writeable(&out, {sources.count, setup_.sink.drawn_height(), setup_.sink.drawn_width()});
    pictures.orthographic = writeable(&orthographic, {sources.count});
    run(sources, pictures);
  }

  void render_segmentation(const Sources& sources, py::array_t<int32_t> out) {
    Pictures pictures;
    pictures.segmentation = writeable(&out, {sources.count, setup_.sink.drawn_height(), setup_.sink.drawn_width(), 2});
    run(sources, pictures);
  }

  Driver driver() const { return renderer_->driver(); }
  std::vector<std::string> take_warnings() { return renderer_->take_warnings(); }

 private:
  void run(const Sources& sources, const Pictures& pictures) {
    if (sources.data.empty() && sources.count > 0 &&
        sources.scratch.size() < static_cast<size_t>(num_threads_)) {
      throw py::value_error("sources must hold a mjData for each worker.");
    }
    py::gil_scoped_release release;
    renderer_->render(sources, pictures);
  }

  Setup setup_;
  int num_threads_ = 0;
  pid_t process_ = getpid();
  std::unique_ptr<Renderer> renderer_;
};

py::list device_list() {
  py::list found;
  for (const Device& d : list_devices()) found.append(py::make_tuple(d.index, d.cuda, d.extensions));
  return found;
}

std::vector<int> choose(const std::vector<std::pair<int, int>>& known, int device,
                        const std::string& mujoco_device, const std::string& cuda_devices) {
  std::vector<Device> devices;
  for (auto [index, cuda] : known) devices.push_back({index, cuda, ""});
  return choose_devices(devices, device, mujoco_device, cuda_devices);
}

}  // namespace

void bind(py::module_& m) {
  py::class_<MujocoApi, std::shared_ptr<MujocoApi>>(m, "MujocoApi")
      .def(py::init<const std::string&, Layout>(), py::arg("path"), py::arg("layout"));
  py::class_<Sources>(m, "Sources")
      .def(py::init(&make_sources), py::arg("count"), py::arg("data"), py::arg("fields"),
           py::arg("scratch"), py::arg("places"));
  py::class_<Driver>(m, "GlDriver")
      .def_readonly("vendor", &Driver::vendor)
      .def_readonly("renderer", &Driver::renderer)
      .def_readonly("version", &Driver::version)
      .def_readonly("software", &Driver::software);
  m.def("gl_devices", &device_list, "EGL's devices: (index, CUDA ordinal or -1, extensions).");
  m.def("choose_gl_devices", &choose, py::arg("known"), py::arg("device"),
        py::arg("mujoco_device"), py::arg("cuda_devices"));
  py::class_<Face>(m, "GlRenderer")
      .def(py::init<std::shared_ptr<MujocoApi>, uintptr_t, const py::bytes&, const py::bytes&,
                    std::vector<std::pair<int, bool>>, const py::tuple&, int, std::vector<int>>(),
           py::arg("api"), py::arg("model"), py::arg("option"), py::arg("camera"),
           py::arg("flags"), py::arg("sink"), py::arg("num_threads"), py::arg("devices"))
      .def("render", &Face::render, py::arg("sources"), py::arg("out").noconvert())
      .def("render_depth", &Face::render_depth, py::arg("sources"), py::arg("out").noconvert(),
           py::arg("orthographic").noconvert())
      .def("render_segmentation", &Face::render_segmentation, py::arg("sources"),
           py::arg("out").noconvert())
      .def_property_readonly("driver", &Face::driver)
      .def("take_warnings", &Face::take_warnings);
}

}  // namespace gl
}  // namespace vlmrm
