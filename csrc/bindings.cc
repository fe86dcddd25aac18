// Python face of the renderer: checks arguments, then drops the GIL for the whole batch.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "arguments.h"
#include "bind_stepper.h"
#include "gl/bindings.h"
#include "ray/bind_dynamic.h"
#include "ray/cache.h"
#include "ray/draw.h"
#include "ray/frame.h"
#include "ray/scene.h"
#include "sink.h"
#include "stepper.h"
#include "thread_pool.h"

namespace py = pybind11;

namespace vlmrm {
namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

void require(bool ok, const char* text) {
  if (!ok) throw py::value_error(text);
}

Texture read_texture(const py::tuple& item) {
  Texture texture;
  texture.cube = item[0].cast<bool>();
  auto texels = item[1].cast<Array<uint32_t>>();
  auto levels = item[2].cast<Array<int32_t>>();
  require(levels.ndim() == 2 && levels.shape(1) == 5, "levels must be (n, 5)");
  texture.num_levels = static_cast<int32_t>(levels.shape(0));
  require(texture.num_levels >= 1 && texture.num_levels <= kMaxLevels, "too many mip levels");
  for (int i = 0; i < texture.num_levels; ++i) {
    const int32_t* row = levels.data(i);
    texture.level[i] = {row[0], row[1], row[2], row[3], row[4]};
    const int64_t faces = texture.cube ? 6 : 1;
    require(row[0] > 0 && row[1] > 0 && row[2] >= row[0] + 2 && row[4] >= 0 &&
                row[4] + (faces - 1) * row[3] + int64_t{row[2]} * (row[1] + 2) <= texels.size(),
            "mip level outside of the texels");
  }
  pack_columns(texels.data(), static_cast<size_t>(texels.size()), &texture);
  return texture;
}

// Corners and normals (T, 3, 3), texture coordinates (T, 3, 2) or None.
Mesh read_mesh(const py::tuple& item) {
  auto corners = item[0].cast<Array<float>>();
  auto normals = item[1].cast<Array<float>>();
  const py::ssize_t n = corners.shape(0);
  require(corners.size() == 9 * n && normals.size() == 9 * n && n < (1 << 27),
          "meshes must be (T, 3, 3) corners and normals");
  if (item[2].is_none()) {
    return build_mesh({corners.data(), normals.data(), nullptr, static_cast<int32_t>(n)});
  }
  auto texcoords = item[2].cast<Array<float>>();
  require(texcoords.size() == 6 * n, "meshes must have (T, 3, 2) texture coordinates");
  return build_mesh({corners.data(), normals.data(), texcoords.data(), static_cast<int32_t>(n)});
}

void read_geoms(const Array<int32_t>& ints, const Array<float>& floats, Scene* scene) {
  require(ints.ndim() == 2 && ints.shape(1) == 8 && floats.ndim() == 2 && floats.shape(1) == 13 &&
              ints.shape(0) == floats.shape(0),
          "geoms must be (G, 8) int32 and (G, 13) float32");
  for (py::ssize_t i = 0; i < ints.shape(0); ++i) {
    const int32_t* a = ints.data(i);
    const float* b = floats.data(i);
    Geom g;
    g.type = a[0], g.from_site = a[1], g.index = a[2], g.texture = a[3];
    g.uniform = a[4], g.casts = a[5], g.mesh = a[6], g.still = a[7];
    std::copy(b, b + 3, g.size);
    std::copy(b + 3, b + 7, g.rgba);
    g.emission = b[7], g.specular = b[8], g.shininess = b[9], g.reflectance = b[10];
    g.repeat[0] = b[11], g.repeat[1] = b[12];
    g.set_dim_below();
    const int32_t limit = g.from_site ? scene->num_model_sites : scene->num_model_geoms;
    require(g.index >= 0 && g.index < limit, "geom index out of range");
    require(g.texture < static_cast<int32_t>(scene->assets->textures.size()), "texture out of range");
    require(g.type != kMesh || (g.mesh >= 0 && g.mesh < static_cast<int32_t>(scene->assets->meshes.size())),
            "mesh out of range");
    scene->geoms.push_back(g);
  }
}

void read_lights(const Array<int32_t>& ints, const Array<float>& floats, Scene* scene) {
  require(ints.ndim() == 2 && ints.shape(1) == 3 && floats.ndim() == 2 && floats.shape(1) == 15 &&
              ints.shape(0) == floats.shape(0) && ints.shape(0) <= kMaxLights,
          "lights must be (L, 3) int32 and (L, 15) float32");
  for (py::ssize_t i = 0; i < ints.shape(0); ++i) {
    const int32_t* a = ints.data(i);
    const float* b = floats.data(i);
    Light l;
    l.index = a[0], l.type = a[1], l.shadow = a[2];
    std::copy(b, b + 3, l.ambient);
    std::copy(b + 3, b + 6, l.diffuse);
    std::copy(b + 6, b + 9, l.specular);
    std::copy(b + 9, b + 12, l.attenuation);
    l.lights_backs = l.ambient[0] > 0 || l.ambient[1] > 0 || l.ambient[2] > 0;
    l.cos_cutoff = b[12], l.exponent = b[13], l.tan_shadow = b[14];
    require(l.index < scene->num_model_lights, "light index out of range");
    scene->lights.push_back(l);
  }
}

std::shared_ptr<Scene> make_scene(const Array<int32_t>& geom_ints, const Array<float>& geom_floats,
                                  const Array<int32_t>& light_ints,
                                  const Array<float>& light_floats, const py::list& textures,
                                  const py::list& meshes,
                                  const py::dict& options) {
  auto scene = std::make_shared<Scene>();
  auto number = [&](const char* key) { return options[key].cast<float>(); };
  auto integer = [&](const char* key) { return options[key].cast<int32_t>(); };
  scene->num_model_geoms = integer("ngeom");
  scene->num_model_sites = integer("nsite");
  scene->num_model_lights = integer("nlight");
  auto assets = std::make_shared<Assets>();
  for (auto item : textures) assets->textures.push_back(read_texture(item.cast<py::tuple>()));
  for (auto item : meshes) assets->meshes.push_back(read_mesh(item.cast<py::tuple>()));
  scene->textures = assets->textures.data();
  scene->meshes = assets->meshes.data();
  scene->assets = std::move(assets);
  read_geoms(geom_ints, geom_floats, scene.get());
  read_lights(light_ints, light_floats, scene.get());
  scene->sky = integer("sky");
  scene->reflective = integer("reflective");
  require(scene->sky < static_cast<int32_t>(textures.size()) &&
              scene->reflective < static_cast<int32_t>(scene->geoms.size()),
          "sky or reflective out of range");
  scene->half_height = number("half_height");
  scene->half_width = number("half_width");
  scene->center[0] = number("center_x");
  scene->center[1] = number("center_y");
  scene->znear = number("znear");
  scene->zfar = number("zfar");
  scene->shadow_clip = number("shadow_clip");
  scene->shadow_size = number("shadow_size");
  scene->haze = number("haze");
  scene->haze_peak = number("haze_peak");
  scene->haze_rgb[0] = number("haze_r");
  scene->haze_rgb[1] = number("haze_g");
  scene->haze_rgb[2] = number("haze_b");
  scene->global_ambient = number("global_ambient");
  scene->orthographic = integer("orthographic");
  scene->round = number("round");
  scene->round_along = number("round_along");
  scene->lathe = make_lathe(integer("slices"), integer("stacks"));
  scene->cull = integer("cull_face");
  scene->additive = integer("additive");
  scene->fog = integer("fog");
  scene->fog_end = number("fog_end");
  scene->fog_rate = number("fog_rate");
  scene->fog_rgb[0] = number("fog_r");
  scene->fog_rgb[1] = number("fog_g");
  scene->fog_rgb[2] = number("fog_b");
  return scene;
}

// A rectangular float64 input: N rows of `width` numbers.
const double* rows(const py::array_t<double>& a, py::ssize_t n, py::ssize_t width,
                   const char* name) {
  const bool contiguous = a.flags() & py::array::c_style;
  if (!contiguous || a.size() != n * width) {
    throw py::value_error(std::string("`") + name + "` must be C-contiguous float64 with " +
                          std::to_string(n * width) + " numbers, got " + std::to_string(a.size()) +
                          ".");
  }
  return a.data();
}

// N rows of a float64 array, each contiguous; they may lie apart, or all be the same one.
struct Rows {
  const double* data;
  py::ssize_t stride;

