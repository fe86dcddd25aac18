"""Training runs with reward options: flags, resolved configuration, resume, evaluation."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import tiny_config

from vlmrm_fast import checkpoint as checkpoints
from vlmrm_fast import train as training
from vlmrm_fast.cli_train import parse_train
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
from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.evaluation.card import CardConfig, make_card
from vlmrm_fast.sb3.building import build_env, build_reward, resolve

pytestmark = pytest.mark.usefixtures("one_torch_thread")

OFF = {"policy_kwargs": {"net_arch": [8]}, "learning_starts": 16, "batch_size": 8}
FLAGS = (
    "--score-every 3 --unscored hold --normalize --mode add --weight 2 --env-weight 0.5 "
    "--rule softmax --negatives 'a cart' 'an empty room' --temperature 0.05 "
    "--more-cameras azimuth=120,distance=3 --camera-reduce min"
)


def run_config(model: str, folder: Path, steps: int, **changes: Any) -> TrainConfig:
    """Return a run of a second or two with every option on."""
    return TrainConfig(
        task="cartpole-upright",
        steps=steps,
        num_envs=2,
        episode_length=20,
        run_dir=str(folder),
        num_threads=1,
        reward=RewardConfig(
            model=model, rule="softmax", negatives=("a cart", "an empty room"), temperature=0.05,
            mode="add", weight=2.0, env_weight=0.5, normalize=True, score_every=3,
        ),
        camera=CameraConfig(
            render_size=32, more_cameras=("azimuth=120,distance=3",), camera_reduce="min"
        ),
        algorithm=AlgorithmConfig("SAC", hyperparameters={**OFF, "buffer_size": 300}),
        evaluation=EvaluationConfig(episodes=2, video=False),
        logging=LoggingConfig(log_interval=40, tensorboard=False, progress="off"),
        checkpoint=CheckpointConfig(checkpoint_interval=64),
        **changes,
    )  # fmt: skip


def test_flags_stand_for_the_fields() -> None:
    import shlex

    config = parse_train(["cartpole-upright", *shlex.split(FLAGS)]).config
    assert config.reward == RewardConfig(
        rule="softmax", negatives=("a cart", "an empty room"), temperature=0.05, mode="add",
        weight=2.0, env_weight=0.5, normalize=True, score_every=3,
    )  # fmt: skip
    assert config.camera.more_cameras == ("azimuth=120,distance=3",)
    assert config.camera.camera_reduce == "min"


@pytest.mark.parametrize("labels", ["step", "deferred"])
def test_half_and_half_is_the_whole_with_every_option(
    tiny_folder: str, tmp_path: Path, labels: Any
) -> None:
    whole = run_config(tiny_folder, tmp_path / "whole", 80, labels=labels)
    training.train(whole)
    half = run_config(tiny_folder, tmp_path / "half", 46, labels=labels)
    training.train(half)
    # In the middle of an episode, and between two steps that are scored.
    training.train(dataclasses.replace(half, steps=80), resume=tmp_path / "half")
    one, other = (checkpoints.load(tmp_path / name) for name in ("whole", "half"))
    assert one.step == other.step == 80
    assert one.replay is not None
    assert other.replay is not None
    for name, array in one.replay.items():
        np.testing.assert_array_equal(array, other.replay[name])
    assert np.unique(one.replay["rewards"]).size > 20
    resolved = load_config(tmp_path / "half" / "config.yaml")
    assert resolved.reward == dataclasses.replace(
        half.reward, goal=resolved.reward.goal, baseline=resolved.reward.baseline, alpha=0.0
    )
    described = json.loads((tmp_path / "half" / "run.json").read_text())["reward"]
    assert described["rule"] == "softmax"
    assert described["negatives"] == ["a cart", "an empty room"]


def test_what_measures_a_policy_sees_every_reward_as_it_is(
    tiny_folder: str, tmp_path: Path
) -> None:
    config = resolve(run_config(tiny_folder, tmp_path, 64))
    reward = build_reward(config)
    env: Any = build_env(config, reward)
    learning: Any = build_env(config, reward, training=True)
    for one in (env, learning):
        one.reset()
    actions = np.zeros((2, 1), np.float32)
    rewards = []
    for _ in range(3):
        _, _, _, infos = env.step(actions)
        learning.step(actions)
        scores = reward.score(env.worlds.camera_frames.reshape(-1, 32, 32, 3)).reshape(2, 2)
        expected = scores.min(axis=0).tolist()
        rewards.append([info["vlm_reward"] for info in infos])
        np.testing.assert_allclose(rewards[-1], expected, atol=1e-6)
    frames = learning.worlds.camera_frames
    assert (frames != env.worlds.camera_frames).any()


def test_goal_pictures_are_resolved_and_recorded(tiny_folder: str, tmp_path: Path) -> None:
    np.save(tmp_path / "goal.npy", np.full((40, 40, 3), 200, np.uint8))
    picture = (str(tmp_path / "goal.npy"),)
    config = run_config(tiny_folder, tmp_path / "run", 64)
    mixed = resolve(
        dataclasses.replace(config, reward=RewardConfig(tiny_folder, goal_images=picture))
    )
    assert mixed.reward.image_weight == 0.5
    assert mixed.reward.goal is not None
    alone = TrainConfig(
        env="InvertedPendulum-v5", reward=RewardConfig(tiny_folder, goal_images=picture)
    )
    resolved = resolve(alone)
    assert resolved.reward.image_weight == 1
    found = build_reward(resolved).describe()
    assert found["goal_images"] == 1
    assert found["goal"] == []


def test_options_that_do_not_fit_are_refused_before_anything_is_loaded() -> None:
    for changes, text in (
        ({"rule": "softmax"}, "negatives must be given"),
        ({"negatives": ("a",)}, "negatives must be left out for rule='goal-baseline'"),
        ({"rule": "cosine", "alpha": 0.5}, "alpha must be 0 for rule='cosine'"),
        ({"goal_images": ("/nowhere.png",)}, "goal_images: source must be an existing file"),
    ):
        config = TrainConfig(
            task="cartpole-upright",
            reward=RewardConfig(model="no/such", **changes),  # type: ignore[arg-type]
        )
        with pytest.raises(ArgumentError, match=text):
            training.train(config)
    # The task's alpha belongs to the paper's rule, and gives way.
    kneeling = TrainConfig(task="humanoid-kneeling", reward=RewardConfig(rule="difference"))
    assert resolve(kneeling).reward.alpha == 0


def test_goal_pictures_are_found_from_any_directory_and_noticed_when_they_change(
    tiny_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("goal.npy", np.full((40, 40, 3), 200, np.uint8))
    reward = RewardConfig(tiny_folder, goal_images=("goal.npy",))
    changes = {"reward": reward, "steps": 64, "evaluation": EvaluationConfig(1, video=False)}
    run = training.train(tiny_config(tiny_folder, tmp_path / "run", **changes)).run_dir
    config = load_config(run / "config.yaml")
    assert config.reward.goal_images == (str(tmp_path / "goal.npy"),)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    options = CardConfig(
        str(run), episodes=1, labelled_states=0, random_policy=False, checkpoints=1
    )
    assert not any("pictures" in note for note in make_card(options).report["notes"])
    # The same file, another picture.
    np.save(tmp_path / "goal.npy", np.full((40, 40, 3), 10, np.uint8))
    text = "reward.goal_images must hold the pictures that the run was trained on, sha256"
    assert any(text in note for note in make_card(options).report["notes"])
    with pytest.raises(ArgumentError, match=text):
        training.train(dataclasses.replace(config, steps=192), resume=run)
