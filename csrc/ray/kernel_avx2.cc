// The kernels again, for AVX2 + FMA; CMake gives only this file those flags.
#define VLMRM_ISA avx2
#include "ray/kernel.cc"