  Rows(const py::array_t<double>& a, py::ssize_t n, py::ssize_t width, const char* name)
      : data(a.data()), stride(0) {
    if (a.ndim() != 2 || a.shape(0) != n || a.shape(1) != width ||
        a.strides(1) != static_cast<py::ssize_t>(sizeof(double))) {
      throw py::value_error(std::string("`") + name + "` must be (N, " + std::to_string(width) +
                            ") float64.");
    }
    stride = a.strides(0) / static_cast<py::ssize_t>(sizeof(double));
  }
  const double* row(py::ssize_t i) const { return data + stride * i; }
};

// The N worlds of one call, read in place.
class Worlds {
 public:
  using Input = py::array_t<double>;

  Worlds(const Scene& scene, py::ssize_t n, const std::array<Input, 8>& arrays,
         const std::array<double, 3>& cam_offset)
      : ng_(scene.num_model_geoms),
        ns_(scene.num_model_sites),
        nl_(scene.num_model_lights),
        base_{rows(arrays[0], n, 3 * ng_, "geom_xpos"),  rows(arrays[1], n, 9 * ng_, "geom_xmat"),
              rows(arrays[2], n, 3 * ns_, "site_xpos"),  rows(arrays[3], n, 9 * ns_, "site_xmat"),
              rows(arrays[4], n, 3 * nl_, "light_xpos"), rows(arrays[5], n, 3 * nl_, "light_xdir"),
              nullptr,                                   nullptr},
        eyes_(arrays[6], n, 3, "cam_pos"),
        axes_(arrays[7], n, 9, "cam_mat"),
        offset_(cam_offset) {}

