"""A dry run: everything that training builds, one scored frame, and what training would cost."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

import numpy as np

from vlmrm_fast.config import TrainConfig
from vlmrm_fast.gl_order import load_triton
from vlmrm_fast.train import build_model
from vlmrm_fast.video import save_png

# Long enough to average over a few dozen steps of a fast environment.
_MEASURE_SECONDS = 3.0


def dry_run(config: TrainConfig, frame_path: str | Path = "dry_run.png") -> Any:
    """Build everything, draw and score one frame, and estimate time and memory.

    Args:
        config: what would be trained.
        frame_path: where the frame goes.

    Returns:
        A `rich.table.Table`.
    """
    load_triton()
    from stable_baselines3.common.logger import Logger

    from vlmrm_fast.sb3.building import build_env, build_reward, resolve

    config = resolve(config)
    assert config.steps is not None
    reward = build_reward(config)
    env: Any = build_env(config, reward, training=True)
    try:
        model = build_model(config, env)
        model.set_logger(Logger(None, []))
        steps, seconds, stages = _measure_steps(env)
        update = _measure_update(model)
        save_png(frame_path, env.last_frames[0])
        score = float(reward.score(env.last_frames[:1])[0])
    finally:
        env.close()
    per_step = seconds / steps + update
    return _table({
        "configuration": f"{config.task or config.env}, {config.algorithm.algorithm}, "
        f"{config.num_envs} environments, model {config.reward.model}",
        "frame": f"{frame_path}, {'x'.join(map(str, env.last_frames.shape[1:3]))}",
        "its VLM reward": f"{score:.4f}",
        "stepping": f"{steps / seconds:.0f} steps/s ({_shares(stages, seconds)})",
        "learning": f"{update * 1e3:.2f} ms a step",
        "training": f"{config.steps:,} steps in about {_hours(per_step * config.steps)}, "
        f"{1 / per_step:.0f} steps/s",
        "memory": f"about {_memory(model) / 2**20:.0f} MiB",
    })


def _measure_steps(env: Any) -> tuple[int, float, dict[str, float]]:
    """Step with random actions; return steps, seconds and the seconds of each stage."""
    env.reset()
    sample = env.action_space.sample
    actions = [np.array([sample() for _ in range(env.num_envs)]) for _ in range(16)]
    # The first calls compile, allocate and fill caches.
    for action in actions[:2]:
        env.step(action)
    before, start, steps = dict(env.timings), time.perf_counter(), 0
    while time.perf_counter() - start < _MEASURE_SECONDS:
        env.step(actions[steps // env.num_envs % len(actions)])
        steps += env.num_envs
    seconds = time.perf_counter() - start
    return steps, seconds, {name: env.timings[name] - value for name, value in before.items()}


def _measure_update(model: Any) -> float:
    """Return the seconds of learning for one environment step."""
    buffer = getattr(model, "replay_buffer", None)
    if buffer is not None:
        # Zeros are as heavy as data; what is learned from them is thrown away with the model.
        buffer.pos = min(buffer.buffer_size - 1, 10 * model.batch_size)
        per_rollout = model.train_freq.frequency * model.n_envs
        gradient_steps = model.gradient_steps
        if gradient_steps < 0:
            gradient_steps = per_rollout
        model.train(gradient_steps=1, batch_size=model.batch_size)
        start = time.perf_counter()
        model.train(gradient_steps=3, batch_size=model.batch_size)
        return (time.perf_counter() - start) / 3 * gradient_steps / per_rollout
    model.rollout_buffer.reset()
    model.rollout_buffer.full = True
    start = time.perf_counter()
    model.train()
    return (time.perf_counter() - start) / (model.n_steps * model.n_envs)


def _memory(model: Any) -> float:
    """Return about how many bytes training will take: now, and the buffers when they are full."""
    now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    buffer = getattr(model, "replay_buffer", None)
    arrays = [] if buffer is None else [v for v in vars(buffer).values() if hasattr(v, "nbytes")]
    return now + sum(array.nbytes for array in arrays)


def _shares(stages: dict[str, float], seconds: float) -> str:
    """Return the shares of the stages as text."""
    return ", ".join(f"{name} {value / seconds:.0%}" for name, value in stages.items())


def _hours(seconds: float) -> str:
    """Return a duration in the unit that suits it."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def _table(lines: dict[str, str]) -> Any:
    """Return the lines as a table."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Dry run", show_header=False)
    for name, value in lines.items():
        table.add_row(name, Text(value))
    return table
