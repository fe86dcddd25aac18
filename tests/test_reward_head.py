"""The reward head against its twin in float64."""

from __future__ import annotations

import pytest
import torch
from kernel_checks import DEVICE, DTYPES, ON_DEVICE

from vlmrm_fast.kernels import reference, reward_head

pytestmark = ON_DEVICE

EPS = 1e-5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("prompts", [1, 20])
def test_rewards_of_class_tokens_equal_the_twins(prompts: int, dtype: torch.dtype) -> None:
    goal = torch.nn.functional.normalize(torch.randn(prompts, 24, dtype=torch.float64), dim=-1)
    tasks = reference.make_tasks(goal, -goal.roll(1, 1), torch.rand(prompts))
    rows = torch.randn(5, 3, 48).to(dtype)[:, 0]
    weight, bias = torch.randn(2, 48).to(dtype)
    projection = torch.randn(48, 24).to(dtype)

    parts = (weight.double(), bias.double(), EPS, projection.double(), tasks)
    exact = reference.reward_head(rows.double(), *parts)
    plain = reference.reward_head(rows, weight, bias, EPS, projection, tasks.to("cpu"))
    norm = weight.to(DEVICE), bias.to(DEVICE), EPS
    ours = reward_head.reward_head(
        rows.to(DEVICE), *norm, projection.to(DEVICE), tasks.to(DEVICE)
    ).cpu()
    assert ours.shape == (5, prompts)
    # Interpreted bfloat16 truncates: twice the error of rounding, in both factors.
    limit = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 3e-2}[dtype]
    assert (ours - exact).abs().max() <= max(2 * float((plain - exact).abs().max()), limit)
