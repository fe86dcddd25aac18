"""Batched environments rewarded by a real model: random weights, and the built-in one."""

from __future__ import annotations

import numpy as np
import pytest

from vlmrm_fast.envs import make_vec_env
from vlmrm_fast.tasks import get_task


def test_rewards_are_the_models_and_do_not_depend_on_other_worlds(untrained_folder: str) -> None:
    options = {"model": untrained_folder, "seed": 3}
    many, few = (make_vec_env("cartpole-upright", n, **options) for n in (9, 2))
    size = many.worlds.reward.image_size
    assert many.last_frames.shape == (9, size, size, 3)
    many.reset()
    few.reset()
    many.action_space.seed(0)
    for _ in range(3):
        actions = np.stack([many.action_space.sample() for _ in range(9)])
        _, rewards, _, infos = many.step(actions)
        _, others, _, _ = few.step(actions[:2])
        assert rewards.dtype == np.float32
        np.testing.assert_array_equal(rewards, many.worlds.reward.score(many.last_frames))
        np.testing.assert_allclose(rewards[:2], others, rtol=0, atol=1e-6)
        assert [info["vlm_reward"] for info in infos] == rewards.tolist()


@pytest.mark.parametrize("name", ["cartpole-upright", "humanoid-kneeling"])
def test_the_default_reward_is_the_tasks_sentence_on_the_built_in_model(name: str) -> None:
    env = make_vec_env(name, 2, seed=0)
    reward, task = env.worlds.reward, get_task(name)
    assert tuple(reward.goal) == (task.goal,)
    assert reward.alpha == task.alpha
    assert env.last_frames.shape == (2, reward.image_size, reward.image_size, 3)
    env.reset()
    _, rewards, _, _ = env.step(np.zeros((2, env.action_space.shape[0])))
    np.testing.assert_array_equal(rewards, reward.score(env.last_frames))
