"""From a configuration to a reward and a vectorised environment."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from vlmrm_fast.coercion import merge
from vlmrm_fast.config import CameraConfig, RewardConfig, TrainConfig
from vlmrm_fast.envs.dressing import dress
from vlmrm_fast.envs.stream import RewardOptions
from vlmrm_fast.errors import ArgumentError, unknown_name
from vlmrm_fast.objective import make_objective
from vlmrm_fast.sb3.algorithms import default_algorithm, find_algorithm, resolve_hyperparameters
from vlmrm_fast.sb3.views import camera_name, free_camera, gym_camera, more_cameras
from vlmrm_fast.tasks import GymTask, Task, get_task

if TYPE_CHECKING:
    from vlmrm_fast.reward import VLMReward

_DEFAULT_STEPS, _DEFAULT_ENVS = 100_000, 8


def resolve(config: TrainConfig) -> TrainConfig:
    """Fill what a configuration leaves to its task, and check it against the registry.

    Args:
        config: the configuration; for an environment id, gymnasium is asked about it.

    Returns:
        A configuration that reproduces the run.

    Raises:
        ArgumentError: the task, environment, algorithm or a hyperparameter is unknown.
    """
    task = None if config.task is None else get_task(config.task)
    if isinstance(task, GymTask):
        _check_camera(config.camera, task)
    steps = config.steps or (task.total_steps if task else _DEFAULT_STEPS)
    interval = config.checkpoint.checkpoint_interval or max(1000, steps // 10)
    return dataclasses.replace(
        config,
        steps=steps,
        num_envs=config.num_envs or (task.num_envs if task else _DEFAULT_ENVS),
        episode_length=config.episode_length or (task.horizon if task else None),
        camera=dataclasses.replace(config.camera, textures=_resolve_textures(config, task)),
        reward=_resolve_reward(config.reward, task),
        algorithm=_resolve_algorithm(config, task),
        checkpoint=dataclasses.replace(config.checkpoint, checkpoint_interval=interval),
    )


def _resolve_reward(reward: RewardConfig, task: Task | GymTask | None) -> RewardConfig:
    """Return the reward's part with prompts, alpha and shares filled, and checked."""
    if task is not None:
        given = (task.baseline,) if task.baseline else None
        # The task's alpha belongs to the paper's rule.
        alpha = task.alpha if reward.rule == "goal-baseline" else 0.0
        reward = dataclasses.replace(
            reward,
            goal=reward.goal or (task.goal,),
            baseline=reward.baseline or given,
            alpha=alpha if reward.alpha is None else reward.alpha,
        )
    # A resume, or an evaluation, may start in another directory.
    images = tuple(map(os.path.abspath, reward.goal_images))
    reward = dataclasses.replace(reward, alpha=reward.alpha or 0.0, goal_images=images)
    share = make_objective(**_objective(reward)).image_weight
    return dataclasses.replace(reward, image_weight=share or None)


def _objective(reward: RewardConfig) -> dict[str, Any]:
    """Return the arguments of `make_objective` that a configuration stands for."""
    return {
        "goal": reward.goal,
        "baseline": reward.baseline,
        "alpha": reward.alpha,
        "rule": reward.rule,
        "negatives": reward.negatives or None,
        "temperature": reward.temperature,
        "goal_images": reward.goal_images or None,
        "image_weight": reward.image_weight,
    }


def _resolve_textures(config: TrainConfig, task: Task | GymTask | None) -> Any:
    """Return the look that is drawn; for a task, one that it has."""
    if task is None:
        return config.camera.textures or "original"
    return task.with_textures(config.camera.textures or task.textures).textures


def _check_camera(camera: CameraConfig, task: GymTask) -> None:
    """Check that nothing is asked of a camera where the environment draws itself."""
    for name, default in vars(CameraConfig()).items():
        # Textures are no matter of the camera's place: such a task may have several pictures.
        if name != "textures" and getattr(camera, name) != default:
            raise ArgumentError(
                f"camera.{name} must be left out for {task.name}, got {getattr(camera, name)!r}. "
                f"{task.env_id} draws itself, always from the same side."
            )


def _resolve_algorithm(config: TrainConfig, task: Task | GymTask | None) -> Any:
    """Return the algorithm's part with name and hyperparameters filled and checked."""
    chosen = config.algorithm
    name = chosen.algorithm or (task.algorithm if task else None)
    if name is None:
        env = make_gym(config)
        name = default_algorithm(env.action_space)
        env.close()
    cls = find_algorithm(name)
    registered: Mapping[str, Any] = {}
    # The task's settings belong to the algorithm that they were found for.
    own = chosen.task_settings
    if own and task is not None and cls is find_algorithm(task.algorithm):
        registered = task.hyperparameters
    merged = merge(registered, chosen.hyperparameters)
    resolve_hyperparameters(cls, merged)
    return dataclasses.replace(chosen, algorithm=name, hyperparameters=merged)


def build_reward(config: TrainConfig) -> VLMReward:
    """Load the model and embed the prompts.

    Args:
        config: a resolved configuration.

    Returns:
        The reward.
    """
    from vlmrm_fast.reward import VLMReward

    return VLMReward(
        config.reward.model,
        **_objective(config.reward),
        device=config.device,
        precision=config.reward.precision,
        compat=config.reward.compat,
    )


