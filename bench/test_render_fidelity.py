"""How alike the pictures are, and what that does to rewards: figures recorded with the speed."""

from __future__ import annotations

from typing import Any

import gallery
import numpy as np
import parity
import pytest
from render_cases import NUM_THREADS, describe, task_states

from vlmrm_fast.rendering import Renderer, Scene
from vlmrm_fast.reward import VLMReward
from vlmrm_fast.scoring import rank_correlation
from vlmrm_fast.tasks import get_task

STATES = 48
# The tasks whose pictures the built-in model was trained to read.
TASKS = ("cartpole-upright", "humanoid-kneeling")


@pytest.fixture(scope="module")
def oracle() -> Any:
    with parity.Oracle() as oracle:
        yield oracle


def measure_likeness(benchmark: Any, oracle: parity.Oracle, row: gallery.Row) -> None:
    """Draw a row of the gallery by both renderers and keep its worst figures."""
    scene = Scene.from_model(row.model, row.camera, **gallery.flag_arguments(row.flags))
    renderer = Renderer(scene, 224, 224, NUM_THREADS)
    worlds = row.worlds if benchmark.enabled else row.worlds[:1]  # MuJoCo's pictures take long
    ours = benchmark.pedantic(renderer.render, args=(worlds,), rounds=3 * benchmark.enabled or 1)
    describe(benchmark, 224, len(worlds))
    try:
        theirs = oracle.draw(row.model, worlds, row.camera, flags=row.flags)
    except Exception as error:
        pytest.skip(f"mujoco.Renderer cannot draw here: {error}")
    figures = [parity.compare(a, b) for a, b in zip(theirs, ours, strict=True)]
    benchmark.extra_info.update(
        psnr=min(f.psnr for f in figures),
        ssim=min(f.ssim for f in figures),
        off=max(f.off for f in figures),
        reason=row.reason,
    )
    assert benchmark.extra_info["psnr"] >= 20


@pytest.mark.parametrize("name", parity.gymnasium_models())
@pytest.mark.benchmark(group="likeness to mujoco.Renderer, gymnasium's models, 224x224")
def test_likeness(benchmark: Any, oracle: parity.Oracle, name: str) -> None:
    """Default pose and two random ones, through the environment's own camera: the worst figures."""
    model = parity.load_gymnasium(name)
    worlds = parity.random_worlds(model, 2, default=True)
    row = gallery.Row("gymnasium", name, model, parity.gymnasium_camera(name), worlds)
    row.reason = gallery.REASONS.get(name, "")
    measure_likeness(benchmark, oracle, row)


@pytest.mark.parametrize("name", parity.task_scenes())
@pytest.mark.benchmark(group="likeness to mujoco.Renderer, tasks, 224x224")
def test_likeness_of_a_task(benchmark: Any, oracle: parity.Oracle, name: str) -> None:
    """Three posed states through the task's camera: the worst figures."""
    measure_likeness(benchmark, oracle, gallery.task_row(name))


@pytest.mark.parametrize("name", sorted(gallery.FEATURES))
@pytest.mark.benchmark(group="likeness to mujoco.Renderer, one small scene a feature, 224x224")
def test_likeness_of_a_feature(benchmark: Any, oracle: parity.Oracle, name: str) -> None:
    """A small MJCF scene that exercises one feature."""
    measure_likeness(benchmark, oracle, gallery.feature_row(name))


def _differences(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Return how far two series of rewards are apart, and how alike they rank the states."""
    gaps = np.abs(first - second)
    return {
        "max_difference": float(gaps.max()),
        "mean_difference": float(gaps.mean()),
        "spread": float(first.std()),
        "spearman": rank_correlation(first, second),
    }


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.benchmark(group="rewards of the built-in model")
def test_rewards_on_both_pictures(benchmark: Any, oracle: parity.Oracle, task: str) -> None:
    """Rewards of the same states as MuJoCo draws them and as we do, at 224 and the model's size."""
    entry = get_task(task)
    reward = VLMReward("builtin", goal=entry.goal, baseline=entry.baseline, alpha=entry.alpha)
    worlds = task_states(entry, STATES if benchmark.enabled else 16)
    scene = Scene.from_model(worlds[0].model, entry.camera)

    def score(side: int) -> np.ndarray:
        with Renderer(scene, side, side, NUM_THREADS) as renderer:
            return reward.score(renderer.render(worlds))

    benchmark.pedantic(score, args=(224,), rounds=1)
    describe(benchmark, 224, len(worlds))
    for name, side in (("at 224, resized", 224), ("at the model's size", reward.image_size)):
        try:
            theirs = oracle.draw(worlds[0].model, worlds, entry.camera, (side, side))
        except Exception as error:
            pytest.skip(f"mujoco.Renderer cannot draw here: {error}")
        benchmark.extra_info[name] = _differences(reward.score(theirs), score(side))
        assert benchmark.extra_info[name]["spearman"] > 0.8


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.benchmark(group="rewards of the built-in model")
def test_rewards_by_drawing_size(benchmark: Any, task: str) -> None:
    """Drawn at 480 and resized by the model, as the original does, against the other ways."""
    entry = get_task(task)
    reward = VLMReward("builtin", goal=entry.goal, baseline=entry.baseline, alpha=entry.alpha)
    worlds = task_states(entry, 4 * STATES if benchmark.enabled else 48)
    scene = Scene.from_model(worlds[0].model, entry.camera)
    side = reward.image_size

    def score(size: int, supersample: int = 1) -> np.ndarray:
        with Renderer(scene, size, size, NUM_THREADS, supersample=supersample) as renderer:
            return np.concatenate([
                reward.score(renderer.render(worlds[i : i + 16])) for i in range(0, len(worlds), 16)
            ])

    original = benchmark.pedantic(score, args=(480,), rounds=1)
    describe(benchmark, 480, len(worlds))
    ways = {
        "drawn at 224, resized": score(224),
        "drawn at the model's size": score(side),
        "supersample=4 at the model's size": score(side, 4),
    }
    for name, rewards in ways.items():
        benchmark.extra_info[name] = _differences(original, rewards)
        assert benchmark.extra_info[name]["spearman"] > 0.8