  // World i; `eye` is where its camera's position is kept.
  World at(py::ssize_t i, double* eye) const {
    for (int k = 0; k < 3; ++k) eye[k] = eyes_.row(i)[k] + offset_[k];
    return {base_.geom_xpos + 3 * ng_ * i,  base_.geom_xmat + 9 * ng_ * i,
            base_.site_xpos + 3 * ns_ * i,  base_.site_xmat + 9 * ns_ * i,
            base_.light_xpos + 3 * nl_ * i, base_.light_xdir + 3 * nl_ * i,
            eye,                            axes_.row(i)};
  }

 private:
  py::ssize_t ng_, ns_, nl_;
  World base_;
  Rows eyes_, axes_;
  std::array<double, 3> offset_;
};

// Seconds that one worker spent on a call.
struct alignas(64) Seconds {
  double step = 0, draw = 0;
};

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

Sink make_sink(int height, int width, const py::object& format, bool planar, int supersample) {
  require(height > 0 && width > 0 && supersample > 0, "sizes must be positive");
  Sink sink;
  sink.height = height, sink.width = width, sink.supersample = supersample, sink.planar = planar;
  if (!format.is_none()) {
    const auto [number, table, mean, std] =
        format.cast<std::tuple<int, py::array, std::array<float, 3>, std::array<float, 3>>>();
    require(number >= 1 && number <= 3 && table.size() == 3 * 256, "unknown format");
    sink.number = static_cast<Number>(number);
    std::copy(mean.begin(), mean.end(), sink.mean);
    std::copy(std.begin(), std.end(), sink.std);
    if (sink.number == Number::kFloat32) {
      const auto words = table.cast<Array<uint32_t>>();
      sink.words.assign(words.data(), words.data() + words.size());
    } else {
      const auto halves = table.cast<Array<uint16_t>>();
      sink.halves.assign(halves.data(), halves.data() + halves.size());
    }
  }
  const std::string level = choose_kernel().name;
  if (level == "avx2" || level == "avx512") sink.use_vectors();
  return sink;
}

namespace {

constexpr int kMinBand = 8;  // rows: thinner bands would be all set-up

class Renderer {
 public:
  Renderer(std::shared_ptr<Scene> scene, int height, int width, int num_threads,
           const py::object& format, bool planar, int supersample, bool cache, int facets)
      : scene_(std::move(scene)),
        sink_(make_sink(height, width, format, planar, supersample)),
        pool_(std::make_unique<ThreadPool>(num_threads)) {
    require(num_threads > 0, "sizes must be positive");
    for (int i = 0; i < num_threads; ++i) {
      frames_.push_back(
          std::make_unique<Frame>(*scene_, sink_.drawn_height(), sink_.drawn_width()));
      scratch_.push_back(std::make_unique<SinkScratch>(sink_));
    }
    // Without a wish, pictures have facets where outlines are a large part of them.
    for (auto& frame : frames_) frame->facets = facets < 0 ? frame->facets : facets > 0;
    if (cache) cache_ = std::make_unique<BackgroundCache>(*scene_, *frames_[0], kernel_.draw);
    seconds_.resize(num_threads);
  }

