"""The PyTorch twin of every op: the oracle of the kernels, and what runs on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn import functional

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


class Tasks(NamedTuple):
    """Constants of P rewards, folded so that one frame costs two dot products a reward.

    Attributes:
        goal: (P, D), (1 - alpha)^2 times the goal embeddings g.
        line: (P, D), unit vectors u along goal - baseline; zero where alpha is 0.
        offset: (P,), 1 - (1 - alpha)^2 (1 + |g|^2) / 2.
        weight: (P,), -(2 alpha - alpha^2) / 2.
        shift: (P,), u . g.
    """

    goal: torch.Tensor
    line: torch.Tensor
    offset: torch.Tensor
    weight: torch.Tensor
    shift: torch.Tensor

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Tasks:
        """Return the same constants on `device` in `dtype`."""
        return Tasks(*(part.to(device=device, dtype=dtype) for part in self))


def make_tasks(goal: torch.Tensor, baseline: torch.Tensor | None, alpha: torch.Tensor) -> Tasks:
    """Fold goals, baselines and regularisation strengths into the constants of `score`.

    Computed in float64 whatever the inputs; cast the result with `Tasks.to`.

    Args:
        goal: (P, D) goal embeddings g; each the mean of unit rows, |g| <= 1.
        baseline: (P, D) baseline embeddings b, or None where every alpha is 0.
        alpha: (P,) in [0, 1]. Where it is above 0, goal and baseline differ.

    Returns:
        The constants, float64, on the device of `goal`.

    Source: Rocamonde et al., ICLR 2024, Definition 1.
    """
    g = goal.double()
    a = alpha.double().to(g.device)
    keep = (1 - a) ** 2
    line = torch.zeros_like(g)
    if baseline is not None:
        direction = g - baseline.double()
        length = direction.norm(dim=-1, keepdim=True)
        # Rows that do not use their line may have length 0: they stay zero.
        line = torch.where(a[:, None] > 0, direction / length.clamp_min(1e-300), line)
    return Tasks(
        goal=keep[:, None] * g,
        line=line,
        offset=1 - keep * (1 + g.square().sum(-1)) / 2,
        weight=-(2 * a - a**2) / 2,
        shift=(line * g).sum(-1),
    )


def score(z: torch.Tensor, tasks: Tasks) -> torch.Tensor:
    """Compute P goal-baseline regularised rewards for each embedding.

    With x = z / |z|, g the goal, b the baseline and u = (g - b) / |g - b|:

        reward = 1 - 1/2 | alpha proj_L x + (1 - alpha) x - g |^2
               = 1 - 1/2 ((1 - alpha)^2 |x - g|^2 + (2 alpha - alpha^2) (u . (x - g))^2)
               = offset + x . (1 - alpha)^2 g + weight (x . u - u . g)^2

    where L is the line through b and g. No D x D matrix is formed.

    Args:
        z: (B, D) image embeddings of any length but 0, any float dtype, rows may be strided.
        tasks: the constants of P rewards, same device.

    Returns:
        (B, P) rewards, in the dtype of `tasks`.

    Source: Rocamonde et al., ICLR 2024, Definition 1 in closed form.
    """
    # fp16 squares overflow beyond |z| = 256: the constants' dtype carries the arithmetic.
    rows = z.to(tasks.goal.dtype)
    inverse = 1 / rows.norm(dim=-1, keepdim=True)
    along = (rows @ tasks.line.T) * inverse - tasks.shift
    return tasks.offset + (rows @ tasks.goal.T) * inverse + tasks.weight * along.square()


def add_layernorm(
    x: torch.Tensor,
    residual: torch.Tensor | None,
    weight: torch.Tensor,
    bias: torch.Tensor,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add a residual and normalise rows: s = x + residual, y = (s - E s) / sqrt(Var s + eps) w + b.

    Args:
        x: (..., W) of any float dtype; only its last dimension must be dense.
        residual: as `x`, or None where there is nothing to add.
        weight: (W,) factors w.
        bias: (W,) offsets b, in the dtype of `weight`.
        eps: added to the variance.

    Returns:
        The sum, in the promoted dtype of `x` and `residual` (`x` itself without a residual), and
        y in the dtype of `weight`. Both (..., W); statistics are those of the rounded sum, in
        float32.
    """
    total = x if residual is None else (x + residual).contiguous()
    width = (x.shape[-1],)
    y = functional.layer_norm(total.float(), width, weight.float(), bias.float(), eps)
    return total, y.to(weight.dtype).contiguous()


