"""One episode as large frames with the reward of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vlmrm_fast.config import TrainConfig


@dataclass
class Film:
    """An episode to look at.

    Attributes:
        frames: (H, W, 3) uint8 each, the start state first, the terminal state last.
        rewards: VLM reward of each frame.
        fps: frames a second at the simulation's own speed.
    """

    frames: list[np.ndarray] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    fps: int = 30


def film_task(
    config: TrainConfig, reward: Any, predict: Callable[[Any], np.ndarray], seed: int
) -> Film:
    """Film an episode of a registered task that has a MuJoCo model.

    Args:
        config: a resolved configuration with a task.
        reward: what scores the frames, at its own size.
        predict: observations to actions.
        seed: seed of the start state; that of world 0 of an evaluation with this seed.

    Returns:
        The film.
    """
    from vlmrm_fast.rendering import Renderer, Scene
    from vlmrm_fast.sb3.building import build_env, build_task
    from vlmrm_fast.tasks import Task

    # One step beyond the horizon, so that the last state is not reset before it is drawn.
    task = build_task(config)
    assert isinstance(task, Task)
    env: Any = build_env(config, reward, num_envs=1, seed=seed, extra_steps=1)
    size = config.evaluation.video_size
    scene = Scene.from_model(env.worlds.model, task.camera)
    film = Film(fps=_fps(task.frame_skip * env.worlds.model.opt.timestep))
    with Renderer(scene, size, size, num_threads=config.num_threads) as renderer:
        observation = env.reset()
        film.frames.append(renderer.render(env.worlds.simulation.source(scene))[0].copy())
        frames = env.worlds.camera_frames
        scores = reward.score(frames.reshape(-1, *frames.shape[2:]))
        film.rewards.append(float(env.labels.stream.reduce(scores, 1)[0]))
        for _ in range(task.horizon):
            observation, _, dones, infos = env.step(predict(observation))
            if dones[0]:
                break
            film.frames.append(renderer.render(env.worlds.simulation.source(scene))[0].copy())
            film.rewards.append(float(infos[0]["vlm_reward"]))
    env.close()
    return film


def film_gym(
    config: TrainConfig,
    reward: Any,
    predict: Callable[[Any], np.ndarray],
    seed: int,
    max_steps: int = 1000,
) -> Film:
    """Film an episode of a gymnasium environment.

    MuJoCo environments are drawn natively at the video's size, others by their own `render()`.

    Args:
        config: a resolved configuration with an environment id, or a task that draws itself.
        reward: what scores the frames.
        predict: observations (with a batch axis) to actions.
        seed: seed of the start state.
        max_steps: steps to film at most, for environments without an end.

    Returns:
        The film.
    """
    from vlmrm_fast.sb3.building import make_gym

    env = make_gym(config)
    draw, close = _gym_artist(env, config, config.camera.render_size or reward.image_size)
    film = Film(fps=_fps(1 / env.metadata.get("render_fps", 30)))
    observation, _ = env.reset(seed=seed)
    done = False
    while True:
        scored, shown = draw()
        film.frames.append(shown)
        film.rewards.append(float(reward.score(scored[None])[0]))
        if done or len(film.frames) > max_steps:
            break
        action = predict(_batch_of_one(observation))[0]
        observation, _, terminated, truncated, _ = env.step(action)
        done = terminated or truncated
    close()
    env.close()
    return film


def _batch_of_one(observation: Any) -> Any:
    """Return an observation, or a dictionary of them, with a leading axis."""
    if isinstance(observation, dict):
        return {name: np.asarray(part)[None] for name, part in observation.items()}
    return np.asarray(observation)[None]


def _gym_artist(
    env: Any, config: TrainConfig, image_size: int
) -> tuple[Callable[[], tuple[np.ndarray, np.ndarray]], Callable[[], None]]:
    """Return a function that draws the frame to score and the one to show, and its closer."""
    from vlmrm_fast.envs.capture import mujoco_parts, render_camera
    from vlmrm_fast.errors import UnsupportedSceneError
    from vlmrm_fast.rendering import Camera, Renderer, Scene
    from vlmrm_fast.sb3.views import gym_camera

    parts = mujoco_parts(env)

    def plain() -> tuple[np.ndarray, np.ndarray]:
        picture = np.array(env.render())
        return picture, picture

    if parts is None:
        return plain, lambda: None
    model, data = parts
    env.reset()
    camera = gym_camera(config)
    if camera is None:
        camera = render_camera(env)
        camera = Camera(**camera) if isinstance(camera, dict) else camera
    try:
        scene = Scene.from_model(model, camera)
    except UnsupportedSceneError:
        return plain, lambda: None
    supersample = config.camera.supersample
    small = Renderer(scene, image_size, image_size, num_threads=1, supersample=supersample)
    size = config.evaluation.video_size
    large = Renderer(scene, size, size, num_threads=config.num_threads)

    def native() -> tuple[np.ndarray, np.ndarray]:
        return small.render(data)[0].copy(), large.render(data)[0].copy()

    def close() -> None:
        small.close()
        large.close()

    return native, close


def _fps(step_seconds: float) -> int:
    """Return the frame rate at the simulation's own speed, within what players take."""
    return int(np.clip(round(1 / max(step_seconds, 1e-3)), 5, 60))
