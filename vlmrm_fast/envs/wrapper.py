"""`VLMRewardWrapper`: a vision-language-model reward for any single gymnasium environment."""

from __future__ import annotations

import time
from typing import Any

import gymnasium
import numpy as np

from vlmrm_fast.envs.capture import KEY, is_finite
from vlmrm_fast.envs.painter import PictureStack, capture_of, check_render_mode, make_painter
from vlmrm_fast.envs.step import FrameReward, Mix, render_shape
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
    ) -> None:
        """Wrap `env`.

        Args:
            env: any environment; one that is not MuJoCo's needs render_mode="rgb_array".
            reward: what scores the frames.
            mode: "replace" the environment's reward or "add" to it.
            weight: factor on the model's reward.
            camera: as `Scene.from_model` takes it; None for the one of `env.render()`.
            render_size: side or (height, width) of native frames [pixels]; None for the reward's
                input size.
            supersample: as `Renderer` takes it, for native frames.
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
        )
        super().__init__(env)
        load_triton()
        self.reward, self._mix = reward, Mix(mode, weight)
        self._capture = capture_of(env)
        self._painter: Any = None
        self._camera, self._supersample = camera, supersample
        self._shape = render_shape(render_size, reward.image_size)
        self.last_frames = np.zeros((1, *self._shape, 3), np.uint8)
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
        """Step, draw the state just reached, score it.

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
        self.last_frames = self._painter.draw([info.pop(KEY)])
        clock = self._lap("draw", clock)
        vlm_reward = float(self.reward.score(self.last_frames)[0])
        self._lap("encode", clock)
        info["vlm_reward"], info["env_reward"] = vlm_reward, float(env_reward)
        reward = float(self._mix(np.array([vlm_reward]), np.array([env_reward]))[0])
        return observation, reward, terminated, truncated, info

    def _lap(self, stage: str, start: float) -> float:
        now = time.perf_counter()
        self.timings[stage] += now - start
        return now

    def close(self) -> None:
        """Release the renderer and close the environment."""
        if self._painter is not None:
            self._painter.close()
        super().close()
