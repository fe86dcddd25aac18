"""The Stable-Baselines3 face of the batched tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnv

from vlmrm_fast.envs.core import TaskWorlds
from vlmrm_fast.envs.labels import Deferring
from vlmrm_fast.envs.step import FrameReward, StepResult
from vlmrm_fast.errors import ArgumentError


def _indices(indices: Any, num_envs: int) -> list[int]:
    if indices is None:
        return list(range(num_envs))
    return [indices] if isinstance(indices, int) else list(indices)


class TaskVecEnv(Deferring, VecEnv):
    """`TaskWorlds` as a Stable-Baselines3 `VecEnv`.

    Info of every step: "vlm_reward", "env_reward", "success", "TimeLimit.truncated" and the task's
    measures; "diverged" only where True. At an episode's end also "terminal_observation",
    "is_success" and "episode" {"r", "l", "t", "env_r"}, so that no `VecMonitor` is needed.

    Attributes:
        worlds: the environment itself.
        labels: as `TaskWorlds.labels`.
        timings: as `TaskWorlds.timings` [s].
    """

    def __init__(self, worlds: TaskWorlds) -> None:
        """Wrap `worlds`, which this object then owns.

        Args:
            worlds: the batched environment.
        """
        self.worlds, self.labels, self.timings = worlds, worlds.labels, worlds.timings
        self.render_mode = "rgb_array"
        self._actions = np.zeros(0)
        self._next_seed: int | None = None
        super().__init__(worlds.num_envs, worlds.observation_space, worlds.action_space)
        fps = 1 / (worlds.model.opt.timestep * worlds.task.frame_skip)
        self.metadata["render_fps"] = round(fps)  # type: ignore[assignment]

    @property
    def camera_frames(self) -> np.ndarray:
        """As `TaskWorlds.camera_frames`: (C, N, H, W, 3) uint8."""
        return self.worlds.camera_frames

    @property
    def last_frames(self) -> np.ndarray:
        """As `TaskWorlds.last_frames`: (N, H, W, 3) uint8."""
        return self.worlds.last_frames

    @property
    def renderer(self) -> str:
        """As `TaskWorlds.renderer`."""
        return self.worlds.renderer

    @property
    def diverged(self) -> np.ndarray:
        """As `TaskWorlds.diverged`: (N,) bool, live; the rollout buffer takes it."""
        return self.worlds.diverged

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed all worlds at the next reset.

        Args:
            seed: at least 0, or None to draw one.

        Returns:
            `seed` once a world: world i's generator comes from the seed and i.
        """
        if seed is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        self._next_seed = seed
        return [seed] * self.num_envs

    def reset(self) -> np.ndarray:
        """Start a new episode in every world.

        Returns:
            (N, d) float32 observations.
        """
        if self._next_seed is not None:
            self.worlds.seed(self._next_seed)
            self._next_seed = None
        self.reset_infos = [{} for _ in range(self.num_envs)]
        return self.worlds.reset()

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for `step_wait`.

        Args:
            actions: (N, nu), finite.
        """
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """As `TaskWorlds.step`.

        Returns:
            Observations (N, d) float32, rewards (N,) float32, dones (N,) bool, infos.
        """
        result = self.worlds.step(self._actions)
        infos = _infos(result)
        self.labels.attach(infos)
        return result.observation, result.reward, result.done, infos

    @property
    def reward(self) -> FrameReward:
        """What scores the frames."""
        return self.worlds.reward

    def get_state(self) -> dict[str, Any]:
        """As `TaskWorlds.get_state`.

        Returns:
            The state of all worlds.
        """
        return self.worlds.get_state()

    def set_state(self, state: Mapping[str, Any]) -> np.ndarray:
        """As `TaskWorlds.set_state`.

        Args:
            state: what `get_state` returned.

        Returns:
            (N, d) float32, the restored observations.
        """
        self._next_seed = None
        return self.worlds.set_state(state)

    def get_images(self) -> list[np.ndarray]:
        """Return copies of the last frames, terminal frames included.

        Returns:
            N arrays (H, W, 3) uint8.
        """
        return list(self.worlds.last_frames.copy())

    def close(self) -> None:
        """Release the renderer."""
        self.worlds.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute, which all worlds share.

        Args:
            attr_name: the name.
            indices: which worlds; None for all.

        Returns:
            The value, once a world.
        """
        return [getattr(self, attr_name)] * len(_indices(indices, self.num_envs))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute for all worlds.

        Args:
            attr_name: the name.
            value: the value.
            indices: must mean all worlds.

        Raises:
            ArgumentError: if `indices` leaves some out.
        """
        if len(_indices(indices, self.num_envs)) != self.num_envs:
            raise ArgumentError(
                f"indices must be None, got {indices}. The worlds share {attr_name}."
            )
        setattr(self, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list:
        """Refuse: the worlds are rows of arrays, not objects with methods.

        Args:
            method_name: the name.
            args: not used.
            indices: not used.
            kwargs: not used.

        Raises:
            ArgumentError: always.
        """
        raise ArgumentError(
            f"env_method must not be used on a batched task, got {method_name!r}. "
            "Use the attributes of .worlds."
        )

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Say whether worlds behave as wrapped in `wrapper_class`.

        Args:
            wrapper_class: a gymnasium wrapper.
            indices: which worlds; None for all.

        Returns:
            True for `Monitor`, whose "episode" info every world gives, else False.
        """
        return [wrapper_class is Monitor] * len(_indices(indices, self.num_envs))


def _infos(result: StepResult) -> list[dict[str, Any]]:
    infos = []
    for i, done in enumerate(result.done.tolist()):
        info: dict[str, Any] = {
            "vlm_reward": float(result.vlm_reward[i]),
            "env_reward": float(result.env_reward[i]),
            "success": bool(result.success[i]),
            "TimeLimit.truncated": done,
        }
        info |= {name: float(values[i]) for name, values in result.measures.items()}
        if result.diverged[i]:
            info["diverged"] = True
        if done:
            info["terminal_observation"] = result.final_observation[i].copy()
            info["is_success"] = bool(result.episode_success[i])
            info["episode"] = {
                "r": float(result.episode_return[i]),
                "l": int(result.episode_length[i]),
                "t": float(result.episode_seconds[i]),
                "env_r": float(result.episode_env_return[i]),
            }
        infos.append(info)
    return infos
