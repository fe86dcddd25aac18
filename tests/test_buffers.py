from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.buffers import ReplayBuffer, RolloutBuffer

from vlmrm_fast.envs import make_vec_env
from vlmrm_fast.errors import VLMRMError
from vlmrm_fast.sb3.buffers import MaskedReplayBuffer, MaskedRolloutBuffer

OBS = spaces.Box(-np.inf, np.inf, (1,), np.float32)
ACT = spaces.Box(-1, 1, (1,), np.float32)
N = 3


pytestmark = pytest.mark.usefixtures("one_torch_thread")


class Flat:
    """A reward that says nothing."""

    image_size = 16

    def score(self, frames: np.ndarray) -> np.ndarray:
        return np.zeros(len(frames), np.float32)


class Source:
    """An environment that has just diverged where it says so."""

    diverged = np.zeros(N, bool)


def replay(cls: type[ReplayBuffer], steps: int, mask: np.ndarray, **options: Any) -> ReplayBuffer:
    """Fill a buffer of 20 steps; a transition's observation numbers it, masked or not."""
    buffer = cls(20 * N, OBS, ACT, "cpu", n_envs=N, **options)
    for step in range(steps):
        value = (step * N + np.arange(N, dtype=np.float32))[:, None]
        infos = [{"diverged": True} if masked else {} for masked in mask[step]]
        buffer.add(value, value + 0.5, value, value[:, 0], np.zeros(N, bool), infos)
    return buffer


@pytest.mark.parametrize("steps", [7, 20, 33])
@pytest.mark.parametrize("optimize", [False, True])
def test_masked_steps_are_never_replayed(steps: int, optimize: bool) -> None:
    mask = np.random.default_rng(steps).random((steps, N)) < 0.3
    options = {"optimize_memory_usage": optimize, "handle_timeout_termination": not optimize}
    buffer = replay(MaskedReplayBuffer, steps, mask, **options)
    numbers = np.flatnonzero(mask.reshape(-1))
    samples = buffer.sample(5000).observations.numpy().reshape(-1).astype(int)
    assert not np.isin(samples, numbers).any()
    # Everything else that is still there is found.
    kept = np.setdiff1d(np.arange(max(0, steps - 20) * N, steps * N), numbers)
    missing = np.setdiff1d(kept, samples)
    assert len(missing) <= (N if optimize else 0)


def test_a_sample_is_one_whole_transition() -> None:
    mask = np.random.default_rng(0).random((33, N)) < 0.5
    batch = replay(MaskedReplayBuffer, 33, mask).sample(500)
    np.testing.assert_array_equal(batch.next_observations, batch.observations + 0.5)
    np.testing.assert_array_equal(batch.actions, batch.observations)
    np.testing.assert_array_equal(batch.rewards, batch.observations)


def test_without_divergence_samples_are_stable_baselines3s() -> None:
    mask = np.zeros((33, N), bool)
    batches = []
    for cls in (ReplayBuffer, MaskedReplayBuffer):
        buffer = replay(cls, 33, mask)
        np.random.seed(0)
        batches.append(buffer.sample(64))
    for one, other in zip(*batches, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_overwritten_step_is_no_longer_masked() -> None:
    mask = np.zeros((40, N), bool)
    mask[:20] = True
    buffer = replay(MaskedReplayBuffer, 40, mask)
    assert buffer.sample(10).observations.min() >= 20 * N


def test_a_replay_of_nothing_but_divergence_is_an_error() -> None:
    buffer = replay(MaskedReplayBuffer, 5, np.ones((5, N), bool))
    with pytest.raises(VLMRMError, match="must hold a step that did not diverge, got none"):
        buffer.sample(4)


def rollout(cls: type[RolloutBuffer], mask: np.ndarray, **options: Any) -> RolloutBuffer:
    steps = len(mask)
    buffer = cls(steps, OBS, ACT, "cpu", gae_lambda=0.9, gamma=0.9, n_envs=N, **options)
    starts = np.vstack([np.ones((1, N), bool), mask[:-1]])
    for step in range(steps):
        Source.diverged = mask[step]
        value = (step * N + np.arange(N, dtype=np.float32))[:, None]
        estimate = torch.full((N, 1), 0.25)
        reward = np.where(mask[step], 1e6, 1.0)
        buffer.add(value, value, reward, starts[step], estimate, torch.zeros(N))
    buffer.compute_returns_and_advantage(torch.full((N, 1), 0.25), mask[-1])
    return buffer


@pytest.mark.parametrize("batch_size", [None, 7])
def test_masked_steps_are_never_in_a_rollouts_minibatches(batch_size: int | None) -> None:
    mask = np.random.default_rng(1).random((12, N)) < 0.3
    buffer = rollout(MaskedRolloutBuffer, mask, source=Source)
    for _ in range(2):
        parts = [batch.observations.numpy().reshape(-1) for batch in buffer.get(batch_size)]
        expected = np.flatnonzero(~mask.reshape(-1))
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)).astype(int), expected)


def test_a_masked_steps_reward_reaches_no_other_step() -> None:
    mask = np.zeros((12, N), bool)
    mask[5, 1] = True
    buffer = rollout(MaskedRolloutBuffer, mask, source=Source)
    assert np.abs(buffer.advantages).max() < 20
    assert buffer.advantages[5, 1] == 0


def test_without_divergence_rollouts_are_stable_baselines3s() -> None:
    mask = np.zeros((12, N), bool)
    batches = []
    for cls, options in ((RolloutBuffer, {}), (MaskedRolloutBuffer, {"source": Source})):
        buffer = rollout(cls, mask, **options)
        np.random.seed(0)
        batches.append(list(buffer.get(8)))
    for one, other in zip(*batches, strict=True):
        for mine, yours in zip(one, other, strict=True):
            np.testing.assert_array_equal(mine, yours)


def test_a_rollout_of_nothing_but_divergence_is_an_error() -> None:
    buffer = rollout(MaskedRolloutBuffer, np.ones((4, N), bool), source=Source)
    with pytest.raises(VLMRMError, match="rollout must hold a step that did not diverge"):
        next(buffer.get(4))


@pytest.mark.parametrize("algorithm", [PPO, SAC])
def test_injected_divergence_stays_out_of_training(algorithm: Any) -> None:
    env = make_vec_env("cartpole-upright", 4, reward=Flat(), seed=0)
    if algorithm is PPO:
        cls, kwargs = MaskedRolloutBuffer, {"source": env}
        options = {"rollout_buffer_class": cls, "rollout_buffer_kwargs": kwargs, "n_steps": 64}
    else:
        options = {"replay_buffer_class": MaskedReplayBuffer, "learning_starts": 10}
        options |= {"batch_size": 16, "policy_kwargs": {"net_arch": [16]}}
    rng, hits = np.random.default_rng(0), []
    step = env.worlds.simulation.step_and_draw

    def breaking_step(*args: Any) -> np.ndarray:
        hit = rng.random(4) < 0.1
        env.worlds.simulation.qvel[hit] = np.nan
        hits.append(hit)
        return step(*args)

    env.worlds.simulation.step_and_draw = breaking_step  # type: ignore[method-assign]
    model = algorithm("MlpPolicy", env, seed=0, device="cpu", **options)
    model.learn(256)
    buffer = model.rollout_buffer if algorithm is PPO else model.replay_buffer
    expected = np.array(hits)[:64]
    assert expected.any()
    np.testing.assert_array_equal(buffer.masked[:64], expected)
    for parameter in model.policy.parameters():
        assert torch.isfinite(parameter).all()
