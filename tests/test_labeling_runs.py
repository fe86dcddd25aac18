"""Whole runs with deferred rewards: files, resumes and stops are those of rewards at each step."""

from __future__ import annotations

import copy
import csv
import dataclasses
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO, SAC

from vlmrm_fast import checkpoint as checkpoints
from vlmrm_fast import make_vec_env
from vlmrm_fast import train as training
from vlmrm_fast.config import (
    AlgorithmConfig,
    CheckpointConfig,
    EvaluationConfig,
    LoggingConfig,
    RewardConfig,
    TrainConfig,
)
from vlmrm_fast.envs import deferral
from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.lanes import CpuLane
from vlmrm_fast.progress import Progress
from vlmrm_fast.run_folder import find_config
from vlmrm_fast.sb3.callbacks import STAGES, CheckpointCallback, MetricsCallback
from vlmrm_fast.sb3.labeling import DeferredLabels
from vlmrm_fast.scorer import Scorer
from vlmrm_fast.signals import TrainingStoppedError

pytestmark = pytest.mark.usefixtures("one_torch_thread")

NET = {"policy_kwargs": {"net_arch": [8]}}
HYPERPARAMETERS = {
    "PPO": {**NET, "n_steps": 16, "batch_size": 16, "n_epochs": 1},
    "SAC": {**NET, "learning_starts": 16, "train_freq": [5, "step"], "gradient_steps": 2},
    "SAC-warming-up": {**NET, "learning_starts": 10**6, "train_freq": [1, "step"]},
}


def run_of(folder: Path, case: str, labels: str, steps: int = 72, **changes: Any) -> TrainConfig:
    """Return a short run; its checkpoints come every 40 steps of two environments."""
    values: dict[str, Any] = {
        "task": "cartpole-upright",
        "steps": steps,
        "num_envs": 2,
        "episode_length": 7,
        "device": "cpu",
        "labels": labels,
        "run_dir": str(folder),
        "algorithm": AlgorithmConfig(case.split("-")[0], hyperparameters=HYPERPARAMETERS[case]),
        "evaluation": EvaluationConfig(episodes=1, video=False),
        "logging": LoggingConfig(log_interval=24, progress="off", tensorboard=False),
        "checkpoint": CheckpointConfig(checkpoint_interval=40),
    }
    return TrainConfig(**(values | changes))


def assert_same_files(one: Path, other: Path) -> None:
    """Compare the newest checkpoints and all of the metrics but seconds, bit for bit."""
    a, b = (checkpoints.load(folder) for folder in (one, other))
    assert a.step == b.step
    for name, values in a.modules.items():
        torch.testing.assert_close(values, b.modules[name], rtol=0, atol=0)
    assert (a.replay is None) == (b.replay is None)
    for name in a.replay or ():
        np.testing.assert_array_equal(a.replay[name], b.replay[name])  # type: ignore[index]
    for part in ("fields", "environment"):
        for x, y in zip(leaves(a.state[part]), leaves(b.state[part]), strict=True):
            np.testing.assert_array_equal(x, y)
    episodes = [[{**e, "t": 0} for e in c.state["episodes"]["info"]] for c in (a, b)]
    assert episodes[0] == episodes[1]
    assert np.isfinite([episode["r"] for episode in episodes[0]]).all()
    assert metrics_of(one) == metrics_of(other)


def leaves(tree: Any) -> list[Any]:
    """Return the numbers, texts and arrays of a tree."""
    if isinstance(tree, dict):
        # Clocks, and frames that the next step draws anew.
        passing = {"_start", "_clock", "timings", "last_frames", "t_start"}
        return [leaf for key, value in tree.items() if key not in passing for leaf in leaves(value)]
    if isinstance(tree, (list, tuple)):
        return [leaf for value in tree for leaf in leaves(value)]
    return [tree]


def metrics_of(folder: Path) -> list[dict[str, str]]:
    """Return the rows of the metrics without what depends on the clock."""
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    timed = ("second", "share_", "time/")
    return [{k: v for k, v in row.items() if not any(t in k for t in timed)} for row in rows]


@pytest.mark.parametrize("case", ["SAC", "PPO"])
def test_a_run_leaves_the_files_of_step_time_rewards(tmp_path: Path, case: str) -> None:
    for labels in ("step", "deferred"):
        training.train(run_of(tmp_path / labels, case, labels))
        assert find_config(tmp_path / labels).labels == labels
    assert_same_files(tmp_path / "step", tmp_path / "deferred")


