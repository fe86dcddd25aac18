"""A vision-language-model reward for anyone's Stable-Baselines3 `VecEnv`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvWrapper

from vlmrm_fast.envs.capture import KEY, Installer, install
from vlmrm_fast.envs.labels import Deferring, Labels
from vlmrm_fast.envs.painter import (
    POSE_FIELDS,
    PictureStack,
    check_render_mode,
    check_single_camera,
    make_painter,
)
from vlmrm_fast.envs.step import FrameReward, Mix, render_shape
from vlmrm_fast.envs.stream import RewardOptions, RewardStream
from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.gl_order import load_triton
from vlmrm_fast.sb3.task_env import TaskVecEnv

__all__ = ["TaskVecEnv", "VLMRewardVecEnv"]


class VLMRewardVecEnv(Deferring, VecEnvWrapper):
    """Replaces the reward of any `VecEnv`, or adds to it, by what a model sees.

    MuJoCo environments, in this process or in others, send the state that they reached, a few kB,
    and are drawn natively here with the camera of their own `render()`; others send the picture
    from `render()`. Both are taken before the environment resets itself. `step` of each
    environment is replaced for that. Infos are those of `TaskVecEnv`, the environment's own
    "episode" being kept as "env_episode".

    Attributes:
        reward: what scores the frames.
        labels: how that happens, at once or later.
        camera_frames: (C, N, H, W, 3) uint8, what the last rewards were given for.
        diverged: (N,) bool, live: the environments that diverged in the last step.
        timings: seconds spent so far in "simulate", "draw" and "encode".
    """

    def __init__(
        self,
        venv: VecEnv,
        reward: FrameReward,
        mode: str = "replace",
        weight: float = 1.0,
        *,
        camera: Any = None,
        render_size: int | tuple[int, int] | None = None,
        supersample: int = 1,
        num_threads: int = 0,
        env_weight: float = 1.0,
        options: RewardOptions | None = None,
    ) -> None:
        """Wrap `venv`.

        Args:
            venv: any `VecEnv`; environments that are not MuJoCo's need render_mode="rgb_array".
            reward: what scores the frames.
            mode: "replace" the environments' reward or "add" to it.
            weight: factor on the model's reward.
            camera: as `Scene.from_model` takes it, or a list of such; None for the environments'
                own, a dictionary for changes of that.
            render_size: side or (height, width) of native frames [pixels]; None for the reward's
                input size.
            supersample: as `Renderer` takes it, for native frames.
            num_threads: threads that draw, 0 for one a CPU.
            env_weight: factor on the environments' own reward, for mode "add".
            options: what happens to the model's rewards before.
        """
        super().__init__(venv)
        load_triton()
        self.reward = reward
        self._camera, self._num_threads = camera, num_threads
        self._supersample = supersample
        self._shape = render_shape(render_size, reward.image_size)
        self._painter: Any = None
        n = self.num_envs
        self.camera_frames = np.zeros((1, n, *self._shape, 3), np.uint8)
        self.diverged = np.zeros(n, bool)
        self.timings = {"simulate": 0.0, "draw": 0.0, "encode": 0.0}
        self.labels = Labels(reward, RewardStream(n, Mix(mode, weight, env_weight), options), n)
        self._length = np.zeros(n, np.int64)
        self._env_return, self._start = np.zeros(n), np.zeros(n)
        self._install()

    def _install(self) -> None:
        """Put a capture into every environment and check that it can be drawn."""
        every = self.labels.stream.options.score_every
        local = getattr(self.venv.unwrapped, "envs", None)
        if isinstance(local, list):
            for env in local:
                install(env, POSE_FIELDS, every)
        else:
            self.venv.env_is_wrapped(Installer(POSE_FIELDS, every))  # type: ignore[arg-type]
        if not self.venv.has_attr("vlmrm_describe"):
            raise ArgumentError(
                "venv must hold environments in a gymnasium.Wrapper, got bare ones in other "
                "processes. Wrap each in stable_baselines3's Monitor, or use its make_vec_env."
            )
        self._native = all(d["native"] for d in self.venv.env_method("vlmrm_describe"))
        if not self._native:
            self._use_render()

    def _use_render(self) -> None:
        check_single_camera(self._camera)
        check_render_mode(self.venv.env_method("vlmrm_describe"))
        self.venv.env_method("vlmrm_use_render")
        self._painter = PictureStack()

    def _make_painter(self) -> None:
        """Build the native painter; the default camera depends on the first state."""
        self._painter = make_painter(
            self.venv.env_method("vlmrm_describe"),
            lambda index: self.venv.env_method("vlmrm_model", indices=[index])[0],
            self._camera,
            self._shape,
            self._num_threads,
            self._supersample,
        )
        if self._painter is None:
            self._use_render()

    def reset(self) -> Any:
        """As the wrapped environment's; rewards are deferred no longer.

        Returns:
            Observations.
        """
        self.labels.reset()
        observations = self.venv.reset()
        self.reset_infos = self.venv.reset_infos
        if self._painter is None:
            self._make_painter()
        self._env_return[:], self._length[:] = 0, 0
        self.diverged[:] = False
        self._start[:] = time.perf_counter()
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """As the wrapped environment's.

        Args:
            actions: N actions, finite.

        Raises:
            ArgumentError: if an action is not finite; the text names the environment.
        """
        finite = np.isfinite(actions).reshape(self.num_envs, -1).all(axis=1)
        if not finite.all():
            index = int(np.flatnonzero(~finite)[0])
            raise ArgumentError(
                f"actions must be finite, got {np.asarray(actions)[index].tolist()} for "
                f"environment {index}. Check the policy for NaN weights."
            )
        self._clock = time.perf_counter()
        self.venv.step_async(actions)

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Finish the step, draw the states that it reached, score them.

        Returns:
            Observations, rewards (N,) float32, dones (N,) bool, infos. While rewards are deferred
            they are 0, "vlm_reward" and the episodes' "r" are NaN.
        """
        observations, env_rewards, dones, inner = self.venv.step_wait()
        infos = [dict(info) for info in inner]
        clock = self._lap("simulate", self._clock)
        due = np.array([KEY in info for info in infos])
        if due.any():
            frames = self._painter.draw([info.pop(KEY, None) for info in infos])
            self.camera_frames = frames.reshape(-1, self.num_envs, *frames.shape[1:])
        clock = self._lap("draw", clock)
        self.diverged[:] = [bool(info.get("diverged")) for info in infos]
        frames = self.camera_frames.reshape(-1, *self.camera_frames.shape[2:])
        # Copies: environments may hand out their own buffers.
        given = self.labels.step(
            frames, env_rewards.copy(), dones.copy(), self.diverged.copy(), due
        )
        self._lap("encode", clock)
        self._env_return += env_rewards
        self._length += 1
        for i, info in enumerate(infos):
            info["vlm_reward"] = float(given.vlm_reward[i])
            info["env_reward"] = float(env_rewards[i])
            if dones[i]:
                self._end_episode(i, info, float(given.episode_return[i]))
        self.labels.attach(infos)
        return observations, given.reward, dones, infos

    def set_label_state(self, state: Mapping[str, np.ndarray]) -> None:
        """As `Labels.set_state`; the episodes under way count their time from now.

        Args:
            state: what `get_label_state` returned.
        """
        super().set_label_state(state)
        # Another process's clock began at another moment.
        self._start[:] = time.perf_counter()

    @property
    def last_frames(self) -> np.ndarray:
        """The first camera's `camera_frames`: (N, H, W, 3) uint8."""
        return self.camera_frames[0]

    def _lap(self, stage: str, start: float) -> float:
        now = time.perf_counter()
        self.timings[stage] += now - start
        return now

    def _end_episode(self, i: int, info: dict[str, Any], episode_return: float) -> None:
        if "episode" in info:
            info["env_episode"] = info["episode"]
        info["episode"] = {
            "r": episode_return,
            "l": int(self._length[i]),
            "t": time.perf_counter() - float(self._start[i]),
            "env_r": float(self._env_return[i]),
        }
        self._env_return[i] = self._length[i] = 0
        self._start[i] = time.perf_counter()

    def get_images(self) -> list[np.ndarray]:
        """Return copies of the last frames, terminal frames included.

        Returns:
            N arrays (H, W, 3) uint8.
        """
        return list(self.last_frames.copy())

    def close(self) -> None:
        """Release the renderers and close the wrapped environment."""
        self.labels.close()
        if self._painter is not None:
            self._painter.close()
        super().close()
