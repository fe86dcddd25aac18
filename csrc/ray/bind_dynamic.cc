#include "ray/bind_dynamic.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>
#include <unistd.h>

#include <mutex>
#include <stdexcept>

#include "arguments.h"
#include "ray/draw.h"
#include "ray/dynamic.h"
#include "ray/frame.h"
#include "sources.h"
#include "thread_pool.h"

namespace py = pybind11;

namespace vlmrm {
namespace {

template <class T>
std::vector<T> values(const py::handle& array) {
  auto a = array.cast<py::array_t<T, py::array::c_style | py::array::forcecast>>();
  return std::vector<T>(a.data(), a.data() + a.size());
}

RefillSetup read_setup(const py::dict& d) {
  RefillSetup setup;
  setup.api = d["api"].cast<std::shared_ptr<MujocoApi>>();
  setup.scene = d["scene"].cast<std::shared_ptr<Scene>>();
  setup.model = reinterpret_cast<const void*>(d["model"].cast<uintptr_t>());
  setup.option = d["option"].cast<py::bytes>();
  setup.camera = d["camera"].cast<py::bytes>();
  setup.textures = values<int32_t>(d["textures"]);
  setup.meshes = values<int32_t>(d["meshes"]);
  setup.hfields = values<int32_t>(d["hfields"]);
  for (auto item : d["skins"].cast<py::list>()) {
    auto pair = item.cast<py::tuple>();
    setup.skins.push_back({values<int32_t>(pair[0]), values<float>(pair[1])});
  }
  setup.around = d["around"].cast<float>();
  setup.along = d["along"].cast<float>();
  setup.slices = d["slices"].cast<int32_t>();
  setup.shadows = d["shadows"].cast<bool>();
  setup.reflection = d["reflection"].cast<bool>();
  setup.shadow_scale = d["shadow_scale"].cast<float>();
  setup.max_lights = d["max_lights"].cast<int32_t>();
  setup.line_width = d["line_width"].cast<float>();
  return setup;
}

// One worker's memory.
struct Worker {
  Worker(const RefillSetup& setup, const Sink& sink)
      : refill(setup), frame(*setup.scene, sink.drawn_height(), sink.drawn_width()), scratch(sink) {}

  Refill refill;
  Frame frame;
  SinkScratch scratch;
  std::vector<int32_t> rows;  // of geoms, a pixel each
};

class DynamicRenderer {
 public:
  DynamicRenderer(const py::dict& setup, const py::tuple& sink, int num_threads)
      : setup_(read_setup(setup)),
        sink_(make_sink(sink[0].cast<int>(), sink[1].cast<int>(), sink[2], sink[3].cast<bool>(),
                        sink[4].cast<int>())),
        pool_(std::make_unique<ThreadPool>(num_threads)) {
    setup_.height = sink_.drawn_height();
    for (int i = 0; i < num_threads; ++i) workers_.push_back(std::make_unique<Worker>(setup_, sink_));
  }

  // In a forked child the workers are gone: waiting for them would never end, so they are left.
  ~DynamicRenderer() {
    if (getpid() != process_) pool_.release();
  }
  DynamicRenderer(const DynamicRenderer&) = delete;
  DynamicRenderer& operator=(const DynamicRenderer&) = delete;

  void render(const Sources& sources, py::array out) {
    if (!(out.flags() & py::array::c_style) || !out.writeable() ||
        static_cast<size_t>(out.nbytes()) != sink_.bytes() * sources.count) {
      throw py::value_error("`out` must be a writeable C-contiguous array of N pictures.");
    }
    auto* const pictures = static_cast<uint8_t*>(out.mutable_data());
    run(sources, [&](Worker* w, void* data, int i) { draw(w, data, pictures + sink_.bytes() * i); });
  }

  // As _core.Renderer.probe, with objects (N, H, W, 2) in place of rows of geoms.
  void probe(const Sources& sources, py::array_t<float> depth, py::array_t<int32_t> objects,
             float background) {
    const size_t pixels = static_cast<size_t>(sink_.drawn_height()) * sink_.drawn_width();
    const auto count = static_cast<py::ssize_t>(pixels * sources.count);
    if (!(depth.flags() & objects.flags() & py::array::c_style) || depth.size() != count ||
        objects.size() != 2 * count) {
      throw py::value_error("outputs must be C-contiguous, (N, H, W) and (N, H, W, 2).");
    }
    float* const depths = depth.mutable_data();
    int32_t* const named = objects.mutable_data();
    run(sources, [&](Worker* w, void* data, int i) {
      w->refill.update(data);
      const Scene& scene = w->refill.scene();
      w->frame.fit(scene);
      w->frame.probe = true;
      set_up(scene, w->refill.world(), &w->frame);
      kernel_.draw(scene, &w->frame, nullptr);
      w->frame.probe = false;
      w->rows.resize(pixels);
      w->frame.copy_probe(background, depths + pixels * i, w->rows.data());
      int32_t* out = named + 2 * pixels * i;
      for (size_t k = 0; k < pixels; ++k) {
        const int32_t row = w->rows[k];
        out[2 * k] = row < 0 ? -1 : w->refill.objects()[2 * row];
        out[2 * k + 1] = row < 0 ? -1 : w->refill.objects()[2 * row + 1];
      }
    });
  }

 private:
  template <class Body>
  void run(const Sources& sources, const Body& body) {
    if (sources.data.empty() && sources.count > 0 && sources.scratch.size() < workers_.size()) {
      throw py::value_error("sources must hold a mjData for each worker.");
    }
    py::gil_scoped_release release;
    std::lock_guard<std::mutex> turn(turn_);
    error_.clear();
    pool_->run(sources.count, [&](int worker, int i) {
      try {
        body(workers_[worker].get(), sources.get(worker, i), i);
      } catch (const std::exception& error) {
        workers_[worker]->frame.forget();
        std::lock_guard<std::mutex> lock(error_lock_);
        if (error_.empty()) error_ = error.what();
      }
    });
    if (!error_.empty()) throw std::runtime_error(error_);
  }

  void draw(Worker* w, void* data, uint8_t* place) {
    w->refill.update(data);
    const Scene& scene = w->refill.scene();
    w->frame.fit(scene);
    set_up(scene, w->refill.world(), &w->frame);
    kernel_.draw(scene, &w->frame, sink_.direct() ? place : w->scratch.drawn.data());
    if (!sink_.direct()) convert(sink_, &w->scratch, place);
  }

  RefillSetup setup_;
  Sink sink_;
  std::unique_ptr<ThreadPool> pool_;
  pid_t process_ = getpid();
  std::vector<std::unique_ptr<Worker>> workers_;
  const Kernel& kernel_ = choose_kernel();
  std::mutex turn_, error_lock_;
  std::string error_;
};

}  // namespace

void bind_dynamic(py::module_& m) {
  py::class_<DynamicRenderer>(m, "DynamicRenderer")
      .def(py::init<const py::dict&, const py::tuple&, int>(), py::arg("setup"), py::arg("sink"),
           py::arg("num_threads"))
      .def("render", &DynamicRenderer::render, py::arg("sources"), py::arg("out").noconvert())
      .def("probe", &DynamicRenderer::probe, py::arg("sources"), py::arg("depth").noconvert(),
           py::arg("objects").noconvert(), py::arg("background"));
}

}  // namespace vlmrm
