"""What goes wrong around training: no old run, no result and no consistency is lost."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from vlmrm_fast import finish, video
from vlmrm_fast import train as training
from vlmrm_fast.config import (
    AlgorithmConfig,
    CameraConfig,
    CheckpointConfig,
    EvaluationConfig,
    LoggingConfig,
    RewardConfig,
    TrainConfig,
)
from vlmrm_fast.errors import ArgumentError, VLMRMError
from vlmrm_fast.run_folder import find_config

SMALL = {"policy_kwargs": {"net_arch": [8]}, "n_steps": 16, "batch_size": 16, "n_epochs": 1}
# A pair, which YAML gives back as a list.
OFF = {"policy_kwargs": {"net_arch": [8]}, "learning_starts": 16, "train_freq": (1, "step")}


def short(folder: Path, name: str = "PPO", **changes: Any) -> TrainConfig:
    """Return a run of a second."""
    values: dict[str, Any] = {
        "task": "cartpole-upright",
        "steps": 32,
        "num_envs": 2,
        "episode_length": 8,
        "run_dir": str(folder),
        "algorithm": AlgorithmConfig(name, hyperparameters=OFF if name == "SAC" else SMALL),
        "evaluation": EvaluationConfig(episodes=1, video=False),
        "logging": LoggingConfig(progress="off", tensorboard=False),
    }
    return TrainConfig(**(values | changes))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """Return the configuration of a finished run."""
    config = short(tmp_path_factory.mktemp("runs") / "run", "SAC")
    training.train(config)
    return config


@pytest.mark.parametrize("fault", ["hyperparameters", "disk", "camera"])
def test_an_overwrite_that_cannot_start_keeps_the_old_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    names = ("config.yaml", "summary.json", "checkpoints/000001-step-1/state.json")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("old")
    config = short(tmp_path)
    if fault == "hyperparameters":
        broken = AlgorithmConfig("PPO", hyperparameters={"n_steps": "many"})
        config = dataclasses.replace(config, algorithm=broken)
    elif fault == "camera":
        config = dataclasses.replace(config, camera=CameraConfig(camera="back"))
    with monkeypatch.context() as patch:
        if fault == "disk":
            usage = shutil.disk_usage(tmp_path)._replace(free=1000)
            patch.setattr(shutil, "disk_usage", lambda path: usage)
        with pytest.raises(VLMRMError):
            training.train(config, overwrite=True)
    assert all((tmp_path / name).read_text() == "old" for name in names)


def test_an_overwrite_replaces_the_old_run(tmp_path: Path) -> None:
    for name in ("config.yaml", "metrics.csv", "run-64.json", "mine.txt"):
        (tmp_path / name).write_text("old")
    training.train(short(tmp_path), overwrite=True)
    assert not (tmp_path / "run-64.json").exists()
    assert (tmp_path / "mine.txt").read_text() == "old"
    assert (tmp_path / "metrics.csv").read_text().startswith("step,")


@pytest.mark.parametrize(("owner", "name"), [(finish, "film_task"), (video, "write_video")])
def test_a_film_that_fails_costs_the_film_and_not_the_result(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    owner: Any,
    name: str,
) -> None:
    seen = []

    def fail(*arguments: Any) -> None:
        seen.append(json.loads((tmp_path / "summary.json").read_text())["steps"])
        raise RuntimeError("the codec\nis gone")

    monkeypatch.setattr(owner, name, fail)
    result = training.train(short(tmp_path, evaluation=EvaluationConfig(1, video_size=64)))
    assert seen == [32]
    assert result.summary["steps"] == 32
    lines = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(lines) == 1
    assert lines[0].endswith("cannot be made: RuntimeError: the codec is gone")
    assert (tmp_path / "reward.png").exists()


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"reward": RewardConfig(goal=("a fallen pole",))}, "reward.goal"),
        ({"reward": RewardConfig(model="RN50/openai")}, "reward.model"),
        ({"reward": RewardConfig(alpha=0.7)}, "reward.alpha"),
        ({"reward": RewardConfig(mode="add")}, "reward.mode"),
        ({"camera": CameraConfig(distance=9.0)}, "camera.distance"),
        ({"episode_length": 9}, "episode_length"),
        ({"seed": 1}, "seed"),
        (
            {"algorithm": AlgorithmConfig("SAC", hyperparameters={**OFF, "gamma": 0.5})},
            "algorithm.hyperparameters.gamma",
        ),
    ],
)
def test_a_resume_with_another_reward_or_learner_is_refused(
    finished: TrainConfig, changes: dict[str, Any], name: str
) -> None:
    assert finished.run_dir is not None
    saved = find_config(finished.run_dir)
    with pytest.raises(ArgumentError) as error:
        training.train(dataclasses.replace(saved, **changes), resume=finished.run_dir)
    assert str(error.value).startswith(f"{name} must stay as it was on a resume, got ")
    assert str(error.value).endswith("Start a new run instead.")


def test_a_resume_may_change_how_long_and_how_closely_a_run_is_watched(
    finished: TrainConfig, tmp_path: Path
) -> None:
    assert finished.run_dir is not None
    folder = shutil.copytree(finished.run_dir, tmp_path / "run")
    more = dataclasses.replace(
        finished,
        steps=48,
        num_threads=1,
        run_dir=str(folder),
        evaluation=EvaluationConfig(episodes=2, video=False),
        logging=LoggingConfig(log_interval=8, progress="off", tensorboard=False),
        checkpoint=CheckpointConfig(checkpoint_interval=8, keep=2),
    )
    assert training.train(more, resume=folder).summary["steps"] == 48
