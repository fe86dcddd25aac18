"""Files of the paper's authors: what each key becomes, what is said, and what is refused."""

from __future__ import annotations

import contextlib
import copy
import logging
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import yaml
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmrm_fast.cli import main
from vlmrm_fast.coercion import from_dict
from vlmrm_fast.config import TrainConfig, from_yaml, load_config
from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.foreign_config import HUMANOID_TASKS, convert, is_foreign
from vlmrm_fast.sb3.algorithms import build_algorithm, find_algorithm
from vlmrm_fast.sb3.building import build_task, resolve
from vlmrm_fast.sb3.hyperparameters import build_noise
from vlmrm_fast.tasks import get_task, task_names

DATA = Path(__file__).parent / "data"
README, CLUSTER = DATA / "original_readme.yaml", DATA / "original_cluster.yaml"


def _changed(path: Path, **changes: Any) -> dict[str, Any]:
    """Return a file's content with some values replaced, named as section__key."""
    values = copy.deepcopy(yaml.safe_load(path.read_text()))
    for name, value in changes.items():
        *sections, key = name.split("__")
        inner = values
        for section in sections:
            inner = inner[section]
        inner[key] = value
    return values


def _load(values: dict[str, Any]) -> TrainConfig:
    return from_yaml(yaml.safe_dump(values))


def test_the_readme_example_means_what_it_says() -> None:
    config = load_config(README)
    assert config.task == "humanoid-kneeling"
    assert config.reward.model == "ViT-g-14/laion2b_s34b_b88k"
    assert config.reward.goal == ("a humanoid robot kneeling",)
    assert config.reward.baseline == ("a humanoid robot",)
    assert config.reward.alpha == 0.5
    assert (config.seed, config.steps, config.num_envs, config.episode_length) == (
        42,
        100_000,
        2,
        200,
    )
    assert config.run_dir is None
    assert config.logging.log_interval == 800
    assert config.checkpoint.checkpoint_interval == 800
    assert config.checkpoint.keep >= 100_000 / 800
    # No camera in the file: the one that gymnasium took, not the task's.
    assert build_task(resolve(config)).view == "track"


def test_the_cluster_job_is_the_papers_task() -> None:
    config = resolve(load_config(CLUSTER))
    task = get_task("humanoid-kneeling")
    assert build_task(config).view == task.view
    assert config.camera.textures == "photographic"
    assert config.steps == task.total_steps
    assert config.algorithm.algorithm == "SAC"
    learned = config.algorithm.hyperparameters
    assert {name: learned[name] for name in task.hyperparameters} == dict(task.hyperparameters)
    assert (config.base_dir, config.run_dir) == ("/data/runs/training", None)
    assert config.checkpoint.checkpoint_interval == 128_000


def test_nothing_but_the_file_decides_hyperparameters() -> None:
    config = resolve(load_config(README))
    assert config.algorithm.hyperparameters == {
        "learning_starts": 100,
        "train_freq": 200,
        "batch_size": 64,
        "gradient_steps": 1,
        "tau": 0.005,
        "gamma": 0.99,
        "learning_rate": 3e-4,
        "ent_coef": "auto",
        "use_sde": False,
    }


def test_every_change_of_meaning_is_said_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load_config(README)
    title, *lines = [record.getMessage() for record in caplog.records]
    assert title.startswith(f"{README} is in the schema of the paper's authors")
    assert [line.split(":")[0].strip() for line in lines] == [
        "env_name",
        "reward.batch_size",
        "cache_dir",
        "frames",
        "video_freq",
        "tensorboard_freq",
        "n_envs_per_worker",
        "description, tags",
        "episodes",
    ]
    assert all("\n" not in line and line.endswith(".") for line in lines)
    assert "2 environments in all" in lines[6]


def test_empty_keys_mean_the_default() -> None:
    empty = dict.fromkeys(("tags", "base_path", "seed", "reward__textured", "rl__tau", "rl__gamma"))
    config, plain = _load(_changed(README, **empty)), _changed(README)
    del plain["base_path"], plain["seed"]
    assert config == _load(plain)
    assert config.algorithm.hyperparameters["tau"] == 0.005


def test_noise_may_be_given_for_each_action() -> None:
    noise = {"name": "NormalActionNoise", "mean": [0.0] * 17, "sigma": [0.1] * 17}
    config = _load(_changed(README, rl__action_noise=noise))
    found = config.algorithm.hyperparameters["action_noise"]
    assert found == noise
    assert build_noise(found, (17,))._sigma.shape == (17,)


def test_our_own_files_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        from_yaml("task: cartpole-upright\nlogging: {log_interval: 10}")
    assert not caplog.records


def test_the_papers_prompts_are_those_of_the_registry() -> None:
    registered = {
        get_task(name).goal: name for name in task_names() if name.startswith("humanoid-")
    }
    assert registered == HUMANOID_TASKS


