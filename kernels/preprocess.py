"""Frames to pixels or patch tokens in one kernel: each byte is read once, each output written once.

Source: `reference.preprocess`. Resizing runs on the matrix units: a band of the weights times a
window of the frame, rows first as PIL does. Bytes are exact in float16 and the weights are split
into two float16 parts, so the products carry 22 bits: as good as float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from vlmrm_fast.kernels.reference import Preprocessing
from vlmrm_fast.kernels.resampling import bands


@dataclass(frozen=True)
class Tile:
    """Shape of one program's work.

    Attributes:
        rows, columns: output pixels of a program.
        row_step, column_step: input pixels taken at once, powers of two from 16.
        num_warps: warps of a program.
        max_registers: of a thread; None leaves them to the compiler. On sm_90 it takes 168, and
            12 warps fit a multiprocessor; 128 would let 16 fit but spills a little.
    """

    rows: int = 32
    columns: int = 16
    row_step: int = 16
    column_step: int = 64
    num_warps: int = 1
    max_registers: int | None = None


# A window of 16 columns is 43 pixels wide for 480 -> 224, antialiased: one step.
TILE = Tile()
_BLOCK = 2048


def preprocess(
    frames: torch.Tensor,
    how: Preprocessing,
    dtype: torch.dtype = torch.float32,
    *,
    layout: str = "nchw",
    patch: int = 0,
    raw: bool = False,
    tile: Tile = TILE,
) -> torch.Tensor:
    """Launch the kernel; arguments and result are those of `reference.preprocess`."""
    patch = patch if layout == "tokens" else 0
    out = _empty(frames, how.size, dtype, patch)
    if out.numel() == 0:
        return out
    scale = [1 / 256] * 3 if raw else [1 / (255 * std) for std in how.std]
    shift = [0.0] * 3 if raw else [mean / std for mean, std in zip(how.mean, how.std, strict=True)]
    with torch.cuda.device_of(frames):
        if frames.shape[1:3] == (how.size, how.size):
            _permute(frames, out, scale, shift, patch)
        else:
            _resize(frames, out, scale, shift, patch, how, tile)
    return out


def _empty(frames: torch.Tensor, size: int, dtype: torch.dtype, patch: int) -> torch.Tensor:
    """Return the output of (B, H, W, 3) frames, not yet written."""
    batch = frames.shape[0]
    if patch:
        return frames.new_empty(batch, (size // patch) ** 2, 3 * patch**2, dtype=dtype)
    return frames.new_empty(batch, size, size, 3, dtype=dtype).permute(0, 3, 1, 2)


def _permute(
    frames: torch.Tensor, out: torch.Tensor, scale: list[float], shift: list[float], patch: int
) -> None:
    """Write frames of the model's size."""
    count = out[0].numel()
    blocks = triton.cdiv(count, _BLOCK)
    _permute_kernel[(len(frames) * blocks,)](
        frames,
        out,
        *frames.stride(),
        *scale,
        *shift,
        SIZE=frames.shape[1],
        PATCH=patch,
        COUNT=count,
        # Then input and output are the same bytes in the same order.
        DENSE=patch == 0 and frames[0].is_contiguous(),
        BLOCK=_BLOCK,
        num_warps=4,
        enable_fp_fusion=True,
    )


def _resize(
    frames: torch.Tensor, out: torch.Tensor, scale: list[float], shift: list[float], patch: int,
    how: Preprocessing, tile: Tile,
) -> None:  # fmt: skip
    """Write frames of any other size."""
    batch, height, width, _ = frames.shape
    steps = tile.row_step, tile.column_step
    y, x = bands(height, width, how, (tile.rows, tile.columns), steps, frames.device)
    _resize_kernel[(batch * len(y.start) * len(x.start),)](
        frames,
        out,
        *frames.stride(),
        height,
        width,
        y.start,
        y.high,
        y.low,
        x.start,
        x.high,
        x.low,
        *scale,
        *shift,
        float(how.fill),
        y.first,
        y.last,
        x.first,
        x.last,
        SIZE=how.size,
        PATCH=patch,
        QUANTIZE=how.antialias,
        WORDS=_has_words(frames),
        BAND_Y=y.width,
        BAND_X=x.width,
        TAPS_Y=y.high.shape[1],
        TAPS_X=x.high.shape[1],
        ROWS=tile.rows,
        COLUMNS=tile.columns,
        STEP_Y=tile.row_step,
        STEP_X=tile.column_step,
        num_warps=tile.num_warps,
        num_stages=1,
        maxnreg=tile.max_registers,
        enable_fp_fusion=True,
    )


def _has_words(frames: torch.Tensor) -> bool:
    """Tell whether four neighbouring pixels are three aligned 32-bit words everywhere."""
    steps = (frames.data_ptr(), *frames.stride()[:2], frames.shape[2])
    return frames.stride()[2:] == (3, 1) and all(step % 4 == 0 for step in steps)


