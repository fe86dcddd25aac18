"""Steps whose frames are still being scored: their rewards are filled in later, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from vlmrm_fast.errors import ArgumentError

if TYPE_CHECKING:
    from vlmrm_fast.envs.stream import RewardStream
    from vlmrm_fast.scorer import Scorer, Ticket

# What the model gave a step without frames.
_NOTHING = np.zeros(0, np.float32)


@dataclass(eq=False)
class PendingStep:
    """One step of N environments that waits for its rewards.

    Attributes:
        number: counts the steps since deferral began, from 0.
        ticket: the claim to the rewards; None where no frame of the step is scored.
        env_reward: (N,) the environments' own rewards.
        done: (N,) bool, episodes that this step ended.
        diverged: (N,) bool, likewise by broken physics.
        due: (N,) bool, whose frames are scored; None for all.
        infos: what `step` returned, filled in place: "vlm_reward", and "r" of "episode".
    """

    number: int
    ticket: Ticket | None
    env_reward: np.ndarray
    done: np.ndarray
    diverged: np.ndarray
    due: np.ndarray | None = None
    infos: list[dict[str, Any]] = field(default_factory=list)


Sink = Callable[[PendingStep, np.ndarray], None]
"""Takes a step and its rewards (N,) float32, steps in the order in which they were made."""


class Deferral:
    """Submits frames and, when asked, fills in what their rewards decide.

    While rewards are deferred, `step` returns zeros, and NaN where a number would be read as a
    measurement.

    Attributes:
        scorer: what scores.
        pending: the steps without rewards, the oldest first.
        newest: the last step submitted, with rewards or without.
    """

    def __init__(
        self,
        scorer: Scorer,
        stream: RewardStream,
        returns: np.ndarray,
        timings: MutableMapping[str, float],
        sink: Sink,
    ) -> None:
        """Begin with no step pending.

        Args:
            scorer: what scores.
            stream: makes rewards of what the model gave, step by step.
            returns: (N,) float64, live: sums of rewards over each episode so far.
            timings: the time that is waited goes to "encode" [s].
            sink: told of each step's rewards.
        """
        self.scorer = scorer
        self.pending: deque[PendingStep] = deque()
        self.newest: PendingStep | None = None
        self._stream, self._returns, self._timings, self._sink = stream, returns, timings, sink
        self._count = 0

    def submit(
        self,
        frames: np.ndarray | None,
        env_reward: np.ndarray,
        done: np.ndarray,
        diverged: np.ndarray,
        due: np.ndarray | None = None,
    ) -> PendingStep:
        """Enqueue the frames of a step.

        Args:
            frames: (n, H, W, 3) uint8, as `Scorer.submit` takes them; None where nothing is due.
            env_reward: (N,), kept.
            done: (N,) bool, kept.
            diverged: (N,) bool, kept.
            due: as in `PendingStep`.

        Returns:
            The step; set its `infos`.
        """
        ticket = None if frames is None else self.scorer.submit(frames)
        self.newest = PendingStep(self._count, ticket, env_reward, done, diverged, due)
        self._count += 1
        self.pending.append(self.newest)
        return self.newest

    def settle(self, keep: int = 0) -> None:
        """Collect the rewards of pending steps and fill them in; blocks until they are there.

        Args:
            keep: leave so many of the newest steps pending.
        """
        count = len(self.pending) - keep
        if count <= 0:
            return
        start = perf_counter()
        steps = [self.pending.popleft() for _ in range(count)]
        scores = self._collect(steps)
        self._timings["encode"] += perf_counter() - start
        for step in steps:
            self._fill(step, scores.get(step.number, _NOTHING))

    def _collect(self, steps: list[PendingStep]) -> dict[int, np.ndarray]:
        """Return what the model gave each step's frames, by the step's number."""
        groups: dict[int, list[PendingStep]] = {}
        for step in steps:
            if step.ticket is not None:
                groups.setdefault(step.ticket.num_frames, []).append(step)
        found: dict[int, np.ndarray] = {}
        # One copy for all steps with equally many frames: nearly always all.
        for group in groups.values():
            scores = self.scorer.collect([step.ticket for step in group if step.ticket])
            found |= {step.number: row for step, row in zip(group, scores, strict=True)}
        return found

    def _fill(self, step: PendingStep, scores: np.ndarray) -> None:
        vlm_reward, reward = self._stream.step(scores, step.due, step.env_reward, step.diverged)
        self._returns += reward
        for i, info in enumerate(step.infos):
            info["vlm_reward"] = float(vlm_reward[i])
            if step.done[i]:
                info["episode"]["r"] = float(self._returns[i])
        self._returns[step.done] = 0
        self._sink(step, reward)

    def stop(self, keep: Scorer | None) -> None:
        """Settle everything and close the scorer.

        Args:
            keep: the scorer that is still needed.
        """
        try:
            self.settle()
        finally:
            if self.scorer is not keep:
                self.scorer.close()


def scorer_of(reward: Any, num_slots: int = 3, own: Scorer | None = None) -> Scorer:
    """Return the pipeline of a reward.

    Args:
        reward: what scores frames.
        num_slots: see `VLMReward.scorer`.
        own: one that exists already.

    Returns:
        `own` where it has so many slots, else a new scorer.

    Raises:
        ArgumentError: the reward has none.
    """
    if own is not None and own.num_slots == num_slots:
        return own
    make = getattr(reward, "scorer", None)
    if make is None:
        raise ArgumentError(
            f'labels must be "step" for a reward without scorer(), got {type(reward).__name__}. '
            "VLMReward has one."
        )
    return make(num_slots)


def gpu_scorer(reward: Any) -> Scorer | None:
    """Return the pipeline of a reward on a GPU, for rewards that are needed at once.

    Args:
        reward: what scores frames.

    Returns:
        A new scorer, or None where `reward.score` is as good: on a CPU.
    """
    device = getattr(getattr(reward, "device", None), "type", "cpu")
    return scorer_of(reward) if device == "cuda" and hasattr(reward, "scorer") else None
