"""Outlines of round shapes, where MuJoCo's polygons show, against mujoco.Renderer's pictures."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from parity import Oracle, compare, random_worlds
from small_scenes import scene_xml

from vlmrm_fast.rendering import Renderer, Scene
from vlmrm_fast.tasks import get_task, task_names


@pytest.mark.parametrize("name", task_names())
@pytest.mark.parametrize("size", [96, 224])
def test_facets_bring_outlines_closer_to_mujocos(oracle: Oracle, name: str, size: int) -> None:
    task = get_task(name)
    model = task.load_model()
    worlds = random_worlds(model, 3)
    theirs = oracle.draw(model, worlds, task.camera, (size, size))
    scene = Scene.from_model(model, task.camera)
    psnr = {}
    for facets in (False, True):
        with Renderer(scene, size, size, 1, facets=facets) as renderer:
            pairs = zip(theirs, renderer.render(worlds), strict=True)
            psnr[facets] = np.mean([compare(a, b).psnr for a, b in pairs])
    assert psnr[True] >= 44
    assert psnr[True] >= psnr[False] + 1


def test_small_pictures_show_facets() -> None:
    model = mujoco.MjModel.from_xml_string(scene_xml())
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    scene = Scene.from_model(model)
    for size, shown in ((159, True), (160, False)):
        frames = []
        for facets in (None, shown, not shown):
            with Renderer(scene, size, size, 1, facets=facets) as renderer:
                frames.append(renderer.render(data)[0])
        assert np.array_equal(frames[0], frames[1])
        assert not np.array_equal(frames[0], frames[2])


@pytest.mark.parametrize(
    ("quality", "least"), [('numslices="3" numstacks="4"', 24), ('numslices="2000"', 40)]
)
def test_coarse_and_fine_polygons_are_mujocos(oracle: Oracle, quality: str, least: float) -> None:
    xml = scene_xml().replace("<asset>", f"<visual><quality {quality}/></visual><asset>", 1)
    model = mujoco.MjModel.from_xml_string(xml)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    theirs = oracle.draw(model, [data], None, (120, 120))[0]
    with Renderer(Scene.from_model(model), 120, 120, 1) as renderer:
        assert compare(theirs, renderer.render(data)[0]).psnr >= least


def test_facets_are_the_same_bits_with_the_cache_and_threads() -> None:
    task = get_task("humanoid-kneeling")
    worlds = random_worlds(task.load_model(), 6)
    scene = Scene.from_model(worlds[0].model, task.camera)
    frames = []
    for threads, cache in ((1, False), (1, True), (3, True)):
        with Renderer(scene, 96, 96, threads, cache=cache, facets=True) as renderer:
            for _ in range(3):
                frame = renderer.render(worlds)
            frames.append(frame)
    assert np.array_equal(frames[0], frames[1])
    assert np.array_equal(frames[0], frames[2])
