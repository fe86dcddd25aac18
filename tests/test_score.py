"""The scoring kernels against their twin in float64."""

from __future__ import annotations

import pytest
import torch
from kernel_checks import DEVICE, DTYPES, ON_DEVICE

from vlmrm_fast.kernels import reference, score
from vlmrm_fast.kernels.reference import Tasks

pytestmark = ON_DEVICE


def make_tasks(prompts: int, width: int) -> Tasks:
    goal, baseline = torch.randn(2, prompts, width, dtype=torch.float64)
    goal, baseline = (rows / rows.norm(dim=-1, keepdim=True) for rows in (goal, baseline))
    if width == 1:
        baseline = -goal
    return reference.make_tasks(goal, baseline, torch.rand(prompts))


def errors(z: torch.Tensor, exact: Tasks) -> tuple[float, float]:
    """Return the largest errors of the kernel and of the twin in float32."""
    rewards, tasks = reference.score(z.double(), exact), exact.to("cpu")
    ours = score.score(z.to(DEVICE), tasks.to(DEVICE))
    assert ours.shape == rewards.shape
    assert ours.dtype == torch.float32
    twin = reference.score(z, tasks)
    return tuple(float((each.cpu() - rewards).abs().max()) for each in (ours, twin))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("batch", "width", "prompts"),
    [
        (1, 1, 1),
        (5, 123, 3),
        (123, 64, 1),
        (7, 1280, 8),
        (2, 5, 15),
        (33, 130, 16),
        (5, 64, 123),
        # Batches above 1,024 are cut into larger tiles.
        (1030, 40, 5),
        (1100, 50, 20),
    ],
)
def test_rewards_equal_the_twins(batch: int, width: int, prompts: int, dtype: torch.dtype) -> None:
    # Rows of length 500: their squares overflow float16.
    z = torch.nn.functional.normalize(torch.randn(batch, width), dim=-1) * 500
    ours, twin = errors(z.to(dtype), make_tasks(prompts, width))
    assert ours <= max(2 * twin, 1e-6)


@pytest.mark.parametrize("prompts", [2, 20])
def test_rows_between_others_are_read_where_they_lie(prompts: int) -> None:
    tokens = torch.randn(9, 3, 80).to(DEVICE)
    tasks = make_tasks(prompts, 40).to(DEVICE)
    for z in (tokens[:, 1, :40], tokens[:, 2, ::2], tokens[::4, 0, 40:]):
        assert torch.equal(score.score(z, tasks), score.score(z.contiguous(), tasks))


@pytest.mark.parametrize("prompts", [3, 17])
def test_rewards_do_not_depend_on_the_rest_of_the_batch(prompts: int) -> None:
    z, tasks = torch.randn(37, 50).to(DEVICE), make_tasks(prompts, 50).to(DEVICE)
    every = score.score(z, tasks)
    assert torch.equal(every[5:6], score.score(z[5:6], tasks))
    assert torch.equal(every, score.score(z, tasks))


def test_no_rows_and_float64_constants_work() -> None:
    tasks = make_tasks(2, 8)
    assert score.score(torch.empty(0, 8).to(DEVICE), tasks.to(DEVICE)).shape == (0, 2)
    z, exact = torch.randn(3, 8).to(DEVICE), Tasks(*(part.to(DEVICE) for part in tasks))
    assert score.score(z, exact).dtype == torch.float64
