"""The 8-bit rounding kernel against its twin."""

from __future__ import annotations

import pytest
import torch
from kernel_checks import DEVICE, ON_DEVICE
from torch.nn import functional

from vlmrm_fast.kernels import ops, reference
from vlmrm_fast.kernels import quantize_rows as kernel
from vlmrm_fast.quantized import Fp8Linear, fp8_linear

OLD = DEVICE.type == "cuda" and torch.cuda.get_device_capability() < (8, 9)
pytestmark = [*ON_DEVICE, pytest.mark.skipif(OLD, reason="this GPU has no 8-bit floats")]


def carried(right: torch.Tensor) -> torch.Tensor:
    """Where the interpreter's cast to 8 bits is wrong: it loses the carry into the exponent.

    That is where rounding up reaches a power of two, and below the smallest normal number.
    """
    magnitude = right.float().abs()
    leading = torch.frexp(magnitude).mantissa == 0.5
    return (leading | (magnitude < 2.0**-6)) & (DEVICE.type == "cpu")


@pytest.mark.parametrize("activation", sorted(reference.ACTIVATIONS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 2, 123), (3, 256), (2, 1664)])
def test_rows_are_rounded_as_the_twins(
    shape: tuple[int, ...], dtype: torch.dtype, activation: str
) -> None:
    x = (3 * torch.randn(shape)).to(dtype)
    whole, scale = (part.cpu() for part in kernel.quantize_rows(x.to(DEVICE), activation))
    right, right_scale = reference.quantize_rows(x, activation)
    assert whole.dtype == torch.float8_e4m3fn
    assert whole.shape == right.shape == (x.numel() // shape[-1], shape[-1])
    assert scale.shape == (len(whole), 1)
    assert float(((scale - right_scale) / right_scale).abs().max()) <= 1e-6
    # A tie may fall either way after a last bit of difference in the scale: one step of 2^-3.
    wrong = (whole.float() - right.float()).abs() > 2.0**-3 * right.float().abs()
    assert not bool((wrong & ~carried(right)).any())
    differ = (whole.float() != right.float()) & ~carried(right)
    assert float(differ.float().mean()) <= 0.02


@pytest.mark.parametrize("activation", sorted(reference.ACTIVATIONS))
def test_the_twin_rounds_to_the_nearest(activation: str) -> None:
    x = 3 * torch.randn(7, 500)
    whole, scale = reference.quantize_rows(x, activation)
    values = reference.ACTIVATIONS[activation](x) / scale
    # Three bits after the leading one; below 2^-6 the steps stay those of 2^-6.
    step = torch.exp2(torch.floor(torch.log2(values.abs().clamp_min(2.0**-6))) - 3)
    assert float(((whole.float() - values).abs() / step).max()) <= 0.5 + 1e-3


def test_rows_of_zeros_and_large_rows_stay_finite() -> None:
    x = torch.zeros(3, 20)
    x[1] = 1e30
    x[2, 3] = -6e4
    whole, scale = (part.cpu() for part in kernel.quantize_rows(x.to(DEVICE)))
    assert bool(whole.float().isfinite().all())
    assert bool((whole[0].float() == 0).all())
    assert bool((whole[1].float() == 448).all())
    assert whole[2, 3].float() == -448
    assert torch.allclose(whole.float() * scale, x, rtol=1e-6)


def test_views_are_read_where_they_lie() -> None:
    x = torch.randn(6, 4, 32).to(DEVICE)
    for view in (x[:, 1], x[::2, :, 3:19], x.transpose(1, 2)):
        ours = kernel.quantize_rows(view)
        right = kernel.quantize_rows(view.contiguous())
        assert all(torch.equal(a.float(), b.float()) for a, b in zip(ours, right, strict=True))


def test_no_rows_give_no_rows() -> None:
    whole, scale = kernel.quantize_rows(torch.empty(0, 8, device=DEVICE))
    assert (whole.shape, scale.shape) == ((0, 8), (0, 1))


def test_the_op_is_registered_soundly_and_refuses_what_it_cannot_use() -> None:
    arguments = (torch.randn(3, 4, 40), "gelu")
    torch.library.opcheck(torch.ops.vlmrm_fast.quantize_rows.default, arguments)
    with pytest.raises(ValueError, match="activation must be one of gelu, gelu_tanh, none, silu"):
        ops.quantize_rows(torch.randn(3, 4), "relu")
    with pytest.raises(ValueError, match="x must be floating-point, got int64"):
        ops.quantize_rows(torch.arange(4)[None])
    with pytest.raises(ValueError, match=r"x must be \(\.\.\., K\), K at least 1, got \(3, 0\)"):
        ops.quantize_rows(torch.empty(3, 0))


@pytest.mark.parametrize("activation", ["none", "gelu"])
def test_products_in_8_bits_stay_close_to_exact_ones(activation: str) -> None:
    weight, bias = torch.randn(48, 64), torch.randn(48)
    x = torch.randn(5, 7, 64).bfloat16()
    exact = reference.ACTIVATIONS[activation](functional.linear(x.float(), weight, bias))
    short = [part.to(DEVICE, torch.bfloat16) for part in (weight, bias)]
    y = Fp8Linear(short[0], short[1], after=activation)(x.to(DEVICE)).float().cpu()
    assert y.shape == (5, 7, 48)
    # 2^-4 a factor at worst, averaged over 64 products.
    assert float((y - exact).norm() / exact.norm()) <= 0.06


def test_shapes_that_tensor_cores_do_not_take_stay_in_bfloat16() -> None:
    weight = torch.randn(20, 32, device=DEVICE, dtype=torch.bfloat16)
    x = torch.randn(3, 32, device=DEVICE, dtype=torch.bfloat16)
    assert torch.equal(fp8_linear(weight, None, "none")(x), functional.linear(x, weight))
