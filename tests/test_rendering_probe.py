"""Depth and segmentation against mujoco.Renderer's."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from look_scenes import LOOKS, Look
from parity import mjv_camera

from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.rendering import Camera, Renderer, Scene

BOX = '<mujoco><worldbody>{}<geom name="b" type="box" size=".2 .3 .4"/></worldbody></mujoco>'


def _world(look: Look) -> tuple[mujoco.MjModel, mujoco.MjData, mujoco.MjvOption]:
    model = mujoco.MjModel.from_xml_string(look.xml)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    option = mujoco.MjvOption()
    if look.option:
        look.option(option)
    return model, data, option


def _theirs(look: Look) -> tuple[np.ndarray, np.ndarray]:
    model, data, option = _world(look)
    try:
        renderer = mujoco.Renderer(model, *look.size)
    except Exception as error:
        pytest.skip(f"mujoco.Renderer cannot draw here: {error}")
    with renderer:
        renderer.update_scene(data, mjv_camera(model, look.camera), option)
        renderer.enable_depth_rendering()
        depth = renderer.render().copy()
        renderer.enable_segmentation_rendering()
        return depth, renderer.render().copy()


@pytest.mark.parametrize(
    "name",
    [
        "groups",
        "orthographic_slant",
        "sensor_off_centre",
        "glass_layers",
        "plane_seen_through",
        "beyond_the_far_plane",
        "inside_a_capsule",
    ],
)
def test_depth_and_segmentation_are_mujocos(name: str) -> None:
    look = LOOKS[name]
    depth, objects = _theirs(look)
    model, data, option = _world(look)
    scene = Scene.from_model(model, look.camera, option=option, flags=look.flags)
    with Renderer(scene, *look.size, 1) as renderer:
        ours, shown = renderer.render_depth(data)[0], renderer.render_segmentation(data)[0]
    same = (objects == shown).all(-1)
    # MuJoCo's polygons stand back from round silhouettes by part of a pixel.
    assert same.mean() >= 0.999
    error = np.abs(ours - depth)[same]
    assert np.median(error) <= 1e-5
    assert np.quantile(error, 0.99) <= 5e-3  # round shapes are polygons there


def test_sites_have_their_own_type() -> None:
    site = '<site name="s" type="box" size=".5 .5 .5"/>'
    model = mujoco.MjModel.from_xml_string(BOX.format(site))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    scene = Scene.from_model(model, Camera(distance=6.0))
    with Renderer(scene, 5, 5, 1) as renderer:
        objects = renderer.render_segmentation(data)
    assert objects[0, 2, 2].tolist() == [0, int(mujoco.mjtObj.mjOBJ_SITE)]
    assert objects[0, 0, 0].tolist() == [-1, -1]


def test_outputs_are_filled_in_place_at_the_picture_s_own_size() -> None:
    model = mujoco.MjModel.from_xml_string(BOX.format(""))
    worlds = [mujoco.MjData(model), mujoco.MjData(model)]
    for data in worlds:
        mujoco.mj_forward(model, data)
    depth, objects = np.zeros((2, 7, 9), np.float32), np.zeros((2, 7, 9, 2), np.int32)
    scene = Scene.from_model(model)
    with Renderer(scene, 7, 9, 2, supersample=2, layout="nchw") as renderer:
        assert renderer.render_depth(worlds, depth) is depth
        assert renderer.render_segmentation(worlds, objects) is objects
    with Renderer(scene, 7, 9, 1) as renderer:
        before = renderer.render(worlds[0])
        np.testing.assert_array_equal(renderer.render_depth(worlds), depth)
        np.testing.assert_array_equal(renderer.render_segmentation(worlds[1])[0], objects[0])
        np.testing.assert_array_equal(renderer.render(worlds[0]), before)
    assert renderer.scene is scene


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.zeros((1, 4, 4), np.float64), r"`out` must be float32, got float64\."),
        (np.zeros((1, 4, 5), np.float32), r"`out` must be of shape \(1, 4, 4\), got \(1, 4, 5\)"),
        ([], r"`out` must be a numpy array, got list\."),
    ],
)
def test_wrong_depth_outputs_are_refused(out: object, message: str) -> None:
    model = mujoco.MjModel.from_xml_string(BOX.format(""))
    renderer = Renderer(Scene.from_model(model), 4, 4, 1)
    with pytest.raises(ArgumentError, match=message):
        renderer.render_depth(mujoco.MjData(model), out)  # type: ignore[arg-type]
