"""The kernel that rounds rows to 8-bit floats against its twin."""

from __future__ import annotations

import pytest
import torch
from kernel_checks import DEVICE, DTYPES, ON_DEVICE

from vlmrm_fast.kernels import quantize as kernel
from vlmrm_fast.kernels import reference
from vlmrm_fast.kernels.reference import ACTIVATIONS, FP8_MAX

pytestmark = ON_DEVICE


def check(x: torch.Tensor, activation: str = "none") -> None:
    q, scale = (part.cpu() for part in kernel.quantize(x.to(DEVICE), activation))
    twin, twin_scale = reference.quantize(x, activation)
    assert q.dtype == torch.float8_e4m3fn
    assert q.shape == twin.shape
    assert scale.shape == twin_scale.shape
    assert torch.allclose(scale, twin_scale, rtol=1e-5, atol=0)
    ours, theirs = q.float(), twin.float()
    same = ours == theirs
    if DEVICE.type == "cpu":
        # Triton's interpreter forgets to carry: what rounds up to a power of two comes out half.
        same |= (2 * ours == theirs) & (theirs.abs().log2() % 1 == 0)
        # And it cuts the least numbers, which have fewer bits, instead of rounding them.
        same |= (theirs.abs() <= 2.0**-6) & ((ours - theirs).abs() <= 2.0**-9)
    # Beside ties, which rounding errors of the activation decide.
    assert same.double().mean() >= 0.995
    assert ((ours - theirs).abs() <= theirs.abs() / 8 + 2.0**-9)[~same].all()


# The exponential of what is far below 0 is infinite, and its inverse 0, as they should be.
@pytest.mark.filterwarnings("ignore:overflow encountered in exp")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("shape", [(1, 5), (3, 5, 123), (7, 256), (2, 1100)])
def test_rows_and_scales_equal_the_twins(shape: tuple, activation: str, dtype) -> None:
    check((torch.randn(shape) * 4).to(dtype), activation)


def test_values_of_the_format_are_kept_exactly() -> None:
    every = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    rows = every[every.isfinite()].repeat(3, 1) * torch.tensor([[1.0], [2.0], [0.125]])
    q, scale = (part.cpu() for part in kernel.quantize(rows.to(DEVICE)))
    assert torch.equal(q.float() * scale, rows)
    assert q.float().abs().amax(1).tolist() == [FP8_MAX] * 3


def test_zeros_stay_zeros_and_no_rows_work() -> None:
    q, scale = kernel.quantize(torch.zeros(2, 9).to(DEVICE))
    assert q.float().abs().max() == 0
    assert (scale > 0).all()
    assert kernel.quantize(torch.empty(0, 9).to(DEVICE))[0].shape == (0, 9)


def test_views_are_read_where_they_lie() -> None:
    tokens = torch.randn(6, 5, 48).to(DEVICE)
    for x in (tokens[:, 0, :24], tokens[..., 24:], tokens[::2, 1:3], tokens[:, :, 0].T):
        q, scale = kernel.quantize(x, "gelu")
        q_dense, scale_dense = kernel.quantize(x.contiguous(), "gelu")
        assert torch.equal(q.view(torch.uint8), q_dense.view(torch.uint8))
        assert torch.equal(scale, scale_dense)


# The interpreter warns of inf times 0.
@pytest.mark.filterwarnings("ignore:invalid value encountered in multiply")
def test_a_row_with_nan_shows_it_and_the_others_stay() -> None:
    x = torch.randn(3, 40)
    x[1, 7], x[2, 7] = float("nan"), float("inf")
    q, scale = (part.cpu() for part in kernel.quantize(x.to(DEVICE)))
    assert scale[1].isnan().all()
    assert scale[2].isinf().all()
    back, (twin, twin_scale) = q.float() * scale, reference.quantize(x)
    assert torch.equal(back.isfinite(), (twin.float() * twin_scale).isfinite())
    assert back[0].isfinite().all()
    assert back[1].isnan().all()
