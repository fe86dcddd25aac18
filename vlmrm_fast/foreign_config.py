"""Configuration files of the paper's authors, read as they are.

A file in their schema becomes a configuration of ours with the same meaning. What it cannot mean
here is refused, and what means something else is said in one line each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from vlmrm_fast.coercion import from_dict
from vlmrm_fast.errors import ArgumentError

# The paper's prompts for the humanoid, each with the task that has a ground truth for it.
HUMANOID_TASKS = {
    "a humanoid robot kneeling": "humanoid-kneeling",
    "a humanoid robot seated down, meditating in the lotus position": "humanoid-lotus",
    "a humanoid robot standing up": "humanoid-standing",
    "a humanoid robot standing up, with both arms raised": "humanoid-arms-raised",
    "a humanoid robot practicing gymnastics, doing the side splits": "humanoid-splits",
    "a humanoid robot standing up with hands on hips": "humanoid-hands-on-hips",
    "a humanoid robot standing up, with its arms crossed": "humanoid-arms-crossed",
    "a humanoid robot standing up on one leg": "humanoid-one-leg",
}
_CLASSIC = {"CartPole-v1": "cartpole", "MountainCarContinuous-v0": "mountaincar"}
# Where a file names no camera, gymnasium drew pictures with this one of the model's, which follows
# the robot (`MujocoRenderer.render`, before gymnasium 1.4).
_HUMANOID_CAMERA = {"camera": "track"}
_PLACE = ("lookat", "distance", "azimuth", "elevation")
# What Stable-Baselines3 takes under the same name, for both algorithms.
_PASSED = (
    "learning_starts",
    "train_freq",
    "batch_size",
    "gradient_steps",
    "tau",
    "gamma",
    "learning_rate",
    "buffer_size",
    "target_update_interval",
    "policy_kwargs",
)
_BASE_PATH = "./runs/training"
_ENVS = Literal["CartPole-v1", "MountainCarContinuous-v0", "Humanoid-v4"]


@dataclass(frozen=True)
class _Camera:
    trackbodyid: int | None = None
    distance: float | None = None
    lookat: tuple[float, float, float] | None = None
    elevation: float | None = None
    azimuth: float | None = None


@dataclass(frozen=True)
class _Reward:
    name: Literal["clip", "ground_truth"] | None = None
    pretrained_model: str | None = None
    batch_size: int | None = None
    alpha: float | None = None
    target_prompts: tuple[str, ...] | None = None
    baseline_prompts: tuple[str, ...] | None = None
    cache_dir: str | None = None
    camera_config: _Camera | None = None
    textured: bool = True


@dataclass(frozen=True)
class _Noise:
    name: Literal["NormalActionNoise", "OrnsteinUhlenbeckActionNoise"] | None = None
    mean: tuple[float, ...] = (0.0,)
    sigma: tuple[float, ...] | None = None
    theta: float | None = None
    dt: float | None = None


@dataclass(frozen=True)
class _Learner:
    """Defaults are the schema's; None stands for Stable-Baselines3's.

    The schema's replay buffer of 1,000,000 is our default too, though no larger than the run.
    """

    policy_name: str = "MlpPolicy"
    n_steps: int | None = None
    n_envs_per_worker: int | None = None
    episode_length: int | None = None
    learning_starts: int | None = None
    train_freq: int | None = None
    batch_size: int | None = None
    gradient_steps: int | None = None
    action_noise: _Noise | None = None
    tau: float = 0.005
    gamma: float = 0.99
    learning_rate: float = 3e-4
    buffer_size: int | None = None
    ent_coef: str | None = None
    use_sde: bool | None = None
    target_update_interval: int | None = None
    policy_kwargs: dict[str, Any] | None = None
    rl_kwargs: dict[str, Any] | None = None


@dataclass(frozen=True)
class _Logging:
    checkpoint_freq: int | None = None
    video_freq: int | None = None
    tensorboard_freq: int | None = None


@dataclass(frozen=True)
class _File:
    env_name: _ENVS | None = None
    base_path: str = _BASE_PATH
    seed: int = 0
    description: str | None = None
    tags: tuple[str, ...] = ()
    reward: _Reward = field(default_factory=_Reward)
    rl: _Learner = field(default_factory=_Learner)
    logging: _Logging = field(default_factory=_Logging)


@dataclass(frozen=True)
class Converted:
    """A file of theirs in our schema.

    Attributes:
        values: what `config.TrainConfig` is built from.
        notes: what means something else here, one sentence each.
    """

    values: dict[str, Any]
    notes: tuple[str, ...]


def is_foreign(values: Mapping[str, Any]) -> bool:
    """Return whether a YAML mapping is in the authors' schema.

    Args:
        values: the file's content.

    Returns:
        True where a key says so that ours does not have.
    """
    return not {"task", "env"} & set(values) and bool({"env_name", "rl", "base_path"} & set(values))


def convert(values: Mapping[str, Any]) -> Converted:
    """Translate a file in the authors' schema.

    Args:
        values: the file's content.

    Returns:
        The same run in our schema, and what changes.

    Raises:
        ArgumentError: a key is unknown or missing, or a value cannot be honoured.
    """
    theirs = from_dict(_File, values)
    _check(theirs)
    notes: list[str] = []
    made = {
        **_source(theirs, notes),
        "seed": theirs.seed,
        "steps": theirs.rl.n_steps,
        "num_envs": theirs.rl.n_envs_per_worker,
        "episode_length": theirs.rl.episode_length,
        "reward": _reward(theirs.reward, notes),
        "camera": _camera(theirs, notes),
        "algorithm": _algorithm(theirs),
        "logging": _logging(theirs, notes),
        "checkpoint": _checkpoint(theirs),
    }
    if theirs.base_path.rstrip("/") not in {_BASE_PATH, _BASE_PATH[2:]}:
        made["base_dir"] = theirs.base_path.rstrip("/") or "/"
        notes.append(f"base_path: each run gets a new folder in {made['base_dir']}")
    if theirs.rl.n_envs_per_worker is not None:
        notes.append(
            f"n_envs_per_worker: {theirs.rl.n_envs_per_worker} environments in all, as on one GPU "
            "there. Multiply for more of them with --num-envs"
        )
    if theirs.description or theirs.tags:
        notes.append("description, tags: not kept")
    notes.append(
        "episodes: the time limit truncates, so that the value of the last state counts, and the "
        "last frame is the episode's own, not the next one's first"
    )
    return Converted(made, tuple(notes))


def _check(theirs: _File) -> None:
    """Check what a file must say, and refuse what is no training on pictures."""
    reward = theirs.reward
    if reward.name == "ground_truth":
        raise ArgumentError(
            "reward.name must be clip, got 'ground_truth'. What is trained here is a reward from "
            "pictures; for the environment's own, use Stable-Baselines3 by itself."
        )
    needed = {
        "env_name": theirs.env_name,
        "reward.name": reward.name,
        "reward.pretrained_model": reward.pretrained_model,
        "reward.target_prompts": reward.target_prompts,
        "rl.n_steps": theirs.rl.n_steps,
    }
    if reward.camera_config is not None:
        for name in _PLACE:
            needed[f"reward.camera_config.{name}"] = getattr(reward.camera_config, name)
    for name, value in needed.items():
        if value is None or value == ():
            raise ArgumentError(f"{name} must be given in a file with env_name and rl, got none.")
    if reward.camera_config is not None and theirs.env_name in _CLASSIC:
        raise ArgumentError(
            f"reward.camera_config must be left out for {theirs.env_name}, got "
            f"distance {reward.camera_config.distance}. It draws itself, always from one side."
        )
    if theirs.rl.action_noise is not None:
        _check_noise(theirs.rl.action_noise, theirs.env_name)


def _check_noise(noise: _Noise, env_name: str | None) -> None:
    """Check the fields of action noise against its kind."""
    if env_name == "CartPole-v1":
        raise ArgumentError(
            f"rl.action_noise must be left out for CartPole-v1, got {noise.name}. Its actions are "
            "discrete: DQN explores by exploration_fraction, under rl.rl_kwargs."
        )
    if noise.name is None or noise.sigma is None:
        missing = "name" if noise.name is None else "sigma"
        raise ArgumentError(f"rl.action_noise.{missing} must be given, got none.")
    for name in ("theta", "dt"):
        if noise.name == "NormalActionNoise" and getattr(noise, name) is not None:
            raise ArgumentError(
                f"rl.action_noise.{name} must be left out for NormalActionNoise, got "
                f"{getattr(noise, name)}. It belongs to OrnsteinUhlenbeckActionNoise."
            )


def _source(theirs: _File, notes: list[str]) -> dict[str, Any]:
    """Return what is trained: a task, or the same environment with prompts of the file's own."""
    if theirs.env_name in _CLASSIC:
        return {"task": _CLASSIC[theirs.env_name]}
    prompts = theirs.reward.target_prompts or ()
    task = HUMANOID_TASKS.get(prompts[0].strip()) if len(prompts) == 1 else None
    notes.append(
        "env_name: Humanoid-v4 is Humanoid-v5 without an early end here; its observation leaves "
        "out 28 numbers that were always 0"
    )
    if task is not None:
        return {"task": task}
    notes.append("target_prompts: not one of the paper's, so success is not measured")
    return {"env": "Humanoid-v5", "env_kwargs": {"terminate_when_unhealthy": False}}


