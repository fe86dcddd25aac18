from __future__ import annotations

import numpy as np
import pytest
import torch

from vlmrm_fast.kernels import reference
from vlmrm_fast.kernels.reference import OPENAI_MEAN, OPENAI_STD, Preprocessing

ALPHAS = (0.0, 0.1, 0.5, 0.9, 1.0)


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    rows = rng.normal(size=shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def definition(z: np.ndarray, goal: np.ndarray, base: np.ndarray, alpha: float) -> np.ndarray:
    """Definition 1 with the D x D projection matrix, in float64."""
    x = z / np.linalg.norm(z, axis=-1, keepdims=True)
    d = goal - base
    projection = alpha * np.outer(d, d) / (d @ d) + (1 - alpha) * np.eye(len(d))
    return 1 - np.square((x - goal) @ projection.T).sum(-1) / 2


def cubic(t: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -0.75, torchvision's for tensors."""
    a, t = -0.75, np.abs(t)
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0.0))


def resize_matrix(old: int, new: int) -> np.ndarray:
    """The (new, old) matrix of bicubic interpolation without antialiasing, edges repeated."""
    matrix = np.zeros((new, old))
    centre = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(centre).astype(int)
    for tap in range(-1, 3):
        column = np.clip(first + tap, 0, old - 1)
        np.add.at(matrix, (np.arange(new), column), cubic(centre - (first + tap)))
    return matrix


