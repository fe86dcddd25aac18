#include "sink.h"

#include <cstring>

#include "sink_avx2.h"

namespace vlmrm {
namespace {

// Each pixel becomes the mean of its k x k block, rounded to nearest.
void average(const Sink& sink, SinkScratch* s) {
  const int k = sink.supersample;
  const size_t row = static_cast<size_t>(3) * sink.drawn_width();
  const uint32_t count = static_cast<uint32_t>(k) * k;
  uint8_t* out = s->small.data();
  for (int y = 0; y < sink.height; ++y) {
    const uint8_t* in = s->drawn.data() + row * k * y;
    uint16_t* sums = s->sums.data();
    for (size_t i = 0; i < row; ++i) sums[i] = in[i];
    for (int r = 1; r < k; ++r) {
      for (size_t i = 0; i < row; ++i) sums[i] = static_cast<uint16_t>(sums[i] + in[row * r + i]);
    }
    for (int x = 0; x < sink.width; ++x, sums += 3 * k) {
      for (int c = 0; c < 3; ++c) {
        uint32_t sum = count / 2;
        for (int j = 0; j < k; ++j) sum += sums[3 * j + c];
        *out++ = static_cast<uint8_t>(sum / count);
      }
    }
  }
}

template <class T>
void interleaved(const uint8_t* in, size_t pixels, const T* table, T* out) {
  for (size_t i = 0; i < pixels; ++i) {
    for (int c = 0; c < 3; ++c) out[3 * i + c] = table[256 * c + in[3 * i + c]];
  }
}

// Does what it can with vectors; returns the number of pixels done.
size_t planar_vectors(const Sink& sink, const uint8_t* in, size_t pixels, void* out) {
#if defined(VLMRM_SINK_AVX2)
  sink_avx2::Norm norm[3];
  for (int c = 0; c < 3; ++c) norm[c] = {sink.mean[c], sink.std[c], 1 / sink.std[c]};
  switch (sink.number) {
    case Number::kByte: return sink_avx2::planar_bytes(in, pixels, static_cast<uint8_t*>(out));
    case Number::kFloat32: return sink_avx2::planar(in, pixels, norm, static_cast<float*>(out));
    case Number::kFloat16:
      return sink_avx2::planar(in, pixels, norm, static_cast<sink_avx2::Half*>(out));
    case Number::kBfloat16:
      return sink_avx2::planar(in, pixels, norm, static_cast<sink_avx2::Brain*>(out));
  }
#else
  (void)sink, (void)in, (void)pixels, (void)out;
#endif
  return 0;
}

template <class T>
void planar(const uint8_t* in, size_t begin, size_t pixels, const T* table, T* out) {
  T* red = out;
  T* green = out + pixels;
  T* blue = out + 2 * pixels;
  for (size_t i = begin; i < pixels; ++i) {
    red[i] = table[in[3 * i]];
    green[i] = table[256 + in[3 * i + 1]];
    blue[i] = table[512 + in[3 * i + 2]];
  }
}

void planar_bytes(const uint8_t* in, size_t begin, size_t pixels, uint8_t* out) {
  for (size_t i = begin; i < pixels; ++i) {
    for (int c = 0; c < 3; ++c) out[c * pixels + i] = in[3 * i + c];
  }
}

template <class T>
void numbers(const Sink& sink, const uint8_t* in, size_t begin, size_t pixels, const T* table,
             void* out) {
  if (sink.planar) {
    planar(in, begin, pixels, table, static_cast<T*>(out));
  } else {
    interleaved(in, pixels, table, static_cast<T*>(out));
  }
}

void convert_pixels(const Sink& sink, const uint8_t* in, size_t pixels, void* out) {
  const bool vectors = sink.vectors && sink.planar;
  const size_t begin = vectors ? planar_vectors(sink, in, pixels, out) : 0;
  if (sink.number == Number::kFloat32) {
    numbers(sink, in, begin, pixels, sink.words.data(), out);
  } else if (sink.number != Number::kByte) {
    numbers(sink, in, begin, pixels, sink.halves.data(), out);
  } else if (sink.planar) {
    planar_bytes(in, begin, pixels, static_cast<uint8_t*>(out));
  } else {
    std::memcpy(out, in, 3 * pixels);
  }
}

}  // namespace

SinkScratch::SinkScratch(const Sink& sink) {
  if (sink.direct()) return;
  drawn.resize(static_cast<size_t>(3) * sink.drawn_height() * sink.drawn_width());
  if (sink.supersample == 1) return;
  small.resize(static_cast<size_t>(3) * sink.height * sink.width);
  sums.resize(static_cast<size_t>(3) * sink.drawn_width());
}

void convert(const Sink& sink, SinkScratch* scratch, void* out) {
  if (sink.supersample > 1) average(sink, scratch);
  const uint8_t* in = sink.supersample > 1 ? scratch->small.data() : scratch->drawn.data();
  convert_pixels(sink, in, static_cast<size_t>(sink.height) * sink.width, out);
}

void Sink::use_vectors() {
#if defined(VLMRM_SINK_AVX2)
  if (!planar || !sink_avx2::supported()) return;
  uint8_t every[3 * 256];
  for (int i = 0; i < 3 * 256; ++i) every[i] = static_cast<uint8_t>(i / 3);
  uint32_t slow[3 * 256], fast[3 * 256];
  convert_pixels(*this, every, 256, slow);
  vectors = true;
  convert_pixels(*this, every, 256, fast);
  vectors = std::memcmp(slow, fast, item() * 3 * 256) == 0;
#endif
}

}  // namespace vlmrm
