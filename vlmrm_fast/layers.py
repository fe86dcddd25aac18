"""Layers of lean image towers: weights made ready once, no autograd, no modules."""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from vlmrm_fast.kernels import ops
from vlmrm_fast.kernels.reference import ACTIVATIONS

Linear = Callable[[torch.Tensor], torch.Tensor]
# weight (N, K), bias (N,) or None, activation -> a function (..., K) -> (..., N).
LinearMaker = Callable[[torch.Tensor, "torch.Tensor | None", str], Linear]

# `ACTIVATIONS` in oneDNN's words: name and algorithm.
_FUSED = {
    "none": ("none", ""),
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
    "silu": ("swish", ""),
}


class PlainLinear:
    """y = activation(x W^T + b) by torch, on any device in any dtype.

    Args:
        weight: (N, K).
        bias: (N,), or None.
        activation: key of `ACTIVATIONS`.
    """

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, activation: str = "none"
    ) -> None:
        self.weight, self.bias = weight.contiguous(), bias
        self.activation = ACTIVATIONS[activation]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return (..., N) of (..., K)."""
        return self.activation(functional.linear(x, self.weight, self.bias))


class PackedLinear:
    """As `PlainLinear`, by oneDNN: weights packed once, the activation in the same pass; CPU only.

    On a Zen 4 core 1.1x (400 rows) to 1.5x (50 rows) the rate of torch's linear, which calls MKL
    there and packs the weights in every call (bench/test_towers.py).

    Args:
        weight: (N, K) float32, or bfloat16 where `cpu_has_bf16`.
        bias: (N,), or None.
        activation: key of `ACTIVATIONS`.
    """

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, activation: str = "none"
    ) -> None:
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
        self.bias, (self.name, self.algorithm) = bias, _FUSED[activation]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return (..., N) of (..., K)."""
        return torch.ops.mkldnn._linear_pointwise(
            x, self.weight, self.bias, self.name, [], self.algorithm
        )


@functools.cache
def can_pack() -> bool:
    """Tell whether this torch and this CPU run `PackedLinear`; tried once, on a small product."""
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        return False
    x = torch.linspace(-1, 1, 4 * 32).view(4, 32)
    weight, bias = torch.linspace(-1, 1, 16 * 32).view(16, 32), torch.linspace(-1, 1, 16)
    try:
        ours = PackedLinear(weight, bias, "gelu")(x)
    except (AttributeError, RuntimeError):  # the ops are torch's own business and may change
        return False
    return torch.allclose(ours, PlainLinear(weight, bias, "gelu")(x), atol=1e-4)


def cpu_has_bf16() -> bool:
    """Tell whether this CPU multiplies bfloat16 natively: elsewhere it runs at 0.15x float32."""
    test = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return can_pack() and test is not None and test()


class Norm:
    """Layer normalisation with its weights in the tower's dtype; statistics in float32.

    Args:
        norm: torch's or open_clip's LayerNorm.
        device: where it runs.
        dtype: of its weights and its result.
    """

    def __init__(self, norm: Any, device: torch.device, dtype: torch.dtype) -> None:
        self.weight = norm.weight.detach().to(device, dtype)
        self.bias = norm.bias.detach().to(device, dtype)
        self.eps: float = norm.eps

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the normalised rows of (..., W)."""
        if x.is_cuda:
            return ops.add_layernorm(x, None, self.weight, self.bias, self.eps)[1]
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)

    def add(self, x: torch.Tensor, delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return x + delta and its normalised rows; on a CPU the sum replaces `x`."""
        if x.is_cuda:
            return ops.add_layernorm(x, delta, self.weight, self.bias, self.eps)
        x = x.add_(delta)
        return x, self(x)


class SingleQuery:
    """Attention of one query a frame over its T tokens, without their keys and values.

    With one query a head, q . (W_k x) = (W_k^T q) . x and sum_t p_t W_v x_t = W_v sum_t p_t x_t:
    two products of width E a frame instead of 2 T. The key bias shifts all scores alike and drops
    out; the value bias is added once, since the weights p sum to 1. In 16 bits the scores would be
    rounded before the softmax: float32 only.

    Args:
        query, key, value, out: nn.Linear or (weight, bias) of width E.
        heads: number of heads.
    """

    def __init__(self, query: Any, key: Any, value: Any, out: Any, heads: int) -> None:
        (wq, bq), (wk, _), (wv, bv), self.out = map(weights, (query, key, value, out))
        width = wk.shape[1]
        head = wk.shape[0] // heads
        scale = head**-0.5
        self.heads = heads
        self.query = wq * scale, bq * scale
        self.key = wk.reshape(heads, head, width).contiguous()
        self.value = wv.reshape(heads, head, width).transpose(1, 2).contiguous()
        self.value_bias = bv

    def __call__(self, query: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Return (B, E) of queries (B, E) over tokens (B, T, E)."""
        batch = len(query)
        # (heads, B, width of a head) -> (B, heads, E): the query seen in token space.
        asked = functional.linear(query, *self.query).view(batch, self.heads, -1).transpose(0, 1)
        asked = torch.bmm(asked, self.key).transpose(0, 1)
        share = torch.bmm(asked, tokens.transpose(1, 2)).softmax(-1)

        mixed = torch.bmm(share, tokens).transpose(0, 1)
        pooled = torch.bmm(mixed, self.value).transpose(0, 1).reshape(batch, -1)
        return functional.linear(pooled + self.value_bias, *self.out)


def weights(layer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (weight, bias) of an nn.Linear, or of such a pair, detached."""
    weight, bias = (layer.weight, layer.bias) if isinstance(layer, nn.Linear) else layer
    return weight.detach(), bias.detach()
