"""Environment steps per second with a picture of every state: ours against gymnasium's.

Both sides make the same steps of N humanoids from the same states, which is asserted after timing.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import pytest
from humanoids import Gymnasium

from vlmrm_fast.envs import make_vec_env
from vlmrm_fast.reward import VLMReward
from vlmrm_fast.tasks import get_task

# MuJoCo's own pictures take 50 ms each on a CPU: few worlds and steps keep a pair short.
N, STEPS, SIZE = 8, 3, 224
TASK = get_task("humanoid-kneeling")
PAIRS, REPEAT = 7, 5


class Unscored:
    """Takes frames and gives nothing, so that simulation and drawing are all that is timed."""

    image_size = SIZE

    def score(self, frames):
        """Return zeros."""
        return np.zeros(len(frames), np.float32)


class Native:
    """Our batched environment."""

    def __init__(self, reward):
        self.env = make_vec_env(TASK, N, reward=reward, seed=0, render_size=SIZE)
        self.env.reset()

    def put(self, qpos, qvel):
        """Start from these states."""
        self.env.worlds.simulation.reset(np.arange(N), qpos, qvel)
        self.env.worlds._length[:] = 0

    def step(self, actions):
        """Step and return the frames."""
        self.env.step(actions)
        return self.env.last_frames

    def close(self):
        """Release the renderer."""
        self.env.close()


def inputs(seed):
    rng = np.random.default_rng(seed)
    states = [TASK.initial_state(TASK.load_model(), rng) for _ in range(N)]
    qpos, qvel = (np.stack(part) for part in zip(*states, strict=True))
    return qpos, qvel, rng.uniform(-0.4, 0.4, (STEPS, N, 17)).astype(np.float32)


def run(side, data):
    qpos, qvel, actions = data
    side.put(qpos, qvel)
    for row in actions:
        frames = side.step(row)
    return frames


def timed(side, data, times):
    start = time.perf_counter()
    for _ in range(times):
        run(side, data)
    return (time.perf_counter() - start) / times


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.benchmark(group="humanoid: step and draw 224x224")
def test_native_steps_with_pictures(benchmark, kind):
    ours = Native(Unscored())
    data = inputs(0)
    frames = benchmark.pedantic(run, args=(ours, data), rounds=40 * benchmark.enabled or 1)
    theirs = Gymnasium(kind, N, SIZE)
    if benchmark.enabled:
        run(theirs, data)
        ratios, steps = [], N * STEPS
        for pair in range(PAIRS):
            # A-B, then B-A: slow drifts of the machine cancel.
            order = (ours, theirs) if pair % 2 else (theirs, ours)
            seconds = {side: timed(side, data, REPEAT if side is ours else 1) for side in order}
            ratios.append(seconds[theirs] / seconds[ours])
        benchmark.extra_info |= {
            "N": N,
            "H": SIZE,
            "W": SIZE,
            "dtype": "uint8",
            "baseline": f"gymnasium.vector.{kind.capitalize()}VectorEnv + render()",
            "steps_per_second": steps / benchmark.stats.stats.median,
            "steps_per_second_of_gymnasium": steps / seconds[theirs],
            "ratio": statistics.median(ratios),
            "ratios": sorted(ratios),
        }
    error = frames.astype(float) - run(theirs, data)
    theirs.close()
    ours.close()
    assert 10 * np.log10(255**2 / (error**2).mean()) > 35


@pytest.mark.parametrize("task", ["cartpole-upright", "humanoid-kneeling"])
@pytest.mark.benchmark(group="step, draw and score with the built-in model")
def test_native_steps_with_rewards(benchmark, task):
    entry = get_task(task)
    env = make_vec_env(task, 8, reward=VLMReward("builtin", goal=entry.goal), seed=0)
    env.reset()
    actions = np.random.default_rng(0).uniform(-0.4, 0.4, (20, 8, *env.action_space.shape))

    def steps():
        for row in actions:
            _, rewards, _, _ = env.step(row)
        return rewards

    env.timings.update(dict.fromkeys(env.timings, 0.0))
    rewards = benchmark.pedantic(steps, rounds=5)
    assert np.isfinite(rewards).all()
    if benchmark.enabled:
        total = sum(env.timings.values())
        benchmark.extra_info |= {
            "num_envs": 8,
            "steps_per_second": actions[..., 0].size / benchmark.stats.stats.median,
            "shares": {stage: seconds / total for stage, seconds in env.timings.items()},
        }
