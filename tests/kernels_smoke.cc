// Draws one small scene without Python: `kernels_smoke LEVEL` writes a PPM, `kernels_smoke LEVEL FILE`
// compares with one that another build wrote. `make neon-check` runs it for an emulated aarch64.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include "ray/draw.h"

namespace {

constexpr int kHeight = 97, kWidth = 123;

vlmrm::Texture checker() {
  constexpr int kSize = 8;
  vlmrm::Texture texture;
  texture.num_levels = 2;
  texture.level[0] = {kSize, kSize, kSize + 2, 0, 0};
  const int32_t end = (kSize + 2) * (kSize + 2);
  texture.level[1] = {1, 1, 3, 0, end};
  std::vector<uint32_t> texels(end + 9, 0x606060);
  for (int i = 0; i < end; ++i) {
    texels[i] = (i % (kSize + 2) / 4 + i / (kSize + 2) / 4) % 2 ? 0x2040c0 : 0xc0a020;
  }
  vlmrm::pack_columns(texels.data(), texels.size(), &texture);
  return texture;
}

vlmrm::Geom geom(int type, float a, float b, float c) {
  vlmrm::Geom g = {};
  g.type = type, g.texture = type == vlmrm::kPlane ? 0 : -1, g.casts = 1, g.mesh = -1;
  g.size[0] = a, g.size[1] = b, g.size[2] = c;
  g.rgba[0] = 0.9f, g.rgba[1] = 0.6f, g.rgba[2] = 0.4f, g.rgba[3] = 1;
  g.specular = g.shininess = 0.5f;
  g.reflectance = type == vlmrm::kPlane ? 0.3f : 0.0f;
  g.repeat[0] = g.repeat[1] = 6;
  g.set_dim_below();
  return g;
}

vlmrm::Light light(int index, bool shadow) {
  vlmrm::Light l = {};
  l.index = index, l.type = vlmrm::kDirectional, l.shadow = shadow;
  for (int k = 0; k < 3; ++k) l.ambient[k] = 0.1f, l.diffuse[k] = 0.4f, l.specular[k] = 0.5f;
  l.attenuation[0] = 1;
  return l;
}

std::vector<uint8_t> draw(const std::string& level) {
  auto assets = std::make_shared<vlmrm::Assets>();
  assets->textures.push_back(checker());
  vlmrm::Scene scene;
  scene.assets = assets, scene.textures = assets->textures.data();
  const int types[] = {vlmrm::kPlane,    vlmrm::kSphere, vlmrm::kCapsule,
                       vlmrm::kCylinder, vlmrm::kBox,    vlmrm::kEllipsoid};
  for (int type : types) scene.geoms.push_back(geom(type, 0.3f, 0.3f, 0.3f));
  scene.geoms[0].size[0] = scene.geoms[0].size[1] = 4;
  scene.geoms[5].size[1] = 0.15f;
  for (size_t i = 0; i < scene.geoms.size(); ++i) scene.geoms[i].index = static_cast<int>(i);
  scene.lights = {light(-1, false), light(0, true)};
  scene.num_model_geoms = 6, scene.num_model_lights = 1;
  scene.reflective = 0;
  scene.half_height = 0.4f, scene.znear = 0.02f, scene.zfar = 50, scene.shadow_clip = 3;

  const double s = std::sqrt(0.5);
  double pos[18] = {0, 0, 0, -1, 0, .3, -.4, .5, .5, .3, -.3, .5, .9, .2, .5, .1, .4, 1.2};
  double mat[54], tilted[9] = {1, 0, 0, 0, s, -s, 0, s, s};
  for (int i = 0; i < 54; ++i) mat[i] = i < 18 ? (i % 9 % 4 == 0) : tilted[i % 9];
  const double light_pos[3] = {0, 0, 3}, light_dir[3] = {.3, .2, -1};
  // From (0, -3, 2), down by 30 degrees: x right, y up, z backward as columns.
  const double c = std::sqrt(0.75), eye[3] = {0, -3, 2}, cam[9] = {1, 0, 0, 0, .5, -c, 0, c, .5};
  const vlmrm::World world = {pos, mat, nullptr, nullptr, light_pos, light_dir, eye, cam};
  for (const vlmrm::Kernel& kernel : vlmrm::kernels()) {
    if (level != kernel.name) continue;
    vlmrm::Frame frame(scene, kHeight, kWidth);
    std::vector<uint8_t> rgb(3 * kHeight * kWidth);
    vlmrm::set_up(scene, world, &frame);
    kernel.draw(scene, &frame, rgb.data());
    return rgb;
  }
  std::fprintf(stderr, "%s does not run here\n", level.c_str());
  std::exit(2);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  const std::vector<uint8_t> rgb = draw(argv[1]);
  const std::string header = "P6 123 97 255\n";
  if (argc == 2) {
    std::fwrite(header.data(), 1, header.size(), stdout);
    std::fwrite(rgb.data(), 1, rgb.size(), stdout);
    return 0;
  }
  std::ifstream file(argv[2], std::ios::binary);
  const std::string other((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (other.size() != header.size() + rgb.size()) return 2;
  int far = 0, spread = 0;
  double sum = 0;
  for (size_t i = 0; i < rgb.size(); ++i) {
    const int off = std::abs(rgb[i] - static_cast<uint8_t>(other[header.size() + i]));
    sum += off, far += off > 2;
    spread |= rgb[i] ^ rgb[0];
  }
  std::printf("%s: mean difference %.4f, %d bytes of %zu off by more than 2\n", argv[1],
              sum / rgb.size(), far, rgb.size());
  return spread && far < 0.002 * rgb.size() && sum < 0.05 * rgb.size() ? 0 : 1;
}
