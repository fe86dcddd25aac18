"""From the numbers that a model gives frames to the rewards of an environment's steps, in order.

Between the model and the learner lie five small things: which steps are scored at all, what stands
for those that are not, how the rewards of several cameras become one, normalisation, and the mix
with the environment's own reward. They are applied in the order in which steps are made, also
where rewards come later, so that both ways give the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vlmrm_fast.envs.step import Mix
from vlmrm_fast.errors import ArgumentError, unknown_name

REDUCTIONS = ("max", "mean", "min")
UNSCORED = ("hold", "zero")

# A reward is compared with deviations no smaller than this, and clipped to so many of them: the
# first steps of a run, whose rewards hardly differ, would otherwise be enormous.
_SMALLEST_DEVIATION = 1e-4
_CLIP = 10.0


@dataclass(frozen=True)
class RewardOptions:
    """What happens to the model's rewards before they are mixed with the environment's own.

    Attributes:
        camera_reduce: how the rewards of several cameras become one: "mean", "max" or "min".
        score_every: k, at least 1: the first step of an episode is scored, every k-th after it,
            and the one that ends it. Frames that are not scored are not drawn.
        unscored: what the others get: "hold" for the last scored reward, "zero" for no reward.
        normalize: whether rewards are divided by their running deviation after their running mean
            is taken off, see `Moments`. "vlm_reward" of infos stays as the model gave it.
    """

    camera_reduce: str = "mean"
    score_every: int = 1
    unscored: str = "hold"
    normalize: bool = False

    def __post_init__(self) -> None:
        for name, choices in (("camera_reduce", REDUCTIONS), ("unscored", UNSCORED)):
            if getattr(self, name) not in choices:
                raise unknown_name(name, str(getattr(self, name)), choices)
        if not isinstance(self.score_every, int) or self.score_every < 1:
            raise ArgumentError(
                f"score_every must be a whole number of at least 1, got {self.score_every!r}."
            )


class Moments:
    """Running mean and deviation of all values so far, each counted once, in float64.

    Source: Chan, Golub and LeVeque's update of Welford's sums by a batch.
    """

    def __init__(self) -> None:
        """Begin with no value."""
        # Count, mean, sum of squared differences from the mean.
        self.sums = np.zeros(3)

    def add(self, values: np.ndarray) -> None:
        """Count values.

        Args:
            values: (n,), any n.
        """
        if not len(values):
            return
        count, mean, squares = self.sums
        fresh = np.asarray(values, np.float64)
        total = count + len(fresh)
        off = fresh.mean() - mean
        squares += np.square(fresh - fresh.mean()).sum() + off * off * count * len(fresh) / total
        self.sums[:] = total, mean + off * len(fresh) / total, squares

    def normalize(self, values: np.ndarray) -> np.ndarray:
        """Return (values - mean) / deviation, clipped to 10 deviations.

        Args:
            values: of any shape.

        Returns:
            float64, 0 before anything was counted.
        """
        count, mean, squares = self.sums
        if not count:
            return np.zeros(np.shape(values))
        deviation = max(float(np.sqrt(squares / count)), _SMALLEST_DEVIATION)
        return np.clip((values - mean) / deviation, -_CLIP, _CLIP)


class Rewards(NamedTuple):
    """The rewards of a step of N environments.

    Attributes:
        vlm_reward: (N,) float32, of the model: cameras reduced, not normalised.
        reward: (N,) float32, what is learned from.
    """

    vlm_reward: np.ndarray
    reward: np.ndarray


class RewardStream:
    """Makes the rewards of N environments, one step after the other."""

    def __init__(self, num_envs: int, mix: Mix, options: RewardOptions | None = None) -> None:
        """Begin before the first step.

        Args:
            num_envs: N.
            mix: how rewards combine.
            options: what happens before that; the model's rewards as they are by default.
        """
        self.options = options or RewardOptions()
        self._mix = mix
        self._last = np.zeros(num_envs, np.float32)
        self._moments = Moments()

    def due(self, length: np.ndarray, ending: np.ndarray) -> np.ndarray | None:
        """Say which environments' frames are to be scored.

        Args:
            length: (N,) steps that their episodes had before this one.
            ending: (N,) bool, whether this step ends them.

        Returns:
            (N,) bool, or None where every step is scored.
        """
        every = self.options.score_every
        return None if every == 1 else (length % every == 0) | ending

    def reduce(self, scores: np.ndarray, count: int) -> np.ndarray:
        """Make one reward of those of several cameras.

        Args:
            scores: (C * n,), one camera after the other.
            count: n.

        Returns:
            (n,); the rewards of a single camera pass unchanged.
        """
        by_camera = scores.reshape(-1, count)
        return np.asarray(getattr(np, self.options.camera_reduce)(by_camera, axis=0))

    def step(
        self,
        scores: np.ndarray,
        due: np.ndarray | None,
        env_reward: np.ndarray,
        diverged: np.ndarray,
    ) -> Rewards:
        """Take what the model gave the frames of a step.

        Args:
            scores: (C * n,) float32 for n environments that are due, one camera after the other.
            due: (N,) bool, which they are; None for all.
            env_reward: (N,), the environments' own rewards.
            diverged: (N,) bool, steps that nobody learns from.

        Returns:
            Fresh arrays.
        """
        due = np.ones(len(self._last), bool) if due is None else due
        if due.any():
            self._last[due] = self.reduce(scores, int(due.sum()))
        held = self._last if self.options.unscored == "hold" else self._last * due
        value: np.ndarray = held
        if self.options.normalize:
            self._moments.add(self._last[due & ~diverged])
            counts = due | (self.options.unscored == "hold")
            value = np.where(counts, self._moments.normalize(held), 0.0)
        return Rewards(held.copy(), self._mix(value, env_reward))

    def get_state(self) -> dict[str, np.ndarray]:
        """Return what the next rewards depend on.

        Returns:
            Copies of arrays by name.
        """
        return {"last": self._last.copy(), "moments": self._moments.sums.copy()}

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from what `get_state` returned.

        Args:
            state: its value, for as many environments.
        """
        self._last[:], self._moments.sums[:] = state["last"], state["moments"]
