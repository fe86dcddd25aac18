"""P rewards of each embedding in one pass over the embeddings.

Source: `reference.score`, whose formula this computes in float32 whatever the embeddings' dtype.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from vlmrm_fast.kernels import reference
from vlmrm_fast.kernels.reference import Tasks

# From this many rewards on, the matrix units take over: they share the loads of constants among
# rows. Their tiles are of 16 and more.
_MATRIX_FROM = 4
# Batches up to this are cut into more programs, so that each multiprocessor has one.
_SMALL_BATCH = 1024


def score(z: torch.Tensor, tasks: Tasks) -> torch.Tensor:
    """Launch the kernel; arguments and result are those of `reference.score`."""
    if tasks.goal.dtype != torch.float32:
        return reference.score(z, tasks)  # the kernel is float32
    tasks = Tasks(*(part.contiguous() for part in tasks))
    batch, width = z.shape
    prompts = len(tasks.goal)
    out = z.new_empty(batch, prompts, dtype=torch.float32)
    if out.numel() == 0:
        return out
    sizes = {"WIDTH": width, "PROMPTS": prompts}
    with torch.cuda.device_of(z):
        if prompts < _MATRIX_FROM:
            block_p = triton.next_power_of_2(prompts)
            # About 4,096 products a program: 32 a thread, few enough for registers.
            block_d = min(1024, triton.next_power_of_2(width))
            rows = max(1, min(16, 4096 // (block_p * block_d)))
            _score_few_kernel[(triton.cdiv(batch, rows),)](
                z, *tasks, out, batch, *z.stride(),
                **sizes, ROWS=rows, BLOCK_P=block_p, BLOCK_D=block_d,
                num_warps=4, enable_fp_fusion=True,
            )  # fmt: skip
        else:
            rows, block_d = (16, 64) if batch <= _SMALL_BATCH else (64, 32)
            block_p = 16 if prompts <= 16 else 32
            grid = (triton.cdiv(batch, rows), triton.cdiv(prompts, block_p))
            _score_many_kernel[grid](
                z, *tasks, out, batch, *z.stride(),
                **sizes, ROWS=rows, BLOCK_P=block_p, BLOCK_D=block_d,
                num_warps=2 if rows == block_p else 4, num_stages=3,
                enable_fp_fusion=True,
            )  # fmt: skip
    return out


@triton.jit
def _store_rewards(
    out, rows, prompts, row_mask, squares, towards, along, offset, weight, shift,
    PROMPTS: tl.constexpr,
):  # fmt: skip
    # reward = offset + x . g' + weight (x . u - shift)^2 with x = z / |z|.
    # Rows beyond the batch have no length: 1 keeps them finite.
    inverse = (1.0 / tl.sqrt(tl.where(row_mask, squares, 1.0)))[:, None]
    known = prompts < PROMPTS
    gap = along * inverse - tl.load(shift + prompts, mask=known, other=0.0)[None, :]
    rewards = towards * inverse + tl.load(offset + prompts, mask=known, other=0.0)[None, :]
    rewards += tl.load(weight + prompts, mask=known, other=0.0)[None, :] * gap * gap
    target = out + rows.to(tl.int64)[:, None] * PROMPTS + prompts[None, :]
    tl.store(target, rewards, mask=row_mask[:, None] & known[None, :])


@triton.jit(do_not_specialize=["batch"])
def _score_few_kernel(
    z,
    goal,
    line,
    offset,
    weight,
    shift,
    out,
    batch,
    stride_b,
    stride_d,
    WIDTH: tl.constexpr,
    PROMPTS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    prompts = tl.arange(0, BLOCK_P)
    row_mask = rows < batch
    known = prompts < PROMPTS

    # Products stay apart by column until the end: one reduction a program, not one a step.
    squares = tl.zeros((ROWS, BLOCK_D), tl.float32)
    towards = tl.zeros((ROWS, BLOCK_P, BLOCK_D), tl.float32)
    along = tl.zeros((ROWS, BLOCK_P, BLOCK_D), tl.float32)
    for start in range(0, WIDTH, BLOCK_D):
        columns = start + tl.arange(0, BLOCK_D)
        inside = columns < WIDTH
        offsets = rows.to(tl.int64)[:, None] * stride_b + columns[None, :] * stride_d
        values = tl.load(z + offsets, mask=row_mask[:, None] & inside[None, :], other=0.0)
        values = values.to(tl.float32)
        constants = prompts[:, None] * WIDTH + columns[None, :]
        mask = known[:, None] & inside[None, :]
        squares += values * values
        towards += values[:, None, :] * tl.load(goal + constants, mask=mask, other=0.0)[None, :, :]
        along += values[:, None, :] * tl.load(line + constants, mask=mask, other=0.0)[None, :, :]
    _store_rewards(
        out, rows, prompts, row_mask, tl.sum(squares, 1), tl.sum(towards, 2), tl.sum(along, 2),
        offset, weight, shift, PROMPTS,
    )  # fmt: skip


@triton.jit(do_not_specialize=["batch"])
def _score_many_kernel(
    z,
    goal,
    line,
    offset,
    weight,
    shift,
    out,
    batch,
    stride_b,
    stride_d,
    WIDTH: tl.constexpr,
    PROMPTS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    prompts = tl.program_id(1) * BLOCK_P + tl.arange(0, BLOCK_P)
    row_mask = rows < batch
    known = prompts < PROMPTS
    squares = tl.zeros((ROWS,), tl.float32)
    towards = tl.zeros((ROWS, BLOCK_P), tl.float32)
    along = tl.zeros((ROWS, BLOCK_P), tl.float32)
    for start in range(0, WIDTH, BLOCK_D):
        columns = start + tl.arange(0, BLOCK_D)
        inside = columns < WIDTH
        offsets = rows.to(tl.int64)[:, None] * stride_b + columns[None, :] * stride_d
        values = tl.load(z + offsets, mask=row_mask[:, None] & inside[None, :], other=0.0)
        values = values.to(tl.float32)
        constants = columns[:, None] + prompts[None, :] * WIDTH
        mask = inside[:, None] & known[None, :]
        squares += tl.sum(values * values, 1)
        # Three tf32 products carry 21 bits: rewards stay within 1e-6 of float32.
        towards = tl.dot(
            values, tl.load(goal + constants, mask=mask, other=0.0), towards,
            input_precision="tf32x3",
        )  # fmt: skip
        along = tl.dot(
            values, tl.load(line + constants, mask=mask, other=0.0), along,
            input_precision="tf32x3",
        )  # fmt: skip
    _store_rewards(
        out, rows, prompts, row_mask, squares, towards, along, offset, weight, shift, PROMPTS
    )
