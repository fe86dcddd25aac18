"""Training end to end on a real, untrained model: what a run leaves, resumes and refuses."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlmrm_fast import checkpoint as checkpoints
from vlmrm_fast import train as training
from vlmrm_fast.config import (
    AlgorithmConfig,
    CameraConfig,
    CheckpointConfig,
    EvaluationConfig,
    LoggingConfig,
    RewardConfig,
    TrainConfig,
    load_config,
)
from vlmrm_fast.errors import ArgumentError, CheckpointError, VLMRMError
from vlmrm_fast.evaluation.card import CardConfig, make_card
from vlmrm_fast.run_folder import COLUMNS, read_metrics
from vlmrm_fast.video import read_video

TINY = {"policy_kwargs": {"net_arch": [8]}}
PPO = {**TINY, "n_steps": 32, "batch_size": 32, "n_epochs": 1}
OFF = {**TINY, "learning_starts": 16, "batch_size": 8, "buffer_size": 300}


@pytest.fixture(scope="module")
def model(tiny_folder: str) -> str:
    return tiny_folder


def tiny(model: str, folder: Path, name: str = "PPO", **changes: Any) -> TrainConfig:
    """Return a run of a few seconds."""
    values: dict[str, Any] = {
        "task": "cartpole-upright",
        "steps": 128,
        "num_envs": 2,
        "episode_length": 20,
        "run_dir": str(folder),
        "reward": RewardConfig(model=model),
        "algorithm": AlgorithmConfig(name, hyperparameters=PPO if name in {"PPO"} else OFF),
        "evaluation": EvaluationConfig(episodes=3, video=False),
        "logging": LoggingConfig(log_interval=32, progress="off", tensorboard=False),
        "checkpoint": CheckpointConfig(checkpoint_interval=64),
    }
    return TrainConfig(**(values | changes))


@pytest.fixture(scope="module")
def finished(model: str, tmp_path_factory: pytest.TempPathFactory) -> training.RunResult:
    """Return a run with everything switched on."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    config = tiny(
        model,
        folder,
        evaluation=EvaluationConfig(episodes=3, video_size=64),
        logging=LoggingConfig(log_interval=32, progress="plain"),
    )
    return training.train(config)


def test_a_run_folder_holds_everything(finished: training.RunResult) -> None:
    names = {path.name for path in finished.run_dir.iterdir()}
    assert names == {
        "checkpoints",
        "config.yaml",
        "first_frame.png",
        "last_frame.png",
        "metrics.csv",
        "metrics.jsonl",
        "reward.png",
        "run.json",
        "summary.json",
        "tensorboard",
        "video.mp4",
    }
    assert list((finished.run_dir / "tensorboard").glob("events.*"))


def test_the_summary_tells_the_result(finished: training.RunResult) -> None:
    summary = json.loads((finished.run_dir / "summary.json").read_text())
    assert summary["task"] == "cartpole-upright"
    assert summary["steps"] == 128
    assert summary["episodes"] == len(summary["episode_results"]) == 3
    assert all(episode["length"] == 20 for episode in summary["episode_results"])
    assert 0 <= summary["success_rate"] <= 1
    assert 0 <= summary["ground_truth_return"] <= 20
    assert -1 <= summary["vlm_reward_mean"] <= 1
    assert summary["steps_per_second"] == pytest.approx(128 / summary["seconds"])
    shares = summary["time_shares"]
    assert {"simulate", "draw", "encode", "learn"} <= set(shares)
    assert sum(shares.values()) == pytest.approx(1, abs=0.02)


def test_the_provenance_says_what_ran(finished: training.RunResult) -> None:
    run = json.loads((finished.run_dir / "run.json").read_text())
    assert run["versions"]["stable-baselines3"]
    assert run["seed"] == 0
    assert run["renderer"]["backend"] == "ray"
    assert len(run["reward"]["weights_sha256"]) == 64
    assert run["reward"]["prompt_tokens"]
    assert run["git"]


def test_training_draws_with_the_renderer_that_was_chosen(model: str, tmp_path: Path) -> None:
    from vlmrm_fast.rendering import Renderer, Scene
    from vlmrm_fast.tasks import get_task

    try:
        Renderer(Scene.from_model(get_task("cartpole-upright").load_model()), backend="gl").close()
    except VLMRMError as error:
        pytest.skip(f"OpenGL cannot be used here: {error}")
    camera = CameraConfig(renderer="gl")
    result = training.train(tiny(model, tmp_path / "run", steps=32, camera=camera))
    run = json.loads((result.run_dir / "run.json").read_text())
    assert run["renderer"]["backend"] == "gl"


