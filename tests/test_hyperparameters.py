"""Hyperparameters that Stable-Baselines3 would take unseen are refused before any work."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

from vlmrm_fast.config import AlgorithmConfig, TrainConfig
from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.sb3.algorithms import build_algorithm, find_algorithm, resolve_hyperparameters
from vlmrm_fast.sb3.building import resolve
from vlmrm_fast.sb3.hyperparameters import build_noise

NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train_freq": 0}, "train_freq must be a whole number of at least 1, got 0."),
        ({"train_freq": [0, "episode"]}, "train_freq must be a whole number of at least 1, got 0."),
        ({"train_freq": [1, "week"]}, "a pair such as [1, episode], got [1, 'week']."),
        ({"buffer_size": 0}, "buffer_size must be a whole number of at least 1, got 0."),
        ({"buffer_size": None}, "buffer_size must be a whole number of at least 1, got None."),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0."),
        ({"batch_size": 1.5}, "batch_size must be a whole number of at least 1, got 1.5."),
        ({"batch_size": "many"}, "batch_size must be a whole number of at least 1, got 'many'."),
        ({"batch_size": 10**12}, "batch_size must be at most 1048576, got 1000000000000."),
        ({"gradient_steps": 0}, "gradient_steps must be a whole number of at least 1, or -1, got"),
        ({"learning_starts": -100}, "learning_starts must be a whole number of at least 0, got"),
        ({"gamma": 2.0}, "gamma must lie in [0, 1], got 2.0."),
        ({"gamma": NAN}, "gamma must lie in [0, 1], got nan."),
        ({"gamma": True}, "gamma must lie in [0, 1], got True."),
        ({"tau": 0}, "tau must lie in (0, 1], got 0."),
        ({"learning_rate": -1e-3}, "learning_rate must be a finite number above 0, got -0.001."),
        ({"learning_rate": "linear_inf"}, "learning_rate must be a number or linear_NUMBER"),
        ({"ent_coef": "nan"}, "ent_coef must be a finite number of at least 0, auto or auto_NUM"),
        ({"action_noise": "normal_nan"}, "action_noise must be normal_SIGMA or ou_SIGMA, got"),
        (
            {"action_noise": {"name": "NormalActionNoise", "sigma": -0.1}},
            "action_noise.sigma must hold finite numbers of at least 0, got -0.1.",
        ),
        (
            {"action_noise": {"name": "NormalActionNoise", "sigma": [0.1, NAN]}},
            "action_noise.sigma must hold finite numbers of at least 0, got [0.1, nan].",
        ),
        (
            {"action_noise": {"name": "NormalActionNoise", "mean": []}},
            "action_noise.mean must hold finite numbers, got [].",
        ),
        ({"action_noise": {"name": "Loud"}}, "action_noise.name must be one of"),
    ],
)
def test_bad_values_are_refused_when_a_run_is_resolved(
    values: dict[str, Any], message: str
) -> None:
    algorithm = AlgorithmConfig("SAC", hyperparameters=values)
    with pytest.raises(ArgumentError) as error:
        resolve(TrainConfig(task="cartpole-upright", algorithm=algorithm))
    assert message in str(error.value)


def test_good_values_pass_and_whole_numbers_become_whole() -> None:
    values: dict[str, Any] = {
        "train_freq": [1, "episode"],
        "gradient_steps": -1,
        "buffer_size": 1e6,
        "learning_starts": 0,
        "gamma": 1,
        "ent_coef": "auto_0.1",
        "action_noise": "normal_0",
    }
    made = resolve_hyperparameters(find_algorithm("SAC"), values)
    assert made == {**values, "train_freq": (1, "episode"), "buffer_size": 1_000_000}
    assert isinstance(made["buffer_size"], int)


def test_episodes_are_counted_in_one_environment_only() -> None:
    env = DummyVecEnv([lambda: gymnasium.make("MountainCarContinuous-v0")] * 2)
    with pytest.raises(ArgumentError, match="train_freq must count steps for 2 environments"):
        build_algorithm(
            find_algorithm("SAC"),
            env,
            {"train_freq": [1, "episode"]},
            policy="MlpPolicy",
            seed=0,
            device="cpu",
            steps=10,
        )


def test_action_noise_may_differ_between_actions() -> None:
    value = {"name": "NormalActionNoise", "mean": [0.0, 1.0], "sigma": [0.1, 0.2]}
    noise = build_noise(value, (2,))
    np.testing.assert_array_equal(noise._mu, [0.0, 1.0])
    np.testing.assert_array_equal(noise._sigma, [0.1, 0.2])
    with pytest.raises(ArgumentError, match="the numbers of NormalActionNoise for 3 actions"):
        build_noise(value, (3,))