FP8_MAX = torch.finfo(torch.float8_e4m3fn).max
ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "none": lambda x: x,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
}


def quantize(x: torch.Tensor, activation: str = "none") -> tuple[torch.Tensor, torch.Tensor]:
    """Apply an activation and round rows to 8-bit floats: activation(x) = q scale + rounding.

    Args:
        x: (..., K) of any float dtype; only its last dimension must be dense.
        activation: key of `ACTIVATIONS`, computed in float32.

    Returns:
        (M, K) float8_e4m3fn q whose largest magnitude a row is 448, and (M, 1) float32 scales;
        M is the product of the leading dimensions.
    """
    rows = ACTIVATIONS[activation](x.reshape(-1, x.shape[-1]).float())
    peak = rows.abs().amax(1, keepdim=True).clamp_min(1e-12)
    # Without the clamp a value rounded up beyond the largest becomes NaN.
    whole = (rows * (FP8_MAX / peak)).clamp_(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn)
    return whole, peak / FP8_MAX


def reward_head(
    rows: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    eps: float,
    projection: torch.Tensor,
    tasks: Tasks,
) -> torch.Tensor:
    """Score pooled rows of an image tower: score(layernorm(rows) @ projection).

    Args:
        rows: (B, W) pooled tokens of any float dtype, rows may be strided.
        weight: (W,) of the last normalisation.
        bias: (W,), in the dtype of `weight`.
        eps: added to the variance.
        projection: (W, D), in the dtype of `weight`.
        tasks: the constants of P rewards.

    Returns:
        (B, P) rewards, in the dtype of `tasks`.
    """
    return score(add_layernorm(rows, None, weight, bias, eps)[1] @ projection, tasks)


@dataclass(frozen=True)
class Preprocessing:
    """How frames become the pixels that a model was trained on.

    Attributes:
        size: side S of the square input [pixels].
        mean: per channel, of values in [0, 1].
        std: per channel, of values in [0, 1].
        interpolation: "bicubic" or "bilinear".
        resize_mode: "squash" (both sides to S), "shortest" (then centre crop) or "longest"
            (then centred padding).
        fill: value of padded pixels, 0 ... 255.
        antialias: True resizes as PIL does (low-pass filtered, rounded and clamped to 8 bits);
            False resizes as torchvision 0.15 does tensors, without clamping.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    resize_mode: str = "squash"
    fill: int = 0
    antialias: bool = True

    def original(self) -> Preprocessing:
        """Return the preprocessing of the paper's authors at this size, for any model."""
        return Preprocessing(self.size, OPENAI_MEAN, OPENAI_STD, antialias=False)


