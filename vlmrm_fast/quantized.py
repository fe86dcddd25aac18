"""Linear layers in 8 bits: int8 on a CPU, fp8 on a CUDA device.

Every token has its own scale, taken from its values as they come: an embedding does not depend
on the other frames of its batch, and nothing is calibrated.
"""

from __future__ import annotations

import functools

import torch

from vlmrm_fast.kernels import ops
from vlmrm_fast.layers import ACTIVATIONS, Linear, PlainLinear, can_pack


@functools.cache
def sums_exactly() -> bool:
    """Tell whether the CPU sums products of 8 bits exactly, found out by one that is large."""
    # CPUs without VNNI add two products in 16 bits, which saturates.
    weight = torch.full((64, 256), 127, dtype=torch.int8)
    x = torch.full((4, 256), 255, dtype=torch.uint8)
    ones, zeros = torch.ones(64), torch.zeros(64, dtype=torch.int32)
    out = torch.ops.onednn.qlinear_pointwise(
        x, 1.0, 128, torch.ops.onednn.qlinear_prepack(weight, None), ones, zeros, None,
        1.0, 0, torch.float32, "none", [], "",
    )  # fmt: skip
    return bool((out == 127 * 127 * 256).all())


@functools.cache
def has_int8() -> bool:
    """Tell whether this torch and this CPU run `Int8Linear`; tried once, on a small product."""
    if not can_pack():
        return False
    x = torch.linspace(-1, 1, 4 * 32).view(4, 32)
    weight = torch.linspace(-1, 1, 16 * 32).view(16, 32)
    try:
        ours = Int8Linear(weight, None)(x)
    except (AttributeError, RuntimeError):  # the ops are torch's own business and may change
        return False
    return torch.allclose(ours, PlainLinear(weight, None)(x), atol=0.2)


class Int8Linear:
    """y = activation(x W^T + b) with W in int8, one scale a row, and x in uint8, one scale a token.

    x is q scale + rounding, q in -127 ... 127, stored from 1 up. Where the CPU does not sum
    exactly, q is in -63 ... 63: two products of 8 and 7 bits fit 16. ViT-B-32's cosine to float32
    is 0.99973 then, 0.99993 else, and would be 0.982 with saturated sums.

    Args:
        weight: (N, K) float32 on a CPU for which `has_int8`.
        bias: (N,) or None.
        activation: key of `layers.ACTIVATIONS`.
    """

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, activation: str = "none"
    ) -> None:
        self.levels = 127 if sums_exactly() else 63
        self.scale = weight.abs().amax(1).clamp_min(1e-12) / 127
        whole = (weight / self.scale[:, None]).round().to(torch.int8)
        self.weight = torch.ops.onednn.qlinear_prepack(whole, None)
        self.zero = torch.zeros(len(weight), dtype=torch.int32)
        self.bias = weight.new_zeros(len(weight)) if bias is None else bias
        self.activation = ACTIVATIONS[activation]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return (..., N) of (..., K)."""
        rows = x.reshape(-1, x.shape[-1])
        # Of torch's ways to the largest magnitude the fastest: vector_norm takes 60 times as long.
        peak = torch.maximum(rows.amax(1, keepdim=True), rows.amin(1, keepdim=True).neg_())
        peak.clamp_min_(1e-12)
        whole = (rows * (self.levels / peak)).round_()
        # By way of int8: torch's conversion to uint8 is not vectorised, ten times slower.
        whole = whole.to(torch.int8).view(torch.uint8).add_(self.levels + 1)
        out = torch.ops.onednn.qlinear_pointwise(
            whole, 1.0, self.levels + 1, self.weight, self.scale, self.zero, None,
            1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        out = torch.addcmul(self.bias, out, peak / self.levels, out=out)
        return self.activation(out).view(*x.shape[:-1], -1)


@functools.cache
def has_fp8(device: torch.device) -> bool:
    """Tell whether this torch and this CUDA device run `Fp8Linear`; tried once, on one product."""
    # AMD's devices have other 8-bit floats.
    if torch.version.hip or torch.cuda.get_device_capability(device) < (9, 0):
        return False
    try:
        x = torch.linspace(-1, 1, 256, device=device).view(16, 16).bfloat16()
        ours = Fp8Linear(torch.eye(16, device=device).bfloat16(), None)(x)
    except Exception:  # torch, cuBLAS and Triton refuse with errors of many types
        return False
    return torch.allclose(ours, x, atol=0.1)


class Fp8Linear:
    """y = after(before(x) W^T + b) with both factors in float8_e4m3fn; CUDA only.

    W has one scale a row and x one a token; the products are summed in float32. `before` and the
    rounding of x are one kernel.

    Args:
        weight: (N, K) bfloat16 on the device, N and K multiples of 16.
        bias: (N,) or None.
        after: key of `layers.ACTIVATIONS`.
        before: likewise.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        after: str = "none",
        before: str = "none",
    ) -> None:
        whole, scale = ops.quantize(weight)
        self.weight = whole.t()  # columns first, as the tensor cores want the second factor
        self.scale = scale.t().contiguous()
        self.bias, self.before, self.after = bias, before, ACTIVATIONS[after]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return (..., N) bfloat16 of (..., K)."""
        whole, scale = ops.quantize(x, self.before)
        out = torch._scaled_mm(
            whole, self.weight, scale_a=scale, scale_b=self.scale, bias=self.bias,
            out_dtype=torch.bfloat16, use_fast_accum=True,
        )  # fmt: skip
        return self.after(out).view(*x.shape[:-1], -1)


def fp8_linear(weight: torch.Tensor, bias: torch.Tensor | None, activation: str) -> Linear:
    """Return an `Fp8Linear`, or a plain one where the tensor cores do not take the shape."""
    fits = all(size % 16 == 0 for size in weight.shape)
    return (Fp8Linear if fits else PlainLinear)(weight, bias, activation)
