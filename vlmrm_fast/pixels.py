"""Frames to the input of a tower: the op on a GPU, torch's 8-bit resize on a CPU."""

from __future__ import annotations

import torch
from torch.nn import functional

from vlmrm_fast.kernels import ops
from vlmrm_fast.kernels.reference import Preprocessing, crop_or_pad, scaled_shape


def prepare(
    frames: torch.Tensor, how: Preprocessing, dtype: torch.dtype, patch: int = 0
) -> torch.Tensor:
    """Resize and normalise frames as `reference.preprocess` does, at the speed of the device.

    On a CPU the antialiased resize stays in 8 bits, as PIL's does: within one of 255 levels of
    the reference's in float32 (two where frames are enlarged), at 18 times its rate for 480 -> 224
    (bench/test_towers.py).

    Args:
        frames: (B, H, W, 3) uint8, any strides.
        how: size, interpolation and statistics.
        dtype: of the result.
        patch: side of a patch [pixels]; 0 for whole pictures.

    Returns:
        (B, 3, S, S) normalised pixels in channels_last format; with a patch the raw tokens
        (B, (S // patch)^2, 3 patch^2) of values v / 256.
    """
    if frames.device.type != "cpu" or not (how.antialias or _fits(frames, how)):
        layout = "tokens" if patch else "nchw"
        return ops.preprocess(frames, how, dtype, layout=layout, patch=patch, raw=bool(patch))
    pixels = frames.permute(0, 3, 1, 2)
    if not _fits(frames, how):
        shape = scaled_shape(frames.shape[1], frames.shape[2], how)
        pixels = functional.interpolate(pixels, shape, mode=how.interpolation, antialias=True)
        pixels = crop_or_pad(pixels, how)
    return _tokens(pixels, patch).to(dtype) if patch else _normalised(pixels, how).to(dtype)


def _fits(frames: torch.Tensor, how: Preprocessing) -> bool:
    """Tell whether frames have the model's size."""
    return tuple(frames.shape[1:3]) == (how.size, how.size)


def _tokens(pixels: torch.Tensor, patch: int) -> torch.Tensor:
    """Return float32 raw patch tokens of (B, 3, S, S) bytes: bytes are moved, then converted."""
    batch, grid = len(pixels), pixels.shape[-1] // patch
    whole = pixels[..., : grid * patch, : grid * patch]
    blocks = whole.reshape(batch, 3, grid, patch, grid, patch).permute(0, 2, 4, 1, 3, 5)
    tokens = blocks.reshape(batch, grid * grid, 3 * patch * patch)
    return tokens.to(torch.float32).mul_(1 / 256)


def _normalised(pixels: torch.Tensor, how: Preprocessing) -> torch.Tensor:
    """Return float32 pixels in channels_last format of (B, 3, S, S) bytes in any."""
    rows = pixels.permute(0, 2, 3, 1).to(torch.float32, memory_format=torch.contiguous_format)
    batch, height, width, _ = rows.shape
    # Whole rows of pixels: with vectors of three numbers torch's loops do not vectorise (4x).
    std = torch.tensor(how.std).repeat(width)
    mean = torch.tensor(how.mean).repeat(width)
    flat = rows.view(batch, height, 3 * width)
    flat.mul_(1 / (255 * std)).sub_(mean / std)
    return rows.permute(0, 3, 1, 2)