def is_native(config: TrainConfig) -> bool:
    """Return whether this package steps and draws a configuration's task itself.

    Args:
        config: a configuration.

    Returns:
        False for environments of gymnasium, by id or as a task.
    """
    return config.task is not None and isinstance(get_task(config.task), Task)


def build_task(config: TrainConfig, extra_steps: int = 0) -> Task | GymTask:
    """Return a configuration's task with its camera and episode length.

    Args:
        config: a resolved configuration with a task.
        extra_steps: steps beyond the episode's end, for looking at its last state.

    Returns:
        The task.
    """
    assert config.task is not None
    assert config.episode_length is not None
    task = get_task(config.task)
    changes: dict[str, Any] = {"horizon": config.episode_length + extra_steps}
    # A task that asks for success at every step asks so of any episode length.
    if task.success_steps == task.horizon:
        changes["success_steps"] = config.episode_length
    task = task.with_textures(config.camera.textures or task.textures)
    if isinstance(task, GymTask):
        return dataclasses.replace(task, **changes)
    if config.camera.camera is not None:
        changes["view"] = camera_name(config.camera.camera)
    elif config.camera.is_free:
        changes["view"] = free_camera(config.camera, task.view)
    return dataclasses.replace(task, **changes)


def build_env(
    config: TrainConfig,
    reward: Any,
    *,
    num_envs: int | None = None,
    seed: int | None = None,
    extra_steps: int = 0,
    training: bool = False,
) -> VecEnv:
    """Build the training or evaluation environment.

    Args:
        config: a resolved configuration.
        reward: what scores the frames.
        num_envs: environments; None: the configuration's.
        seed: seed of the start states; None: the configuration's.
        extra_steps: see `build_task`.
        training: whether to skip and normalise rewards as configured; what measures a policy sees
            each step's reward as the model gives it.

    Returns:
        A VecEnv whose infos hold "vlm_reward" and "env_reward".
    """
    count = num_envs or config.num_envs or _DEFAULT_ENVS
    seed = config.seed if seed is None else seed
    task = None if config.task is None else build_task(config, extra_steps)
    if isinstance(task, Task):
        from vlmrm_fast.envs import make_vec_env

        env: Any = make_vec_env(
            task,
            count,
            reward=reward,
            seed=seed,
            api="sb3",
            num_threads=config.num_threads,
            mode=config.reward.mode,
            weight=config.reward.weight,
            env_weight=config.reward.env_weight,
            camera=[task.camera, *more_cameras(config.camera, task.view)],
            options=_reward_options(config, training=training),
            render_size=config.camera.render_size,
            supersample=config.camera.supersample,
            renderer=config.camera.renderer,
        )
    else:
        from vlmrm_fast.sb3.vec_env import VLMRewardVecEnv

        inner = DummyVecEnv([lambda: make_gym(config, extra_steps) for _ in range(count)])
        env = VLMRewardVecEnv(
            inner,
            reward,
            config.reward.mode,
            config.reward.weight,
            camera=[gym_camera(config), *more_cameras(config.camera)],
            render_size=config.camera.render_size,
            supersample=config.camera.supersample,
            num_threads=config.num_threads,
            env_weight=config.reward.env_weight,
            options=_reward_options(config, training=training),
        )
        env.seed(seed)
    return env


def _reward_options(config: TrainConfig, *, training: bool) -> RewardOptions:
    """Return what happens to the model's rewards in training, or where they are measured."""
    if not training:
        return RewardOptions(camera_reduce=config.camera.camera_reduce)
    reward = config.reward
    return RewardOptions(
        config.camera.camera_reduce, reward.score_every, reward.unscored, reward.normalize
    )


def make_gym(config: TrainConfig, extra_steps: int = 0) -> Any:
    """Make one environment of gymnasium.

    Args:
        config: a configuration with an environment id, or a resolved one with a `GymTask`.
        extra_steps: steps beyond the configured episode length.

    Returns:
        The environment.

    Raises:
        ArgumentError: the id is unknown, or the environment cannot be made.
    """
    import gymnasium

    from vlmrm_fast.tasks.gym_env import draw_without_screen

    if config.task is not None:
        task = build_task(config, extra_steps)
        assert isinstance(task, GymTask)
        return task.make()
    assert config.env is not None
    length = config.episode_length
    arguments: dict[str, Any] = {"render_mode": "rgb_array", **config.env_kwargs}
    if length is not None:
        arguments["max_episode_steps"] = length + extra_steps
    draw_without_screen()
    try:
        env = gymnasium.make(config.env, **arguments)
    except (gymnasium.error.NameNotFound, gymnasium.error.NamespaceNotFound) as error:
        raise ArgumentError(str(unknown_name("env", config.env, _ids_like(config.env)))) from error
    except (gymnasium.error.Error, ImportError, TypeError, ValueError, OSError) as error:
        given = f" with {config.env_kwargs}" if config.env_kwargs else ""
        text = f"env must be one that can be made, got {config.env!r}{given}: {error}"
        raise ArgumentError(text) from error
    dress(env, config.camera.textures or "original")
    return env


def _ids_like(name: str) -> list[str]:
    """Return the registered environments worth naming in an error: MuJoCo's, and near names."""
    import difflib

    import gymnasium

    known = list(gymnasium.registry)
    own = [k for k in known if k.endswith("-v5")]
    return own + [k for k in difflib.get_close_matches(name, known, n=3) if k not in own]
