"""Rows to 8-bit floats with one scale a row, an activation first: two bytes in, one byte out.

Source: `reference.quantize`. In torch the same takes six passes and about 25 bytes a value, more
than the 8-bit product behind it saves.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from vlmrm_fast.kernels.reference import ACTIVATIONS, FP8_MAX


def quantize(x: torch.Tensor, activation: str = "none") -> tuple[torch.Tensor, torch.Tensor]:
    """Launch the kernel; arguments and result are those of `reference.quantize`."""
    width = x.shape[-1]
    rows = x.reshape(-1, width)
    rows = rows if rows.stride(1) == 1 or width == 1 else rows.contiguous()
    out = torch.empty(rows.shape, dtype=torch.float8_e4m3fn, device=x.device)
    scale = rows.new_empty(len(rows), 1, dtype=torch.float32)
    if out.numel() == 0:
        return out, scale
    block = triton.next_power_of_2(width)
    with torch.cuda.device_of(x):
        _quantize_kernel[(len(rows),)](
            rows, out, scale, rows.stride(0),
            WIDTH=width, BLOCK=block, ACTIVATION=activation, LIMIT=FP8_MAX,
            num_warps=max(1, min(16, block // 256)), enable_fp_fusion=True,
        )  # fmt: skip
    return out, scale


assert set(ACTIVATIONS) == {"none", "gelu", "gelu_tanh", "silu"}  # the branches below


@triton.jit
def _quantize_kernel(
    x,
    out,
    scales,
    stride,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    ACTIVATION: tl.constexpr,
    LIMIT: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    mask = columns < WIDTH
    values = tl.load(x + row * stride + columns, mask=mask, other=0.0).to(tl.float32)
    # All of them take 0 to 0: what is masked stays out of the maximum.
    if ACTIVATION == "gelu":
        values = 0.5 * values * (1.0 + tl.erf(values * 0.7071067811865476))
    elif ACTIVATION == "gelu_tanh":
        # (1 + tanh u) / 2 = sigmoid(2 u)
        inner = 1.5957691216057308 * (values + 0.044715 * values * values * values)
        values = values * (1.0 / (1.0 + tl.exp(-inner)))
    elif ACTIVATION == "silu":
        values = values * (1.0 / (1.0 + tl.exp(-values)))
    # As integers, magnitudes keep their order and NaN is the largest: it shows in row and scale.
    bits = tl.max(tl.abs(values).to(tl.int32, bitcast=True), 0)
    nan: tl.constexpr = tl.PropagateNan.ALL
    peak = tl.maximum(bits.to(tl.float32, bitcast=True), 1e-12, propagate_nan=nan)
    tl.store(scales + row, peak / LIMIT)
    # Without the clamp a value rounded up beyond the largest becomes NaN.
    values = tl.maximum(values * (LIMIT / peak), -LIMIT, propagate_nan=nan)
    values = tl.minimum(values, LIMIT, propagate_nan=nan)
    tl.store(out + row * WIDTH + columns, values.to(out.dtype.element_ty), mask=mask)
