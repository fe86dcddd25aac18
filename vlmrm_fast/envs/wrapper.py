"""`VLMRewardWrapper`: a vision-language-model reward for any single gymnasium environment."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from vlmrm_fast.envs.capture import KEY, is_finite
from vlmrm_fast.envs.painter import (
    PictureStack,
    capture_of,
    check_render_mode,
    check_single_camera,
    make_painter,
)
from vlmrm_fast.envs.step import FrameReward, Mix, render_shape
from vlmrm_fast.envs.stream import RewardOptions, RewardStream
from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.gl_order import load_triton


class VLMRewardWrapper(gymnasium.Wrapper, gymnasium.utils.RecordConstructorArgs):
    """Replaces an environment's reward, or adds to it, by what a model sees.

    A MuJoCo environment is drawn natively from its state, with the camera of its own `render()`;
    it needs no render mode and no GL. Any other is drawn by `render()`. `info` holds "vlm_reward"
    and "env_reward", the environment's own.

    Attributes:
        reward: the scorer.
        last_frames: (1, H, W, 3) uint8, the frame that the last reward was given for.
        camera_frames: (C, 1, H, W, 3) uint8, likewise from every camera.
        timings: seconds spent so far in "simulate", "draw" and "encode".
    """

    def __init__(
        self,
        env: gymnasium.Env,
        reward: FrameReward,
        mode: str = "replace",
        weight: float = 1.0,
        *,
        camera: Any = None,
        render_size: int | tuple[int, int] | None = None,
        supersample: int = 1,
        env_weight: float = 1.0,
        options: RewardOptions | None = None,
    ) -> None:
        """Wrap `env`.

        Args:
            env: any environment; one that is not MuJoCo's needs render_mode="rgb_array".
            reward: what scores the frames.
            mode: "replace" the environment's reward or "add" to it.
            weight: factor on the model's reward.
            camera: as `Scene.from_model` takes it, or a list of such; None for the one of
                `env.render()`, a dictionary for changes of that.
            render_size: side or (height, width) of native frames [pixels]; None for the reward's
                input size.
            supersample: as `Renderer` takes it, for native frames.
            env_weight: factor on the environment's own reward, for mode "add".
            options: what happens to the model's rewards before.
        """
        # So that env.spec can make this again; the reward is shared, not copied.
        gymnasium.utils.RecordConstructorArgs.__init__(
            self,
            _disable_deepcopy=True,
            reward=reward,
            mode=mode,
            weight=weight,
            camera=camera,
            render_size=render_size,
            supersample=supersample,
            env_weight=env_weight,
            options=options,
        )
        super().__init__(env)
        load_triton()
        self.reward = reward
        self._stream = RewardStream(1, Mix(mode, weight, env_weight), options)
        self._capture = capture_of(env, self._stream.options.score_every)
        self._painter: Any = None
        self._camera, self._supersample = camera, supersample
        self._shape = render_shape(render_size, reward.image_size)
        self.camera_frames = np.zeros((1, 1, *self._shape, 3), np.uint8)
        self.timings = {"simulate": 0.0, "draw": 0.0, "encode": 0.0}
        if not self._capture.native:
            self._make_painter()

    def _make_painter(self) -> None:
        """Choose who draws; the default camera depends on the first state, as in gymnasium."""
        description = self._capture.describe()
        self._painter = make_painter(
            [description],
            lambda _: self._capture.model(),
            self._camera,
            self._shape,
            num_threads=1,
            supersample=self._supersample,
        )
        if self._painter is None:
            check_single_camera(self._camera)
            check_render_mode([description])
            self._capture.use_render()
            self._painter = PictureStack()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """As the environment's.

        Args:
            seed: passed on.
            options: passed on.

        Returns:
            Observation and info.
        """
        observation, info = self._capture.reset(seed=seed, options=options)
        if self._painter is None:
            self._make_painter()
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step, draw the state just reached, score it if it is due.

        Args:
            action: finite.

        Returns:
            Observation, reward, terminated, truncated and info.

        Raises:
            ArgumentError: if `action` is not finite.
        """
        if not is_finite(action):
            raise ArgumentError(f"actions must be finite, got {action} for environment 0.")
        clock = time.perf_counter()
        observation, env_reward, terminated, truncated, info = self._capture.step(action)
        clock = self._lap("simulate", clock)
        due = np.array([KEY in info])
        scores = np.zeros(0, np.float32)
        if due[0]:
            frames = self._painter.draw([info.pop(KEY)])
            self.camera_frames = frames[:, None]
            clock = self._lap("draw", clock)
            scores = self.reward.score(frames)
        given = self._stream.step(
            scores, due, np.array([float(env_reward)]), np.array([bool(info.get("diverged"))])
        )
        self._lap("encode", clock)
        info["vlm_reward"], info["env_reward"] = float(given.vlm_reward[0]), float(env_reward)
        return observation, float(given.reward[0]), terminated, truncated, info

    @property
    def last_frames(self) -> np.ndarray:
        """The first camera's `camera_frames`."""
        return self.camera_frames[0]

    def get_label_state(self) -> dict[str, Any]:
        """Return what the next rewards depend on, for checkpoints.

        Returns:
            Arrays and numbers by name.
        """
        return {**self._stream.get_state(), "length": self._capture.length}

    def set_label_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what `get_label_state` returned.

        Args:
            state: its value.
        """
        self._stream.set_state(state)
        self._capture.length = int(state["length"])

    def _lap(self, stage: str, start: float) -> float:
        now = time.perf_counter()
        self.timings[stage] += now - start
        return now

    def close(self) -> None:
        """Release the renderer and close the environment."""
        if self._painter is not None:
            self._painter.close()
        super().close()
