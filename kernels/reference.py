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


ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "none": lambda x: x,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
}


def quantize_rows(x: torch.Tensor, activation: str = "none") -> tuple[torch.Tensor, torch.Tensor]:
    """Round activated rows to 8-bit floats with a scale each: activation(x) = whole * scale.

    Args:
        x: (..., K) of any float dtype.
        activation: key of `ACTIVATIONS`, computed in float32.

    Returns:
        (M, K) float8_e4m3fn, whose largest magnitude is 448 in every row, and (M, 1) float32.
    """
    rows = ACTIVATIONS[activation](x.reshape(-1, x.shape[-1]).float())
    most = torch.finfo(torch.float8_e4m3fn).max
    peak = rows.abs().amax(1, keepdim=True).clamp_min(1e-12)
    # Without the clamp a value rounded up beyond the largest becomes NaN.
    whole = (rows * (most / peak)).clamp_(-most, most).to(torch.float8_e4m3fn)
    return whole, peak / most


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


SPHERE, CAPSULE, BOX, PLANE = 2, 3, 6, 0  # mjtGeom


class Shapes(NamedTuple):
    """What N worlds show: G shapes each, posed in the camera's frame (x right, y up, looks at -z).

    Attributes:
        kind: (G,) int32: SPHERE, CAPSULE, BOX or PLANE.
        size: (G, 3) float32 as MuJoCo's geoms have them [m]; a plane's x or y of 0 is endless.
        position: (N, G, 3) float32, centres [m].
        rotation: (N, G, 3, 3) float32, from a shape's frame to the camera's.
    """

    kind: torch.Tensor
    size: torch.Tensor
    position: torch.Tensor
    rotation: torch.Tensor


def visibility(
    shapes: Shapes, height: int, width: int, half_height: float, near: float = 0.0,
    far: float = torch.inf,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Find what each pixel's centre shows first: ray casting with the eye outside every shape.

    Args:
        shapes: of N worlds.
        height: of a picture [pixels].
        width: of a picture [pixels].
        half_height: tangent of half the vertical field of view.
        near: least depth that is shown [m].
        far: largest depth that is shown [m].

    Returns:
        (N, H, W) float32 depths along the camera's axis [m], inf where nothing is, and (N, H, W)
        int32 rows of the shapes, -1 where nothing is.
    """
    device = shapes.position.device
    x = (2 * torch.arange(width, device=device) + 1 - width) * (half_height / height)
    y = (height - 1 - 2 * torch.arange(height, device=device)) * (half_height / height)
    rays = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], -1)
    rays = torch.cat([rays, -torch.ones(height, width, 1, device=device)], -1)

    # In each shape's own frame, (N, G, H, W) a component.
    d = torch.einsum("hwj,ngjk->knghw", rays, shapes.rotation)
    o = -torch.einsum("ngj,ngjk->kng", shapes.position, shapes.rotation)[..., None, None]
    size = shapes.size.T[:, None, :, None, None]
    ways = {SPHERE: _cast_sphere, CAPSULE: _cast_capsule, BOX: _cast_box, PLANE: _cast_plane}
    depth = torch.full_like(d[0], torch.inf)
    for kind, cast in ways.items():
        hit = cast(o, d, size)
        is_kind = (shapes.kind == kind)[:, None, None]
        depth = torch.where(is_kind & (hit >= near) & (hit <= far) & (hit > 0), hit, depth)
    nearest, index = depth.min(1)
    return nearest, torch.where(nearest.isinf(), -1, index).int()


def _cast_quadric(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """Return the smaller root t of a t^2 + 2 b t + c, NaN where there is none."""
    return (-b - (b * b - a * c).sqrt()) / a


def _cast_sphere(o: torch.Tensor, d: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    return _cast_quadric((d * d).sum(0), (o * d).sum(0), (o * o).sum(0) - size[0] ** 2)


def _cast_capsule(o: torch.Tensor, d: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    a, b = (d[:2] * d[:2]).sum(0), (o[:2] * d[:2]).sum(0)
    side = _cast_quadric(a, b, (o[:2] * o[:2]).sum(0) - size[0] ** 2)
    hits = [torch.where((o[2] + side * d[2]).abs() <= size[1], side, torch.inf)]
    for end in (-1, 1):
        cap = torch.stack([o[0], o[1], o[2] + end * size[1][0]])
        hits.append(_cast_sphere(cap, d, size))
    return torch.stack([torch.where(hit.isnan(), torch.inf, hit) for hit in hits]).amin(0)


def _cast_box(o: torch.Tensor, d: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    d = torch.where(d == 0, 1e-20, d)
    first, second = (-size - o) / d, (size - o) / d
    enter, leave = torch.minimum(first, second).amax(0), torch.maximum(first, second).amin(0)
    return torch.where(enter <= leave, enter, torch.inf)


def _cast_plane(o: torch.Tensor, d: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    hit = -o[2] / d[2]
    inside = (o[2] > 0) & (d[2] < 0)
    for k in (0, 1):
        inside = inside & ((size[k] <= 0) | ((o[k] + hit * d[k]).abs() <= size[k]))
    return torch.where(inside, hit, torch.inf)
