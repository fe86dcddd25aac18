"""Rewards at each step against rewards that come while simulation goes on, end to end.

Environment steps per second of training on cartpole-upright, interleaved, on a CPU whose cores
torch uses all or one of; bench/gpu_loop.py measures the loop on a GPU. Asserted after timing: the
weights are the same.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from vlmrm_fast import snapshot
from vlmrm_fast.config import AlgorithmConfig, CheckpointConfig, LoggingConfig, TrainConfig
from vlmrm_fast.sb3.building import build_env, build_reward, resolve
from vlmrm_fast.sb3.callbacks import STAGES, MetricsCallback
from vlmrm_fast.sb3.labeling import DeferredLabels
from vlmrm_fast.train import build_model

# Many short turns: a busy moment of the machine spoils one pair, not the median.
PAIRS, STEPS = 15, 512
SAC = {"train_freq": 16, "gradient_steps": 16, "batch_size": 128, "learning_starts": 64}
PPO = {"n_steps": 64}


class Training:
    """One agent that learns, a few rollouts at a time."""

    def __init__(self, algorithm: str, deferred: bool) -> None:
        config = TrainConfig(
            task="cartpole-upright",
            device="cpu",
            logging=LoggingConfig(tensorboard=False, progress="off"),
            checkpoint=CheckpointConfig(checkpoint_interval=10**9),
        )
        options = SAC if algorithm == "SAC" else PPO
        part = AlgorithmConfig(algorithm, hyperparameters=options)
        config = dataclasses.replace(config, algorithm=part)
        self.config = resolve(config)
        self.deferred = deferred
        self.reward = build_reward(self.config)
        self.env: Any = build_env(self.config, self.reward)
        self.model = build_model(self.config, self.env)
        self.metrics = MetricsCallback(10**9, lambda row: None)
        self.random = snapshot.random_state()

    def learn(self, steps: int) -> None:
        """Train for about so many steps."""
        first = self.model.num_timesteps == 0
        # Both sides draw from the same global generators, in turn.
        outer = snapshot.random_state()
        snapshot.set_random_state(self.random)
        callbacks = [*([DeferredLabels()] if self.deferred else []), self.metrics]
        self.model.learn(steps, callback=callbacks, log_interval=None, reset_num_timesteps=first)
        self.random = snapshot.random_state()
        snapshot.set_random_state(outer)

    def shares(self) -> dict[str, float]:
        """Return the share of each stage."""
        return {name: self.metrics.stage_seconds[name] / self.metrics.seconds for name in STAGES}

    def close(self) -> None:
        """Free the renderer and the scorer."""
        self.env.close()


def interleaved(ours: Callable[[], None], theirs: Callable[[], None], pairs: int) -> list[float]:
    """Return the ratios of their seconds to ours, in pairs A-B, B-A."""
    ratios = []
    for pair in range(pairs):
        seconds = {}
        for run in (ours, theirs) if pair % 2 else (theirs, ours):
            start = time.perf_counter()
            run()
            seconds[run] = time.perf_counter() - start
        ratios.append(seconds[theirs] / seconds[ours])
    return sorted(ratios)


def compare_training(benchmark: Any, algorithm: str) -> tuple[Training, Training]:
    """Train with deferred and with step-time rewards in turn; record both."""
    deferred, step = sides = [Training(algorithm, way) for way in (True, False)]
    for side in sides:
        side.learn(128)
    steps = STEPS
    if not benchmark.enabled:
        benchmark(lambda: None)
        return deferred, step
    ratios = interleaved(lambda: deferred.learn(steps), lambda: step.learn(steps), PAIRS)
    before = deferred.metrics.seconds, deferred.model.num_timesteps
    benchmark.pedantic(deferred.learn, args=(steps,), rounds=1)
    step.learn(steps)
    spent = deferred.metrics.seconds - before[0]
    benchmark.extra_info |= {
        "task": "cartpole-upright",
        "algorithm": algorithm,
        "num_envs": deferred.config.num_envs,
        "image_size": deferred.reward.image_size,
        "device": str(deferred.reward.device),
        "baseline": "rewards at each step",
        "steps_per_second": (deferred.model.num_timesteps - before[1]) / spent,
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "shares_deferred": deferred.shares(),
        "shares_step": step.shares(),
    }
    return deferred, step


@pytest.fixture
def torch_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Let torch use so many threads for one test."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("torch_threads", [1, 2], indirect=True)
@pytest.mark.parametrize("algorithm", ["PPO", "SAC"])
@pytest.mark.benchmark(group="training with deferred rewards, CPU")
def test_deferred_training(benchmark: Any, algorithm: str, torch_threads: int) -> None:
    sides = compare_training(benchmark, algorithm)
    benchmark.extra_info["torch_threads"] = torch_threads
    deferred, step = sides
    # Labelled late or at once: the same weights.
    for name, values in deferred.model.get_parameters().items():
        torch.testing.assert_close(values, step.model.get_parameters()[name], rtol=0, atol=0)
    for side in sides:
        assert sum(side.shares().values()) == pytest.approx(1, abs=0.05)
        side.close()
