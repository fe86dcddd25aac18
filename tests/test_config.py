"""Configurations: one meaning as dataclass, YAML and flags, and clear errors."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from vlmrm_fast.coercion import load_yaml, merge, parse_assignments, parse_camera, parse_value
from vlmrm_fast.config import (
    CameraConfig,
    CheckpointConfig,
    EvaluationConfig,
    LoggingConfig,
    RewardConfig,
    TrainConfig,
    from_yaml,
    load_config,
    to_yaml,
)
from vlmrm_fast.errors import ArgumentError, UnknownNameError

TASK = "cartpole-upright"


def test_yaml_out_and_in_is_the_same_configuration() -> None:
    config = TrainConfig(
        env="Humanoid-v5",
        steps=20_000,
        reward=RewardConfig(goal=("a", "b"), baseline=("c",), alpha=0.5, weight=-2.0),
        camera=CameraConfig(lookat=(0.0, 0.5, 1.0), distance=3.5, track_body="1"),
        logging=LoggingConfig(progress="off"),
    )
    assert from_yaml(to_yaml(config)) == config


def test_values_are_brought_to_their_fields_types() -> None:
    config = from_yaml(
        f"""
task: {TASK}
steps: 1e6
seed: "7"
reward: {{alpha: 5e-1, goal: a sentence, compat: "yes"}}
camera: {{lookat: [0, 0, 1], camera: null}}
algorithm: {{hyperparameters: {{learning_rate: 3e-4, ent_coef: auto, batch_size: 64}}}}
logging: {{progress: off, tensorboard: no}}
"""
    )
    assert config.steps == 1_000_000
    assert isinstance(config.steps, int)
    assert config.seed == 7
    assert config.reward.alpha == 0.5
    assert config.reward.goal == ("a sentence",)
    assert config.reward.compat is True
    assert config.camera.lookat == (0.0, 0.0, 1.0)
    assert config.logging == LoggingConfig(progress="off", tensorboard=False)
    expected = {"learning_rate": 3e-4, "ent_coef": "auto", "batch_size": 64}
    assert config.algorithm.hyperparameters == expected
    assert isinstance(config.algorithm.hyperparameters["learning_rate"], float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: x\nsteeps: 3", "got 'steeps'. Did you mean 'steps'?"),
        ("task: x\nreward: {gaol: y}", "got 'reward.gaol'. Did you mean 'reward.goal'?"),
        ("task: x\ngoal: y", "It belongs under 'reward': write reward.goal."),
        ("task: x\nsteps: 1.5", "steps must be a whole number, got 1.5."),
        ("task: x\nsteps: many", "steps must be a whole number, got 'many'."),
        ("task: x\nreward: {alpha: true}", "reward.alpha must be a number, got True."),
        ("task: x\ncamera: {lookat: [1, 2]}", "camera.lookat must hold 3 values"),
        ("task: x\nreward: {mode: plus}", "reward.mode must be one of add, replace, got 'plus'"),
        ("task: x\nreward: 3", "reward must be a mapping, got 3."),
        ("- a\n- b", "configuration must be a YAML mapping"),
        ("task: x\nreward: clip", "reward must be a mapping, got 'clip'."),
        ("task: x\nseed: 1\nseed: 2", "found the key 'seed' twice"),
        ("task: x\nreward: {alpha: 0, alpha: 1}", "found the key 'alpha' twice"),
        ("task: x\nseed: 2020-13-45", "configuration must be valid YAML, got: month must be"),
        ("{", "configuration must be valid YAML"),
        ("!!python/object:os.system x", "configuration must be valid YAML"),
    ],
)
def test_bad_yaml_is_one_clear_error(text: str, message: str) -> None:
    with pytest.raises(ArgumentError) as error:
        from_yaml(text)
    assert message in str(error.value)


def test_an_empty_key_means_the_default() -> None:
    text = f"task: {TASK}\nseed:\nbase_dir:\nreward:\n  weight:\n  negatives:\nlogging:\n"
    assert from_yaml(text) == TrainConfig(task=TASK)


def test_merged_yaml_keys_may_be_given_anew() -> None:
    text = "a: &a {seed: 3, steps: 5}\nb: &b {<<: *a, steps: 7}\nc: {<<: *b, seed: 4}"
    assert load_yaml(text)["c"] == {"seed": 4, "steps": 7}


def test_a_file_that_cannot_be_read_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="config must be a readable YAML file"):
        load_config(tmp_path / "missing.yaml")


def test_a_run_names_a_task_or_an_environment_with_a_goal() -> None:
    with pytest.raises(ArgumentError, match="exactly one of task and env must be given"):
        TrainConfig()
    with pytest.raises(ArgumentError, match="exactly one of task and env must be given"):
        TrainConfig(task=TASK, env="Humanoid-v5")
    with pytest.raises(ArgumentError, match=r"reward\.goal must be a sentence"):
        TrainConfig(env="Humanoid-v5")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0."),
        ({"num_envs": -1}, "num_envs must be at least 1, got -1."),
        ({"num_envs": 10**9}, "num_envs must be at most 65536, got 1000000000."),
        ({"seed": -1}, "seed must be at least 0"),
        ({"seed": 2**31}, "seed must be below"),
        ({"device": "gpu"}, "device must be auto, cpu, cuda or cuda:N, got 'gpu'."),
        ({"reward": RewardConfig(alpha=1.5)}, "reward.alpha must lie in [0, 1], got 1.5."),
        ({"reward": RewardConfig(goal=("",))}, "reward.goal must hold no empty prompt"),
        ({"reward": RewardConfig(goal=())}, "reward.goal must hold no empty prompt"),
        ({"reward": RewardConfig(weight=0.0)}, "reward.weight must be finite and not 0"),
        ({"reward": RewardConfig(weight=float("nan"))}, "reward.weight must be finite"),
        (
            {"reward": RewardConfig(goal=("a",), baseline=("a",), alpha=0.1)},
            "reward.baseline must differ from reward.goal where alpha > 0",
        ),
        ({"camera": CameraConfig(camera="side", distance=2.0)}, "camera.camera must be left out"),
        ({"camera": CameraConfig(render_size=0)}, "camera.render_size must be at least 1, got 0."),
        ({"camera": CameraConfig(supersample=0)}, "camera.supersample must be at least 1, got 0."),
        ({"evaluation": EvaluationConfig(episodes=0)}, "evaluation.episodes must be at least 1"),
        ({"checkpoint": CheckpointConfig(keep=0)}, "checkpoint.keep must be at least 1"),
    ],
)
def test_values_out_of_range_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ArgumentError) as error:
        TrainConfig(task=TASK, **changes)  # type: ignore[arg-type]
    assert message in str(error.value)


def test_an_unknown_choice_names_the_choices() -> None:
    with pytest.raises(UnknownNameError, match="add, replace"):
        TrainConfig(task=TASK, reward=RewardConfig(mode="both"))  # type: ignore[arg-type]


def test_the_renderer_is_chosen_by_name() -> None:
    for name in ("auto", "ray", "gl"):
        config = TrainConfig(task=TASK, camera=CameraConfig(renderer=name))  # type: ignore[arg-type]
        assert from_yaml(to_yaml(config)).camera.renderer == name
    with pytest.raises(UnknownNameError, match="auto, gl, ray"):
        TrainConfig(task=TASK, camera=CameraConfig(renderer="egl"))  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match='must be "auto" or "ray" for a gymnasium environment'):
        TrainConfig(
            env="Ant-v5", reward=RewardConfig(goal=("a",)), camera=CameraConfig(renderer="gl")
        )


def test_goal_may_equal_baseline_without_regularisation() -> None:
    TrainConfig(task=TASK, reward=RewardConfig(goal=("a",), baseline=("a",), alpha=0.0))


def test_configurations_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig(task=TASK).steps = 3  # type: ignore[misc]


def test_assignments_are_parsed_with_dots_and_numbers() -> None:
    found = parse_assignments(["learning_rate=3e-4", "policy_kwargs.net_arch=[8, 8]", "n-steps=5"])
    assert found == {"learning_rate": 3e-4, "policy_kwargs": {"net_arch": [8, 8]}, "n_steps": 5}
    assert parse_value("auto_0.1") == "auto_0.1"
    assert parse_value("1e3") == 1000.0
    with pytest.raises(ArgumentError, match="must be given as NAME=VALUE, got 'x'"):
        parse_assignments(["x"])
    with pytest.raises(ArgumentError, match="must be valid YAML"):
        parse_value("[1")


def test_nested_mappings_merge_key_by_key() -> None:
    below = {"a": 1, "b": {"c": 2, "d": 3}}
    assert merge(below, {"b": {"c": 4}, "e": 5}) == {"a": 1, "b": {"c": 4, "d": 3}, "e": 5}
    assert below == {"a": 1, "b": {"c": 2, "d": 3}}


def test_reward_options_are_fields_with_checks() -> None:
    config = from_yaml(
        f"""
