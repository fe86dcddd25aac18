"""Stable-Baselines3's buffers, never sampling a step in which the physics broke down.

The last observation of such a step is only a stand-in, and its reward means nothing. The step
stays in the buffer, so that all counters are Stable-Baselines3's, but no sample contains it.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Protocol

import numpy as np
import torch
from stable_baselines3.common.buffers import ReplayBuffer, RolloutBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples, RolloutBufferSamples

from vlmrm_fast.errors import VLMRMError


class HasDiverged(Protocol):
    """An environment that says which worlds diverged in its last step."""

    diverged: np.ndarray


class MaskedReplayBuffer(ReplayBuffer):
    """As `ReplayBuffer`; steps whose info says "diverged" are never sampled.

    Attributes:
        masked: (buffer_size, n_envs) bool, True for such steps.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Make an empty buffer.

        Args:
            args: as `ReplayBuffer` takes them.
            kwargs: likewise.
        """
        super().__init__(*args, **kwargs)
        self.masked = np.zeros((self.buffer_size, self.n_envs), bool)

    def add(
        self,
        obs: np.ndarray,
        next_obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Store one step of every environment.

        Args:
            obs: (N, d) observations before the step.
            next_obs: (N, d) after it, terminal ones included.
            action: (N, nu).
            reward: (N,).
            done: (N,) bool.
            infos: N dictionaries.
        """
        self.masked[self.pos] = [bool(info.get("diverged")) for info in infos]
        super().add(obs, next_obs, action, reward, done, infos)

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.masked[:] = False

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> ReplayBufferSamples:
        if not self.masked.any():
            return super()._get_samples(batch_inds, env)
        rows, columns = self._unmasked(batch_inds)
        if self.optimize_memory_usage:
            next_obs = self.observations[(rows + 1) % self.buffer_size, columns]
        else:
            next_obs = self.next_observations[rows, columns]
        ended = self.dones[rows, columns] * (1 - self.timeouts[rows, columns])
        rewards = self._normalize_reward(self.rewards[rows, columns].reshape(-1, 1), env)
        arrays = (
            self._normalize_obs(self.observations[rows, columns], env),
            self.actions[rows, columns],
            self._normalize_obs(next_obs, env),
            ended.reshape(-1, 1),
            rewards,
        )
        return ReplayBufferSamples(*map(self.to_torch, arrays))

    def _unmasked(self, batch_inds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Choose an environment for each row, and another row where all choices are masked."""
        # SB3 samples from numpy's global generator, which its seeding reaches.
        columns = np.random.randint(0, self.n_envs, size=len(batch_inds))  # noqa: NPY002
        bad = self.masked[batch_inds, columns]
        if not bad.any():
            return batch_inds, columns
        filled = self.buffer_size if self.full else self.pos
        allowed = ~self.masked[:filled]
        if self.optimize_memory_usage and self.full:
            # The row at `pos` has lost its successor.
            allowed[self.pos] = False
        valid = np.argwhere(allowed)
        if not len(valid):
            raise VLMRMError("replay buffer must hold a step that did not diverge, got none.")
        chosen = valid[np.random.randint(0, len(valid), size=int(bad.sum()))]  # noqa: NPY002
        rows = batch_inds.copy()
        rows[bad], columns[bad] = chosen[:, 0], chosen[:, 1]
        return rows, columns


class MaskedRolloutBuffer(RolloutBuffer):
    """As `RolloutBuffer`; steps in which `source` reports divergence are never sampled.

    Use it as `PPO(..., rollout_buffer_class=MaskedRolloutBuffer,
    rollout_buffer_kwargs={"source": env})`: `add` is not given the infos, so it asks the
    environment.

    Attributes:
        masked: (buffer_size, n_envs) bool, True for such steps.
    """

    def __init__(self, *args: Any, source: HasDiverged, **kwargs: Any) -> None:
        """Make an empty buffer.

        Args:
            args: as `RolloutBuffer` takes them.
            source: the environment that is stepped.
            kwargs: likewise.
        """
        self._source = source
        super().__init__(*args, **kwargs)

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.masked = np.zeros((self.buffer_size, self.n_envs), bool)

    def add(
        self,
        obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        episode_start: np.ndarray,
        value: torch.Tensor,
        log_prob: torch.Tensor,
    ) -> None:
        """Store one step of every environment; call it before the environment's next step.

        Args:
            obs: (N, d) observations before the step.
            action: (N, nu).
            reward: (N,).
            episode_start: (N,) bool.
            value: (N, 1) estimates.
            log_prob: (N,).
        """
        self.masked[self.pos] = self._source.diverged
        # An advantage of zero: the steps before it learn nothing from a broken one.
        estimate = value.detach().cpu().numpy().reshape(-1)
        reward = np.where(self._source.diverged, estimate, reward)
        super().add(obs, action, reward, episode_start, value, log_prob)

    def get(self, batch_size: int | None = None) -> Generator[RolloutBufferSamples, None, None]:
        """Yield all unmasked steps once, in random order.

        Args:
            batch_size: steps a minibatch; None for all at once.

        Yields:
            Minibatches.

        Raises:
            VLMRMError: if every step is masked.
        """
        if not self.masked.any():
            yield from super().get(batch_size)
            return
        self._flatten()
        total = self.buffer_size * self.n_envs
        order = np.random.permutation(total)  # noqa: NPY002
        order = order[~self.masked.swapaxes(0, 1).reshape(-1)[order]]
        if not len(order):
            raise VLMRMError(
                "rollout must hold a step that did not diverge, got none. Lower the model's "
                "timestep or limit its controls."
            )
        size = batch_size or total
        for start in range(0, len(order), size):
            yield self._get_samples(order[start : start + size])

    def _flatten(self) -> None:
        """Turn (steps, environments, ...) into (samples, ...), as `RolloutBuffer.get` does."""
        if self.generator_ready:
            return
        names = ("observations", "actions", "values", "log_probs", "advantages", "returns")
        for name in names:
            setattr(self, name, self.swap_and_flatten(getattr(self, name)))
        self.generator_ready = True
