"""What the renderer's output formats, its memory and its fusion with the physics cost."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from render_cases import (
    NUM_THREADS,
    NUM_WORLDS,
    STILL,
    Ours,
    describe,
    humanoid_worlds,
    ratios_of_pairs,
    record_ratios,
)

from vlmrm_fast.rendering import Renderer, Scene
from vlmrm_fast.simulation import Simulation
from vlmrm_fast.tasks import get_task

SIZE, PAIRS = 224, 31
CLIP_MEAN, CLIP_STD = (0.4815, 0.4578, 0.4082), (0.2686, 0.2613, 0.2758)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float16", "bfloat16"])
@pytest.mark.benchmark(group="channels first, normalised")
def test_output(benchmark: Any, dtype: str) -> None:
    """The ratio is drawing bytes, then converting with torch, over drawing in this format."""
    norm = {} if dtype == "uint8" else {"dtype": dtype, "mean": CLIP_MEAN, "std": CLIP_STD}
    plain = Ours(humanoid_worlds(), STILL, SIZE)
    ours = Ours(humanoid_worlds(), STILL, SIZE, layout="nchw", **norm)
    ours.frames = torch.empty((NUM_WORLDS, 3, SIZE, SIZE), dtype=getattr(torch, dtype))
    mean, std = (torch.tensor(v)[:, None, None] for v in (CLIP_MEAN, CLIP_STD))

    def with_torch(draw: Any = plain) -> torch.Tensor:
        planes = torch.from_numpy(draw()).permute(0, 3, 1, 2).contiguous()
        if dtype == "uint8":
            return planes
        return ((planes.float() / 255 - mean) / std).to(getattr(torch, dtype))

    threads = torch.get_num_threads()
    torch.set_num_threads(NUM_THREADS)
    benchmark.pedantic(ours, rounds=20 if benchmark.enabled else 1, warmup_rounds=2)
    describe(benchmark, SIZE, NUM_WORLDS, dtype=dtype)
    if benchmark.enabled:
        record_ratios(benchmark, ratios_of_pairs(with_torch, ours, PAIRS))
        over_plain = ratios_of_pairs(ours, plain, PAIRS)
        benchmark.extra_info["time_over_plain"] = over_plain[PAIRS // 2]
    torch.set_num_threads(threads)
    assert torch.equal(ours.first(), with_torch(plain.first))


@pytest.mark.parametrize("num_envs", [8, 32])
@pytest.mark.benchmark(group="humanoid: step and draw on one core")
def test_fused(benchmark: Any, num_envs: int) -> None:
    """The ratio is stepping all worlds, then drawing them, over stepping and drawing in one."""
    task = get_task("humanoid-kneeling")
    sides = [Simulation(task.load_model(), num_envs, NUM_THREADS, task.fields) for _ in range(2)]
    rng = np.random.default_rng(0)
    states = [task.initial_state(sides[0].model, rng) for _ in range(num_envs)]
    qpos, qvel = (np.stack(part) for part in zip(*states, strict=True))
    for side in sides:
        assert side.poses.num_worlds == num_envs
        side.reset(np.arange(num_envs), qpos, qvel)
    apart, together = sides
    renderer = Renderer(Scene.from_model(apart.model, task.camera), SIZE, SIZE, NUM_THREADS)
    frames = np.empty((2, num_envs, SIZE, SIZE, 3), np.uint8)
    controls = rng.uniform(-0.4, 0.4, (64, num_envs, apart.model.nu))
    turns = {"apart": 0, "together": 0}

    def control(name: str) -> np.ndarray:
        turns[name] += 1
        return controls[turns[name] % len(controls)]

    def step_then_draw() -> None:
        apart.step(control("apart"), task.frame_skip)
        renderer.render(apart.poses, frames[0])

    def step_and_draw() -> None:
        together.step_and_draw(control("together"), renderer, frames[1], task.frame_skip)

    benchmark.pedantic(step_and_draw, rounds=20 if benchmark.enabled else 1)
    describe(benchmark, SIZE, num_envs)
    # A humanoid costs more once it has fallen: both sides are timed at the same age.
    while turns["apart"] < turns["together"]:
        step_then_draw()
    if benchmark.enabled:
        record_ratios(
            benchmark,
            ratios_of_pairs(step_then_draw, step_and_draw, PAIRS),
            steps_per_second=num_envs / benchmark.stats.stats.median,
        )
    while turns["apart"] < turns["together"]:
        step_then_draw()
    assert (frames[0] == frames[1]).all()


MEMORY = """
import sys
import numpy as np
import parity
from render_cases import STILL, Ours, humanoid_worlds

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

worlds = [sum(humanoid_worlds(), [])]
few = Ours(worlds, STILL, {size}, num_threads=1)
few()
before = resident()
many = Ours(worlds, STILL, {size}, num_threads=1 + {workers})
for _ in range(5):
    many()
one = resident()
print((one - before) / {workers})
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.benchmark(group="memory")
def test_memory_of_a_worker(benchmark: Any) -> None:
    """Resident memory that each further worker takes, at 224x224, the pictures not counted."""
    workers = 16
    code = MEMORY.format(size=SIZE, workers=workers)

    def measure() -> float:
        paths = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=paths
        )
        return float(done.stdout)

    used = benchmark.pedantic(measure, rounds=1)
    pictures = NUM_WORLDS * 8 * SIZE * SIZE * 3 / workers
    describe(benchmark, SIZE, 8 * NUM_WORLDS, bytes_a_worker=used - pictures)
    assert used - pictures < 16 * 2**20
