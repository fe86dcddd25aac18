#include "ray/scene.h"

namespace vlmrm {
namespace {

// Byte k of the column of `upper` over `lower`, minus 128: channel k / 2 of one of them.
uint64_t column(uint32_t upper, uint32_t lower) {
  uint64_t bytes = 0;
  for (int k = 0; k < 3; ++k) {
    bytes |= static_cast<uint64_t>((upper >> 8 * k & 255) | (lower >> 8 * k & 255) << 8) << 16 * k;
  }
  return bytes ^ 0x808080808080u;
}

}  // namespace

void pack_columns(const uint32_t* texels, size_t count, Texture* texture) {
  texture->columns.assign(count, 0);
  texture->table = {};
  const int faces = texture->cube ? 6 : 1;
  for (int i = 0; i < texture->num_levels; ++i) {
    const TextureLevel& l = texture->level[i];
    LevelTable& table = texture->table;
    table.width[i] = l.width, table.height[i] = l.height, table.stride[i] = l.stride;
    table.face_stride[i] = l.face_stride, table.offset[i] = l.offset;
    for (int face = 0; face < faces; ++face) {
      // The bottom border is only ever a lower texel.
      const size_t first = l.offset + static_cast<size_t>(face) * l.face_stride;
      const size_t length = static_cast<size_t>(l.stride) * (l.height + 1);
      for (size_t at = first; at < first + length; ++at) {
        texture->columns[at] = column(texels[at], texels[at + l.stride]);
      }
    }
  }
}

}  // namespace vlmrm
