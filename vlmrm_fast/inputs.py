"""What users hand to a reward, frames and the name of a device: checked, with the fix."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vlmrm_fast.errors import ArgumentError


def borrowable(chunk: np.ndarray) -> np.ndarray:
    """Return an array that torch can borrow: writeable and without negative strides."""
    if chunk.flags.writeable and min(chunk.strides) >= 0:
        return chunk
    return chunk.copy()


def check_frames(frames: Any) -> None:
    """Refuse anything but (B, H, W, 3) uint8.

    Raises:
        ArgumentError: another type, dtype or shape, with the call that mends it.
    """
    expected = "frames must be (B, H, W, 3) uint8"
    if not isinstance(frames, (np.ndarray, torch.Tensor)):
        raise ArgumentError(f"{expected}, got {type(frames).__name__}. Use numpy.stack(frames).")
    shape = tuple(frames.shape)
    dtype = str(frames.dtype).removeprefix("torch.")
    if dtype != "uint8":
        raise ArgumentError(
            f"{expected}, got {dtype}. Scale to 0 ... 255 and cast: frames.astype('uint8')."
        )
    if len(shape) == 3 and shape[2] == 3:
        raise ArgumentError(f"{expected}, got {shape}. For a single frame: frames[None].")
    if len(shape) != 4 or shape[3] != 3:
        fix = ""
        if len(shape) == 4 and shape[1] == 3:
            fix = " For channels first: frames.transpose(0, 2, 3, 1)."
        elif len(shape) == 4 and shape[3] == 4:
            fix = " Drop the alpha channel: frames[..., :3]."
        raise ArgumentError(f"{expected}, got {shape}.{fix}")
    if shape[0] and not (shape[1] and shape[2]):
        raise ArgumentError(f"{expected} with pixels in them, got {shape}.")


def choose_device(device: str) -> torch.device:
    """Return the device that `device` names; "auto" is the current GPU where there is one.

    Raises:
        ArgumentError: it is not a CPU or an available CUDA device.
    """
    if device == "auto":
        # With a number: "cuda" without one stands for every GPU.
        return numbered(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError, ValueError):
        chosen = torch.device("meta")
    if chosen.type not in ("cpu", "cuda"):
        raise ArgumentError(f"device must be auto, cpu, cuda or cuda:N, got {device!r}.")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ArgumentError(
            f"device must be one of this machine's {torch.cuda.device_count()} CUDA devices, "
            f'got {device!r}. Use "auto" or "cpu".'
        )
    return chosen


def numbered(device: torch.device) -> torch.device:
    """Return a CUDA device with its number: the current one's where it has none."""
    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", torch.cuda.current_device())
