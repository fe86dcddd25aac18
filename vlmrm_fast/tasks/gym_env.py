"""The environment of a `GymTask`: gymnasium's own, with a ground truth and a fixed horizon."""

from __future__ import annotations

import os
from typing import Any

import gymnasium
import numpy as np

from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.tasks.gym_task import GymTask


def make_env(task: GymTask, textures: str, kwargs: dict[str, Any]) -> gymnasium.Env:
    """Make what `GymTask.make` promises.

    Args:
        task: the task.
        textures: a name of `task.looks`.
        kwargs: passed on to `gymnasium.make`.

    Returns:
        The environment.

    Raises:
        ArgumentError: if gymnasium cannot make it, or pygame is not installed.
    """
    _check_pygame(task)
    draw_without_screen()
    # The horizon is the task's, and states are set from outside, without a reset before.
    arguments: dict[str, Any] = {
        "render_mode": "rgb_array",
        "max_episode_steps": -1,
        "disable_env_checker": True,
        **kwargs,
    }
    try:
        env = gymnasium.make(task.env_id, **arguments)
    except (gymnasium.error.Error, TypeError, ValueError) as error:
        text = f"env must be one that can be made, got {task.env_id!r} with {kwargs}: {error}"
        raise ArgumentError(text) from error
    return TaskEnv(env.unwrapped, task, textures)


def draw_without_screen() -> None:
    """Keep pygame, where there is no screen, from looking for one and complaining."""
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


def _check_pygame(task: GymTask) -> None:
    """Check that the environment can draw itself."""
    try:
        import pygame  # noqa: F401
    except ImportError as error:
        raise ArgumentError(
            f"task must be one that can be drawn here, got {task.name!r}, which needs pygame. "
            "Install the extra: pip install 'vlmrm-fast[classic]'."
        ) from error


class TaskEnv(gymnasium.Wrapper):
    """Steps gymnasium's environment, rewards by the ground truth, and ends by truncation only.

    Attributes:
        task: the task; its `horizon` and `success_steps` decide when episodes end and succeed.
        textures: the picture that `render` draws.
    """

    def __init__(self, env: gymnasium.Env, task: GymTask, textures: str) -> None:
        """Wrap `env`.

        Args:
            env: gymnasium's environment, without wrappers that end episodes.
            task: the task.
            textures: a name of `task.looks`.
        """
        super().__init__(env)
        self.task, self.textures = task, textures
        self._length = self._streak = 0
        self._held = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode; nothing of the last one is left, its success included.

        Args:
            seed: as gymnasium's.
            options: as gymnasium's.

        Returns:
            Observation and info.
        """
        self._length = self._streak = 0
        self._held = False
        return self.env.reset(seed=seed, options=options)

    def set_state(self, state: np.ndarray) -> None:
        """Put the environment into a state, as `GymTask.set_state` describes.

        Args:
            state: (d,) finite float64.
        """
        inner: Any = self.env.unwrapped
        inner.state = state
        self._held = False

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step once; an absorbing goal that was reached holds the state.

        Args:
            action: as gymnasium's.

        Returns:
            Observation, ground-truth reward, False, whether the horizon is reached, and the info
            that `GymTask.make` describes.
        """
        inner: Any = self.env.unwrapped
        info: dict[str, Any] = {}
        observation, own = np.array(inner.state, np.float32), 0.0
        if not self._held:
            observation, reward, _, _, info = self.env.step(action)
            own = float(reward)
            if hasattr(inner, "steps_beyond_terminated"):
                # The cart-pole counts, and warns, once its own limits are passed.
                inner.steps_beyond_terminated = None
        truth, success = self.task.ground_truth(np.asarray(inner.state, np.float64)[None])
        if success[0] and self.task.absorbing and not self._held:
            self._held = True
            inner.state = np.array([*inner.state[:-1], 0.0])
            observation = np.array(inner.state, np.float32)
        self._length += 1
        self._streak = self._streak + 1 if success[0] else 0
        truncated = self._length >= self.task.horizon
        info = {**info, "success": bool(success[0]), "gym_reward": own}
        if truncated:
            info["is_success"] = self._streak >= self.task.success_steps
        return observation, float(truth[0]), False, truncated, info

    def render(self) -> Any:
        """Draw the present state, or the nearest one that a picture can show.

        Returns:
            (height, width, 3) uint8.
        """
        inner: Any = self.env.unwrapped
        painter = self.task.painters.get(self.textures)
        if painter is not None:
            return painter(np.asarray(inner.state))
        state = inner.state
        inner.state = self._drawable(state)
        try:
            return self.env.render()
        finally:
            inner.state = state

    def _drawable(self, state: Any) -> Any:
        """Return a state that pygame can draw: its coordinates have 16 bits."""
        if state is None or self.task.drawn_range is None:
            return state
        return np.array([np.clip(state[0], *self.task.drawn_range), *state[1:]])
