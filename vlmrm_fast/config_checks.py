"""The checks of a training run's configuration that need nothing loaded."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from vlmrm_fast.coercion import check_camera, parse_camera
from vlmrm_fast.errors import ArgumentError, unknown_name

if TYPE_CHECKING:
    from vlmrm_fast.config import RewardConfig, TrainConfig

# More worlds than any machine steps together: a frame and a simulation state of each are held.
_MOST_ENVS = 65_536
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


def check_train_config(config: TrainConfig) -> None:
    """Check every field that can be checked without loading anything.

    Args:
        config: the configuration, already of the right types.

    Raises:
        ArgumentError: a value is out of range, or two do not fit each other.
        UnknownNameError: a choice is not one of its field's.
    """
    _check_source(config)
    _check_numbers(config)
    _check_prompts(config.reward)
    camera = config.camera
    for found in (vars(camera), *map(parse_camera, camera.more_cameras)):
        if isinstance(found, dict):
            # What is None is another camera's.
            check_camera({name: value for name, value in found.items() if value is not None})


def _check_source(config: TrainConfig) -> None:
    """Check that the run names one task, or one environment and a goal."""
    if (config.task is None) == (config.env is None):
        got = "neither" if config.task is None else f"task={config.task!r} and env={config.env!r}"
        raise ArgumentError(
            f"exactly one of task and env must be given, got {got}. Name a task "
            "(`vlmrm-fast tasks` lists them), or a sentence and --env ID."
        )
    if config.env is not None and not (config.reward.goal or config.reward.goal_images):
        raise ArgumentError(
            f"reward.goal must be a sentence where env is given, got {config.reward.goal!r}. "
            f'Write: vlmrm-fast train "A SENTENCE" --env {config.env}'
        )
    if config.env_kwargs and config.env is None:
        raise ArgumentError(
            f"env_kwargs must be left out for a task, got {config.env_kwargs}. They are for an "
            "environment that --env names."
        )
    if config.camera.camera is not None and config.camera.is_free:
        raise ArgumentError(
            f"camera.camera must be left out where a free camera is set, got "
            f"{config.camera.camera!r}. Give a name or the free camera's fields, not both."
        )
    if not _DEVICE.fullmatch(config.device):
        raise ArgumentError(f"device must be auto, cpu, cuda or cuda:N, got {config.device!r}.")


def _check_numbers(config: TrainConfig) -> None:
    """Check counts, sizes and choices."""
    at_least = {
        "steps": (config.steps, 1),
        "num_envs": (config.num_envs, 1),
        "episode_length": (config.episode_length, 1),
        "seed": (config.seed, 0),
        "num_threads": (config.num_threads, 0),
        "camera.render_size": (config.camera.render_size, 1),
        "camera.supersample": (config.camera.supersample, 1),
        "reward.score_every": (config.reward.score_every, 1),
        "evaluation.episodes": (config.evaluation.episodes, 1),
        "evaluation.video_size": (config.evaluation.video_size, 16),
        "logging.log_interval": (config.logging.log_interval, 1),
        "checkpoint.checkpoint_interval": (config.checkpoint.checkpoint_interval, 1),
        "checkpoint.keep": (config.checkpoint.keep, 1),
    }
    for name, (value, low) in at_least.items():
        if value is not None and value < low:
            raise ArgumentError(f"{name} must be at least {low}, got {value}.")
    if config.num_envs is not None and config.num_envs > _MOST_ENVS:
        raise ArgumentError(f"num_envs must be at most {_MOST_ENVS}, got {config.num_envs}.")
    # numpy's seeds, which Stable-Baselines3 sets, have 32 bits; evaluation adds to the seed.
    if config.seed >= 2**31:
        raise ArgumentError(f"seed must be below 2**31, got {config.seed}.")
    choices = {
        "reward.mode": (config.reward.mode, ("replace", "add")),
        "reward.rule": (config.reward.rule, ("cosine", "difference", "goal-baseline", "softmax")),
        "reward.unscored": (config.reward.unscored, ("hold", "zero")),
        "camera.camera_reduce": (config.camera.camera_reduce, ("max", "mean", "min")),
        "reward.precision": (
            config.reward.precision,
            ("auto", "fp32", "bf16", "fp16", "int8", "fp8"),
        ),
        "camera.renderer": (config.camera.renderer, ("auto", "ray", "gl")),
        "camera.textures": (config.camera.textures or "original", ("original", "photographic")),
        "labels": (config.labels, ("auto", "step", "deferred")),
        "logging.progress": (config.logging.progress, ("auto", "bar", "plain", "off")),
    }
    for name, (text, valid) in choices.items():
        if text not in valid:
            raise unknown_name(name, str(text), valid)
    if config.task is None and config.camera.renderer == "gl":
        raise ArgumentError(
            'camera.renderer must be "auto" or "ray" for a gymnasium environment, got "gl". '
            "An environment that is not drawn natively draws itself."
        )
    if not math.isfinite(config.reward.weight) or config.reward.weight == 0:
        raise ArgumentError(
            f"reward.weight must be finite and not 0, got {config.reward.weight}. "
            "Without a VLM reward there is nothing to train on here."
        )
    own = config.reward.env_weight
    if not math.isfinite(own) or (config.reward.mode == "replace" and own != 1):
        raise ArgumentError(
            f"reward.env_weight must be finite, and left out where reward.mode is replace, got "
            f"{own}. It is the factor on the environment's own reward: set reward.mode to add."
        )


def _check_prompts(reward: RewardConfig) -> None:
    """Check the prompts and alpha."""
    for name in ("goal", "baseline"):
        prompts = getattr(reward, name)
        if prompts is not None and (not prompts or any(not text.strip() for text in prompts)):
            raise ArgumentError(f"reward.{name} must hold no empty prompt, got {prompts!r}.")
    if reward.alpha is not None and not 0 <= reward.alpha <= 1:
        raise ArgumentError(f"reward.alpha must lie in [0, 1], got {reward.alpha}.")
    if reward.alpha and reward.goal is not None and reward.goal == reward.baseline:
        raise ArgumentError(
            f"reward.baseline must differ from reward.goal where alpha > 0, got {reward.goal!r} "
            "for both. Describe the same scene without the goal, or set alpha to 0."
        )
