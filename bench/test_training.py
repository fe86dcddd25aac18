"""Environment steps per second of training end to end, and where the time goes.

Physics, drawing, scoring by the built-in model and learning: what `vlmrm-fast train
cartpole-upright` does, without the evaluation. The result is asserted after timing: every step was
made, every stage took part, and the shares add up.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from vlmrm_fast.config import AlgorithmConfig, CheckpointConfig, LoggingConfig, TrainConfig
from vlmrm_fast.sb3.building import build_env, build_reward, resolve
from vlmrm_fast.sb3.callbacks import STAGES, MetricsCallback
from vlmrm_fast.train import build_model

STAGES_OF_WORK = ("simulate", "draw", "encode", "learn")


class Training:
    """One agent that learns, a few rollouts at a time."""

    def __init__(self, algorithm: str | None) -> None:
        config = TrainConfig(
            task="cartpole-upright",
            logging=LoggingConfig(tensorboard=False, progress="off"),
            checkpoint=CheckpointConfig(checkpoint_interval=10**9),
        )
        if algorithm is not None:
            part = AlgorithmConfig(algorithm, hyperparameters=SAC)
            config = dataclasses.replace(config, algorithm=part)
        self.config = resolve(config)
        self.reward = build_reward(self.config)
        self.env: Any = build_env(self.config, self.reward)
        self.model = build_model(self.config, self.env)
        self.metrics = MetricsCallback(10**9, lambda row: None)

    def learn(self, steps: int) -> None:
        """Train for about so many steps."""
        first = self.model.num_timesteps == 0
        self.model.learn(steps, callback=self.metrics, log_interval=None, reset_num_timesteps=first)


# A gradient step for every four environment steps keeps SAC from outweighing the rest.
SAC = {"train_freq": 1, "gradient_steps": 2, "batch_size": 128, "learning_starts": 64}


@pytest.mark.benchmark(group="training")
@pytest.mark.parametrize("algorithm", [None, "SAC"], ids=["task", "SAC"])
def test_training_end_to_end(benchmark: Any, algorithm: str | None) -> None:
    training = Training(algorithm)
    # The first rollout warms caches and fills the start of the replay buffer.
    training.learn(128)
    steps = 4096 if benchmark.enabled else 256
    before = training.model.num_timesteps
    seconds = training.metrics.seconds
    stages = dict(training.metrics.stage_seconds)

    benchmark.pedantic(training.learn, args=(steps,), rounds=1, iterations=1)

    done = training.model.num_timesteps - before
    assert done >= steps
    spent = training.metrics.seconds - seconds
    shares = {n: (training.metrics.stage_seconds[n] - stages[n]) / spent for n in STAGES}
    assert all(shares[name] > 0 for name in STAGES_OF_WORK)
    assert sum(shares.values()) == pytest.approx(1, abs=0.05)
    benchmark.extra_info.update({
        "task": training.config.task,
        "algorithm": training.config.algorithm.algorithm,
        "num_envs": training.config.num_envs,
        "image_size": training.reward.image_size,
        "model": training.config.reward.model,
        "steps": done,
        "steps_per_second": done / spent,
        **{f"share_{name}": value for name, value in shares.items()},
    })
    training.env.close()
