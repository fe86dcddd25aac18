"""The gymnasium face of the batched environment."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from vlmrm_fast.envs.core import TaskWorlds
from vlmrm_fast.envs.step import StepResult
from vlmrm_fast.errors import ArgumentError


class TaskVectorEnv(VectorEnv):
    """`TaskWorlds` as a `gymnasium.vector.VectorEnv` with same-step autoreset.

    `step` returns the new episode's observation where one ended; `info["final_obs"]` holds the
    terminal one and `info["final_info"]` what belongs to it. Episodes end by truncation only.

    Attributes:
        worlds: the environment itself; `last_frames`, `timings` and `diverged` are its.
    """

    def __init__(self, worlds: TaskWorlds) -> None:
        """Wrap `worlds`, which this object then owns.

        Args:
            worlds: the batched environment.
        """
        self.worlds = worlds
        self.num_envs = worlds.num_envs
        fps = 1 / (worlds.model.opt.timestep * worlds.task.frame_skip)
        self.metadata = {
            "autoreset_mode": AutoresetMode.SAME_STEP,
            "render_modes": ["rgb_array"],
            "render_fps": round(fps),
        }
        self.render_mode = "rgb_array"
        self.single_observation_space: gymnasium.Space = worlds.observation_space
        self.single_action_space: gymnasium.Space = worlds.action_space
        self.observation_space = batch_space(worlds.observation_space, self.num_envs)
        self.action_space = batch_space(worlds.action_space, self.num_envs)

    @property
    def last_frames(self) -> np.ndarray:
        """As `TaskWorlds.last_frames`: (N, H, W, 3) uint8."""
        return self.worlds.last_frames

    @property
    def camera_frames(self) -> np.ndarray:
        """As `TaskWorlds.camera_frames`: (C, N, H, W, 3) uint8."""
        return self.worlds.camera_frames

    @property
    def diverged(self) -> np.ndarray:
        """As `TaskWorlds.diverged`: (N,) bool, live."""
        return self.worlds.diverged

    @property
    def timings(self) -> dict[str, float]:
        """As `TaskWorlds.timings` [s]."""
        return self.worlds.timings

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start a new episode in every world.

        Args:
            seed: new seed, or None to go on with the generators.
            options: none are known.

        Returns:
            Observations (N, d) float32, and an empty dictionary.

        Raises:
            ArgumentError: if there are options.
        """
        if options:
            raise ArgumentError(f"options must be None, got {options}. Worlds reset themselves.")
        super().reset(seed=seed, options=options)
        if seed is not None:
            self.worlds.seed(seed)
        return self.worlds.reset(), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """As `TaskWorlds.step`.

        Args:
            actions: (N, nu), finite.

        Returns:
            Observations (N, d) float32, rewards (N,) float64, terminations (N,) bool, all False,
            truncations (N,) bool, and infos: arrays (N,) by name, each with a mask `_NAME`.
        """
        result = self.worlds.step(actions)
        terminations = np.zeros(self.num_envs, bool)
        infos = self._infos(result)
        return (
            result.observation,
            result.reward.astype(np.float64),
            terminations,
            result.done,
            infos,
        )

    def _infos(self, result: StepResult) -> dict[str, Any]:
        every, done = np.ones(self.num_envs, bool), result.done
        arrays = {
            "vlm_reward": result.vlm_reward,
            "env_reward": result.env_reward,
            "success": result.success,
            **result.measures,
        }
        infos: dict[str, Any] = {}
        for name, array in arrays.items():
            infos[name], infos[f"_{name}"] = array, every.copy()
        if result.diverged.any():
            infos["diverged"], infos["_diverged"] = result.diverged, result.diverged.copy()
        if done.any():
            final_obs = np.full(self.num_envs, None, dtype=object)
            for index in np.flatnonzero(done):
                final_obs[index] = result.final_observation[index]
            infos["final_obs"], infos["_final_obs"] = final_obs, done.copy()
            infos["final_info"] = self._final_info(result, arrays)
            infos["_final_info"] = done.copy()
        return infos

    @staticmethod
    def _final_info(result: StepResult, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
        done = result.done
        episode = {
            "r": result.episode_return,
            "l": result.episode_length,
            "t": result.episode_seconds,
            "env_r": result.episode_env_return,
        }
        final: dict[str, Any] = {}
        for name, array in (arrays | {"is_success": result.episode_success}).items():
            final[name], final[f"_{name}"] = array, done.copy()
        if result.diverged.any():
            final["diverged"], final["_diverged"] = result.diverged, result.diverged.copy()
        final["episode"] = episode | {f"_{name}": done.copy() for name in episode}
        final["_episode"] = done.copy()
        return final

    def render(self) -> tuple[np.ndarray, ...]:
        """Return copies of the last frames, terminal frames included.

        Returns:
            N arrays (H, W, 3) uint8.
        """
        return tuple(self.worlds.last_frames.copy())

    def close_extras(self, **kwargs: Any) -> None:
        """Release the renderer.

        Args:
            kwargs: ignored.
        """
        del kwargs
        self.worlds.close()