def _reward(reward: _Reward, notes: list[str]) -> dict[str, Any]:
    """Return the reward's part."""
    made: dict[str, Any] = {"model": reward.pretrained_model, "goal": reward.target_prompts}
    if reward.baseline_prompts:
        made["baseline"] = reward.baseline_prompts
    if reward.alpha is not None:
        made["alpha"] = reward.alpha
    if max(len(reward.target_prompts or ()), len(reward.baseline_prompts or ())) > 1:
        made["compat"] = True
        notes.append(
            "target_prompts: several are averaged and not renormalised, as there; --no-compat "
            "renormalises"
        )
    if reward.batch_size is not None:
        notes.append("reward.batch_size: not needed, all frames of a step are scored together")
    if reward.cache_dir is not None:
        notes.append("cache_dir: not used; the environment variable HF_HUB_CACHE names the cache")
    return made


def _camera(theirs: _File, notes: list[str]) -> dict[str, Any]:
    """Return the camera's part."""
    reward, camera = theirs.reward, theirs.reward.camera_config
    if theirs.env_name == "CartPole-v1":
        return {}
    textures = {"textures": "photographic" if reward.textured else "original"}
    if theirs.env_name in _CLASSIC:
        return textures
    notes.append(
        "frames: drawn at the model's input size; --render-size 480 draws and shrinks them as there"
    )
    if camera is None:
        return {**_HUMANOID_CAMERA, **textures}
    if camera.trackbodyid is not None:
        notes.append("trackbodyid: without effect, there and here: a free camera stands still")
    return {**{name: getattr(camera, name) for name in _PLACE}, **textures}


