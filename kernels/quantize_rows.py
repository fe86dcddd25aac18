"""Rows to 8-bit floats in one pass: each value is read once, each byte written once.

Source: `reference.quantize_rows`: an activation in float32, the row's largest magnitude, the cast.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_MOST = tl.constexpr(448.0)  # the largest float8_e4m3fn
# Where every value is 0 the scale is that of this magnitude: no division by 0.
_LEAST = tl.constexpr(1e-12)


def quantize_rows(x: torch.Tensor, activation: str = "none") -> tuple[torch.Tensor, torch.Tensor]:
    """Launch the kernel; arguments and results are those of `reference.quantize_rows`."""
    width = x.shape[-1]
    rows = x.reshape(-1, width)
    if rows.stride(1) != 1 and width > 1:
        rows = rows.contiguous()
    whole = x.new_empty(rows.shape, dtype=torch.float8_e4m3fn)
    scale = x.new_empty(len(rows), 1, dtype=torch.float32)
    if whole.numel() == 0:
        return whole, scale
    block = triton.next_power_of_2(width)
    with torch.cuda.device_of(x):
        _quantize_rows_kernel[(len(rows),)](
            rows, whole, scale, rows.stride(0),
            ACTIVATION=activation, WIDTH=width, BLOCK=block,
            # Eight values a thread up to 4096 of them, then more values.
            num_warps=max(1, min(16, block // 256)), enable_fp_fusion=True,
        )  # fmt: skip
    return whole, scale


@triton.jit
def _quantize_rows_kernel(
    x,
    whole,
    scale,
    stride_x,
    ACTIVATION: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < WIDTH
    values = tl.load(x + row * stride_x + columns, mask=inside, other=0.0).to(tl.float32)
    if ACTIVATION == "gelu":
        values = 0.5 * values * (1.0 + tl.erf(values * 0.7071067811865476))
    elif ACTIVATION == "gelu_tanh":
        # 0.5 x (1 + tanh u) = x sigmoid(2 u)
        inner = 1.5957691216057308 * (values + 0.044715 * values * values * values)
        values = values * tl.sigmoid(inner)
    elif ACTIVATION == "silu":
        values = values * tl.sigmoid(values)
    peak = tl.maximum(tl.max(tl.abs(values), 0), _LEAST)
    tl.store(scale + row, peak / _MOST)
    # The clamp: a value that is rounded up beyond the largest would be NaN.
    scaled = tl.minimum(tl.maximum(values * (_MOST / peak), -_MOST), _MOST)
    tl.store(whole + row * WIDTH + columns, scaled.to(whole.dtype.element_ty), mask=inside)
