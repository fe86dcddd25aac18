"""Environment steps per second where every k-th step is drawn and scored.

Both sides make the same steps of the same worlds; the rewards of scored steps are compared after
timing.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import pytest
import torch

from vlmrm_fast.envs import RewardOptions, make_vec_env
from vlmrm_fast.reward import VLMReward
from vlmrm_fast.tasks import get_task

TASK = get_task("cartpole-upright")
N, STEPS, PAIRS = 8, 24, 9


@pytest.fixture(scope="module")
def reward():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield VLMReward(goal=TASK.goal, baseline=TASK.baseline, alpha=TASK.alpha, device="cpu")
    torch.set_num_threads(threads)


def run(env, actions):
    """Return seconds of processor time and the rewards of `STEPS` steps of an episode."""
    env.seed(0)
    env.reset()
    start = time.process_time()
    rewards = [env.step(row)[1] for row in actions]
    return time.process_time() - start, np.array(rewards)


@pytest.mark.parametrize("every", [2, 4, 8])
@pytest.mark.benchmark(group="cartpole: score every k-th step")
def test_score_every(benchmark, reward, every):
    every_step, some = (
        make_vec_env(
            TASK, N, reward=reward, seed=0, num_threads=1, options=RewardOptions(score_every=k)
        )
        for k in (1, every)
    )
    actions = np.random.default_rng(0).uniform(-1, 1, (STEPS, N, 1)).astype(np.float32)
    ratios, rates = [], []
    run(some, actions)
    for _ in range(PAIRS):
        (base, full), (ours, held) = run(every_step, actions), run(some, actions)
        ratios.append(base / ours)
        rates.append(N * STEPS / ours)
    benchmark.pedantic(run, args=(some, actions), rounds=2)
    scored = np.arange(STEPS) % every == 0
    np.testing.assert_allclose(held[scored], full[scored], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(held, held[scored].repeat(every, axis=0)[:STEPS])
    for env in (every_step, some):
        env.close()
    benchmark.extra_info.update(
        ratio=statistics.median(ratios),
        steps_per_cpu_second=statistics.median(rates),
        num_envs=N,
        every=every,
        size=reward.image_size,
        dtype="float32",
    )
