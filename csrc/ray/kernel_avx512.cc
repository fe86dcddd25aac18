// The kernels again, for AVX-512 (F, BW, DQ, VL); CMake gives only this file those flags.
#define VLMRM_ISA avx512
#include "ray/kernel.cc"
