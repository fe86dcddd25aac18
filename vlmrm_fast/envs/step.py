"""What a step of N environments is made of: who rewards it, how rewards mix, what it gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from vlmrm_fast.errors import ArgumentError, unknown_name


class FrameReward(Protocol):
    """What an environment needs of a reward: `VLMReward`, or anything with these two."""

    @property
    def image_size(self) -> int:
        """Side of the pictures that are scored without resizing [pixels]."""

    def score(self, frames: np.ndarray) -> np.ndarray:
        """Return the rewards (B,) float32 of frames (B, H, W, 3) uint8."""


@dataclass(frozen=True)
class Mix:
    """How the model's reward and the environment's own become one.

    Attributes:
        mode: "replace" for weight * VLM reward, "add" for env_weight * own reward + weight * VLM
            reward.
        weight: factor on the VLM reward, finite.
        env_weight: factor on the environment's own reward, finite; 1 unless the mode is "add".
    """

    mode: str = "replace"
    weight: float = 1.0
    env_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.mode not in {"replace", "add"}:
            raise unknown_name("mode", self.mode, ("replace", "add"))
        for name in ("weight", "env_weight"):
            if not np.isfinite(getattr(self, name)):
                raise ArgumentError(f"{name} must be finite, got {getattr(self, name)}.")
        if self.mode == "replace" and self.env_weight != 1:
            raise ArgumentError(
                f'env_weight must be left out where mode is "replace", got {self.env_weight}. '
                'With mode="add" it is the factor on the environment\'s own reward.'
            )

    def __call__(self, vlm_reward: np.ndarray, env_reward: np.ndarray) -> np.ndarray:
        """Return the reward to learn from.

        Args:
            vlm_reward: (N,) rewards of the vision-language model.
            env_reward: (N,) rewards of the environment itself.

        Returns:
            (N,) float32.
        """
        total = self.weight * vlm_reward
        if self.mode == "add":
            total = total + self.env_weight * env_reward
        return np.asarray(total, dtype=np.float32)


@dataclass
class StepResult:
    """What one step of N worlds gave. Arrays are fresh, safe to keep.

    While rewards are deferred, `reward` is 0, and `vlm_reward` and `episode_return` are NaN.

    Attributes:
        observation: (N, d) float32, of the new episode where one has just ended.
        final_observation: (N, d) float32, of the state that was drawn and scored; where a world
            diverged, its last finite one.
        reward: (N,) float32, what the agent is to learn from; finite.
        vlm_reward: (N,) float32, of the vision-language model.
        env_reward: (N,) float64, the task's ground truth.
        success: (N,) bool, the state is a goal state.
        done: (N,) bool, the episode ended; always by truncation.
        diverged: (N,) bool, it ended because the physics broke down.
        episode_success: (N,) bool, meaningful where done.
        episode_return: (N,) float64, sum of `reward` over the episode so far.
        episode_env_return: (N,) float64, sum of `env_reward` likewise.
        episode_length: (N,) int64 [steps].
        episode_seconds: (N,) float64, wall-clock time since the episode's start.
        measures: the task's further numbers by name, each (N,).
    """

    observation: np.ndarray
    final_observation: np.ndarray
    env_reward: np.ndarray
    success: np.ndarray
    done: np.ndarray
    diverged: np.ndarray
    episode_success: np.ndarray
    episode_env_return: np.ndarray
    episode_length: np.ndarray
    episode_seconds: np.ndarray
    measures: dict[str, np.ndarray]
    # Set last: scored when everything else has been read out.
    vlm_reward: np.ndarray = field(init=False)
    reward: np.ndarray = field(init=False)
    episode_return: np.ndarray = field(init=False)


def render_shape(size: int | tuple[int, int] | None, default: int) -> tuple[int, int]:
    """Return (height, width) for a `render_size` argument.

    Args:
        size: a side, (height, width), or None for the default [pixels].
        default: the side to use for None.

    Returns:
        The picture's height and width [pixels].

    Raises:
        ArgumentError: if a side is not a positive whole number.
    """
    given: Any = default if size is None else size
    sides = given if isinstance(given, (tuple, list)) else (given, given)
    whole = all(isinstance(side, (int, np.integer)) and side > 0 for side in sides)
    if len(sides) != 2 or not whole:
        raise ArgumentError(f"render_size must be a positive int or (height, width), got {size!r}.")
    return int(sides[0]), int(sides[1])
