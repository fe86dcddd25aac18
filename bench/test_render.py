"""Frames per second of the `ray` renderer and of mujoco.Renderer, on the same states."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest

from vlmrm_fast import _core
from vlmrm_fast.rendering import Camera, Poses, Renderer, Scene

HUMANOID = os.path.join(
    os.path.dirname(gymnasium.__file__), "envs", "mujoco", "assets", "humanoid.xml"
)
CAMERA = Camera(lookat=(0.0, 0.0, 1.0), distance=3.5, azimuth=180.0, elevation=-10.0)
SIZE, NUM_WORLDS, NUM_THREADS, NUM_PAIRS = 224, 16, 2, 7


@pytest.fixture(scope="module")
def worlds() -> list[mujoco.MjData]:
    model = mujoco.MjModel.from_xml_path(HUMANOID)
    rng = np.random.default_rng(0)
    worlds = []
    for _ in range(NUM_WORLDS):
        data = mujoco.MjData(model)
        data.qpos[2] = rng.uniform(0.6, 1.4)
        data.qpos[7:] += rng.uniform(-0.8, 0.8, model.nq - 7)
        mujoco.mj_forward(model, data)
        worlds.append(data)
    return worlds


@pytest.fixture(scope="module")
def theirs(worlds: list[mujoco.MjData]) -> Callable[[], np.ndarray]:
    os.environ.setdefault("MUJOCO_GL", "egl")
    import triton  # noqa: F401  (before any GL context)

    try:
        renderer = mujoco.Renderer(worlds[0].model, SIZE, SIZE)
    except Exception as error:
        pytest.skip(f"mujoco.Renderer cannot draw here: {error}")
    camera = mujoco.MjvCamera()
    camera.lookat[:] = CAMERA.lookat
    camera.distance, camera.azimuth = CAMERA.distance, CAMERA.azimuth
    camera.elevation = CAMERA.elevation

    def draw() -> np.ndarray:
        renderer.update_scene(worlds[0], camera)
        return renderer.render()[None].copy()

    return draw


@pytest.fixture(scope="module")
def ours(worlds: list[mujoco.MjData]) -> Callable[[], np.ndarray]:
    renderer = Renderer(Scene.from_model(worlds[0].model, CAMERA), SIZE, SIZE, NUM_THREADS)
    poses = Poses.from_data(worlds)
    out = np.empty((NUM_WORLDS, SIZE, SIZE, 3), np.uint8)
    return lambda: renderer.render(poses, out=out)


def _describe(benchmark: Any, num_frames: int) -> None:
    benchmark.extra_info.update(
        N=num_frames,
        H=SIZE,
        W=SIZE,
        dtype="uint8",
        threads=NUM_THREADS,
        machine=platform.processor() or platform.machine(),
        simd=_core.simd_level(),
        frames_per_second=num_frames / benchmark.stats.stats.median if benchmark.stats else None,
    )


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / ((a.astype(float) - b) ** 2).mean()))


@pytest.mark.benchmark(group="render_humanoid_224")
def test_mujoco_renderer(benchmark: Any, theirs: Callable[[], np.ndarray]) -> None:
    frames = benchmark.pedantic(theirs, rounds=NUM_PAIRS, warmup_rounds=1)
    _describe(benchmark, 1)
    assert frames.shape == (1, SIZE, SIZE, 3)


@pytest.mark.benchmark(group="render_humanoid_224")
def test_ray(
    benchmark: Any, ours: Callable[[], np.ndarray], theirs: Callable[[], np.ndarray]
) -> None:
    frames = benchmark.pedantic(ours, rounds=4 * NUM_PAIRS, warmup_rounds=2)
    _describe(benchmark, NUM_WORLDS)
    assert _psnr(frames[:1], theirs()) >= 37


@pytest.mark.benchmark(group="render_humanoid_224_ratio")
def test_ray_over_mujoco_renderer(
    benchmark: Any, ours: Callable[[], np.ndarray], theirs: Callable[[], np.ndarray]
) -> None:
    """Time interleaved pairs, so that a busy machine slows both alike."""
    ratios = []

    def pair() -> np.ndarray:
        start = time.perf_counter()
        theirs()
        middle = time.perf_counter()
        frames = ours()
        ratios.append((middle - start) * NUM_WORLDS / (time.perf_counter() - middle))
        return frames

    frames = benchmark.pedantic(pair, rounds=NUM_PAIRS, warmup_rounds=1)
    _describe(benchmark, NUM_WORLDS + 1)
    benchmark.extra_info["speedup_median"] = statistics.median(ratios[1:] or ratios)
    benchmark.extra_info["speedups"] = ratios
    assert _psnr(frames[:1], theirs()) >= 37
