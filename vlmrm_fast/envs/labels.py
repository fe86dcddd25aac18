"""From the frames of a step to its rewards: at once, or later while the environment goes on."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any, NamedTuple

import numpy as np

from vlmrm_fast.envs.deferral import Deferral, Sink, gpu_scorer, scorer_of
from vlmrm_fast.envs.step import FrameReward
from vlmrm_fast.envs.stream import RewardStream
from vlmrm_fast.scorer import Scorer


class Labelled(NamedTuple):
    """What a step of N environments was worth; stand-ins while rewards are deferred.

    Attributes:
        vlm_reward: (N,) float32, of the vision-language model; NaN while deferred.
        reward: (N,) float32, what is learned from; 0 while deferred.
        episode_return: (N,) float64, its sum over the episode so far; NaN while deferred.
    """

    vlm_reward: np.ndarray
    reward: np.ndarray
    episode_return: np.ndarray


class Labels:
    """Scores the steps of N environments in the order in which they are made.

    Attributes:
        reward: what scores frames.
        stream: makes rewards of what it gives them.
        returns: (N,) float64, live: sums of rewards over each episode so far.
        deferral: what waits for rewards; None while they come with each step.
    """

    def __init__(self, reward: FrameReward, stream: RewardStream, num_envs: int) -> None:
        """Begin with rewards at each step.

        Args:
            reward: what scores frames.
            stream: makes rewards of what it gives them; of this object alone.
            num_envs: N.
        """
        self.reward, self.stream = reward, stream
        self.returns = np.zeros(num_envs)
        self.deferral: Deferral | None = None
        self._own = gpu_scorer(reward)

    @property
    def scorer(self) -> Scorer | None:
        """The pipeline in use, whose memory frames may be drawn into; None: there is none."""
        return self._own if self.deferral is None else self.deferral.scorer

    def step(
        self,
        frames: np.ndarray,
        env_reward: np.ndarray,
        done: np.ndarray,
        diverged: np.ndarray,
        due: np.ndarray | None = None,
    ) -> Labelled:
        """Score the frames of a step, or enqueue them where rewards are deferred.

        Args:
            frames: (C * N, H, W, 3) uint8, one camera after the other, of the states reached,
                terminal ones included.
            env_reward: (N,), kept where rewards are deferred.
            done: (N,) bool, episodes that this step ended; likewise.
            diverged: (N,) bool, likewise by broken physics.
            due: (N,) bool, whose frames are scored; None for all.

        Returns:
            Fresh arrays.
        """
        wanted = _rows(frames, due)
        if self.deferral is not None:
            self.deferral.submit(wanted, env_reward, done, diverged, due)
            nothing = np.full(len(done), np.nan)
            return Labelled(nothing.astype(np.float32), np.zeros(len(done), np.float32), nothing)
        scores = np.zeros(0, np.float32) if wanted is None else self._score(wanted)
        vlm_reward, reward = self.stream.step(scores, due, env_reward, diverged)
        self.returns += reward
        episode_return = self.returns.copy()
        self.returns[done] = 0
        return Labelled(vlm_reward, reward, episode_return)

    def _score(self, frames: np.ndarray) -> np.ndarray:
        if self._own is not None:
            return self._own.collect([self._own.submit(frames)])[0]
        return np.asarray(self.reward.score(frames), dtype=np.float32)

    def attach(self, infos: list[dict[str, Any]]) -> None:
        """Let the infos of the last step be filled in place once its rewards are there.

        Args:
            infos: with "vlm_reward", and "episode" where one ended.
        """
        if self.deferral is not None and self.deferral.newest is not None:
            self.deferral.newest.infos = infos

    def defer(self, sink: Sink, num_slots: int, timings: MutableMapping[str, float]) -> None:
        """Begin to defer; see `Deferring.defer_labels`.

        Args:
            sink: told of the rewards.
            num_slots: as `VLMReward.scorer` takes it.
            timings: the time that rewards are waited for goes to "encode" [s].
        """
        self.stop()
        scorer = scorer_of(self.reward, num_slots, self._own)
        self.deferral = Deferral(scorer, self.stream, self.returns, timings, sink)

    def stop(self) -> None:
        """Settle everything; from now on rewards come with each step."""
        deferral, self.deferral = self.deferral, None
        if deferral is not None:
            deferral.stop(keep=self._own)

    def reset(self) -> None:
        """Begin new episodes in all environments, with rewards at each step."""
        self.stop()
        self.returns[:] = 0

    def get_state(self) -> dict[str, np.ndarray]:
        """Return what the next rewards depend on; deferred ones are settled first.

        Returns:
            Copies of arrays by name.
        """
        if self.deferral is not None:
            self.deferral.settle()
        return {"returns": self.returns.copy(), **self.stream.get_state()}

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from what `get_state` returned, with rewards at each step.

        Args:
            state: its value, for as many environments.
        """
        self.stop()
        self.returns[:] = state["returns"]
        self.stream.set_state(state)

    def close(self) -> None:
        """Settle what is deferred and free threads and memory."""
        self.stop()
        if self._own is not None:
            self._own.close()


def _rows(frames: np.ndarray, due: np.ndarray | None) -> np.ndarray | None:
    """Return the frames (C * n, H, W, 3) of n environments that are due; None without any."""
    if due is None or due.all():
        return frames
    if not due.any():
        return None
    by_camera = frames.reshape(-1, len(due), *frames.shape[1:])
    return by_camera[:, due].reshape(-1, *frames.shape[1:])


class Deferring:
    """Mixed into an environment that scores frames: its rewards can come later.

    Attributes:
        labels: what scores its steps.
        timings: seconds spent so far, in "encode" among others.
    """

    labels: Labels
    timings: dict[str, float]

    def defer_labels(self, sink: Sink, num_slots: int = 3) -> None:
        """Let `step` return before the frames are scored, until `stop_deferring` or `reset`.

        Args:
            sink: told of the rewards when they are settled; infos are filled in place.
            num_slots: as `VLMReward.scorer` takes it.
        """
        self.labels.defer(sink, num_slots, self.timings)

    @property
    def deferral(self) -> Deferral | None:
        """What waits for rewards; None while they come with each step."""
        return self.labels.deferral

    def settle_labels(self, keep: int = 0) -> None:
        """Wait for deferred rewards and hand them out.

        Args:
            keep: leave so many of the newest steps pending.
        """
        if self.labels.deferral is not None:
            self.labels.deferral.settle(keep)

    def stop_deferring(self) -> None:
        """Settle everything; from now on `step` returns rewards."""
        self.labels.stop()

    def get_label_state(self) -> dict[str, np.ndarray]:
        """As `Labels.get_state`, for checkpoints.

        Returns:
            Arrays by name.
        """
        return self.labels.get_state()

    def set_label_state(self, state: Mapping[str, np.ndarray]) -> None:
        """As `Labels.set_state`.

        Args:
            state: what `get_label_state` returned.
        """
        self.labels.set_state(state)
