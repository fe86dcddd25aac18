"""Runs on a sentence in anyone's gymnasium environment: its arguments, its kinds of observation."""

import io

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from rich.console import Console

from vlmrm_fast import report
from vlmrm_fast.cli_train import parse_train
from vlmrm_fast.config import AlgorithmConfig, RewardConfig, TrainConfig
from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.sb3.algorithms import build_algorithm, find_algorithm
from vlmrm_fast.sb3.building import build_env, make_gym, resolve

GOAL = "a humanoid robot kneeling"


class Zero:
    """Scores nothing, so that only the plumbing is tested."""

    image_size = 32

    def score(self, frames):
        return np.zeros(len(frames), np.float32)


class DictPendulum(gymnasium.ObservationWrapper):
    """Pendulum-v1 with its observation in a dictionary."""

    def __init__(self, env):
        super().__init__(env)
        self.observation_space = spaces.Dict({"state": env.observation_space})

    def observation(self, observation):
        return {"state": observation}


@pytest.fixture
def dict_pendulum():
    name = "DictPendulum-v0"
    gymnasium.register(
        name,
        entry_point=lambda **kwargs: DictPendulum(gymnasium.make("Pendulum-v1", **kwargs)),
        max_episode_steps=20,
    )
    yield name
    gymnasium.registry.pop(name)


def test_arguments_reach_the_environment():
    arguments = [GOAL, "--env", "Humanoid-v5", "--env-kwargs", "terminate_when_unhealthy=false"]
    config = parse_train(arguments).config
    assert config.env_kwargs == {"terminate_when_unhealthy": False}
    env = make_gym(config)
    env.reset(seed=0)
    # Lying on the floor ends an episode of Humanoid-v5 by default.
    data = env.unwrapped.data
    data.qpos[2] = 0.3
    assert not env.step(np.zeros(17, np.float32))[2]
    env.close()


def test_unknown_arguments_of_the_environment_are_named():
    config = TrainConfig(
        env="Humanoid-v5", env_kwargs={"gravity": 1}, reward=RewardConfig(goal=(GOAL,))
    )
    with pytest.raises(ArgumentError, match=r"'Humanoid-v5' with \{'gravity': 1\}"):
        make_gym(config)


def test_arguments_of_an_environment_are_refused_for_a_task():
    with pytest.raises(ArgumentError, match="env_kwargs must be left out for a task"):
        TrainConfig(task="cartpole-upright", env_kwargs={"a": 1})


@pytest.mark.parametrize("name", ["SAC", "PPO"])
def test_dictionaries_of_observations_train(name, dict_pendulum):
    config = TrainConfig(
        env=dict_pendulum,
        num_envs=2,
        steps=16,
        reward=RewardConfig(goal=("a pendulum",)),
        algorithm=AlgorithmConfig(name, policy="MultiInputPolicy"),
    )
    config = resolve(config)
    env = build_env(config, Zero())
    small = {"SAC": {"learning_starts": 4, "batch_size": 4}, "PPO": {"n_steps": 8, "batch_size": 8}}
    model = build_algorithm(
        find_algorithm(name),
        env,
        small[name],
        policy="MultiInputPolicy",
        seed=0,
        device="cpu",
        steps=16,
    )
    model.learn(16)
    assert model.num_timesteps >= 16
    env.close()


def test_a_very_long_sentence_is_no_file_name():
    sentence = "a robot " * 200
    config = parse_train([sentence, "--env", "Pendulum-v1"]).config
    assert config.reward.goal == (sentence,)


def test_nested_hyperparameters_go_over_the_tasks_one_by_one():
    arguments = ["cartpole-upright", "--hyperparameters", "policy_kwargs.net_arch=[32]"]
    config = resolve(parse_train(arguments).config)
    kwargs = config.algorithm.hyperparameters["policy_kwargs"]
    assert kwargs["net_arch"] == [32]
    assert kwargs["log_std_init"] == -0.5


def test_prompts_are_printed_as_they_are():
    summary = {"task": "t", "goal": "[red]pole[/b]", "steps": 1, "seconds": 1.0}
    summary |= {"steps_per_second": 1.0, "run_dir": "runs/x"}
    text = io.StringIO()
    Console(file=text, width=80).print(report.summary_table(summary))
    assert "[red]pole[/b]" in text.getvalue()