def test_prompts_of_their_own_train_the_environment_without_an_early_end() -> None:
    prompts = ["a humanoid robot dancing", "a robot that dances"]
    config = _load(_changed(README, reward__target_prompts=prompts))
    assert config.task is None
    assert config.env == "Humanoid-v5"
    assert config.env_kwargs == {"terminate_when_unhealthy": False}
    assert config.reward.goal == tuple(prompts)
    # Several prompts are averaged as there.
    assert config.reward.compat is True
    assert config.camera.textures == "photographic"


@pytest.mark.parametrize(
    ("env_name", "task", "algorithm", "textures"),
    [
        ("CartPole-v1", "cartpole", "DQN", "original"),
        ("MountainCarContinuous-v0", "mountaincar", "SAC", "photographic"),
    ],
)
def test_classic_control_is_our_task(
    env_name: str, task: str, algorithm: str, textures: str
) -> None:
    config = resolve(_load(_changed(README, env_name=env_name)))
    assert (config.task, config.algorithm.algorithm) == (task, algorithm)
    assert config.reward.goal == ("a humanoid robot kneeling",)
    assert build_task(config).textures == textures
    # None of the settings that are registered for the task creeps in.
    assert "policy_kwargs" not in config.algorithm.hyperparameters
    assert ("use_sde" in config.algorithm.hyperparameters) == (algorithm == "SAC")


def test_untextured_scenes_keep_the_models_own_look() -> None:
    for env_name in ("Humanoid-v4", "MountainCarContinuous-v0"):
        config = _load(_changed(README, env_name=env_name, reward__textured=False))
        assert config.camera.textures == "original"


def test_numbers_in_any_notation_are_numbers() -> None:
    config = _load(_changed(README, rl__learning_rate="3e-4", rl__n_steps=1e6, rl__ent_coef=0.1))
    assert config.algorithm.hyperparameters["learning_rate"] == 3e-4
    assert config.algorithm.hyperparameters["ent_coef"] == 0.1
    assert config.steps == 1_000_000


def test_learner_arguments_of_their_own_win() -> None:
    values = _changed(README, rl__policy_kwargs={"net_arch": [64]}, rl__rl_kwargs={"tau": 0.1})
    found = resolve(_load(values)).algorithm.hyperparameters
    assert found["policy_kwargs"] == {"net_arch": [64]}
    assert found["tau"] == 0.1


@pytest.mark.parametrize(
    ("noise", "sigma"),
    [
        ({"name": "NormalActionNoise", "mean": 0.5, "sigma": 0.2}, 0.2),
        ({"name": "OrnsteinUhlenbeckActionNoise", "sigma": 0.3, "theta": 0.5, "dt": 0.1}, 0.3),
    ],
)
def test_action_noise_is_built_from_its_numbers(noise: dict[str, Any], sigma: float) -> None:
    config = _load(_changed(README, rl__action_noise=noise))
    found = config.algorithm.hyperparameters["action_noise"]
    assert found == {"mean": 0.0, **noise}

    class Box(gymnasium.Env):
        observation_space = spaces.Box(-1, 1, (2,), np.float32)
        action_space = spaces.Box(-1, 1, (3,), np.float32)

    from stable_baselines3.common.vec_env import DummyVecEnv

    model = build_algorithm(
        find_algorithm("SAC"),
        DummyVecEnv([Box]),
        {"action_noise": found, "buffer_size": 10},
        policy="MlpPolicy",
        seed=0,
        device="cpu",
        steps=10,
    )
    assert type(model.action_noise).__name__ == noise["name"]
    np.testing.assert_allclose(model.action_noise._sigma, np.full(3, sigma))
    np.testing.assert_allclose(model.action_noise._mu, np.full(3, noise.get("mean", 0.0)))


