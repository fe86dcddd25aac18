// Where N worlds come from: mjData as they are, or arrays that are copied into one mjData a worker.
#ifndef VLMRM_SOURCES_H_
#define VLMRM_SOURCES_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace vlmrm {

struct Field {
  const char* rows;  // world 0's; the next world's follows at once
  size_t bytes;      // of a row
};

struct Sources {
  int count = 0;
  std::vector<void*> data;                 // mjData of each world, or empty
  std::vector<Field> fields;               // else: the fields,
  std::vector<void*> scratch;              // each worker's mjData
  std::vector<std::vector<char*>> places;  // and, by worker and field, where a row goes in it

  // mjData of a world, for a worker.
  void* get(int worker, int world) const {
    if (!data.empty()) return data[world];
    for (size_t f = 0; f < fields.size(); ++f) {
      std::memcpy(places[worker][f], fields[f].rows + fields[f].bytes * world, fields[f].bytes);
    }
    return scratch[worker];
  }
};

}  // namespace vlmrm

#endif  // VLMRM_SOURCES_H_
