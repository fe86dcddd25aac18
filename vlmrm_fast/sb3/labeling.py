"""Rewards that come later: steps are stored with a claim and labelled before they are learned from.

One callback for every Stable-Baselines3 algorithm, and for others of its kind: all that it needs is
a replay or rollout buffer with `rewards`, `pos` and `add`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

from vlmrm_fast.envs.deferral import Deferral, PendingStep
from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.sb3.buffers import MaskedRolloutBuffer

# Rewards of older steps are fetched so often, so that what waits stays small and displays move on.
_SETTLE_STEPS = 64


class DeferredLabels(BaseCallback):
    """Lets the environment return before its frames are scored, and labels the buffer in time.

    Frames are scored while simulation and drawing go on. Whatever reads the buffer's rewards
    (a gradient step, the returns of a rollout, a save) first waits for those under way, so
    training learns from the same numbers as without this callback: the same bits on a CPU.
    Episode statistics, "vlm_reward" of infos and "r" of their "episode" are NaN until then and
    filled in place.

    Put it first in the list of callbacks. It lasts for one call of `learn`, and the environment
    must be a `TaskVecEnv` or `VLMRewardVecEnv`, possibly wrapped.
    """

    def __init__(self, num_slots: int = 3) -> None:
        """Prepare; the environment is asked when training starts.

        Args:
            num_slots: steps whose frames can wait at once, at least 3.
        """
        super().__init__()
        self._num_slots = num_slots
        self._env: Any = None
        self._buffer: Any = None
        # Rows of the buffer by step number, and rewards that came before their step was stored.
        self._rows: dict[int, int] = {}
        self._early: dict[int, np.ndarray] = {}
        self._adding = False

    def settle(self) -> None:
        """Wait for all rewards and store them; call it before reading what they decide."""
        if self._env is not None:
            self._env.settle_labels()

    def detach(self) -> None:
        """Settle, and leave environment and buffer as they were."""
        if self._env is None:
            return
        try:
            self._env.stop_deferring()
        finally:
            self._buffer.__class__ = type(self._buffer).__base__
            del self._buffer._labels
            self._env = self._buffer = None
            self._rows.clear()
            self._early.clear()

    def _on_training_start(self) -> None:
        env, buffer = check_model(self.model)
        labels = getattr(buffer, "_labels", None)
        if labels is not None:
            # An earlier training ended by an exception.
            labels.detach()
        self._env, self._buffer = env, buffer
        env.defer_labels(self._label, self._num_slots)
        buffer._labels = self
        buffer.__class__ = _labelled(type(buffer))

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self.detach()

    def _stored(self, row: int) -> None:
        """Remember where the newest step was stored; label older ones from time to time."""
        deferral: Deferral | None = self._env.deferral
        if deferral is None:
            raise ArgumentError(
                'labels must be "step" where the environment is reset while it is trained on, got '
                '"deferred". Leave resets to the algorithm.'
            )
        step = deferral.newest
        assert step is not None
        self._check(vars(self._buffer)["rewards"][row], step)
        self._rows[step.number] = row
        if step.number in self._early:
            self._label(step, self._early.pop(step.number))
        # A row is labelled before the ring of rows comes round to it.
        limit = min(_SETTLE_STEPS, self._buffer.buffer_size)
        if len(deferral.pending) >= limit:
            # The newest are still in the ring: waiting for them would end the overlap.
            self._env.settle_labels(min(self._num_slots, limit - 1))
        elif step.done.any() and self.locals.get("log_interval") is not None:
            # The algorithm prints the means of its episodes next.
            self.settle()

    def _check(self, stored: np.ndarray, step: PendingStep) -> None:
        """Raise ArgumentError where something other than a stand-in for a reward was stored."""
        # Of a rollout's ended episodes, the value of the terminal state is stored already.
        rollout = hasattr(self._buffer, "compute_returns_and_advantage")
        if np.any(stored[~step.done] if rollout else stored):
            raise ArgumentError(
                'labels must be "step" where a wrapper of the environment changes rewards, got '
                '"deferred". A reward that is not there yet cannot be changed.'
            )

    def _label(self, step: PendingStep, reward: np.ndarray) -> None:
        """Add a step's rewards to what its row of the buffer holds."""
        row = self._rows.pop(step.number, None)
        if row is None:
            # Asked for between the step and its storing, or dropped with an unfinished rollout.
            self._early = {step.number: reward}
            return
        rewards = vars(self._buffer)["rewards"]
        if isinstance(self._buffer, MaskedRolloutBuffer):
            # The estimate that stands for a broken step's reward stays.
            rewards[row, ~step.diverged] += reward[~step.diverged]
        else:
            rewards[row] += reward