  // In a forked child the workers are gone: waiting for them would never end, so they are left.
  ~Renderer() {
    if (getpid() != process_) pool_.release();
  }
  Renderer(const Renderer&) = delete;
  Renderer& operator=(const Renderer&) = delete;

  // With a stepper, each world is advanced by `num_substeps` shortly before it is drawn, on the
  // same core, and the arrays are read after that. Returns the share of the workers' time spent drawing.
  double render(py::array out, const py::array_t<double>& geom_xpos,
              const py::array_t<double>& geom_xmat, const py::array_t<double>& site_xpos,
              const py::array_t<double>& site_xmat, const py::array_t<double>& light_xpos,
              const py::array_t<double>& light_xdir, const py::array_t<double>& cam_pos,
              const py::array_t<double>& cam_mat, const std::array<double, 3>& cam_offset,
              const Stepper* stepper, int num_substeps) {
    require(out.ndim() == 4 && (out.flags() & py::array::c_style) && out.writeable() &&
                static_cast<size_t>(out.nbytes()) == sink_.bytes() * out.shape(0),
            "`out` must be a writeable C-contiguous array of N pictures.");
    const py::ssize_t n = out.shape(0);
    const Worlds worlds(*scene_, n, {geom_xpos, geom_xmat, site_xpos, site_xmat, light_xpos,
                                     light_xdir, cam_pos, cam_mat}, cam_offset);
    require(!stepper || stepper->num_workers() >= pool_->num_threads(), "too few workers");
    auto* const rgb = static_cast<uint8_t*>(out.mutable_data());
    py::gil_scoped_release release;
    std::lock_guard<std::mutex> turn(turn_);
    backgrounds_.assign(n, nullptr);
    std::fill(seconds_.begin(), seconds_.end(), Seconds());
    const Batch batch = {static_cast<int>(n), rgb, &worlds};
    if (!stepper && batch.count < pool_->num_threads()) {
      draw_bands(batch);
    } else {
      draw_worlds(batch, stepper, num_substeps);
    }
    if (cache_) cache_->begin_call();
    for (int i = 0; cache_ && i < n; ++i) {
      double eye[3];
      cache_->learn(worlds.at(i, eye), backgrounds_[i], frames_[0].get());
    }
    double step = 0, draw_time = 1e-9;
    for (const Seconds& s : seconds_) step += s.step, draw_time += s.draw;
    return draw_time / (step + draw_time);
  }