def test_the_metrics_have_a_row_an_interval(finished: training.RunResult) -> None:
    rows = read_metrics(finished.run_dir / "metrics.csv")
    assert [row["step"] for row in rows] == [64, 128]
    assert set(rows[-1]) == set(COLUMNS)
    assert rows[-1]["episode_length"] == 20
    lines = (finished.run_dir / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [64, 128]
    assert "rollout/vlm_reward_mean" in json.loads(lines[0])


def test_the_video_shows_the_start_and_the_terminal_state(finished: training.RunResult) -> None:
    frames = read_video(finished.run_dir / "video.mp4")
    assert frames.shape == (21, 76, 64, 3)


def test_the_resolved_configuration_reproduces_the_run(
    finished: training.RunResult, tmp_path: Path
) -> None:
    config = load_config(finished.run_dir / "config.yaml")
    assert config.algorithm.hyperparameters["gamma"] == 0.98
    assert config.reward.goal == ("pole vertically upright on top of the cart",)
    again = training.train(dataclasses.replace(config, run_dir=str(tmp_path / "again")))
    assert again.evaluation == finished.evaluation
    saved = [checkpoints.load(result.run_dir) for result in (finished, again)]
    for name, values in saved[0].modules["policy"].items():
        np.testing.assert_array_equal(values, saved[1].modules["policy"][name])


@pytest.mark.parametrize("name", ["PPO", "SAC"])
def test_a_run_resumes_bit_for_bit(model: str, tmp_path: Path, name: str) -> None:
    whole = training.train(tiny(model, tmp_path / "whole", name))
    half = training.train(tiny(model, tmp_path / "half", name, steps=64))
    config = dataclasses.replace(load_config(half.run_dir / "config.yaml"), steps=128)
    resumed = training.train(config, resume=half.run_dir)
    assert resumed.evaluation == whole.evaluation
    assert resumed.summary["steps"] == 128
    saved = [checkpoints.load(tmp_path / which) for which in ("whole", "half")]
    for key, values in saved[0].modules["policy"].items():
        np.testing.assert_array_equal(values, saved[1].modules["policy"][key])
    for key in saved[0].state["environment"][0]["state"]["simulation"]:
        np.testing.assert_array_equal(
            *(item.state["environment"][0]["state"]["simulation"][key] for item in saved)
        )
    rows = [read_metrics(tmp_path / which / "metrics.csv") for which in ("whole", "half")]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]


def test_a_resume_keeps_task_environments_and_algorithm(
    finished: training.RunResult, model: str, tmp_path: Path
) -> None:
    config = load_config(finished.run_dir / "config.yaml")
    with pytest.raises(ArgumentError, match="num_envs must stay as it was on a resume, got 3"):
        training.train(dataclasses.replace(config, num_envs=3), resume=finished.run_dir)
    with pytest.raises(CheckpointError, match="must hold a checkpoint, got none"):
        training.train(config, resume=tmp_path)


def test_a_finished_run_is_evaluated_once_more(finished: training.RunResult) -> None:
    options = {"episodes": 3, "labelled_states": 0, "random_policy": False}
    again = make_card(CardConfig(str(finished.run_dir), **options)).result  # type: ignore[arg-type]
    assert again.evaluation == finished.evaluation
    assert again.summary["steps"] == 128


def test_other_weights_of_the_same_name_are_refused_and_named(
    finished: training.RunResult, tmp_path: Path
) -> None:
    run = shutil.copytree(finished.run_dir, tmp_path / "run")
    recorded = json.loads((run / "run.json").read_text())
    recorded["reward"]["weights_sha256"] = "0123456789abcdef"
    (run / "run.json").write_text(json.dumps(recorded))
    config = dataclasses.replace(load_config(run / "config.yaml"), steps=200, run_dir=str(run))
    with pytest.raises(ArgumentError, match="weights that the run was trained on, sha256 0123"):
        training.train(config, resume=run)
    card = make_card(
        CardConfig(str(run), episodes=1, labelled_states=0, random_policy=False, checkpoints=1)
    )
    assert any("sha256 0123456789ab" in note for note in card.report["notes"])


@pytest.mark.parametrize("name", ["TD3", "DDPG", "A2C", "stable_baselines3:SAC"])
def test_any_algorithm_trains_on_a_task(model: str, tmp_path: Path, name: str) -> None:
    hyperparameters: dict[str, Any] = {**TINY, "n_steps": 8} if name == "A2C" else dict(OFF)
    config = tiny(model, tmp_path / "run", steps=48)
    algorithm = AlgorithmConfig(name, hyperparameters=hyperparameters)
    result = training.train(dataclasses.replace(config, algorithm=algorithm))
    assert result.summary["steps"] == 48


@pytest.mark.parametrize(("env", "name"), [("InvertedPendulum-v5", "SAC"), ("CartPole-v1", "DQN")])
def test_a_sentence_trains_in_a_gymnasium_environment(
    model: str, tmp_path: Path, env: str, name: str
) -> None:
    if env == "CartPole-v1":
        pytest.importorskip("pygame")
    config = tiny(
        model,
        tmp_path / "run",
        name,
        task=None,
        env=env,
        steps=48,
        reward=RewardConfig(model=model, goal=("a pole that stands upright",)),
        evaluation=EvaluationConfig(episodes=2, video_size=64),
    )
    result = training.train(config)
    assert result.summary["task"] == env
    assert result.summary["success_rate"] is None
    assert len(read_video(result.run_dir / "video.mp4")) >= 2