task: {TASK}
reward:
  rule: softmax
  negatives: [a cart, an empty room]
  temperature: 2e-2
  goal_images: picture.png
  image_weight: 1
  mode: add
  env_weight: 0.1
  normalize: yes
  score_every: 4
  unscored: zero
camera: {{more_cameras: ["side", "azimuth=90,lookat=0/0/1"], camera_reduce: min}}
"""
    )
    assert config.reward.negatives == ("a cart", "an empty room")
    assert config.reward.goal_images == ("picture.png",)
    assert config.reward.temperature == 0.02
    assert config.reward.normalize is True
    assert config.camera.more_cameras == ("side", "azimuth=90,lookat=0/0/1")
    assert from_yaml(to_yaml(config)) == config
    for changes, text in (
        ({"rule": "sofmax"}, "reward.rule must be one of .* Did you mean 'softmax'"),
        ({"score_every": 0}, "reward.score_every must be at least 1, got 0"),
        ({"unscored": "hole"}, "reward.unscored must be one of hold, zero"),
        ({"env_weight": 2.0}, "reward.env_weight must be finite, and left out where reward.mode"),
    ):
        with pytest.raises(ArgumentError, match=text):
            TrainConfig(task=TASK, reward=RewardConfig(**changes))  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match=r"camera.camera_reduce must be one of max"):
        TrainConfig(task=TASK, camera=CameraConfig(camera_reduce="median"))  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"Did you mean 'reward.negatives'"):
        from_yaml(f"task: {TASK}\nreward: {{negative: a cart}}")
    # Pictures alone say what to train on.
    assert TrainConfig(env="Ant-v5", reward=RewardConfig(goal_images=("a.png",))).env == "Ant-v5"


def test_further_cameras_are_names_ids_or_settings() -> None:
    assert parse_camera("side") == "side"
    assert parse_camera("2") == 2
    assert parse_camera("-1") == -1
    # What only looks like a number is a name, which no model has.
    for text in ("--5", "\u00b2", "-", "9" * 5000):
        assert parse_camera(text) == text
    assert parse_camera("track_body=--1") == {"track_body": "--1"}
    assert parse_camera("azimuth=90, lookat=0/0/1, track_body=torso") == {
        "azimuth": 90.0,
        "lookat": (0.0, 0.0, 1.0),
        "track_body": "torso",
    }
    for text, message in (
        ("azimut=90", "camera value must be one of .* Did you mean 'azimuth'"),
        ("azimuth=left", "camera value azimuth must be a number, got 'left'"),
        ("lookat=0/1", "camera value lookat must be three numbers"),
        ("distance=0", r"distance must be finite and above 0, got 0\.0"),
    ):
        with pytest.raises(ArgumentError, match=message):
            TrainConfig(task=TASK, camera=CameraConfig(more_cameras=(text,)))


@pytest.mark.parametrize("distance", [0.0, -1.0, float("nan"), float("inf")])
def test_a_free_camera_at_no_distance_is_refused(distance: float) -> None:
    with pytest.raises(ArgumentError, match="distance must be finite and above 0, got"):
        TrainConfig(task=TASK, camera=CameraConfig(distance=distance))


def test_a_free_camera_needs_finite_numbers() -> None:
    with pytest.raises(ArgumentError, match="azimuth must be finite, got nan"):
        from_yaml(f"task: {TASK}\ncamera: {{azimuth: .nan}}")
    with pytest.raises(ArgumentError, match="lookat must be three finite numbers, got"):
        from_yaml(f"task: {TASK}\ncamera: {{lookat: [0, 0, .inf]}}")
