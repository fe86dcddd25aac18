"""The reward path as the paper's authors ran it, in our own words: the baseline on a GPU.

Towers have the shapes and the state-dict names of open_clip's VisionTransformer; their weights
are random, on which the work does not depend. open_clip itself is not needed.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from vlmrm_fast.kernels.reference import OPENAI_MEAN, OPENAI_STD


class Shape(NamedTuple):
    """Size of a CLIP vision transformer.

    Attributes:
        width: W of a token.
        layers: residual blocks.
        heads: of the attention.
        patch: side of a patch [pixels].
        mlp: width of the MLP's inner layer.
        embed: width D of the embedding.
        size: side S of the input [pixels].
    """

    width: int
    layers: int
    heads: int
    patch: int
    mlp: int
    embed: int
    size: int = 224

    @property
    def tokens(self) -> int:
        """Number T of tokens a frame, the class token included."""
        return (self.size // self.patch) ** 2 + 1

    @property
    def flops(self) -> float:
        """Operations a frame, two a multiplication: matrix products and attention."""
        products = 4 * self.width**2 + 2 * self.width * self.mlp
        attention = 2 * self.tokens * self.width
        patches = (self.tokens - 1) * 3 * self.patch**2 * self.width
        return 2 * (self.layers * self.tokens * (products + attention) + patches)


# Source: open_clip's model configurations of these names.
SHAPES = {
    "ViT-B-32": Shape(768, 12, 12, 32, 3072, 512),
    "ViT-L-14": Shape(1024, 24, 16, 14, 4096, 768),
    "ViT-H-14": Shape(1280, 32, 16, 14, 5120, 1024),
    "ViT-bigG-14": Shape(1664, 48, 16, 14, 8192, 1280),
    "tiny": Shape(32, 2, 2, 8, 64, 16, 24),
}


class ResidualAttentionBlock(nn.Module):
    """A pre-normalised transformer block."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(shape.width)
        self.attn = nn.MultiheadAttention(shape.width, shape.heads, batch_first=True)
        self.ls_1 = nn.Identity()
        self.ln_2 = nn.LayerNorm(shape.width)
        layers = [
            ("c_fc", nn.Linear(shape.width, shape.mlp)),
            ("gelu", nn.GELU()),
            ("c_proj", nn.Linear(shape.mlp, shape.width)),
        ]
        self.mlp = nn.Sequential(OrderedDict(layers))
        self.ls_2 = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, T, W) of (B, T, W)."""
        y = self.ln_1(x)
        x = x + self.ls_1(self.attn(y, y, y, need_weights=False)[0])
        return x + self.ls_2(self.mlp(self.ln_2(x)))


class VisionTransformer(nn.Module):
    """CLIP's image tower, written plainly: every token through every layer.

    Source: open_clip, transformer.py, VisionTransformer (the same function and names).
    """

    pool_type, final_ln_after_pool, attn_pool = "tok", False, None

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.image_size, self.patch_size = (shape.size,) * 2, (shape.patch,) * 2
        self.conv1 = nn.Conv2d(3, shape.width, shape.patch, shape.patch, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(shape.width))
        self.positional_embedding = nn.Parameter(torch.empty(shape.tokens, shape.width))
        self.ln_pre = nn.LayerNorm(shape.width)
        self.transformer = nn.Module()
        blocks = [ResidualAttentionBlock(shape) for _ in range(shape.layers)]
        self.transformer.resblocks = nn.ModuleList(blocks)
        self.ln_post = nn.LayerNorm(shape.width)
        self.proj = nn.Parameter(torch.empty(shape.width, shape.embed))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return (B, D) of (B, 3, S, S) pixels."""
        x = self.conv1(pixels).flatten(2).transpose(1, 2)
        first = self.class_embedding.to(x.dtype).expand(len(x), 1, -1)
        x = self.ln_pre(torch.cat([first, x], 1) + self.positional_embedding.to(x.dtype))
        for block in self.transformer.resblocks:
            x = block(x)
        return self.ln_post(x)[:, 0] @ self.proj


def make_tower(name: str) -> VisionTransformer:
    """Return a tower with random float32 weights, on the CPU, in evaluation mode."""
    with torch.device("meta"):
        tower = VisionTransformer(SHAPES[name])
    tower = tower.to_empty(device="cpu").eval().requires_grad_(False)
    # Tiled normal numbers: 1.8 billion fresh ones would take minutes.
    normal = torch.randn(1_000_003, generator=torch.Generator().manual_seed(0))
    for key, value in tower.named_parameters():
        flat = value.view(-1)
        for start in range(0, flat.numel(), len(normal)):
            part = flat[start : start + len(normal)]
            part.copy_(normal[: len(part)])
        if "ln_" in key:
            value.mul_(0.02).add_(float(key.endswith("weight")))
        elif value.ndim > 1:
            fan_in = value.shape[0] if key == "proj" else value[0].numel()
            value.mul_(0.02 if key == "positional_embedding" else 0.7 * fan_in**-0.5)
        else:
            value.mul_(0.02)
    return tower


class PlainReward:
    """Frames to rewards as the paper describes it, one task at a time.

    uint8 host frames to the device, float32 / 255, bicubic resize without antialiasing, OpenAI's
    mean and deviation, encode_image under autocast, unit length, D x D projection, rewards to the
    host.

    Source: Rocamonde et al., ICLR 2024, Definition 1 and appendix.
    """

    def __init__(
        self, tower: nn.Module, size: int, goal: torch.Tensor, baseline: torch.Tensor,
        alpha: float, device: torch.device,
    ) -> None:  # fmt: skip
        self.tower, self.size, self.device = tower, size, device
        self.goal = goal.to(device)
        direction = (goal - baseline).double()
        outer = torch.outer(direction, direction) / direction.square().sum()
        projection = alpha * outer + (1 - alpha) * torch.eye(len(goal), dtype=torch.float64)
        self.projection = projection.float().to(device)
        self.mean = torch.tensor(OPENAI_MEAN, device=device).view(1, 3, 1, 1)
        self.std = torch.tensor(OPENAI_STD, device=device).view(1, 3, 1, 1)

    def pixels(self, frames: torch.Tensor) -> torch.Tensor:
        """Return (B, 3, S, S) float32 of (B, H, W, 3) uint8 on the device."""
        values = frames.permute(0, 3, 1, 2).float() / 255
        size = (self.size, self.size)
        values = functional.interpolate(values, size=size, mode="bicubic", align_corners=False)
        return (values - self.mean) / self.std

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return (B, D) embeddings, as the tower gives them under autocast."""
        dtype = torch.float16 if self.device.type == "cuda" else torch.bfloat16
        with torch.autocast(self.device.type, dtype):
            return self.tower(pixels)

    def rewards(self, z: torch.Tensor) -> torch.Tensor:
        """Return (B,) rewards of embeddings."""
        x = z.float() / z.float().norm(dim=-1, keepdim=True)
        return 1 - ((x - self.goal) @ self.projection).square().sum(-1) / 2

    @torch.inference_mode()
    def score(self, frames: torch.Tensor) -> torch.Tensor:
        """Return (B,) rewards on the host of uint8 frames on the host."""
        return self.rewards(self.encode(self.pixels(frames.to(self.device)))).cpu()