def preprocess(
    frames: torch.Tensor,
    how: Preprocessing,
    dtype: torch.dtype = torch.float32,
    *,
    layout: str = "nchw",
    patch: int = 0,
    raw: bool = False,
) -> torch.Tensor:
    """Resize and normalise frames: out = (resize(frames) / 255 - mean) / std.

    Frames that already have the model's size are not resampled. The antialiased resize is within
    one of 255 levels of PIL's where height <= width; PIL resamples some taller frames columns
    first, and edges of such frames differ by more.

    Args:
        frames: (B, H, W, 3) uint8, any strides.
        how: size, interpolation and statistics.
        dtype: of the result; the arithmetic is float32.
        layout: "nchw" or "tokens".
        patch: side of a patch of the "tokens" layout [pixels]; pixels right of and below the last
            whole patch are dropped, as a convolution drops them.
        raw: give resize(frames) / 256 instead: exact in 16 bits where the resized values are
            whole. The tower's first weights hold mean and std then.

    Returns:
        "nchw": (B, 3, S, S) pixels on the device of `frames`, in channels_last memory format.
        "tokens": (B, (S // patch)^2, 3 * patch^2), contiguous; patches row by row, columns
        ordered (channel, y, x) as in the weights of a patch convolution.
    """
    # An NHWC tensor seen as NCHW is channels_last already: no copy.
    pixels = frames.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.channels_last)
    if pixels.shape[-2:] != (how.size, how.size):
        pixels = _resize(pixels, how)
    # In place: the float copy above is ours. 3x the rate of out-of-place passes at B = 64.
    if raw:
        pixels.mul_(1 / 256)
    elif len(set(how.mean)) == len(set(how.std)) == 1:
        pixels.mul_(1 / (255 * how.std[0])).sub_(how.mean[0] / how.std[0])
    else:
        std = pixels.new_tensor(how.std).view(1, 3, 1, 1)
        pixels.mul_(1 / (255 * std)).sub_(pixels.new_tensor(how.mean).view(1, 3, 1, 1) / std)
    if layout == "tokens":
        return _patch_tokens(pixels, patch).to(dtype)
    # A cropped frame is a view so far: `contiguous` gives it the promised strides.
    return pixels.to(dtype).contiguous(memory_format=torch.channels_last)


def _patch_tokens(pixels: torch.Tensor, patch: int) -> torch.Tensor:
    """Rearrange (B, 3, S, S) to (B, (S // patch)^2, 3 * patch^2)."""
    grid = pixels.shape[-1] // patch
    whole = pixels[..., : grid * patch, : grid * patch]
    blocks = whole.reshape(-1, 3, grid, patch, grid, patch).permute(0, 2, 4, 1, 3, 5)
    return blocks.reshape(len(pixels), grid * grid, 3 * patch * patch)


def _resize(pixels: torch.Tensor, how: Preprocessing) -> torch.Tensor:
    """Bring (B, 3, H, W) float pixels of 0 ... 255 to (B, 3, S, S) in the mode of `how`."""
    height, width = scaled_shape(pixels.shape[-2], pixels.shape[-1], how)
    if how.antialias:
        # PIL resamples rows first and stores 8 bits between its two passes.
        pixels = _resample(pixels, (pixels.shape[-2], width), how).round_().clamp_(0, 255)
        pixels = _resample(pixels, (height, width), how).round_().clamp_(0, 255)
    else:
        pixels = _resample(pixels, (height, width), how)
    return crop_or_pad(pixels, how)


def _resample(pixels: torch.Tensor, shape: tuple[int, int], how: Preprocessing) -> torch.Tensor:
    """Interpolate (B, 3, H, W) to `shape` with pixel-centre sampling, as PIL and torchvision do."""
    return functional.interpolate(
        pixels, size=shape, mode=how.interpolation, align_corners=False, antialias=how.antialias
    )


def scaled_shape(height: int, width: int, how: Preprocessing) -> tuple[int, int]:
    """Return the size after resampling, before the crop or the padding.

    Source: torchvision's Resize truncates the long side; open_clip's ResizeKeepRatio rounds.
    """
    size = how.size
    if how.resize_mode == "squash":
        return size, size
    if how.resize_mode == "longest":
        ratio = max(height, width) / size
        return round(height / ratio), round(width / ratio)
    if height <= width:
        return size, int(size * width / height)
    return int(size * height / width), size


def crop_or_pad(pixels: torch.Tensor, how: Preprocessing) -> torch.Tensor:
    """Crop or pad (B, 3, H, W) around its centre, rounding as torchvision and open_clip do."""
    size = how.size
    height, width = pixels.shape[-2:]
    if height < size or width < size:
        rows, columns = max(size - height, 0), max(size - width, 0)
        border = (columns // 2, (columns + 1) // 2, rows // 2, (rows + 1) // 2)
        pixels = functional.pad(pixels, border, value=float(how.fill))
        height, width = pixels.shape[-2:]
    top, left = round((height - size) / 2), round((width - size) / 2)
    return pixels[..., top : top + size, left : left + size]
