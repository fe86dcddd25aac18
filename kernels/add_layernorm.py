"""Residual sum and layer normalisation in one pass: each value is read once and written once.

Source: `reference.add_layernorm`: float32 statistics of the rounded sum, two passes in registers.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

# Values a program holds: eight a thread, one 16-byte access of 16-bit values.
_VALUES = 1024


def add_layernorm(
    x: torch.Tensor,
    residual: torch.Tensor | None,
    weight: torch.Tensor,
    bias: torch.Tensor,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Launch the kernel; arguments and results are those of `reference.add_layernorm`."""
    width = x.shape[-1]
    rows = _as_rows(x)
    y = x.new_empty(x.shape, dtype=weight.dtype)
    total = x
    if residual is not None:
        dtype = torch.promote_types(x.dtype, residual.dtype)
        total = x.new_empty(x.shape, dtype=dtype)
    if y.numel() == 0:
        return total, y
    other = rows if residual is None else _as_rows(residual)
    block = triton.next_power_of_2(width)
    per_program = max(1, _VALUES // block)
    with torch.cuda.device_of(x):
        _add_layernorm_kernel[(triton.cdiv(len(rows), per_program),)](
            rows, other, weight.contiguous(), bias.contiguous(), total, y,
            len(rows), rows.stride(0), other.stride(0), eps,
            ADD=residual is not None, WIDTH=width, ROWS=per_program, BLOCK=block,
            # Eight values a thread; wider rows get more warps, not more registers.
            num_warps=max(4, min(16, block // 256)), enable_fp_fusion=True,
        )  # fmt: skip
    return total, y


def _as_rows(x: torch.Tensor) -> torch.Tensor:
    """Return (R, W) rows of dense values; a view wherever one row stride can say it."""
    rows = x.reshape(-1, x.shape[-1])
    return rows if rows.stride(1) == 1 or rows.shape[1] == 1 else rows.contiguous()


@triton.jit(do_not_specialize=["count"])
def _add_layernorm_kernel(
    x,
    residual,
    weight,
    bias,
    total,
    y,
    count,
    stride_x,
    stride_residual,
    eps,
    ADD: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, BLOCK)
    inside = columns < WIDTH
    mask = (rows < count)[:, None] & inside[None, :]
    rows = rows.to(tl.int64)[:, None]
    dense = rows * WIDTH + columns[None, :]

    values = tl.load(x + rows * stride_x + columns[None, :], mask=mask, other=0.0).to(tl.float32)
    if ADD:
        other = tl.load(residual + rows * stride_residual + columns[None, :], mask=mask, other=0.0)
        rounded = (values + other.to(tl.float32)).to(total.dtype.element_ty)
        tl.store(total + dense, rounded, mask=mask)
        values = rounded.to(tl.float32)

    mean = tl.sum(values, 1)[:, None] / WIDTH
    centred = tl.where(mask, values - mean, 0.0)
    variance = tl.sum(centred * centred, 1)[:, None] / WIDTH
    scaled = centred * (1.0 / tl.sqrt(variance + eps))
    factor = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    values = scaled * factor[None, :] + shift[None, :]
    tl.store(y + dense, values.to(y.dtype.element_ty), mask=mask)