def original_pixels(frames: np.ndarray, size: int) -> np.ndarray:
    """What the paper's authors fed to CLIP, in float64: (B, 3, S, S)."""
    rows = resize_matrix(frames.shape[1], size)
    columns = resize_matrix(frames.shape[2], size)
    pixels = np.einsum("sh,bhwc,tw->bcst", rows, frames / 255.0, columns, optimize=True)
    mean, std = (np.array(v).reshape(1, 3, 1, 1) for v in (OPENAI_MEAN, OPENAI_STD))
    return (pixels - mean) / std


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize(("batch", "width"), [(1, 1), (5, 3), (123, 64), (7, 1280)])
def test_closed_form_equals_the_matrix_definition_in_float64(
    alpha: float, batch: int, width: int
) -> None:
    rng = np.random.default_rng(width)
    z, goal, base = rng.normal(size=(batch, width)) * 7, unit(rng, width), unit(rng, width)
    if width == 1:
        base = -goal
    tasks = reference.make_tasks(
        torch.from_numpy(goal[None]),
        torch.from_numpy(base[None]),
        torch.tensor([alpha], dtype=torch.float64),
    )
    ours = reference.score(torch.from_numpy(z), tasks)
    assert ours.shape == (batch, 1)
    assert np.abs(ours[:, 0].numpy() - definition(z, goal, base, alpha)).max() <= 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_fp32_rewards_are_within_1e_5_of_the_definition(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(3)
    # Rows of length 500: their squares overflow float16, so the arithmetic must not be in it.
    z = torch.from_numpy(500 * unit(rng, 64, 512)).to(dtype)
    goal, base = unit(rng, 5, 512), unit(rng, 5, 512)
    tasks = reference.make_tasks(
        torch.from_numpy(goal), torch.from_numpy(base), torch.tensor(ALPHAS, dtype=torch.float64)
    ).to("cpu")
    ours = reference.score(z, tasks)
    assert ours.dtype == torch.float32
    for column, alpha in enumerate(ALPHAS):
        exact = definition(z.double().numpy(), goal[column], base[column], alpha)
        assert np.abs(ours[:, column].numpy() - exact).max() <= 1e-5


def test_averaged_prompts_keep_their_short_length_in_the_formula() -> None:
    rng = np.random.default_rng(4)
    z, goal, base = unit(rng, 9, 32), unit(rng, 3, 32).mean(0), unit(rng, 3, 32).mean(0)
    tasks = reference.make_tasks(
        torch.from_numpy(goal[None]),
        torch.from_numpy(base[None]),
        torch.tensor([0.3], dtype=torch.float64),
    )
    exact = definition(z, goal, base, 0.3)
    assert np.abs(reference.score(torch.from_numpy(z), tasks)[:, 0].numpy() - exact).max() <= 1e-12


def test_alpha_zero_without_baseline_is_the_cosine_for_a_unit_goal() -> None:
    rng = np.random.default_rng(5)
    z, goal = unit(rng, 11, 16), unit(rng, 16)
    tasks = reference.make_tasks(torch.from_numpy(goal[None]), None, torch.zeros(1))
    assert np.allclose(reference.score(torch.from_numpy(z), tasks)[:, 0], z @ goal, atol=1e-14)


def test_equal_goal_and_baseline_stay_finite_at_alpha_zero_beside_another_task() -> None:
    rng = np.random.default_rng(6)
    goal = torch.from_numpy(unit(rng, 2, 16))
    base = torch.stack([goal[0], -goal[1]])
    tasks = reference.make_tasks(goal, base, torch.tensor([0.0, 1.0]))
    assert torch.isfinite(reference.score(torch.randn(4, 16), tasks)).all()


def test_score_reads_strided_rows_and_no_rows() -> None:
    tasks = reference.make_tasks(torch.eye(4)[:1], None, torch.zeros(1)).to("cpu")
    tokens = torch.randn(6, 3, 4)
    class_rows = tokens[:, 1]
    copied = reference.score(class_rows.clone(), tasks)
    assert torch.equal(reference.score(class_rows, tasks), copied)
    assert reference.score(torch.empty(0, 4), tasks).shape == (0, 1)


@pytest.mark.parametrize("shape", [(1, 480, 480), (5, 40, 60), (2, 400, 600), (3, 17, 123)])
def test_compat_pixels_equal_an_independent_float64_resize(shape: tuple[int, int, int]) -> None:
    frames = np.random.default_rng(7).integers(0, 256, (*shape, 3), dtype=np.uint8)
    how = Preprocessing(64, (0.5,) * 3, (0.5,) * 3, "bilinear", "longest").original()
    ours = reference.preprocess(torch.from_numpy(frames), how).numpy()
    assert np.abs(ours - original_pixels(frames, 64)).max() <= 2e-5


@pytest.mark.parametrize("mean_std", [((0.5,) * 3, (0.5,) * 3), (OPENAI_MEAN, OPENAI_STD)])
def test_frames_of_the_models_size_are_not_resampled(mean_std: tuple) -> None:
    frames = torch.arange(256, dtype=torch.uint8).repeat(24).reshape(2, 32, 32, 3)
    how = Preprocessing(32, *mean_std)
    ours = reference.preprocess(frames, how)
    mean, std = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in mean_std)
    exact = (frames.permute(0, 3, 1, 2).double() / 255 - mean) / std
    assert (ours - exact).abs().max() <= 1e-6
    assert ours.shape == (2, 3, 32, 32)


@pytest.mark.parametrize("mode", ["squash", "shortest", "longest"])
def test_strided_frames_give_the_same_pixels(mode: str) -> None:
    frames = torch.randint(0, 256, (3, 50, 90, 3), dtype=torch.uint8)
    how = Preprocessing(32, OPENAI_MEAN, OPENAI_STD, resize_mode=mode)
    strided = frames[:, ::2, ::3]
    assert torch.equal(
        reference.preprocess(strided, how), reference.preprocess(strided.contiguous(), how)
    )
    assert reference.preprocess(frames[:0], how).shape == (0, 3, 32, 32)


def test_preprocess_leaves_the_frames_alone_and_casts() -> None:
    frames = torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8)
    before = frames.clone()
    out = reference.preprocess(frames, Preprocessing(16, (0.5,) * 3, (0.5,) * 3), torch.float16)
    assert out.dtype == torch.float16
    assert torch.equal(frames, before)
