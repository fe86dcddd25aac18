// The kernels again, for SSE4.2; CMake gives only this file those flags.
#define VLMRM_ISA sse4
#include "ray/kernel.cc"
