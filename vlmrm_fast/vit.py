"""CLIP's vision transformer for inference: the same embedding, less work."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from vlmrm_fast.kernels.reference import ACTIVATIONS, Preprocessing
from vlmrm_fast.layers import Linear, LinearMaker, Norm, PlainLinear, SingleQuery
from vlmrm_fast.pixels import prepare
from vlmrm_fast.precision import EXACT, linear_maker
from vlmrm_fast.quantized import Fp8Linear

# QuickGELU(x) = x sigmoid(1.702 x) = silu(1.702 x) / 1.702: the factors move into the weights.
_QUICK = 1.702


class Stem(NamedTuple):
    """The first layer for one mean and one standard deviation.

    Attributes:
        patches: raw patch tokens (B, T - 1, 3 p^2) -> (B, T - 1, W).
        positions: (T, W) float32; the class token's row holds the class embedding too, the
            others what the mean adds.
    """

    patches: Linear
    positions: torch.Tensor


class Attention(NamedTuple):
    """Attention of a frame's tokens to one another; LayerScale is in the weights of `out`."""

    qkv: Linear
    out: Linear
    heads: int

    def __call__(self, y: torch.Tensor, rows: int | None = None) -> torch.Tensor:
        """Return what attention adds to the first `rows` tokens (all where None)."""
        batch, count, width = y.shape
        heads = self.qkv(y).view(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = heads.unbind(0)
        mixed = functional.scaled_dot_product_attention(query[:, :, :rows], key, value)
        return self.out(mixed.transpose(1, 2).reshape(batch, -1, width))


class Block(NamedTuple):
    """One residual block without its attention; LayerScale is in the weights of `shrink`."""

    first: Norm
    second: Norm
    grow: Linear
    shrink: Linear


class LeanViT:
    """An open_clip VisionTransformer that computes what its embedding needs, and no more.

    - The patch convolution is one matrix product over patch tokens. Tokens hold v / 256, exact
      in 16 bits for bytes v; 256 / (255 std) is in the weights and the mean's part in the
      positional embedding, added in float32.
    - Where the class token is the embedding, the last block computes only its row.
    - The last normalisation and the projection see the pooled row only.
    - Weights are cast and packed once; the residual sum and its normalisation are one pass on a
      GPU, the activation is part of the matrix product where the engine can.

    Weights are copied at construction. `encode` does not wait for the device: a CUDA graph can
    hold it after a first call with the same mean and standard deviation.

    Args:
        tower: a tower that `is_lean_vit` accepts, in evaluation mode, float32, on the CPU.
        device: where it runs.
        dtype: of activations and of the layers that are not quantised.
        make_linear: makes the matrix products of the blocks.

    Source: open_clip, transformer.py, VisionTransformer (the same function).
    """

    engine = "lean"
    precision = "fp32"

    def __init__(
        self, tower: Any, device: torch.device, dtype: torch.dtype, make_linear: LinearMaker
    ) -> None:
        self.device, self.dtype, self.make_linear = device, dtype, make_linear
        self.patch: int = tower.patch_size[0]
        self.class_pooled = tower.pool_type == "tok"
        self.pool_first = tower.final_ln_after_pool
        self._kernel = tower.conv1.weight.detach().flatten(1).clone()
        self._class = tower.class_embedding.detach().clone()
        self._positions = tower.positional_embedding.detach().clone()
        self._stems: dict[tuple[Any, ...], Stem] = {}

        self.pre = None
        if not isinstance(tower.ln_pre, nn.Identity):
            self.pre = Norm(tower.ln_pre, device, torch.float32)
        blocks = list(tower.transformer.resblocks)
        self.blocks = [self._block(block) for block in blocks]
        self.last: SingleQuery | None = None
        if self.class_pooled and dtype == torch.float32:
            self.last = self._single_query(blocks[-1])
        whole = blocks if self.last is None else blocks[:-1]
        self.attentions = [self._attention(block) for block in whole]
        self.post = Norm(tower.ln_post, device, dtype)
        self.project = self._plain(tower.proj.detach().T, None)

    def _plain(self, weight: torch.Tensor, bias: torch.Tensor | None) -> PlainLinear:
        """Return a product that is never quantised."""
        placed = None if bias is None else bias.to(self.device, self.dtype)
        return PlainLinear(weight.to(self.device, self.dtype), placed)

    def _make(self, weight: Any, bias: Any, activation: str = "none") -> Linear:
        """Return a product of a block, as the precision demands it."""
        weight, bias = (part.detach().to(self.device, self.dtype) for part in (weight, bias))
        return self.make_linear(weight, bias, activation)

    def _attention(self, block: Any) -> Attention:
        """Fold and cast one block's attention."""
        attention = block.attn
        qkv = self._make(attention.in_proj_weight, attention.in_proj_bias)
        out = self._make(*_scaled(attention.out_proj, block.ls_1))
        return Attention(qkv, out, attention.num_heads)

    def _block(self, block: Any) -> Block:
        """Fold and cast the rest of one block."""
        grow, shrink = block.mlp.c_fc, block.mlp.c_proj
        activation, scale = _activation(block.mlp.gelu)
        inner = self._make(grow.weight * scale, grow.bias * scale, activation)
        outer = self._make(*_scaled(shrink, block.ls_2, 1 / scale))
        if isinstance(inner, Fp8Linear) and isinstance(outer, Fp8Linear):
            inner.after, outer.before = ACTIVATIONS["none"], activation
        return Block(
            Norm(block.ln_1, self.device, self.dtype),
            Norm(block.ln_2, self.device, self.dtype),
            inner,
            outer,
        )

    def _single_query(self, block: Any) -> SingleQuery:
        """Return the last block's attention for the class token alone."""
        attention = block.attn
        kernels, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
        query, key, value = zip(kernels, biases, strict=True)
        out = _scaled(attention.out_proj, block.ls_1)
        # Copies, so that the tower can be freed.
        parts = [
            (weight.detach().clone().to(self.device), bias.detach().clone().to(self.device))
            for weight, bias in (query, key, value, out)
        ]
        return SingleQuery(parts[0], parts[1], parts[2], parts[3], attention.num_heads)

    def stem(self, how: Preprocessing) -> Stem:
        """Return the first layer with the mean and standard deviation of `how` folded in."""
        key = how.mean, how.std
        if key not in self._stems:
            kernel = self._kernel.double().view(len(self._kernel), 3, -1)
            std = torch.tensor(how.std, dtype=torch.float64).view(1, 3, 1)
            mean = torch.tensor(how.mean, dtype=torch.float64).view(1, 3, 1)
            folded = (kernel * (256 / 255) / std).flatten(1).float()
            positions = self._positions.double()
            positions[1:] -= (kernel * mean / std).sum((1, 2))
            positions[0] += self._class.double()
            weight = folded.to(self.device, self.dtype)
            patches = linear_maker(EXACT[self.dtype], self.device)(weight, None, "none")
            self._stems[key] = Stem(patches, positions.to(self.device, torch.float32))
        return self._stems[key]

    @torch.inference_mode()
    def encode(self, frames: torch.Tensor, how: Preprocessing) -> torch.Tensor:
        """Return (B, D) embeddings of any length, in the tower's dtype, without waiting.

        Args:
            frames: (B, H, W, 3) uint8 on the tower's device.
            how: preprocessing; its size is the model's.
        """
        stem = self.stem(how)
        x = self._embed(prepare(frames, how, self.dtype, self.patch), stem)
        y = self.blocks[0].first(x)
        for attend, block, after in zip(
            self.attentions, self.blocks, self.blocks[1:], strict=False
        ):
            x, y = block.second.add(x, attend(y))
            x, y = after.first.add(x, block.shrink(block.grow(y)))
        return self._finish(x, y)

    def _embed(self, tokens: torch.Tensor, stem: Stem) -> torch.Tensor:
        """Return (B, T, W): patches and class token with their positions, normalised."""
        patches = stem.patches(tokens)
        batch, count, width = patches.shape
        x = torch.empty(batch, count + 1, width, device=self.device, dtype=torch.float32)
        torch.add(patches, stem.positions[1:], out=x[:, 1:])
        x[:, 0] = stem.positions[0]
        return (x if self.pre is None else self.pre(x)).to(self.dtype)

    def _finish(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return (B, D): the last block, the pooling and the projection of (B, T, W)."""
        block = self.blocks[-1]
        if not self.class_pooled:
            x, y = block.second.add(x, self.attentions[-1](y))
            delta = block.shrink(block.grow(y))
            if self.pool_first:
                return self.project(self.post((x + delta)[:, 1:].mean(1)))
            return self.project(self.post.add(x, delta)[1][:, 1:].mean(1))
        if self.last is not None:
            delta = self.last(y[:, 0], y)
        else:
            delta = self.attentions[-1](y, rows=1)[:, 0]
        x, y = block.second.add(x[:, 0], delta)
        return self.project(self.post.add(x, block.shrink(block.grow(y)))[1])


def is_lean_vit(tower: nn.Module) -> bool:
    """Tell whether `LeanViT` computes what `tower` does; by name: no import of open_clip."""
    if type(tower).__name__ != "VisionTransformer" or not hasattr(tower, "final_ln_after_pool"):
        return False
    vit: Any = tower
    (height, width), (rows, columns) = vit.image_size, vit.patch_size
    return (
        vit.attn_pool is None
        and vit.pool_type in {"tok", "avg"}
        and vit.proj is not None
        and height == width
        and rows == columns
        and all(_is_plain(block) for block in vit.transformer.resblocks)
    )


def _is_plain(block: Any) -> bool:
    """Tell whether a block is the one of CLIP: pre-normalised, standard attention, an MLP."""
    return (
        type(block).__name__ == "ResidualAttentionBlock"
        and isinstance(block.attn, nn.MultiheadAttention)
        and block.attn.in_proj_weight is not None
        and block.attn.bias_k is None
        and _activation(block.mlp.gelu)[0] != ""
    )


def _activation(layer: Any) -> tuple[str, float]:
    """Return the activation's name in `layers` and the factor its input needs; "" if unknown."""
    if isinstance(layer, nn.GELU):
        return ("gelu_tanh" if layer.approximate == "tanh" else "gelu"), 1.0
    if type(layer).__name__ == "QuickGELU":
        return "silu", _QUICK
    return "", 1.0


def _scaled(linear: Any, scale: Any, factor: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight and bias with LayerScale and, for the weight, `factor` folded in."""
    weight, bias = linear.weight.detach() * factor, linear.bias.detach()
    if isinstance(scale, nn.Identity):
        return weight, bias
    gamma = scale.gamma.detach()
    return weight * gamma[:, None], bias * gamma
