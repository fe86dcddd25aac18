"""Humanoids stepped and drawn by gymnasium, in this process or in others, which import this."""

from __future__ import annotations

import functools
from typing import Any

import gymnasium
import numpy as np

# gymnasium ignores a free camera's track body, as our task's camera does.
CAMERA = {"lookat": np.array([0.0, 0, 1.0]), "distance": 3.5, "azimuth": 180.0, "elevation": -10.0}


class Placed(gymnasium.Wrapper):
    """An environment that takes its own row of the states of all."""

    def __init__(self, env: gymnasium.Env, index: int) -> None:
        super().__init__(env)
        self._index = index

    def put(self, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Start an episode from row `index` of (N, nq) and (N, nv)."""
        self.env.reset()
        self.env.unwrapped.set_state(qpos[self._index], qvel[self._index])


def make(index: int, size: int) -> gymnasium.Env:
    """Return Humanoid-v5 with pictures and without an end."""
    env = gymnasium.make(
        "Humanoid-v5",
        render_mode="rgb_array",
        terminate_when_unhealthy=False,
        disable_env_checker=True,
        width=size,
        height=size,
        default_camera_config=CAMERA,
    )
    return Placed(env, index)


class Gymnasium:
    """What users write today: a vector environment, then one picture from each."""

    def __init__(self, kind: str, num_envs: int, size: int) -> None:
        makers = [functools.partial(make, index, size) for index in range(num_envs)]
        if kind == "sync":
            self.env: Any = gymnasium.vector.SyncVectorEnv(makers)
        else:
            # A forked child cannot use the GL that its parent may have initialised.
            self.env = gymnasium.vector.AsyncVectorEnv(makers, context="spawn")
        self.env.reset(seed=0)
        self.env.render()

    def put(self, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Start from these states."""
        self.env.call("put", qpos, qvel)

    def step(self, actions: np.ndarray) -> np.ndarray:
        """Step and return the frames."""
        self.env.step(actions)
        return np.stack(self.env.render())

    def close(self) -> None:
        """End the processes."""
        self.env.close()
