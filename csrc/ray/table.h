// Arrays that packets are loaded from: they start where cache lines do.
#ifndef VLMRM_RAY_TABLE_H_
#define VLMRM_RAY_TABLE_H_

#include <cstddef>
#include <new>
#include <vector>

namespace vlmrm {

constexpr size_t kLineBytes = 64;

template <class T>
struct LineAllocator {
  using value_type = T;
  LineAllocator() = default;
  template <class U>
  LineAllocator(const LineAllocator<U>&) {}
  T* allocate(size_t count) {
    return static_cast<T*>(::operator new(count * sizeof(T), std::align_val_t(kLineBytes)));
  }
  void deallocate(T* p, size_t) { ::operator delete(p, std::align_val_t(kLineBytes)); }
  template <class U>
  bool operator==(const LineAllocator<U>&) const { return true; }
  template <class U>
  bool operator!=(const LineAllocator<U>&) const { return false; }
};

// Large blocks from malloc start 16 bytes into a page: every load of 64 bytes would touch two lines.
template <class T>
using Table = std::vector<T, LineAllocator<T>>;

}  // namespace vlmrm

#endif  // VLMRM_RAY_TABLE_H_