class KilledError(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("case", ["SAC", "SAC-warming-up", "PPO"])
def test_a_killed_run_resumes_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    save = CheckpointCallback.save
    pending: list[int] = []

    def save_and_die(self: CheckpointCallback, place: str, *, in_haste: bool = False) -> None:
        waiting: Any = self.model.get_env()
        pending.append(len(waiting.deferral.pending))
        save(self, place, in_haste=in_haste)
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointCallback, "save", save_and_die)
        with pytest.raises(KilledError):
            training.train(run_of(tmp_path / "killed", case, "deferred"))
    # While nothing is learned, nothing asks for the rewards before the checkpoint does.
    assert (pending[0] > 0) == (case == "SAC-warming-up")
    training.train(run_of(tmp_path / "killed", case, "deferred"), resume=tmp_path / "killed")
    training.train(run_of(tmp_path / "whole", case, "step"))
    assert_same_files(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize("case", ["SAC", "PPO"])
def test_a_signal_in_mid_rollout_loses_no_reward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    tick = Progress.tick

    def stop(self: Progress, step: int, *args: Any) -> None:
        tick(self, step, *args)
        if step == 54:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "tick", stop)
        for labels in ("step", "deferred"):
            with pytest.raises(TrainingStoppedError, match="Stopped at step"):
                training.train(run_of(tmp_path / labels, case, labels))
    assert_same_files(tmp_path / "step", tmp_path / "deferred")
    # Labels may change on a resume: they decide nothing that is stored.
    training.train(run_of(tmp_path / "deferred", case, "step"), resume=tmp_path / "deferred")
    training.train(run_of(tmp_path / "step", case, "deferred"), resume=tmp_path / "step")
    assert_same_files(tmp_path / "step", tmp_path / "deferred")


def test_a_run_in_gymnasium_may_be_deferred(tmp_path: Path) -> None:
    for labels in ("step", "deferred"):
        config = run_of(
            tmp_path / labels, "SAC", labels, steps=60,
            task=None, env="InvertedPendulum-v5", reward=RewardConfig(goal=("an upright pole",)),
        )  # fmt: skip
        training.train(config)
    assert_same_files(tmp_path / "step", tmp_path / "deferred")


def test_labels_of_another_name_are_refused() -> None:
    with pytest.raises(ArgumentError, match="labels must be one of auto, deferred, step, got 'la"):
        TrainConfig(task="cartpole-upright", labels="late")  # type: ignore[arg-type]


def test_labels_are_a_flag_and_a_key() -> None:
    from vlmrm_fast.cli_train import parse_train
    from vlmrm_fast.config import from_yaml, to_yaml

    config = parse_train(["cartpole-upright", "--labels", "deferred"]).config
    assert config.labels == "deferred"
    assert from_yaml(to_yaml(config)) == config
    assert dataclasses.replace(config, labels="auto") == TrainConfig(task="cartpole-upright")


class Clock:
    """A clock that stands still unless rewards are waited for."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class SlowShades:
    """A reward that takes a second of the clock each time it is waited for, and no other time."""

    image_size = 16

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def score(self, frames: np.ndarray) -> np.ndarray:
        self.clock.now += 1
        return frames.mean(axis=(1, 2, 3), dtype=np.float32)

    def scorer(self, num_slots: int = 3) -> Scorer:
        lane = CpuLane(lambda f: f.float().mean((1, 2, 3))[:, None], background=True)
        scorer = Scorer([lane], num_slots)
        collect = scorer.collect

        def slow(tickets: Any) -> np.ndarray:
            self.clock.now += 1
            return collect(tickets)

        scorer.collect = slow  # type: ignore[method-assign]
        return scorer


@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize("name", ["SAC", "PPO"])
def test_waiting_for_rewards_is_booked_to_encoding_and_to_nothing_else(
    monkeypatch: pytest.MonkeyPatch, name: str, deferred: bool
) -> None:
    clock = Clock()
    env: Any = make_vec_env("cartpole-upright", 2, reward=SlowShades(clock), seed=0)
    options = copy.deepcopy(HYPERPARAMETERS[name])
    if name == "SAC":
        model: Any = SAC("MlpPolicy", env, device="cpu", **options | {"train_freq": (5, "step")})
    else:
        model = PPO("MlpPolicy", env, device="cpu", **options)
    monkeypatch.setattr(time, "perf_counter", clock)
    monkeypatch.setattr(deferral, "perf_counter", clock)
    rows: list[dict[str, float]] = []
    metrics = MetricsCallback(32, rows.append)
    model.learn(96, callback=[*([DeferredLabels()] if deferred else []), metrics])
    assert len(rows) >= 3
    for row in rows:
        shares = {stage: row[f"share_{stage}"] for stage in STAGES}
        assert shares == {**dict.fromkeys(STAGES, 0.0), "encode": 1.0}
        assert np.isfinite(row["vlm_reward_mean"])
    assert metrics.stage_seconds["encode"] == metrics.seconds == clock.now - 100
    # Deferred, rewards are waited for less often than steps are made.
    assert (metrics.seconds < 48) == deferred