  // The depth along the camera's axis and the row of the scene's geoms that each pixel's centre
  // shows; beyond all geoms `background` and -1.
  void probe(py::array_t<float> depth, py::array_t<int32_t> geom, float background,
             const std::array<Worlds::Input, 8>& arrays, const std::array<double, 3>& cam_offset) {
    const int height = sink_.drawn_height(), width = sink_.drawn_width();
    for (const py::array& out : {py::array(depth), py::array(geom)}) {
      require(out.ndim() == 3 && out.shape(0) == depth.shape(0) && out.shape(1) == height &&
                  out.shape(2) == width && (out.flags() & py::array::c_style) && out.writeable(),
              "outputs must be writeable C-contiguous (N, H, W) arrays.");
    }
    const py::ssize_t n = depth.shape(0);
    const Worlds worlds(*scene_, n, arrays, cam_offset);
    float* const depths = depth.mutable_data();
    int32_t* const geoms = geom.mutable_data();
    const size_t pixels = static_cast<size_t>(height) * width;
    py::gil_scoped_release release;
    std::lock_guard<std::mutex> turn(turn_);
    run(static_cast<int>(n), [&](int worker, int i) {
      Frame* frame = frames_[worker].get();
      double eye[3];
      frame->probe = true;
      frame->background = nullptr;
      frame->row_begin = 0;
      frame->row_end = height;
      set_up(*scene_, worlds.at(i, eye), frame);
      kernel_.draw(*scene_, frame, nullptr);
      frame->probe = false;
      frame->copy_probe(background, depths + pixels * i, geoms + pixels * i);
    });
  }

  // (backgrounds held, worlds that found theirs ready) since the renderer was made.
  std::pair<size_t, uint64_t> cache_counts() const {
    if (!cache_) return {0, 0};
    return {cache_->num_backgrounds(), cache_->num_found()};
  }

 private:
  struct Batch {
    int count;
    uint8_t* pictures;
    const Worlds* worlds;
  };

  // Calls body(worker, i) on the pool; by reference, for a copy would be allocated.
  template <class F> void run(int count, F&& body) {
    try {
      pool_->run(count, std::ref(body));
    } catch (...) {
      for (auto& frame : frames_) frame->forget();
      throw;
    }
  }

  // Draws rows [begin, end) of a world into `picture`.
  void draw(int worker, const Batch& batch, int i, int begin, int end, uint8_t* picture) {
    double eye[3];
    const World w = batch.worlds->at(i, eye);
    Frame* frame = frames_[worker].get();
    set_up(*scene_, w, frame);
    const Background* background = cache_ ? cache_->find(w) : nullptr;
    if (begin == 0) backgrounds_[i] = background;
    frame->background = background;
    frame->row_begin = begin;
    frame->row_end = end;
    kernel_.draw(*scene_, frame, picture);
  }

  void draw_worlds(const Batch& batch, const Stepper* stepper, int num_substeps) {
    const int count = batch.count;
    // A few worlds in a row: alternating at every world costs 3 % of both (bench/test_render_outputs.py),
    // for stepping and drawing push each other's code and tables out of the cache.
    const int chunk = stepper ? std::clamp(count / (2 * pool_->num_threads()), 1, 4) : 1;
    run((count + chunk - 1) / chunk, [&](int worker, int k) {
      const int first = k * chunk, last = std::min(first + chunk, count);
      const double start = now();
      for (int i = first; stepper && i < last; ++i) stepper->step(worker, i, num_substeps);
      const double stepped = now();
      for (int i = first; i < last; ++i) {
        SinkScratch* scratch = scratch_[worker].get();
        uint8_t* const place = batch.pictures + sink_.bytes() * i;
        draw(worker, batch, i, 0, sink_.drawn_height(), sink_.direct() ? place : scratch->drawn.data());
        if (!sink_.direct()) convert(sink_, scratch, place);
      }
      seconds_[worker].step += stepped - start;
      seconds_[worker].draw += now() - stepped;
    });
  }