def _bare(own: Any) -> Any:
    """Return an object without attributes, for `pickle` to fill."""
    return own.__new__(own)


def _labelled(own: Any) -> type:
    """Return a subclass of a buffer's class that waits for labels when its rewards are read."""

    class Labelled(own):
        """The buffer, while its `_labels` are at work."""

        @property
        def rewards(self) -> np.ndarray:
            """(buffer_size, n_envs) float32, labelled."""
            if not self._labels._adding:
                self._labels.settle()
            return self.__dict__["rewards"]

        @rewards.setter
        def rewards(self, values: np.ndarray) -> None:
            self.__dict__["rewards"] = values

        def add(self, *args: Any, **kwargs: Any) -> None:
            """Store one step, as the plain buffer does."""
            labels, row = self._labels, int(self.pos)
            labels._adding = True
            try:
                super().add(*args, **kwargs)
            finally:
                labels._adding = False
            labels._stored(row)

        def reset(self) -> None:
            """Forget everything; rewards that come later belong to no row."""
            self._labels._rows.clear()
            super().reset()

        def __reduce_ex__(self, protocol: Any) -> Any:
            """Copy and pickle as the plain buffer, labelled."""
            self._labels.settle()
            state = {name: value for name, value in vars(self).items() if name != "_labels"}
            return _bare, (own,), state

    Labelled.__name__, Labelled.__qualname__ = own.__name__, own.__qualname__
    return Labelled


def choose_labels(labels: str, model: Any) -> list[BaseCallback]:
    """Return the callback that a configuration asks for, to be put first.

    Args:
        labels: "step", "deferred", or "auto" for "deferred" where frames are scored on a GPU and
            the algorithm allows it. On two cores it gained nothing (bench/test_pipeline.py).
        model: the algorithm, with its environment.

    Returns:
        One callback, or none for rewards at each step.

    Raises:
        ArgumentError: as `check_model`, for "deferred".
    """
    if labels == "step":
        return []
    try:
        layer, _ = check_model(model)
    except ArgumentError:
        if labels == "deferred":
            raise
        return []
    device = getattr(layer.reward, "device", None)
    wanted = labels == "deferred" or getattr(device, "type", "cpu") == "cuda"
    return [DeferredLabels()] if wanted else []


def check_model(model: Any) -> tuple[Any, Any]:
    """Check that an algorithm's rewards can come later.

    Args:
        model: the algorithm, with its environment.

    Returns:
        The environment that scores frames, below all wrappers, and the algorithm's buffer.

    Raises:
        ArgumentError: the environment scores no frames, a wrapper needs rewards at once, or the
            algorithm has no buffer of rewards.
    """
    layer = model.get_env()
    while not hasattr(type(layer), "defer_labels"):
        if isinstance(layer, VecMonitor) or (isinstance(layer, VecNormalize) and layer.norm_reward):
            fix = (
                "Pass norm_reward=False."
                if isinstance(layer, VecNormalize)
                else 'The environment gives "episode" by itself.'
            )
            raise ArgumentError(
                f'labels must be "step" under {type(layer).__name__}, which sums up rewards as '
                f'steps are made, got "deferred". {fix}'
            )
        inner = vars(layer).get("venv") if layer is not None else None
        if inner is None:
            raise ArgumentError(
                'labels must be "step" for an environment that scores no frames, got "deferred" '
                f"for {type(layer).__name__}. TaskVecEnv and VLMRewardVecEnv score frames."
            )
        layer = inner
    if not hasattr(layer.reward, "scorer"):
        raise ArgumentError(
            f'labels must be "step" for a reward without scorer(), got '
            f"{type(layer.reward).__name__}. VLMReward has one."
        )
    for name in ("replay_buffer", "rollout_buffer"):
        buffer = getattr(model, name, None)
        if buffer is not None and all(hasattr(buffer, n) for n in ("rewards", "pos", "add")):
            return layer, buffer
    raise ArgumentError(
        f'labels must be "step" for an algorithm without a buffer of rewards, got "deferred" for '
        f"{type(model).__name__}."
    )