def test_the_reward_can_be_weighted_and_added(model: str, tmp_path: Path) -> None:
    from vlmrm_fast.sb3.building import build_env, build_reward, resolve

    part = RewardConfig(model=model, mode="add", weight=2.0)
    config = resolve(tiny(model, tmp_path / "run", reward=part))
    env = build_env(config, build_reward(config))
    env.reset()
    _, rewards, _, infos = env.step(np.zeros((2, 1), np.float32))
    expected = [info["env_reward"] + 2 * info["vlm_reward"] for info in infos]
    np.testing.assert_allclose(rewards, expected, rtol=1e-6)
    env.close()


def test_a_free_camera_goes_over_the_tasks(model: str, tmp_path: Path) -> None:
    from vlmrm_fast.sb3.building import build_task, resolve

    config = resolve(tiny(model, tmp_path / "run", camera=CameraConfig(distance=9.0)))
    camera = build_task(config).camera
    assert camera is not None
    assert camera.distance == 9.0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "cartpole-uprigth"}, "Did you mean 'cartpole-upright'?"),
        ({"algorithm": AlgorithmConfig("SACC")}, "Did you mean 'SAC'?"),
        ({"algorithm": AlgorithmConfig("no.such:Thing")}, "importable as package.module:Class"),
        ({"algorithm": AlgorithmConfig("json:JSONDecoder")}, "must be a Stable-Baselines3"),
        ({"algorithm": AlgorithmConfig("DQN")}, "Use one of A2C, DDPG, PPO, SAC, TD3."),
        (
            {"algorithm": AlgorithmConfig("PPO", hyperparameters={"lerning_rate": 1})},
            "Did you mean 'learning_rate'?",
        ),
        (
            {"algorithm": AlgorithmConfig("PPO", hyperparameters={"seed": 1})},
            "It is an option of the run itself.",
        ),
        (
            {"algorithm": AlgorithmConfig("PPO", hyperparameters={"batch_size": 1})},
            "hyperparameters of PPO must be valid",
        ),
        (
            {"algorithm": AlgorithmConfig("SAC", hyperparameters={"action_noise": "loud"})},
            "action_noise must be normal_SIGMA or ou_SIGMA",
        ),
        (
            {"algorithm": AlgorithmConfig("PPO", hyperparameters={"learning_rate": "cosine_1"})},
            "learning_rate must be a number or linear_NUMBER",
        ),
        ({"camera": CameraConfig(camera="back")}, "camera"),
        ({"logging": LoggingConfig(wandb=True)}, "wandb"),
    ],
)
def test_what_does_not_fit_is_one_clear_error_and_leaves_no_folder(
    model: str, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    if "logging" in changes:
        with pytest.raises(ImportError):
            import wandb  # noqa: F401
    with pytest.raises(VLMRMError) as error:
        training.train(tiny(model, tmp_path / "run", **changes))
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_run_folder_in_use_or_out_of_reach_is_refused(model: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("task: x\n")
    with pytest.raises(ArgumentError, match="run_dir must not hold a run yet"):
        training.train(tiny(model, tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(ArgumentError, match="run_dir must be a folder that can be written"):
        training.train(tiny(model, tmp_path / "file" / "run"))


@pytest.mark.parametrize("name", ["PPO", "SAC"])
def test_a_dry_run_draws_and_scores_one_frame_and_trains_nothing(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from PIL import Image
    from rich.console import Console

    from vlmrm_fast import train_dry_run

    monkeypatch.setattr(train_dry_run, "_MEASURE_SECONDS", 0.1)
    table = train_dry_run.dry_run(tiny(model, tmp_path / "run", name), tmp_path / "frame.png")
    assert Image.open(tmp_path / "frame.png").size == (32, 32)
    assert not (tmp_path / "run").exists()
    console = Console(width=120, file=io.StringIO())
    console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for word in ("steps/s", "VLM reward", "MiB", "128 steps in about"):
        assert word in text


def test_too_little_disk_is_found_before_work_starts(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(CheckpointError, match="MiB free, got 0 MiB"):
        training.train(tiny(model, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_signal_saves_and_leaves_and_the_run_resumes(model: str, tmp_path: Path) -> None:
    from vlmrm_fast.config import to_yaml

    config = tiny(model, tmp_path / "run", "SAC", steps=1_000_000)
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    command = [sys.executable, "-m", "vlmrm_fast.cli", "train", str(tmp_path / "config.yaml")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    while len(read_metrics(tmp_path / "run" / "metrics.csv")) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 143, text
    assert "Traceback" not in text
    assert "Go on with --resume" in text
    found = checkpoints.load(tmp_path / "run")
    assert found.step >= 64
    more = dataclasses.replace(load_config(tmp_path / "run" / "config.yaml"), steps=found.step + 20)
    assert training.train(more, resume=tmp_path / "run").summary["steps"] == found.step + 20
