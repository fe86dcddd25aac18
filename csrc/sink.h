// What becomes of a picture on its way out: size, layout and number format.
//
// A world is drawn into a scratch picture of its worker and converted on the same core, while the
// picture is still in that core's cache. Immutable once made, shared by all workers.
#ifndef VLMRM_SINK_H_
#define VLMRM_SINK_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace vlmrm {

// The type of the numbers that go out.
enum class Number : int32_t { kByte, kFloat32, kFloat16, kBfloat16 };

struct Sink {
  int32_t height = 0, width = 0;  // of the picture that goes out [pixels]
  int32_t supersample = 1;        // the drawn picture is this many times as high and wide
  bool planar = false;            // channels first
  Number number = Number::kByte;
  // Bits of the number that each byte of each channel becomes, 256 a channel, in the one of the
  // number's size. They give the same bits on every machine.
  std::vector<uint32_t> words;
  std::vector<uint16_t> halves;
  float mean[3] = {0, 0, 0}, std[3] = {1, 1, 1};  // what the tables were computed with
  bool vectors = false;                            // see use_vectors

  int32_t drawn_height() const { return height * supersample; }
  int32_t drawn_width() const { return width * supersample; }
  size_t item() const {  // [bytes]
    return number == Number::kByte ? 1 : number == Number::kFloat32 ? 4 : 2;
  }
  size_t bytes() const { return item() * 3 * height * width; }
  // Computes with vectors instead of tables from now on, if this processor has the instructions
  // and every byte gives the table's bits (a third of the time; bench/test_render_outputs.py).
  void use_vectors();
  // Whether a world can be drawn right where it goes.
  bool direct() const { return supersample == 1 && !planar && item() == 1; }
};

// Scratch memory of one worker.
struct SinkScratch {
  explicit SinkScratch(const Sink& sink);

  std::vector<uint8_t> drawn;  // the picture as it is drawn; empty where `direct`
  std::vector<uint8_t> small;  // averaged down
  std::vector<uint16_t> sums;  // of the rows that make up one row of `small`
};

// Converts scratch->drawn into `out`, of sink.bytes() bytes.
void convert(const Sink& sink, SinkScratch* scratch, void* out);

}  // namespace vlmrm

#endif  // VLMRM_SINK_H_