  // Fewer worlds than workers: each picture is split into bands of rows, two a worker for balance,
  // since each costs another placing of the world's geoms (bench/test_render.py).
  void draw_bands(const Batch& batch) {
    if (batch.count == 0) return;
    const int height = sink_.drawn_height(), threads = pool_->num_threads();
    const int wanted = (2 * threads + batch.count - 1) / batch.count;
    const int rows = std::max((height + wanted - 1) / wanted, std::min(height, kMinBand));
    const int bands = (height + rows - 1) / rows;
    // World i has the scratch picture of worker i to itself.
    auto picture = [&](int i) {
      return sink_.direct() ? batch.pictures + sink_.bytes() * i : scratch_[i]->drawn.data();
    };
    run(batch.count * bands, [&](int worker, int k) {
      const int i = k / bands, begin = k % bands * rows;
      draw(worker, batch, i, begin, std::min(begin + rows, height), picture(i));
    });
    if (sink_.direct()) return;
    run(batch.count, [&](int, int i) {
      convert(sink_, scratch_[i].get(), batch.pictures + sink_.bytes() * i);
    });
  }

  std::shared_ptr<Scene> scene_;
  Sink sink_;
  std::unique_ptr<ThreadPool> pool_;
  pid_t process_ = getpid();
  std::vector<std::unique_ptr<Frame>> frames_;
  std::vector<std::unique_ptr<SinkScratch>> scratch_;
  const Kernel& kernel_ = choose_kernel();
  std::mutex turn_;  // calls from several threads share all that follows
  std::unique_ptr<BackgroundCache> cache_;
  std::vector<const Background*> backgrounds_;  // per world of a call
  std::vector<Seconds> seconds_;
};

}  // namespace
}  // namespace vlmrm

PYBIND11_MODULE(_core, m) {
  m.doc() = "Native renderer of vlmrm_fast.";
  vlmrm::gl::bind(m);
  vlmrm::bind_dynamic(m);
  m.def("simd_level", [] { return vlmrm::choose_kernel().name; },
        "Instruction set that new renderers use. Raises ValueError if VLMRM_FAST_SIMD names none.");
  m.def("simd_levels", [] {
    py::list names;
    for (const vlmrm::Kernel& kernel : vlmrm::kernels()) names.append(kernel.name);
    return names;
  }, "Instruction sets that run here, the preferred one first.");
  py::class_<vlmrm::Scene, std::shared_ptr<vlmrm::Scene>>(m, "Scene")
      .def(py::init(&vlmrm::make_scene), py::arg("geom_ints"), py::arg("geom_floats"),
           py::arg("light_ints"), py::arg("light_floats"), py::arg("textures"),
           py::arg("meshes"),
           py::arg("options"));
  py::class_<vlmrm::Renderer>(m, "Renderer")
      .def(py::init<std::shared_ptr<vlmrm::Scene>, int, int, int, const py::object&, bool, int,
                    bool, int>(),
           py::arg("scene"), py::arg("height"), py::arg("width"), py::arg("num_threads"),
           py::arg("number_format") = py::none(), py::arg("planar") = false, py::arg("supersample") = 1,
           py::arg("cache") = true, py::arg("facets") = -1)
      .def("cache_counts", &vlmrm::Renderer::cache_counts)
      .def("probe", &vlmrm::Renderer::probe, py::arg("depth").noconvert(),
           py::arg("geom").noconvert(), py::arg("background"), py::arg("arrays"),
           py::arg("cam_offset"))
      .def("render", &vlmrm::Renderer::render, py::arg("out").noconvert(),
           py::arg("geom_xpos").noconvert(), py::arg("geom_xmat").noconvert(),
           py::arg("site_xpos").noconvert(), py::arg("site_xmat").noconvert(),
           py::arg("light_xpos").noconvert(), py::arg("light_xdir").noconvert(),
           py::arg("cam_pos").noconvert(), py::arg("cam_mat").noconvert(),
           py::arg("cam_offset") = std::array<double, 3>{}, py::arg("stepper") = nullptr,
           py::arg("num_substeps") = 0);
  vlmrm::bind_stepper(m);
}
