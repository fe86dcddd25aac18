"""Frames per second of the `ray` renderer against mujoco.Renderer, on the same states."""

from __future__ import annotations

import statistics
from typing import Any

import parity
import pytest
from lone import ratios_of_two
from render_cases import (
    MESH_CAMERA,
    MOVING,
    NUM_WORLDS,
    STILL,
    Ours,
    Theirs,
    describe,
    humanoid_worlds,
    mesh_worlds,
    ratios_of_pairs,
    record_ratios,
    seconds,
)

from vlmrm_fast.errors import UnsupportedSceneError

# A picture of mujoco.Renderer takes long on a CPU: ours draw several calls in each pair.
PAIRS, REPEAT, ROUNDS = 11, 4, 20


def _measure(
    benchmark: Any, ours: Ours, theirs: Theirs, size: int, least: float, repeat: int = REPEAT
) -> None:
    """Time ours, then pairs of both; then assert that the pictures are alike."""
    ours()
    rounds = repeat * ROUNDS // REPEAT if benchmark.enabled else 1
    benchmark.pedantic(ours, rounds=rounds, warmup_rounds=2)
    describe(benchmark, size, ours.count)
    if benchmark.enabled:
        theirs()
        ratios = [ours.count * ratio for ratio in ratios_of_pairs(theirs, ours, PAIRS, repeat)]
        record_ratios(
            benchmark,
            ratios,
            frames_per_second=ours.count / benchmark.stats.stats.median,
            frames_per_second_of_mujoco=1 / seconds(theirs, 3),
        )
    figures = parity.compare(theirs()[0], ours.first()[0])
    theirs.close()
    benchmark.extra_info.update(psnr=figures.psnr, ssim=figures.ssim, off=figures.off)
    assert figures.psnr >= least


@pytest.mark.parametrize("camera", ["moving", "still"])
@pytest.mark.parametrize("size", [224, 480])
@pytest.mark.benchmark(group="draw the humanoid")
def test_ray(benchmark: Any, size: int, camera: str) -> None:
    sets = humanoid_worlds()
    view = MOVING if camera == "moving" else STILL
    _measure(benchmark, Ours(sets, view, size), Theirs(sets[0][0], view, size), size, 37)


@pytest.mark.benchmark(group="draw meshes of 100,000 triangles")
def test_ray_meshes(benchmark: Any) -> None:
    worlds = mesh_worlds()
    try:
        ours = Ours([worlds, worlds[::-1]], MESH_CAMERA, 224)
    except UnsupportedSceneError as error:
        pytest.skip(str(error))
    _measure(benchmark, ours, Theirs(worlds[0], MESH_CAMERA, 224), 224, 33, repeat=1)


@pytest.mark.parametrize("camera", ["moving", "still"])
@pytest.mark.benchmark(group="draw the humanoid: one thread and two")
def test_a_second_thread(benchmark: Any, camera: str) -> None:
    """The ratio is the speed of two threads over twice that of one.

    `two_processes` is the same for two processes of one thread each: what the machine allows.
    """
    view = MOVING if camera == "moving" else STILL
    one, two = (Ours(humanoid_worlds(), view, 224, num_threads=n) for n in (1, 2))
    benchmark.pedantic(two, rounds=ROUNDS if benchmark.enabled else 1, warmup_rounds=2)
    describe(benchmark, 224, NUM_WORLDS)
    if benchmark.enabled:
        ratios = [ratio / 2 for ratio in ratios_of_pairs(one, two, 4 * PAIRS)]
        lone = ratios_of_two(view, 224, 4 * PAIRS, 1)
        record_ratios(benchmark, ratios, two_processes=statistics.median(lone))
    assert (one.first() == two.first()).all()
