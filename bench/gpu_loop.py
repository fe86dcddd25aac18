"""Phase of bench/gpu.py: the whole loop of draw, copy, encode and score, and small batches."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gpu_timing import Clock
from gpu_towers import ALPHA, Ours, Result, lean, make_prompts, random_frames
from plain_vit import SHAPES, PlainReward, make_tower

from vlmrm_fast.kernels import reference
from vlmrm_fast.kernels.reference import OPENAI_MEAN, OPENAI_STD, Preprocessing

STEPS = 60


def drawing(batch: int, side: int) -> tuple[str, Callable[[np.ndarray], None]]:
    """Return how frames get into the ring, and the function that puts a step's there.

    With MuJoCo and the compiled renderer: physics and pictures of humanoids on all cores. Without
    either: a copy of frames in memory, which is what a renderer writes at least.
    """
    try:
        from vlmrm_fast.rendering import Renderer, Scene
        from vlmrm_fast.simulation import Simulation
        from vlmrm_fast.tasks import get_task
    except ImportError:
        frames = random_frames(batch, side).numpy()
        return "copied", lambda out: np.copyto(out, frames)
    task = get_task("humanoid-kneeling")
    simulation = Simulation(task.load_model(), batch, 0, task.fields)
    rng = np.random.default_rng(0)
    states = [task.initial_state(simulation.model, rng) for _ in range(batch)]
    qpos, qvel = (np.stack(part) for part in zip(*states, strict=True))
    simulation.reset(np.arange(batch), qpos, qvel)
    renderer = Renderer(Scene.from_model(simulation.model, task.camera), side, side)
    controls = np.zeros_like(simulation.ctrl)

    def step(out: np.ndarray) -> None:
        simulation.step_and_draw(controls, renderer, out, task.frame_skip)

    return "drawn by ray", step


def run(engine: Ours, put: Callable[[np.ndarray], None] | None, shape: Any, steps: int) -> float:
    """Return the seconds of so many steps, drawn or not, rewards collected at the end."""
    start, tickets = time.perf_counter(), []
    for _ in range(steps):
        slot = engine.scorer.acquire(shape)
        if put is not None:
            put(slot)
        tickets.append(engine.scorer.submit(slot))
    rewards = engine.scorer.collect(tickets)
    assert np.isfinite(rewards).all()
    return time.perf_counter() - start


def loop(clock: Clock, small: bool, name: str = "tiny", batches: tuple[int, ...] = (2,)) -> Result:
    """Measure whole loops against the tower alone, and small batches against the paper's path."""
    device, shape = clock.device, SHAPES[name]
    plain = make_tower(name)
    ours = lean(plain, device, "fp16" if clock.cuda else "fp32")
    goal, baseline = make_prompts(shape.embed)
    tasks = reference.make_tasks(goal[None], baseline[None], torch.tensor([ALPHA])).to(device)
    path = PlainReward(plain.to(device), shape.size, goal, baseline, ALPHA, device)
    how = Preprocessing(shape.size, OPENAI_MEAN, OPENAI_STD)
    results: Result = {}
    steps = 3 if small else STEPS
    for batch in batches:
        row = results[f"B={batch}"] = {}
        size = (batch, shape.size, shape.size, 3)
        row["how"], put = drawing(batch, shape.size)
        engine = Ours(ours, how, tasks, device, batch)
        frames = random_frames(batch, shape.size).to(device)
        run(engine, put, size, 3)
        took = min(run(engine, put, size, steps) for _ in range(3)) / steps
        scored = min(run(engine, None, size, steps) for _ in range(3)) / steps
        with torch.inference_mode():
            alone = clock.graph(lambda _, f=frames: ours.encode(f, how), 4)
        row |= {
            "loop_frames_s": batch / took,
            "scored_frames_s": batch / scored,
            "tower_frames_s": batch / alone,
            "share_of_tower": alone / took,
        }
        host = random_frames(batch, shape.size)
        if batch <= 16:
            row["latency_ms"] = clock.wall(lambda _, e=engine, s=size: run(e, None, s, 1), 20) * 1e3
            row["plain_latency_ms"] = clock.wall(lambda _, h=host: path.score(h), 20) * 1e3
            row["latency_ratio"] = row["plain_latency_ms"] / row["latency_ms"]
        engine.scorer.close()
    return results
