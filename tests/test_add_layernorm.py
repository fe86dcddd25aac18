"""The normalisation kernel against its twin in float64."""

from __future__ import annotations

import pytest
import torch
from kernel_checks import DEVICE, DTYPES, ON_DEVICE, worst

from vlmrm_fast.kernels import add_layernorm as kernel

pytestmark = ON_DEVICE

EPS = 1e-5


def exact(total: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Normalise in float64."""
    width = (total.shape[-1],)
    return torch.nn.functional.layer_norm(
        total.double(), width, weight.double(), bias.double(), EPS
    )


@pytest.mark.parametrize("add", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1, 123), (123, 64), (3, 50, 40), (2, 1664)])
def test_sums_and_rows_equal_the_twins(shape: tuple, dtype: torch.dtype, add: bool) -> None:
    x, residual = (torch.randn(shape).to(dtype) for _ in range(2))
    weight, bias = torch.randn(2, shape[-1]).to(dtype)
    arguments = [part.to(DEVICE) for part in (x, residual, weight, bias)]
    if not add:
        arguments[1] = None
    total, y = (part.cpu() for part in kernel.add_layernorm(*arguments, EPS))
    assert y.dtype == total.dtype == dtype
    assert worst(total, x.double() + residual.double() * add) <= 0
    # Statistics in float32, roots and quotients within two units: more than one rounding.
    assert worst(y, exact(total, weight, bias)) <= 1e-5


@pytest.mark.parametrize("stream", [torch.float32, torch.float16])
def test_a_float32_stream_takes_half_precision_branches(stream: torch.dtype) -> None:
    x, branch = torch.randn(4, 96).to(stream), torch.randn(4, 96).half()
    weight, bias = torch.randn(2, 96).half()
    arguments = [part.to(DEVICE) for part in (x, branch, weight, bias)]
    total, y = kernel.add_layernorm(*arguments, EPS)
    assert total.dtype == stream
    assert y.dtype == torch.float16
    assert worst(y.cpu(), exact(total.cpu(), weight, bias)) <= 1e-5


def test_the_mean_of_far_values_costs_no_precision() -> None:
    x = 1000 + torch.randn(3, 256)
    weight, bias = torch.ones(256), torch.zeros(256)
    y = kernel.add_layernorm(x.to(DEVICE), None, weight.to(DEVICE), bias.to(DEVICE), EPS)[1]
    # A one-pass variance would be off by about 1000^2 * 2^-23.
    assert worst(y.cpu(), exact(x, weight, bias)) <= 2e-4


def test_views_are_read_where_they_lie() -> None:
    weight, bias = torch.randn(2, 24).to(DEVICE)
    tokens = torch.randn(6, 5, 48).to(DEVICE)
    turned = torch.randn(24, 6).to(DEVICE).T
    for x in (tokens[:, 0, :24], tokens[..., 24:], tokens[::2, 1:3, :24], turned):
        total, y = kernel.add_layernorm(x, x, weight, bias, EPS)
        assert torch.equal(total, 2 * x)
        dense = x.contiguous()
        assert torch.equal(y, kernel.add_layernorm(dense, dense, weight, bias, EPS)[1])
        assert total.is_contiguous()
        assert y.is_contiguous()


def test_no_rows_give_no_rows() -> None:
    x, weight = torch.empty(0, 4, 8).to(DEVICE), torch.ones(8).to(DEVICE)
    total, y = kernel.add_layernorm(x, x, weight, weight, EPS)
    assert total.shape == y.shape == (0, 4, 8)
