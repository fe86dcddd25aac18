"""Outlines of round shapes, where MuJoCo's polygons show, against mujoco.Renderer's pictures."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from parity import Oracle, compare, random_worlds
from small_scenes import scene_xml

from vlmrm_fast.rendering import Renderer, Scene
from vlmrm_fast.tasks import get_task


@pytest.mark.parametrize("name", ["cartpole-upright", "humanoid-kneeling"])
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


def test_capsules_seen_end_on_are_the_same_bits_with_threads() -> None:
    # Rows of pixels go to other workers, and so to other company in a packet.
    rng = np.random.default_rng(2)
    lengths, colors = rng.uniform(0.1, 1.2, 14), rng.random((14, 3))
    bodies = "".join(
        '<body><freejoint/><geom type="capsule" '
        f'size=".2 {h}" rgba="{r:.2f} {g:.2f} {b:.2f} 1"/></body>'
        for h, (r, g, b) in zip(lengths, colors, strict=True)
    )
    model = mujoco.MjModel.from_xml_string(
        f"""<mujoco><worldbody><light pos="0 0 4" dir="0 0 -1"/>
        <camera name="eye" pos="0 0 0" xyaxes="1 0 0 0 1 0"/>{bodies}</worldbody></mujoco>"""
    )
    worlds = []
    for _ in range(300):
        data = mujoco.MjData(model)
        for qpos in data.qpos.reshape(14, 7):
            qpos[:3] = *rng.uniform(-1.5, 1.5, 2), -rng.uniform(2.5, 5)
            along = qpos[:3] / np.linalg.norm(qpos[:3]) + rng.normal(size=3) * 0.08
            mujoco.mju_quatZ2Vec(qpos[3:], along / np.linalg.norm(along))
        mujoco.mj_forward(model, data)
        worlds.append(data)
    scene = Scene.from_model(model, "eye")
    with Renderer(scene, 100, 100, 1) as one, Renderer(scene, 100, 100, 5) as five:
        for data in worlds:  # one at a time: workers share its rows
            np.testing.assert_array_equal(one.render(data), five.render(data))