def _algorithm(theirs: _File) -> dict[str, Any]:
    """Return the learner's part: nothing but what the file and its schema's defaults say."""
    rl, is_dqn = theirs.rl, theirs.env_name == "CartPole-v1"
    given = {name: getattr(rl, name) for name in _PASSED if getattr(rl, name) is not None}
    for name, default in (("ent_coef", "auto"), ("use_sde", False)):
        value = getattr(rl, name)
        if not is_dqn:
            given[name] = default if value is None else value
        elif value not in {None, default}:
            raise ArgumentError(
                f"rl.{name} must be left out for CartPole-v1, got {value!r}. It belongs to SAC, "
                "and its actions are discrete: DQN learns them."
            )
    if rl.action_noise is not None:
        given["action_noise"] = _noise(rl.action_noise)
    return {
        "algorithm": "DQN" if is_dqn else "SAC",
        "policy": rl.policy_name,
        "task_settings": False,
        "hyperparameters": {**given, **(rl.rl_kwargs or {})},
    }


def _noise(noise: _Noise) -> dict[str, Any]:
    """Return what is given of action noise; numbers that all actions share, as one."""
    given = {name: value for name, value in vars(noise).items() if value is not None}
    for name in ("mean", "sigma"):
        given[name] = given[name][0] if len(given[name]) == 1 else list(given[name])
    return given


def _logging(theirs: _File, notes: list[str]) -> dict[str, Any]:
    """Return the part about metrics."""
    if theirs.logging.video_freq is not None:
        notes.append("video_freq: one video at the end; `vlmrm-fast eval` films any checkpoint")
    if theirs.logging.tensorboard_freq is None:
        return {}
    notes.append("tensorboard_freq: rows of all metrics; there, not allowed together with clip")
    return {"log_interval": theirs.logging.tensorboard_freq}


def _checkpoint(theirs: _File) -> dict[str, Any]:
    """Return the part about checkpoints, all of which are kept there."""
    interval, steps = theirs.logging.checkpoint_freq, theirs.rl.n_steps
    if interval is None or interval < 1 or steps is None:
        return {} if interval is None else {"checkpoint_interval": interval}
    return {"checkpoint_interval": interval, "keep": max(1, -(-steps // interval) + 1)}