@triton.jit
def _permute_kernel(
    frames,
    out,
    stride_b,
    stride_h,
    stride_w,
    stride_c,
    scale_r,
    scale_g,
    scale_b,
    shift_r,
    shift_g,
    shift_b,
    SIZE: tl.constexpr,
    PATCH: tl.constexpr,
    COUNT: tl.constexpr,
    DENSE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # One program writes BLOCK consecutive values of one frame's output.
    blocks: tl.constexpr = (COUNT + BLOCK - 1) // BLOCK
    frame = (tl.program_id(0) // blocks).to(tl.int64)
    index = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    mask = index < COUNT

    # Where in the frame each value comes from.
    if PATCH > 0:
        grid: tl.constexpr = SIZE // PATCH
        token, column = index // (3 * PATCH * PATCH), index % (3 * PATCH * PATCH)
        channel, inner = column // (PATCH * PATCH), column % (PATCH * PATCH)
        y = (token // grid) * PATCH + inner // PATCH
        x = (token % grid) * PATCH + inner % PATCH
    else:
        y, x, channel = index // (3 * SIZE), (index // 3) % SIZE, index % 3
    offset = index if DENSE else y * stride_h + x * stride_w + channel * stride_c

    pixels = tl.load(frames + frame * stride_b + offset, mask=mask, other=0).to(tl.float32)
    scale = tl.where(channel == 0, scale_r, tl.where(channel == 1, scale_g, scale_b))
    shift = tl.where(channel == 0, shift_r, tl.where(channel == 1, shift_g, shift_b))
    values = (pixels * scale - shift).to(out.dtype.element_ty)
    tl.store(out + frame * COUNT + index, values, mask=mask)


@triton.jit
def _to_byte(values):
    # Adding 1.5 * 2^23 leaves no bits for a fraction: rounds to nearest, ties to even.
    values = (values + 12582912.0) - 12582912.0
    return tl.minimum(tl.maximum(values, 0.0), 255.0)


@triton.jit
def _byte(first, second, third, INDEX: tl.constexpr):
    # Byte INDEX of twelve: four pixels in three words.
    word = first if INDEX < 4 else (second if INDEX < 8 else third)
    return ((word >> (8 * (INDEX % 4))) & 255).to(tl.uint8)


@triton.jit
def _squeeze(wide, pixels, high, low):
    pixels = tl.trans(pixels.to(tl.float16))
    return tl.dot(low, pixels, tl.dot(high, pixels, wide))


@triton.jit
def _add_rows(total, wide, high, low, QUANTIZE: tl.constexpr):
    # PIL stores 8 bits between its passes: exact in float16. Other values go in two parts.
    if QUANTIZE:
        wide = _to_byte(wide)
    rounded = wide.to(tl.float16)
    total = tl.dot(rounded, low, tl.dot(rounded, high, total))
    if not QUANTIZE:
        total = tl.dot((wide - rounded.to(tl.float32)).to(tl.float16), high, total)
    return total


@triton.jit
def _store_channel(
    out, total, scale, shift, fill, inside, mask, offsets, QUANTIZE: tl.constexpr
):  # fmt: skip
    values = tl.trans(_to_byte(total) if QUANTIZE else total)
    values = tl.where(inside, values, fill) * scale - shift
    tl.store(out + offsets, values.to(out.dtype.element_ty), mask=mask)


# Integers that do not bear on how memory is accessed: no variant for each.
_PLAIN = ["height", "width", "y_first", "y_last", "x_first", "x_last"]


@triton.jit(do_not_specialize=_PLAIN)
def _resize_kernel(
    frames,
    out,
    stride_b,
    stride_h,
    stride_w,
    stride_c,
    height,
    width,
    y_start,
    y_high,
    y_low,
    x_start,
    x_high,
    x_low,
    scale_r,
    scale_g,
    scale_b,
    shift_r,
    shift_g,
    shift_b,
    fill,
    y_first,
    y_last,
    x_first,
    x_last,
    SIZE: tl.constexpr,
    PATCH: tl.constexpr,
    QUANTIZE: tl.constexpr,
    WORDS: tl.constexpr,
    BAND_Y: tl.constexpr,
    BAND_X: tl.constexpr,
    TAPS_Y: tl.constexpr,
    TAPS_X: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP_Y: tl.constexpr,
    STEP_X: tl.constexpr,
):
    # One program writes a (ROWS, COLUMNS) tile of one frame, all three channels: they share the
    # cache lines of the interleaved input.
    tiles_x: tl.constexpr = (SIZE + COLUMNS - 1) // COLUMNS
    tiles_y: tl.constexpr = (SIZE + ROWS - 1) // ROWS
    tile_x = tl.program_id(0) % tiles_x
    tile_y = (tl.program_id(0) // tiles_x) % tiles_y
    frame = (tl.program_id(0) // (tiles_x * tiles_y)).to(tl.int64)
    source = frames + frame * stride_b
    x = tile_x * COLUMNS + tl.arange(0, COLUMNS)
    y = tile_y * ROWS + tl.arange(0, ROWS)
    first_x, first_y = tl.load(x_start + tile_x), tl.load(y_start + tile_y)
    x_high, x_low = x_high + x[:, None] * TAPS_X, x_low + x[:, None] * TAPS_X

    # Rows of the input, a few at a time, are squeezed in x and added into the tile.
    red = tl.zeros((COLUMNS, ROWS), tl.float32)
    green = tl.zeros((COLUMNS, ROWS), tl.float32)
    blue = tl.zeros((COLUMNS, ROWS), tl.float32)
    for step_y in range(0, TAPS_Y, STEP_Y):
        taps_y = step_y + tl.arange(0, STEP_Y)
        rows = first_y + taps_y
        row_mask = (taps_y < BAND_Y) & (rows < height)
        wide_red = tl.zeros((COLUMNS, STEP_Y), tl.float32)
        wide_green = tl.zeros((COLUMNS, STEP_Y), tl.float32)
        wide_blue = tl.zeros((COLUMNS, STEP_Y), tl.float32)
        for step_x in tl.static_range(0, TAPS_X, STEP_X):
            # Groups of four pixels: twelve bytes, three aligned words.
            taps_x = step_x + 4 * tl.arange(0, STEP_X // 4)
            columns = first_x + taps_x
            offsets = (rows * stride_h)[:, None] + (columns * stride_w)[None, :]
            mask = row_mask[:, None] & ((taps_x < BAND_X) & (columns < width))[None, :]
            if WORDS:
                words = (source + offsets).to(tl.pointer_type(tl.uint32), bitcast=True)
                first = tl.load(words, mask=mask, other=0)
                second = tl.load(words + 1, mask=mask, other=0)
                third = tl.load(words + 2, mask=mask, other=0)
            for phase in tl.static_range(4):
                if WORDS:
                    r = _byte(first, second, third, 3 * phase)
                    g = _byte(first, second, third, 3 * phase + 1)
                    b = _byte(first, second, third, 3 * phase + 2)
                else:
                    here = source + offsets + phase * stride_w
                    inside = mask & (columns + phase < width)[None, :]
                    r = tl.load(here, mask=inside, other=0)
                    g = tl.load(here + stride_c, mask=inside, other=0)
                    b = tl.load(here + 2 * stride_c, mask=inside, other=0)
                order = step_x + phase * (STEP_X // 4) + tl.arange(0, STEP_X // 4)
                high = tl.load(x_high + order[None, :])
                low = tl.load(x_low + order[None, :])
                wide_red = _squeeze(wide_red, r, high, low)
                wide_green = _squeeze(wide_green, g, high, low)
                wide_blue = _squeeze(wide_blue, b, high, low)
        high = tl.load(y_high + y[None, :] * TAPS_Y + taps_y[:, None])
        low = tl.load(y_low + y[None, :] * TAPS_Y + taps_y[:, None])
        red = _add_rows(red, wide_red, high, low, QUANTIZE)
        green = _add_rows(green, wide_green, high, low, QUANTIZE)
        blue = _add_rows(blue, wide_blue, high, low, QUANTIZE)

    # Patches of tokens, or pixels with interleaved channels.
    grid: tl.constexpr = SIZE // PATCH if PATCH > 0 else 1
    limit: tl.constexpr = grid * PATCH if PATCH > 0 else SIZE
    channel: tl.constexpr = PATCH * PATCH if PATCH > 0 else 1
    count: tl.constexpr = 3 * limit * limit
    if PATCH > 0:
        token: tl.constexpr = 3 * PATCH * PATCH
        row_part = (y // PATCH) * (grid * token) + (y % PATCH) * PATCH
        column_part = (x // PATCH) * token + x % PATCH
    else:
        row_part = y * (3 * SIZE)
        column_part = x * 3
    offsets = row_part[:, None] + column_part[None, :]
    mask = (y < limit)[:, None] & (x < limit)[None, :]
    inside = ((y >= y_first) & (y < y_last))[:, None] & ((x >= x_first) & (x < x_last))[None, :]
    out += frame * count
    _store_channel(out, red, scale_r, shift_r, fill, inside, mask, offsets, QUANTIZE)
    _store_channel(out + channel, green, scale_g, shift_g, fill, inside, mask, offsets, QUANTIZE)
    _store_channel(out + 2 * channel, blue, scale_b, shift_b, fill, inside, mask, offsets, QUANTIZE)