PLACE = {"distance": 3, "lookat": [0, 0, 1], "elevation": 1, "azimuth": 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env_nam": "x"}, "got 'env_nam'. Did you mean 'env_name'?"),
        ({"env_name": "Ant-v4"}, "env_name must be one of CartPole-v1, Humanoid-v4, Mount"),
        ({"rl__n_step": 3}, "got 'rl.n_step'. Did you mean 'rl.n_steps'?"),
        ({"reward__target_prompt": "x"}, "got 'reward.target_prompt'. Did you mean"),
        ({"logging__video": 1}, "got 'logging.video'. Did you mean 'logging.video_freq'?"),
        ({"reward__camera_config": {"distanse": 1}}, "Did you mean 'reward.camera_config.dis"),
        ({"reward__camera_config": {"distance": 1}}, "reward.camera_config.lookat must be given"),
        (
            {"reward__camera_config": {**PLACE, "distance": -2}},
            "distance must be finite and above 0, got -2.0",
        ),
        (
            {"reward__camera_config": {**PLACE, "azimuth": float("nan")}},
            "azimuth must be finite, got nan",
        ),
        ({"reward__name": "ground_truth"}, "reward.name must be clip, got 'ground_truth'"),
        ({"reward": "clip"}, "reward must be a mapping, got 'clip'."),
        ({"rl__n_envs_per_worker": 1e9}, "num_envs must be at most 65536, got 1000000000."),
        ({"reward__name": "blip"}, "reward.name must be one of clip, ground_truth, got 'blip'"),
        ({"reward__target_prompts": []}, "reward.target_prompts must be given"),
        ({"rl__n_steps": None}, "rl.n_steps must be given"),
        ({"rl__n_steps": "many"}, "rl.n_steps must be a whole number, got 'many'"),
        ({"rl__rl_kwargs": 3}, "rl.rl_kwargs must be a mapping, got 3"),
        ({"reward__alpha": 2}, "reward.alpha must lie in [0, 1], got 2.0"),
        ({"rl__action_noise": {"sigma": 1}}, "rl.action_noise.name must be given"),
        (
            {"rl__action_noise": {"name": "NormalActionNoise"}},
            "rl.action_noise.sigma must be given",
        ),
        (
            {"rl__action_noise": {"name": "NormalActionNoise", "sigma": 1, "dt": 1}},
            "rl.action_noise.dt must be left out for NormalActionNoise",
        ),
        ({"env_name": "CartPole-v1", "rl__use_sde": True}, "rl.use_sde must be left out"),
        (
            {"env_name": "CartPole-v1", "rl__action_noise": {"name": "NormalActionNoise"}},
            "rl.action_noise must be left out for CartPole-v1",
        ),
        (
            {
                "env_name": "CartPole-v1",
                "reward__camera_config": PLACE,
            },
            "reward.camera_config must be left out for CartPole-v1",
        ),
    ],
)
def test_what_cannot_be_honoured_is_one_clear_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError) as error:
        _load(_changed(README, **changes))
    assert message in str(error.value)
    assert str(error.value).count("\n") == 0


def test_a_file_is_theirs_by_its_keys() -> None:
    assert is_foreign({"env_name": "Humanoid-v4"})
    assert is_foreign({"rl": {}})
    assert not is_foreign({"task": "cartpole-upright", "logging": {}})
    with pytest.raises(ArgumentError, match="got 'env_name'"):
        from_yaml("task: cartpole-upright\nenv_name: Humanoid-v4")
    with pytest.raises(ArgumentError, match="env_name must be given"):
        convert({"rl": {"n_steps": 3}})


def test_the_command_line_trains_a_file_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "theirs.yaml"
    changes = {"base_path": "out/here/", "rl__train_freq": 10, "logging__video_freq": None}
    file.write_text(yaml.safe_dump(_changed(README, **changes)))
    flags = ["--model", "builtin", "--steps", "40", "--episode-length", "10", "--episodes", "1"]
    flags += ["--no-video", "--no-tensorboard", "--progress", "off"]
    flags += ["--hyperparameters", "learning_starts=20"]
    # A second time too: each run gets a folder of its own.
    for count in (1, 2):
        assert main(["train", str(file), *flags]) == 0
        assert "humanoid-kneeling" in capsys.readouterr().out
        made = list((tmp_path / "out" / "here").glob("humanoid-kneeling-SAC-s42-*/config.yaml"))
        assert len(made) == count
    assert not (tmp_path / "runs").exists()
    resolved = load_config(made[0])
    assert resolved.reward.model == "builtin"
    assert resolved.camera.textures == "photographic"
    assert resolved.algorithm.hyperparameters["learning_starts"] == 20
    assert resolved.algorithm.hyperparameters["gamma"] == 0.99


_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10**7),
    st.floats(allow_nan=True),
    st.text(max_size=5),
    st.lists(st.one_of(st.none(), st.integers(), st.text(max_size=3)), max_size=3),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)


def _places(values: Any, at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the path of every value of a file, sections included."""
    inner = [_places(item, (*at, key)) for key, item in values.items() if isinstance(item, dict)]
    return [(*at, key) for key in values] + [place for places in inner for place in places]


@given(data=st.data(), value=_SCALARS, path=st.sampled_from([README, CLUSTER]))
@settings(max_examples=100, deadline=None)
def test_any_value_anywhere_is_taken_or_refused_with_an_argument_error(
    data: st.DataObject, value: Any, path: Path
) -> None:
    values = _changed(path)
    place = data.draw(st.sampled_from(_places(values)))
    values = _changed(path, **{"__".join(place): value})
    # Any other error fails the test.
    with contextlib.suppress(ArgumentError):
        from_dict(TrainConfig, convert(values).values)
