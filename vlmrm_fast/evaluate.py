"""Evaluation of a policy on start states that training never saw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

# Evaluation seeds lie above every seed that a run may have.
EVALUATION_SEED = 2**31
# More worlds at once draw no faster on a few cores.
MAX_ENVS = 16

Watch = Callable[[Any, Any, np.ndarray, np.ndarray], None]
"""Called after each step with the VecEnv, its infos, and which worlds, (N,) bool each, play an
episode that counts, and have just ended one."""


@dataclass(frozen=True)
class Episode:
    """One evaluation episode.

    Attributes:
        length: steps.
        vlm_reward_mean: mean VLM reward of its steps.
        ground_truth_return: sum of the environment's own reward.
        success: whether the task was solved; None where the environment does not know.
        diverged: whether the physics broke down.
    """

    length: int
    vlm_reward_mean: float
    ground_truth_return: float
    success: bool | None
    diverged: bool


@dataclass(frozen=True)
class Evaluation:
    """Several evaluation episodes.

    Attributes:
        episodes: in the order of their worlds.
    """

    episodes: tuple[Episode, ...]

    @property
    def vlm_reward_mean(self) -> float:
        """Mean VLM reward of a step, over all episodes."""
        steps = sum(episode.length for episode in self.episodes)
        return sum(item.vlm_reward_mean * item.length for item in self.episodes) / steps

    @property
    def ground_truth_return(self) -> float:
        """Mean ground-truth return of an episode."""
        return float(np.mean([episode.ground_truth_return for episode in self.episodes]))

    @property
    def success_rate(self) -> float | None:
        """Share of solved episodes, None where the environment does not know."""
        known = [episode.success for episode in self.episodes if episode.success is not None]
        return float(np.mean(known)) if known else None


def evaluate(
    predict: Callable[[Any], np.ndarray],
    env: Any,
    episodes: int,
    max_steps: int = 100_000,
    watch: Watch | None = None,
) -> Evaluation:
    """Run a policy for a number of episodes.

    Each world plays its share of the episodes, so that short ones do not crowd out long ones.

    Args:
        predict: observations to actions, deterministic.
        env: a VecEnv with "vlm_reward" and "env_reward" in its infos.
        episodes: how many episodes, at least 1.
        max_steps: give up after so many steps of the VecEnv, for environments without an end;
            the episodes under way count as they are then.
        watch: sees each step, while the frames that it was scored by are the VecEnv's last ones.

    Returns:
        The episodes.
    """
    count = env.num_envs
    quota = np.array([(episodes + count - 1 - index) // count for index in range(count)])
    found: list[list[Episode]] = [[] for _ in range(count)]
    sums = np.zeros((count, 3))
    observation = env.reset()
    for step in range(max_steps):
        observation, rewards, dones, infos = env.step(predict(observation))
        vlm = [info.get("vlm_reward", r) for info, r in zip(infos, rewards, strict=True)]
        truth = [info.get("env_reward", 0.0) for info in infos]
        sums += np.stack([np.ones(count), vlm, truth], axis=1)
        over = np.array(dones) | (step == max_steps - 1)
        if watch is not None:
            counted = np.array([len(done) for done in found]) < quota
            watch(env, infos, counted, over & counted)
        for index in np.flatnonzero(over):
            if len(found[index]) < quota[index]:
                found[index].append(_episode(sums[index], infos[index]))
            sums[index] = 0
        if all(len(done) >= want for done, want in zip(found, quota, strict=True)):
            break
    return Evaluation(tuple(episode for done in found for episode in done))


def _episode(sums: np.ndarray, info: dict[str, Any]) -> Episode:
    """Return the episode that ended with `info`."""
    success = info.get("is_success", info.get("success"))
    return Episode(
        length=int(sums[0]),
        vlm_reward_mean=float(sums[1] / sums[0]),
        ground_truth_return=float(sums[2]),
        success=None if success is None else bool(success),
        diverged=bool(info.get("diverged", False)),
    )
