"""Image towers for inference: which form of a tower runs at which precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import nn

from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.kernels.reference import Preprocessing
from vlmrm_fast.layers import Linear, PlainLinear
from vlmrm_fast.pixels import prepare
from vlmrm_fast.precision import DTYPES, EXACT, QUANTISED, linear_maker
from vlmrm_fast.resnet import LeanResNet, is_clip_resnet
from vlmrm_fast.vit import LeanViT, is_lean_vit


class ImageTower(Protocol):
    """Frames to embeddings.

    Attributes:
        engine: "lean" (rewritten: CLIP's vision transformer or ResNet), "folded" (another
            convolutional tower with its normalisations folded in), "packed" (open_clip's own
            with the matrix products of our engines) or "eager" (open_clip's own).
        precision: name of the number format.
        dtype: of the embeddings.
    """

    engine: str
    precision: str
    dtype: torch.dtype

    def encode(self, frames: torch.Tensor, how: Preprocessing) -> torch.Tensor:
        """Return (B, D) embeddings of any length; does not wait for the device.

        Args:
            frames: (B, H, W, 3) uint8 on the tower's device.
            how: preprocessing; its size is the model's.
        """
        ...


class PixelTower:
    """A tower that takes normalised pixels.

    Args:
        forward: (B, 3, S, S) pixels -> (B, D), or a tuple that begins with that.
        dtype: of the pixels.
        engine: see `ImageTower`.
    """

    precision = "fp32"

    def __init__(self, forward: Callable[[torch.Tensor], Any], dtype: torch.dtype, engine: str):
        self.forward, self.dtype, self.engine = forward, dtype, engine

    @torch.inference_mode()
    def encode(self, frames: torch.Tensor, how: Preprocessing) -> torch.Tensor:
        """Return (B, D) embeddings; see `ImageTower`."""
        pixels = prepare(frames, how, self.dtype)
        if pixels.is_cuda and self.dtype == torch.float32:
            with exact_convolutions():
                out = self.forward(pixels)
        else:
            out = self.forward(pixels)
        return out[0] if isinstance(out, tuple) else out


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Keep cuDNN from cutting float32 to TF32's 10 bits within the block, which is its default.

    A host setting, read when a convolution is enqueued: a CUDA graph keeps what it captured.
    """
    # torch.backends.cudnn.flags would set every other flag to a default as well.
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before


def build_tower(
    tower: nn.Module, device: torch.device, precision: str, engine: str = "auto"
) -> ImageTower:
    """Return the fastest equal form of an image tower.

    Args:
        tower: an open_clip image tower in evaluation mode, float32, on the CPU; may be changed.
        device: where it is to run.
        precision: name from `precision.DTYPES` that the device runs.
        engine: "auto", or "eager" for open_clip's own code in the precision's dtype.

    Returns:
        The tower; its weights are its own.

    Raises:
        ArgumentError: the precision quantises matrix products, and this tower has none, or
            `engine` is "eager", which leaves them as they are.
    """
    if engine == "eager" and precision in QUANTISED:
        raise ArgumentError(
            f'engine must be "auto" for precision {precision!r}, got "eager", which quantises no '
            "matrix products."
        )
    dtype = DTYPES[precision]
    built: ImageTower
    if engine == "eager":
        built = PixelTower(tower.to(device, dtype), dtype, "eager")
    elif is_lean_vit(tower):
        built = LeanViT(tower, device, dtype, linear_maker(precision, device))
    elif is_clip_resnet(tower):
        built = PixelTower(LeanResNet(tower.to(device), dtype), dtype, "lean")
    elif has_batch_norm(tower):
        built = _folded(tower, device, dtype)
    else:
        built = _packed(tower, device, precision)
    quantised = isinstance(built, LeanViT) or built.engine == "packed"
    if precision in QUANTISED and not quantised:
        raise ArgumentError(
            f'precision must be "{EXACT[dtype]}" for this image tower, got {precision!r}. '
            f'Run as "{built.engine}", it has no matrix products to quantise.'
        )
    built.precision = precision
    return built


def has_batch_norm(tower: nn.Module) -> bool:
    """Tell whether `tower` normalises over batches, as convolutional towers do."""
    return any(isinstance(module, nn.BatchNorm2d) for module in tower.modules())


def _folded(tower: nn.Module, device: torch.device, dtype: torch.dtype) -> ImageTower:
    """Return a convolutional tower with its normalisations folded in, where it can be traced."""
    from torch.fx.experimental.optimization import fuse

    engine, layout = "folded", torch.channels_last
    try:
        tower = fuse(tower, no_trace=False)
    except Exception:  # torch.fx refuses control flow with errors of many types
        engine, layout = "eager", torch.preserve_format
    # In two calls: one call with both takes a layout or a dtype, as torch's overloads have it.
    return PixelTower(tower.to(device, dtype).to(memory_format=layout), dtype, engine)


class _Product(nn.Module):
    """Stands in for an nn.Linear within a module."""

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (..., N) of (..., K)."""
        return self.linear(x)


def _packed(tower: nn.Module, device: torch.device, precision: str) -> ImageTower:
    """Return a tower whose linear layers are those of the precision's engine."""
    dtype, make = DTYPES[precision], linear_maker(precision, device)
    tower = tower.to(device, dtype)
    if make is PlainLinear:
        return PixelTower(tower, dtype, "eager")
    count = 0
    for parent in list(tower.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Linear and not _reads_weights(parent, name):
                bias = None if layer.bias is None else layer.bias.detach()
                setattr(parent, name, _Product(make(layer.weight.detach(), bias, "none")))
                count += 1
    return PixelTower(tower, dtype, "packed" if count else "eager")


def _reads_weights(parent: nn.Module, name: str) -> bool:
    """Tell whether a module multiplies with its layer's weights itself instead of calling it."""
    if isinstance(parent, nn.MultiheadAttention):
        return True
    # timm's EVA joins the biases of queries and values to the layer's weights.
    return name == "qkv" and getattr(parent, "q_bias", None) is not None
