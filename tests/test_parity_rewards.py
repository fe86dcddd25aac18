"""Rewards of the built-in model on MuJoCo's pictures and on ours."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from parity import Oracle

from vlmrm_fast import VLMReward
from vlmrm_fast.pretrain.evaluate import spearman
from vlmrm_fast.rendering import Renderer, Scene
from vlmrm_fast.tasks import get_task


def _worlds(name: str, model: mujoco.MjModel, count: int) -> list[mujoco.MjData]:
    """Return states of all kinds, each some steps after a start."""
    rng, task = np.random.default_rng(0), get_task(name)
    worlds = []
    for _ in range(count):
        data = mujoco.MjData(model)
        data.qpos[:], _ = task.initial_state(model, rng)
        if name == "cartpole-upright":
            data.qpos[:] = rng.uniform([-0.6, -np.pi], [0.6, np.pi])
        else:
            data.qpos[7:] += rng.uniform(-1, 1, model.nq - 7)
        mujoco.mj_step(model, data, int(rng.integers(1, 150)))
        worlds.append(data)
    return worlds


@pytest.mark.slow
@pytest.mark.parametrize(
    # At 96 pixels a sample that differs moves a reward by more; facets bring 0.985 to 0.997.
    ("name", "size", "bound"),
    [
        ("cartpole-upright", 96, 0.998),
        ("cartpole-upright", 224, 0.998),
        ("humanoid-kneeling", 96, 0.996),
        ("humanoid-kneeling", 224, 0.999),
    ],
)
def test_rewards_rank_states_as_on_mujocos_pictures(name: str, size: int, bound: float) -> None:
    task = get_task(name)
    model = task.load_model()
    worlds = _worlds(name, model, 50)
    reward = VLMReward("builtin", goal=task.goal, baseline=task.baseline, alpha=task.alpha)
    with Oracle() as oracle:
        theirs = reward.score(oracle.draw(model, worlds, task.camera, (size, size)))
    with Renderer(Scene.from_model(model, task.camera), size, size, facets=True) as renderer:
        ours = reward.score(renderer.render(worlds))
    assert theirs.std() > 0.05
    assert spearman(theirs, ours) >= bound
