"""Where rewards cannot come later, the text says why; elsewhere the device decides."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from labeling_cases import Shades, task_env, wrapped_env
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper, VecMonitor, VecNormalize

from vlmrm_fast.errors import ArgumentError, VLMRMError
from vlmrm_fast.sb3.labeling import DeferredLabels, check_model, choose_labels

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture
def shades() -> Shades:
    return Shades()


class Brightness:
    """A reward that can only score at once."""

    image_size = 16

    def score(self, frames: np.ndarray) -> np.ndarray:
        return frames.mean(axis=(1, 2, 3), dtype=np.float32)


class Scaled(VecEnvWrapper):
    """A wrapper that changes rewards."""

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        observations, rewards, dones, infos = self.venv.step_wait()
        return observations, rewards + 1, dones, infos


class NoBuffer:
    """Stands for an algorithm that keeps no steps."""

    def __init__(self, env: Any) -> None:
        self.env = env

    def get_env(self) -> Any:
        return self.env


def test_what_cannot_be_deferred_says_why(shades: Shades) -> None:
    plain = DummyVecEnv([lambda: gymnasium.make("Pendulum-v1")])
    cases = [
        (PPO("MlpPolicy", plain), "an environment that scores no frames, got .* for DummyVecEnv"),
        (PPO("MlpPolicy", VecNormalize(task_env(shades))), "under VecNormalize.*norm_reward=False"),
        (PPO("MlpPolicy", VecMonitor(task_env(shades))), "under VecMonitor, which sums up"),
        (PPO("MlpPolicy", task_env(Brightness())), r"without scorer\(\), got Brightness"),
        (NoBuffer(task_env(shades)), "without a buffer of rewards, got .* for NoBuffer"),
    ]
    for model, text in cases:
        with pytest.raises(ArgumentError, match=f'labels must be "step" .*{text}'):
            check_model(model)
        with pytest.raises(ArgumentError, match='labels must be "step"'):
            choose_labels("deferred", model)
        assert choose_labels("auto", model) == []
        assert choose_labels("step", model) == []


def test_a_wrapper_that_changes_rewards_is_found_at_the_first_step(shades: Shades) -> None:
    for cls in (PPO, SAC):
        model = cls("MlpPolicy", Scaled(task_env(shades)), device="cpu")
        with pytest.raises(ArgumentError, match="where a wrapper of the environment changes rew"):
            model.learn(100, callback=DeferredLabels())


def test_on_a_cpu_auto_scores_at_each_step(shades: Shades) -> None:
    model = PPO("MlpPolicy", task_env(shades), device="cpu")
    assert choose_labels("auto", model) == []
    assert [type(item) for item in choose_labels("deferred", model)] == [DeferredLabels]
    assert choose_labels("step", model) == []


class Resets(BaseCallback):
    """Does what only the algorithm may do while rewards are deferred."""

    def _on_step(self) -> bool:
        self.training_env.reset()
        return True


def test_a_reset_by_a_callback_is_refused(shades: Shades) -> None:
    model = PPO("MlpPolicy", task_env(shades), device="cpu")
    with pytest.raises(ArgumentError, match="where the environment is reset while it is trained"):
        model.learn(100, callback=[DeferredLabels(), Resets()])


class Undefined(Shades):
    """A model that overflows."""

    @staticmethod
    def _rewards(frames: torch.Tensor) -> torch.Tensor:
        return torch.full((len(frames), 1), float("nan"))


def test_a_reward_that_is_no_number_ends_training() -> None:
    model = PPO("MlpPolicy", task_env(Undefined()), device="cpu", n_steps=16)
    with pytest.raises(VLMRMError, match="rewards must be finite, got 27 of 27 that are not"):
        model.learn(100, callback=DeferredLabels())


@pytest.mark.parametrize("make", [task_env, wrapped_env])
def test_the_number_of_slots_holds_where_the_environment_has_a_scorer(
    shades: Shades, make: Any
) -> None:
    env = make(shades)
    # As on a GPU, where an environment makes one for rewards at each step.
    env.labels._own = own = shades.scorer(3)
    env.reset()
    for num_slots in (5, 3):
        env.defer_labels(lambda step, reward: None, num_slots)
        assert env.deferral.scorer.num_slots == num_slots
    assert env.deferral.scorer is own
    env.close()
