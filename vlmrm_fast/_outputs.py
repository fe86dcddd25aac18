"""How pictures leave a renderer: layout, number format, normalisation, and where they may go."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlmrm_fast.errors import ArgumentError, unknown_name

LAYOUTS = ("nhwc", "nchw")
DTYPES = ("uint8", "float32", "float16", "bfloat16")
MAX_SUPERSAMPLE = 8

# numpy has no bfloat16: there its bits travel as uint16.
_STORED = {name: np.dtype("uint16" if name == "bfloat16" else name) for name in DTYPES}


@dataclass(frozen=True)
class Output:
    """Format of a renderer's pictures: value = (byte / 255 - mean) / std a channel, in float32.

    Attributes:
        height: of the pictures [pixels].
        width: of the pictures [pixels].
        layout: "nhwc" for channels last, "nchw" for channels first.
        dtype: "uint8" for bytes as drawn, else the type that the value is rounded to.
        mean: per channel.
        std: per channel, above 0.
        supersample: pictures are drawn this many times as high and wide, then averaged down.
    """

    height: int
    width: int
    layout: str = "nhwc"
    dtype: str = "uint8"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    supersample: int = 1

    @classmethod
    def of(
        cls,
        size: tuple[int, int],
        *,
        layout: str = "nhwc",
        dtype: str = "uint8",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        supersample: int = 1,
    ) -> Output:
        """Check the arguments of `Renderer` and keep them.

        Args:
            size: height and width, checked already [pixels].
            layout: as `Output`.
            dtype: as `Output`.
            mean: three finite numbers; None for zeros.
            std: three finite numbers above 0; None for ones.
            supersample: 1 to 8; the drawn picture's sides must not exceed 16384 pixels.

        Returns:
            The format.

        Raises:
            ArgumentError: a number is out of range, or mean or std are given for uint8.
            unknown_name: UnknownNameError, no layout or dtype has that name.
        """
        if layout not in LAYOUTS:
            raise unknown_name("layout", str(layout), LAYOUTS)
        if dtype not in DTYPES:
            raise unknown_name("dtype", str(dtype), DTYPES)
        whole = isinstance(supersample, (int, np.integer)) and not isinstance(supersample, bool)
        if not whole or not 1 <= supersample <= MAX_SUPERSAMPLE:
            raise ArgumentError(
                f"`supersample` must be an integer between 1 and {MAX_SUPERSAMPLE}, "
                f"got {supersample!r}."
            )
        if max(size) * supersample > 16384:
            raise ArgumentError(
                "`supersample` must keep the drawn picture within 16384 pixels a side, got "
                f"{supersample} for {size[0]}x{size[1]}. Use a smaller picture."
            )
        if dtype == "uint8" and (mean is not None or std is not None):
            raise ArgumentError(
                "`dtype` must be bfloat16, float16 or float32 where `mean` or `std` is given, "
                "got 'uint8'."
            )
        means = _triple("mean", (0.0, 0.0, 0.0) if mean is None else mean)
        stds = _triple("std", (1.0, 1.0, 1.0) if std is None else std)
        if min(stds) <= 0:
            raise ArgumentError(f"`std` must be above 0, got {stds}.")
        return cls(*size, layout, dtype, means, stds, int(supersample))

    @property
    def stored(self) -> np.dtype:
        """The numpy type of the pictures: uint16 holds the bits of bfloat16."""
        return _STORED[self.dtype]

    def shape(self, n: int) -> tuple[int, int, int, int]:
        """Return the shape of n pictures.

        Args:
            n: how many.

        Returns:
            (n, H, W, 3) or (n, 3, H, W).
        """
        if self.layout == "nchw":
            return n, 3, self.height, self.width
        return n, self.height, self.width, 3

    def table(self) -> np.ndarray | None:
        """Return the bits of the number that every byte of every channel becomes.

        Returns:
            (3, 256) uint32 or uint16, or None where bytes stay bytes.

        Source:
            torch: `((x.float() / 255 - mean) / std).to(dtype)`; float16 and bfloat16 round to
            nearest even.
        """
        if self.dtype == "uint8":
            return None
        mean, std = (np.array(v, np.float32)[:, None] for v in (self.mean, self.std))
        with np.errstate(over="ignore"):
            values = (np.arange(256, dtype=np.float32) / np.float32(255) - mean) / std
            if self.dtype == "float16":
                return values.astype(np.float16).view(np.uint16)
        bits = values.view(np.uint32)
        if self.dtype == "float32":
            return bits
        # Half of the last kept bit, less one where that bit is even, carries into it.
        rounded = bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)
        return (rounded >> 16).astype(np.uint16)

    def format(self) -> tuple[int, np.ndarray, tuple[float, ...], tuple[float, ...]] | None:
        """Return what native code needs to turn bytes into numbers.

        Returns:
            (the number's type, its table, mean, std), or None where bytes stay bytes.
        """
        table = self.table()
        return None if table is None else (DTYPES.index(self.dtype), table, self.mean, self.std)

    def array(self, out: Any, n: int) -> np.ndarray:
        """Return the numpy array of n pictures to draw into: new, or on the memory of `out`.

        Args:
            out: None, a numpy array or a CPU torch tensor.
            n: how many.

        Returns:
            `shape(n)` of type `stored`, C-contiguous and writeable.

        Raises:
            ArgumentError: if `out` is of another type, dtype or shape, not contiguous or
                read-only.
        """
        shape = self.shape(n)
        if out is None:
            return np.empty(shape, self.stored)
        if (torch := sys.modules.get("torch")) is not None and isinstance(out, torch.Tensor):
            return self._of_tensor(torch, out, shape)
        return checked_array(out, shape, self.stored)

    def _of_tensor(self, torch: Any, out: Any, shape: tuple[int, ...]) -> np.ndarray:
        fix = f"Use torch.empty({shape}, dtype=torch.{self.dtype})."
        if out.device.type != "cpu":
            raise ArgumentError(f"`out` must be on the CPU, got {out.device}. {fix}")
        if out.dtype != getattr(torch, self.dtype):
            raise ArgumentError(f"`out` must be {self.dtype}, got {out.dtype}. {fix}")
        if tuple(out.shape) != shape:
            raise ArgumentError(f"`out` must be of shape {shape}, got {tuple(out.shape)}. {fix}")
        if not out.is_contiguous():
            raise ArgumentError(f"`out` must be C-contiguous, got strides {out.stride()}. {fix}")
        if out.requires_grad:
            raise ArgumentError(f"`out` must not require grad, got one that does. {fix}")
        if self.dtype == "bfloat16":
            out = out.view(torch.int16)
        return out.numpy().view(self.stored)


def checked_array(out: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return `out` if native code can write to it.

    Args:
        out: what the user gave; None for a new array.
        shape: that it must have.
        dtype: that it must have.

    Returns:
        A C-contiguous, writeable array.

    Raises:
        ArgumentError: if `out` is of another type, dtype or shape, not contiguous or read-only.
    """
    if out is None:
        return np.empty(shape, dtype)
    fix = f"Use np.empty({shape}, np.{dtype})."
    if not isinstance(out, np.ndarray):
        raise ArgumentError(f"`out` must be a numpy array, got {type(out).__name__}. {fix}")
    if out.dtype != dtype:
        raise ArgumentError(f"`out` must be {dtype}, got {out.dtype}. {fix}")
    if out.shape != shape:
        raise ArgumentError(f"`out` must be of shape {shape}, got {out.shape}. {fix}")
    if not out.flags.c_contiguous:
        raise ArgumentError(f"`out` must be C-contiguous, got strides {out.strides}. {fix}")
    if not out.flags.writeable:
        raise ArgumentError(f"`out` must be writeable, got a read-only array. {fix}")
    return out


def _triple(name: str, values: Sequence[float]) -> tuple[float, ...]:
    try:
        array = np.asarray(values, np.float32)
    except (TypeError, ValueError):
        array = np.zeros(0, np.float32)
    if array.shape != (3,) or not np.isfinite(array).all():
        raise ArgumentError(
            f"`{name}` must be three finite numbers, one a channel, got {values!r}."
        )
    return tuple(float(v) for v in array)
