"""Environment steps per second with a picture of every state: ours against gymnasium's.

Both sides make the same steps of N humanoids from the same states, which is asserted after timing.
"""

from __future__ import annotations

import statistics
import time

import gymnasium
import numpy as np
import pytest

from vlmrm_fast.envs import make_vec_env
from vlmrm_fast.reward import VLMReward
from vlmrm_fast.tasks import get_task

# MuJoCo's own pictures take 50 ms each on a CPU: few worlds and steps keep a pair under a second.
N, STEPS, SIZE = 4, 3, 224
TASK = get_task("humanoid-kneeling")
PAIRS = 15


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


class Gymnasium:
    """What users write today: vectorised environments, then one picture from each."""

    def __init__(self):
        # gymnasium ignores a free camera's track body, as our task's camera does.
        camera = {"lookat": np.array([0.0, 0, 1.0]), "distance": 3.5}
        camera |= {"azimuth": 180.0, "elevation": -10.0}
        options = {"width": SIZE, "height": SIZE, "default_camera_config": camera}

        def one():
            return gymnasium.make(
                "Humanoid-v5",
                render_mode="rgb_array",
                terminate_when_unhealthy=False,
                disable_env_checker=True,
                **options,
            )

        self.env = gymnasium.vector.SyncVectorEnv([one] * N)
        self.env.reset(seed=0)
        self.env.render()

    def put(self, qpos, qvel):
        """Start from these states."""
        for env, position, velocity in zip(self.env.envs, qpos, qvel, strict=True):
            env.reset()
            env.unwrapped.set_state(position, velocity)

    def step(self, actions):
        """Step and return the frames."""
        self.env.step(actions)
        return np.stack(self.env.render())


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


def timed(side, data):
    start = time.perf_counter()
    run(side, data)
    return time.perf_counter() - start


@pytest.mark.benchmark(group="humanoid: step and draw 224x224")
def test_native_steps_with_pictures(benchmark):
    ours, theirs = Native(Unscored()), Gymnasium()
    data = inputs(0)
    frames = benchmark(run, ours, data)
    if benchmark.enabled:
        ratios = []
        for pair in range(PAIRS):
            # A-B, then B-A: slow drifts of the machine cancel.
            order = (ours, theirs) if pair % 2 else (theirs, ours)
            seconds = {side: timed(side, data) for side in order}
            ratios.append(seconds[theirs] / seconds[ours])
        steps = N * len(data[2])
        benchmark.extra_info |= {
            "num_envs": N,
            "size": SIZE,
            "steps_per_second": steps / benchmark.stats.stats.median,
            "ratio_to_gymnasium": statistics.median(ratios),
            "ratios": sorted(ratios),
        }
    error = frames.astype(float) - run(theirs, data)
    assert 10 * np.log10(255**2 / (error**2).mean()) > 35


@pytest.mark.benchmark(group="humanoid: step and draw 224x224")
def test_gymnasium_steps_with_pictures(benchmark):
    theirs, data = Gymnasium(), inputs(0)
    frames = benchmark.pedantic(run, args=(theirs, data), rounds=3)
    assert frames.shape == (N, SIZE, SIZE, 3)
    if benchmark.enabled:
        steps = N * len(data[2])
        benchmark.extra_info["steps_per_second"] = steps / benchmark.stats.stats.median


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
