"""Resizing as banded matrices: out = R_y X R_x^T, with the weights that ATen itself would use."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch.nn import functional

from vlmrm_fast.kernels.reference import Preprocessing, scaled_shape


class Band(NamedTuple):
    """The matrix of one axis, cut into tiles of output pixels; each tile reads one input window.

    Attributes:
        start: (T,) int32, first input pixel of each tile's window, a multiple of 4.
        high: (T * tile, K) float16, weights of the window's pixels, zeros beyond the band.
        low: as `high`: what float16 rounds away from the weights. Their sum has 22 bits.
        width: widest window [pixels], <= K.
        first, last: outputs first ... last - 1 show the frame; the others are padding.
    """

    start: torch.Tensor
    high: torch.Tensor
    low: torch.Tensor
    width: int
    first: int
    last: int


# Without a bound: CUDA graphs read these tensors where they lie when they were captured, and an
# entry takes a few tens of kB at most.
@functools.cache
def bands(
    height: int, width: int, how: Preprocessing, tile: tuple[int, int], step: tuple[int, int],
    device: torch.device,
) -> tuple[Band, Band]:  # fmt: skip
    """Return the matrices that bring frames to a model's size, cached.

    Args:
        height: of the frames [pixels].
        width: of the frames [pixels].
        how: size S, interpolation and mode.
        tile: output rows and columns a tile.
        step: K is a multiple of this, for rows and for columns.
        device: where the tensors go.

    Returns:
        The bands of rows and of columns; each covers S outputs. Weights of columns are ordered by
        pixel modulo 4 within each step.
    """
    shape = scaled_shape(height, width, how)
    return (
        _band(height, shape[0], how, tile[0], step[0], device),
        _by_phase(_band(width, shape[1], how, tile[1], step[1], device), step[1]),
    )


def _band(
    old: int, new: int, how: Preprocessing, tile: int, step: int, device: torch.device
) -> Band:
    """Return the band of one axis: `old` pixels to `new`, cropped or padded to S."""
    matrix, first = _fit(_matrix(old, new, how.interpolation, how.antialias), how.size)
    last = min(first + new, how.size)
    tiles = -(-how.size // tile)
    rows = functional.pad(matrix, (0, 0, 0, tiles * tile - how.size)).view(tiles, tile, old)

    # Windows: from the first to the last input pixel that any output of the tile uses. They start
    # at multiples of four pixels: whole 32-bit words.
    used = (rows != 0).any(1)
    start = torch.where(used.any(1), used.int().argmax(1), 0) // 4 * 4
    end = torch.where(used.any(1), old - used.flip(1).int().argmax(1), 1)
    width = int((end - start).max())
    taps = -(-width // step) * step
    offsets = torch.arange(taps, device="cpu")
    index = start[:, None] + offsets
    inside = (index < old) & (offsets < width)
    index = index.clamp_max(old - 1)[:, None].expand(tiles, tile, taps)
    weights = torch.where(inside[:, None], rows.gather(2, index), 0).reshape(-1, taps)

    high = weights.half()
    low = (weights - high).half()
    return Band(start.int().to(device), high.to(device), low.to(device), width, first, last)


def _by_phase(band: Band, step: int) -> Band:
    """Reorder each step's weights: pixels 0, 4, 8 ..., then 1, 5, 9 ..., as words give them."""
    high, low = (
        part.view(len(part), -1, step // 4, 4).transpose(2, 3).reshape(part.shape)
        for part in (band.high, band.low)
    )
    return band._replace(high=high, low=low)


def _matrix(old: int, new: int, interpolation: str, antialias: bool) -> torch.Tensor:
    """Return the (new, old) float32 weights, read off ATen by resizing unit vectors."""
    units = torch.eye(old, dtype=torch.float32, device="cpu").view(old, 1, 1, old)
    rows = functional.interpolate(
        units, size=(1, new), mode=interpolation, align_corners=False, antialias=antialias
    )
    return rows.view(old, new).T


def _fit(matrix: torch.Tensor, size: int) -> tuple[torch.Tensor, int]:
    """Crop or zero-pad (new, old) around its centre to (S, old); return it and its first row.

    Args:
        matrix: (new, old) weights.
        size: S [pixels].

    Returns:
        (S, old) and the index of the first row that is not padding. Rounded as
        `reference.preprocess` rounds.
    """
    new = len(matrix)
    if new >= size:
        top = round((new - size) / 2)
        return matrix[top : top + size], 0
    before = (size - new) // 2
    return functional.pad(matrix, (0, 0, before, size - new - before)), before
