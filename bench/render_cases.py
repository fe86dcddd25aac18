"""What the renderer's benchmarks draw, and how pairs of drawers are timed."""

from __future__ import annotations

import dataclasses
import platform
import statistics
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import mujoco
import numpy as np
import parity
import pytest

from vlmrm_fast import _core
from vlmrm_fast.rendering import Camera, Poses, Renderer, Scene
from vlmrm_fast.simulation import Simulation
from vlmrm_fast.tasks import Task

NUM_THREADS = 2
NUM_WORLDS = 16
SETS = 8  # of poses, drawn in turn, so that no call repeats the one before
STILL = parity.PAPER
MOVING = dataclasses.replace(STILL, lookat=(0.0, 0.0, 0.0), track_body="torso")


@cache
def humanoid_worlds() -> list[list[mujoco.MjData]]:
    """Return `SETS` lists of `NUM_WORLDS` humanoids in random poses, each at another place."""
    model = parity.load_gymnasium("humanoid")
    rng = np.random.default_rng(0)

    def world() -> mujoco.MjData:
        data = mujoco.MjData(model)
        data.qpos[:2] = rng.uniform(-0.5, 0.5, 2)
        data.qpos[2] = rng.uniform(0.6, 1.4)
        data.qpos[7:] += rng.uniform(-0.8, 0.8, model.nq - 7)
        mujoco.mj_forward(model, data)
        return data

    return [[world() for _ in range(NUM_WORLDS)] for _ in range(SETS)]


def bumpy_sphere(rng: np.random.Generator, rings: int, segments: int) -> tuple[str, str]:
    """Return vertices and faces, as MJCF writes them, of a closed, wavy surface."""
    theta = np.linspace(0, np.pi, rings + 1)[1:-1, None]
    phi = np.arange(segments) * 2 * np.pi / segments
    waves = sum(
        0.04
        * np.sin(rng.integers(2, 9) * theta + rng.uniform(0, 6))
        * np.sin(rng.integers(2, 9) * phi + rng.uniform(0, 6))
        for _ in range(6)
    )
    radius = 0.4 + waves
    grid = np.stack(
        [radius * np.sin(theta) * np.cos(phi), radius * np.sin(theta) * np.sin(phi),
         radius * np.cos(theta)], -1
    ).reshape(-1, 3)  # fmt: skip
    vertices = np.concatenate([grid, [[0, 0, 0.4], [0, 0, -0.4]]])
    top, bottom = len(grid), len(grid) + 1
    faces = []
    for j in range(segments):
        k = (j + 1) % segments
        faces += [(top, j, k), (bottom, len(grid) - segments + k, len(grid) - segments + j)]
        for i in range(rings - 2):
            a, b = i * segments + j, i * segments + k
            faces += [(a, a + segments, b), (b, a + segments, b + segments)]
    return (
        " ".join(f"{x:.5f}" for x in vertices.ravel()),
        " ".join(str(x) for x in np.ravel(faces)),
    )


@cache
def mesh_worlds() -> list[mujoco.MjData]:
    """Return worlds of five meshes, 100,000 triangles in all, in random places."""
    rng = np.random.default_rng(0)
    assets, bodies = [], []
    for i in range(5):
        vertices, faces = bumpy_sphere(rng, 101, 100)
        assets.append(f'<mesh name="m{i}" vertex="{vertices}" face="{faces}"/>')
        x, y = np.cos(i * 2 * np.pi / 5), np.sin(i * 2 * np.pi / 5)
        colour = " ".join(f"{c:.2f}" for c in rng.uniform(0.3, 1, 3))
        bodies.append(
            f'<body pos="{x:.3f} {y:.3f} .6"><freejoint/><geom type="mesh" mesh="m{i}" '
            f'contype="0" conaffinity="0" rgba="{colour} 1"/></body>'
        )
    xml = f"""<mujoco><asset>
    <texture type="skybox" builtin="gradient" rgb1=".3 .5 .7" rgb2="0 0 0" width="256"
    height="256"/>
    <texture name="t" type="2d" builtin="checker" rgb1=".2 .3 .4" rgb2=".1 .2 .3" width="300"
    height="300"/><material name="floor" texture="t" texrepeat="5 5" reflectance=".2"/>
    {"".join(assets)}</asset><worldbody><light pos="0 0 4" dir=".1 .1 -1" diffuse=".8 .8 .8"/>
    <geom type="plane" size="5 5 .1" material="floor"/>{"".join(bodies)}</worldbody></mujoco>"""
    model = mujoco.MjModel.from_xml_string(xml)
    assert model.mesh_facenum.sum() == 100_000
    worlds = []
    for _ in range(NUM_WORLDS):
        data = mujoco.MjData(model)
        for start in range(0, model.nq, 7):
            data.qpos[start : start + 2] += rng.uniform(-0.3, 0.3, 2)
            quat = rng.normal(size=4)
            data.qpos[start + 3 : start + 7] = quat / np.linalg.norm(quat)
        mujoco.mj_forward(model, data)
        worlds.append(data)
    return worlds


MESH_CAMERA = Camera(lookat=(0.0, 0.0, 0.5), distance=3.5, azimuth=130.0, elevation=-25.0)


def task_states(task: Task, count: int) -> list[mujoco.MjData]:
    """Return states of a task under uniformly random actions, evenly spread over its horizon."""
    worlds = 8
    simulation = Simulation(task.load_model(), worlds, NUM_THREADS)
    model, rng = simulation.model, np.random.default_rng(0)
    start = [task.initial_state(model, rng) for _ in range(worlds)]
    simulation.reset(np.arange(worlds), *(np.stack(part) for part in zip(*start, strict=True)))
    stride = max(1, task.horizon * worlds // count)
    low, high = model.actuator_ctrlrange.T
    states: list[mujoco.MjData] = []
    while len(states) < count:
        for _ in range(stride):
            simulation.step(rng.uniform(low, high, simulation.ctrl.shape), task.frame_skip)
        for qpos in simulation.qpos:
            data = mujoco.MjData(model)
            data.qpos[:] = qpos
            mujoco.mj_forward(model, data)
            states.append(data)
    return states[:count]


class Ours:
    """Draws `SETS` sets of worlds in turn into one array.

    Attributes:
        frames: what the last call drew.
        count: worlds a call.
    """

    def __init__(
        self, sets: list[list[mujoco.MjData]], camera: Any, size: int, **options: Any
    ) -> None:
        options = {"num_threads": NUM_THREADS, "backend": "ray"} | options
        self.renderer = Renderer(Scene.from_model(sets[0][0].model, camera), size, size, **options)
        self._poses = [Poses.from_data(worlds) for worlds in sets]
        self._turn = -1
        self.count = len(sets[0])
        self.frames = self.renderer.output.array(None, self.count)

    def __call__(self) -> np.ndarray:
        """Draw the next set."""
        self._turn = (self._turn + 1) % len(self._poses)
        return self.renderer.render(self._poses[self._turn], out=self.frames)

    def first(self) -> np.ndarray:
        """Draw the first set."""
        self._turn = -1
        return self()


class Theirs:
    """Draws one world with `mujoco.Renderer`; `count` is 1."""

    count = 1

    def __init__(self, world: mujoco.MjData, camera: Camera, size: int) -> None:
        model = world.model
        model.vis.global_.offheight = max(model.vis.global_.offheight, size)
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, size)
        try:
            self._renderer = mujoco.Renderer(model, size, size)
        except Exception as error:
            pytest.skip(f"mujoco.Renderer cannot draw here: {error}")
        self._world, self._camera = world, parity.mjv_camera(model, camera)

    def __call__(self) -> np.ndarray:
        """Draw."""
        self._renderer.update_scene(self._world, self._camera)
        return self._renderer.render()[None].copy()

    def close(self) -> None:
        """Free the context."""
        self._renderer.close()


def seconds(run: Callable[[], Any], times: int = 1) -> float:
    """Return the wall-clock time of one call."""
    start = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - start) / times


def ratios_of_pairs(
    base: Callable[[], Any], ours: Callable[[], Any], pairs: int, repeat: int = 1
) -> list[float]:
    """Return seconds(base) / seconds(ours) of interleaved pairs, sorted.

    The order alternates, so that slow drifts of the machine cancel.
    """
    ratios = []
    for pair in range(pairs):
        if pair % 2:
            theirs = seconds(base)
            mine = seconds(ours, repeat)
        else:
            mine = seconds(ours, repeat)
            theirs = seconds(base)
        ratios.append(theirs / mine)
    return sorted(ratios)


def describe(benchmark: Any, size: int, num_worlds: int, **more: Any) -> None:
    """Record what a figure was taken with."""
    benchmark.extra_info.update(
        N=num_worlds,
        H=size,
        W=size,
        dtype="uint8",
        threads=NUM_THREADS,
        machine=platform.processor() or platform.machine(),
        simd=_core.simd_level(),
    )
    benchmark.extra_info.update(more)


def record_ratios(benchmark: Any, ratios: list[float], **more: Any) -> None:
    """Record the median ratio and all of them."""
    benchmark.extra_info.update(ratio=statistics.median(ratios), ratios=ratios, **more)
