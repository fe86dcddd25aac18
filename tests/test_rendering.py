"""The `ray` renderer's contract: inputs, outputs, determinism and errors."""

from __future__ import annotations

import os
import subprocess
import sys

import gymnasium
import mujoco
import mujoco.batch
import numpy as np
import pytest

from vlmrm_fast import _core
from vlmrm_fast.errors import ArgumentError, UnknownNameError, UnsupportedSceneError
from vlmrm_fast.rendering import Camera, Poses, Renderer, Scene

ASSETS = os.path.join(os.path.dirname(gymnasium.__file__), "envs", "mujoco", "assets")
VIEW = Camera(lookat=(0.0, 0.0, 1.0), distance=3.5, azimuth=180.0, elevation=-10.0)
BOX = '<mujoco><worldbody>{}<geom name="b" type="box" size=".2 .3 .4"/></worldbody></mujoco>'


@pytest.fixture(scope="module")
def model() -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_path(os.path.join(ASSETS, "humanoid.xml"))


@pytest.fixture(scope="module")
def scene(model: mujoco.MjModel) -> Scene:
    return Scene.from_model(model, VIEW)


@pytest.fixture(scope="module")
def worlds(model: mujoco.MjModel) -> list[mujoco.MjData]:
    rng = np.random.default_rng(0)
    worlds = []
    for _ in range(5):
        data = mujoco.MjData(model)
        data.qpos[2] = rng.uniform(0.8, 1.5)
        data.qpos[7:] += rng.uniform(-0.7, 0.7, model.nq - 7)
        mujoco.mj_forward(model, data)
        worlds.append(data)
    return worlds


def test_a_picture_shows_something(scene: Scene, worlds: list[mujoco.MjData]) -> None:
    frame = Renderer(scene, 64, 96, 1).render(worlds[0])
    assert frame.shape == (1, 64, 96, 3)
    assert frame.dtype == np.uint8
    assert frame.flags.c_contiguous
    assert frame.std() > 20


@pytest.mark.parametrize("num_threads", [2, 3])
def test_threads_do_not_change_a_bit(
    scene: Scene, worlds: list[mujoco.MjData], num_threads: int
) -> None:
    one = Renderer(scene, 97, 123, 1).render(worlds)
    many = Renderer(scene, 97, 123, num_threads).render(worlds)
    np.testing.assert_array_equal(one, many)


def test_a_world_looks_the_same_alone_and_in_company(
    scene: Scene, worlds: list[mujoco.MjData]
) -> None:
    with Renderer(scene, 64, 64, 2) as renderer:
        together = renderer.render(worlds)
        for i in (4, 0, 2):
            np.testing.assert_array_equal(renderer.render(worlds[i])[0], together[i])


def test_data_list_batch_and_poses_give_equal_pictures(
    model: mujoco.MjModel, scene: Scene, worlds: list[mujoco.MjData]
) -> None:
    batch = mujoco.batch.Batch(model, len(worlds), 1)
    batch.bind("qpos")[:] = [data.qpos for data in worlds]
    batch.forward()
    with Renderer(scene, 48, 48, 1) as renderer:
        expected = renderer.render(worlds)
        np.testing.assert_array_equal(renderer.render(Poses.from_data(worlds)), expected)
        np.testing.assert_array_equal(renderer.render(batch), expected)
        np.testing.assert_array_equal(renderer.render(Poses.from_batch(batch)), expected)
        np.testing.assert_array_equal(renderer.render(tuple(worlds)), expected)


def test_poses_of_a_batch_stay_live(model: mujoco.MjModel, scene: Scene) -> None:
    batch = mujoco.batch.Batch(model, 2, 1)
    poses = Poses.from_batch(batch)
    batch.forward()
    with Renderer(scene, 48, 48, 1) as renderer:
        before = renderer.render(poses)
        batch.bind("qpos")[1, 2] += 0.5
        batch.forward()
        after = renderer.render(poses)
    np.testing.assert_array_equal(before[0], after[0])
    assert (before[1] != after[1]).any()


def test_no_worlds_give_no_pictures(scene: Scene) -> None:
    assert Renderer(scene, 8, 8, 1).render([]).shape == (0, 8, 8, 3)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 123), (123, 5), (7, 8), (9, 17)])
def test_odd_sizes(scene: Scene, worlds: list[mujoco.MjData], height: int, width: int) -> None:
    frames = Renderer(scene, height, width, 1).render(worlds[:2])
    assert frames.shape == (2, height, width, 3)
    assert frames.max() > 0


def test_out_is_filled_and_returned(scene: Scene, worlds: list[mujoco.MjData]) -> None:
    renderer = Renderer(scene, 32, 32, 1)
    out = np.full((1, 32, 32, 3), 7, np.uint8)
    assert renderer.render(worlds[0], out=out) is out
    np.testing.assert_array_equal(out, renderer.render(worlds[0]))


def _read_only() -> np.ndarray:
    out = np.zeros((1, 8, 8, 3), np.uint8)
    out.flags.writeable = False
    return out


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ([[0]], r"`out` must be a numpy array, got list\. Use np\.empty"),
        (np.zeros((1, 8, 8, 3)), r"`out` must be uint8, got float64\. Use"),
        (np.zeros((2, 8, 8, 3), np.uint8), r"`out` must be of shape \(1, 8, 8, 3\), got \(2, 8"),
        (np.zeros((1, 8, 16, 3), np.uint8)[:, :, ::2], r"`out` must be C-contiguous, got strides"),
        (_read_only(), r"`out` must be writeable, got a read-only array\. Use"),
    ],
)
def test_a_wrong_out_is_refused(
    scene: Scene, worlds: list[mujoco.MjData], out: np.ndarray, message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        Renderer(scene, 8, 8, 1).render(worlds[0], out=out)


def test_a_wrong_source_is_refused(scene: Scene) -> None:
    with pytest.raises(ArgumentError, match=r"`source` must be an MjData, .* got str"):
        Renderer(scene, 8, 8, 1).render("humanoid")  # type: ignore[arg-type]


def test_poses_of_another_model_are_refused(scene: Scene) -> None:
    other = mujoco.MjModel.from_xml_string(BOX.format(""))
    data = mujoco.MjData(other)
    mujoco.mj_forward(other, data)
    with pytest.raises(ArgumentError, match=r"`geom_xpos` must be .* got 3.*scene's model"):
        Renderer(scene, 8, 8, 1).render(data)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"height": 0}, "`height` must be an integer between 1 and 16384, got 0"),
        ({"width": 2.5}, "`width` must be an integer between 1 and 16384, got 2.5"),
        ({"num_threads": -1}, "`num_threads` must be an integer between 0 and 1024, got -1"),
    ],
)
def test_wrong_sizes_are_refused(scene: Scene, arguments: dict, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Renderer(scene, **arguments)


def test_an_unknown_backend_is_refused(scene: Scene) -> None:
    with pytest.raises(
        UnknownNameError, match=r"backend must be one of auto, ray, got 'rai'\. Did"
    ):
        Renderer(scene, backend="rai")


def test_a_closed_renderer_refuses(scene: Scene, worlds: list[mujoco.MjData]) -> None:
    renderer = Renderer(scene, 8, 8, 1)
    renderer.close()
    with pytest.raises(ArgumentError, match=r"before close\(\)"):
        renderer.render(worlds[0])


def test_an_unknown_camera_is_refused_with_the_nearest(model: mujoco.MjModel) -> None:
    with pytest.raises(UnknownNameError, match=r"camera must be one of track, got 'trak'. Did you"):
        Scene.from_model(model, "trak")


def test_a_camera_id_out_of_range_is_refused(model: mujoco.MjModel) -> None:
    with pytest.raises(ArgumentError, match=r"`camera` must be between -1 and 1, got 3"):
        Scene.from_model(model, 3)


def test_a_camera_of_another_type_is_refused(model: mujoco.MjModel) -> None:
    with pytest.raises(ArgumentError, match=r"`camera` must be None, an id, a name"):
        Scene.from_model(model, 2.5)  # type: ignore[arg-type]


def test_an_unknown_tracked_body_is_refused(model: mujoco.MjModel) -> None:
    with pytest.raises(UnknownNameError, match=r"track_body must be one of .*Did you mean 'torso'"):
        Scene.from_model(model, Camera(track_body="torsoo"))


def test_camera_by_name_id_and_mjvcamera_agree(
    model: mujoco.MjModel, worlds: list[mujoco.MjData]
) -> None:
    fixed = mujoco.MjvCamera()
    fixed.type, fixed.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, 0
    frames = [
        Renderer(Scene.from_model(model, camera), 32, 32, 1).render(worlds)
        for camera in ("track", 0, fixed)
    ]
    np.testing.assert_array_equal(frames[0], frames[1])
    np.testing.assert_array_equal(frames[0], frames[2])


def test_a_tracking_camera_follows_its_body(model: mujoco.MjModel) -> None:
    scene = Scene.from_model(model, Camera(distance=3.0, elevation=-90.0, track_body="torso"))
    near, far = mujoco.MjData(model), mujoco.MjData(model)
    far.qpos[0] = 2 * 40 / 60  # the floor looks the same after one period of its texture
    for data in (near, far):
        mujoco.mj_forward(model, data)
    with Renderer(scene, 64, 64, 1) as renderer:
        a, b = renderer.render([near, far]).astype(int)
    assert (abs(a - b) > 8).any(-1).mean() < 0.05


def test_every_element_that_is_not_drawn_is_named() -> None:
    mesh = '<asset><mesh name="tet" vertex="0 0 0 1 0 0 0 1 0 0 0 1"/></asset>'
    xml = BOX.format('<geom name="rock" type="mesh" mesh="tet"/>').replace(
        "<worldbody>", mesh + "<worldbody>"
    )
    xml = xml.replace("<worldbody>", '<worldbody><light name="bulb" type="point"/>')
    with pytest.raises(UnsupportedSceneError, match=r"mesh 'rock'.*point light 'bulb'"):
        Scene.from_model(mujoco.MjModel.from_xml_string(xml))


def test_an_orthographic_camera_is_named() -> None:
    xml = BOX.format('<camera name="plan" projection="orthographic"/>')
    model = mujoco.MjModel.from_xml_string(xml)
    with pytest.raises(UnsupportedSceneError, match="orthographic camera 'plan'"):
        Scene.from_model(model, "plan")
    Scene.from_model(model)
    model.vis.global_.orthographic = 1
    with pytest.raises(UnsupportedSceneError, match="orthographic free camera"):
        Scene.from_model(model)


def test_a_textured_plane_infinite_in_one_direction_is_named() -> None:
    xml = BOX.format('<geom name="road" type="plane" size="0 2 1" material="tiles"/>').replace(
        "<worldbody>",
        '<asset><texture name="t" type="2d" builtin="checker" width="8" height="8"/>'
        '<material name="tiles" texture="t"/></asset><worldbody>',
    )
    with pytest.raises(UnsupportedSceneError, match="textured plane 'road'"):
        Scene.from_model(mujoco.MjModel.from_xml_string(xml))


def test_a_hidden_element_does_not_matter() -> None:
    mesh = '<asset><mesh name="tet" vertex="0 0 0 1 0 0 0 1 0 0 0 1"/></asset>'
    xml = BOX.format('<geom name="rock" type="mesh" mesh="tet" group="3"/>').replace(
        "<worldbody>", mesh + "<worldbody>"
    )
    Scene.from_model(mujoco.MjModel.from_xml_string(xml))


def test_nan_poses_draw_the_rest(scene: Scene, worlds: list[mujoco.MjData]) -> None:
    poses = Poses.from_data(worlds[:3])
    expected = Renderer(scene, 64, 64, 1).render(poses)
    poses.geom_xpos[0] = np.nan
    poses.geom_xmat[1, 3:6] = np.inf
    frames = Renderer(scene, 64, 64, 2).render(poses)
    assert frames[0].max() > 0  # the sky is still there
    np.testing.assert_array_equal(frames[2], expected[2])


def test_a_nan_camera_draws_black(model: mujoco.MjModel, worlds: list[mujoco.MjData]) -> None:
    poses = Poses.from_data(worlds[:1])
    poses.cam_xpos[:] = np.nan
    assert not Renderer(Scene.from_model(model, 0), 16, 16, 1).render(poses).any()


def test_a_camera_inside_a_geom_sees_through_it() -> None:
    model = mujoco.MjModel.from_xml_string(
        BOX.format('<geom type="sphere" size=".3" pos="0 0 1.5" rgba="1 0 0 1"/>')
    )
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    camera = Camera(lookat=(0.0, 0.0, 1.0), distance=1.0, elevation=90.0)
    frame = Renderer(Scene.from_model(model, camera), 64, 64, 1).render(data)[0]
    assert frame[32, 32, 0] > frame[32, 32, 2]


def test_the_fallback_draws_the_same_picture(scene: Scene, worlds: list[mujoco.MjData]) -> None:
    fast = Renderer(scene, 96, 96, 1).render(worlds)
    before = os.environ.get("VLMRM_FAST_SIMD")
    os.environ["VLMRM_FAST_SIMD"] = "baseline"
    try:
        assert _core.simd_level() == "baseline"
        plain = Renderer(scene, 96, 96, 1).render(worlds)
    finally:
        del os.environ["VLMRM_FAST_SIMD"]
        if before is not None:
            os.environ["VLMRM_FAST_SIMD"] = before
    off = abs(fast.astype(int) - plain)
    assert (off > 2).any(-1).mean() < 0.001  # fused multiply-adds move a few edges
    assert off.mean() < 0.02


def test_a_forked_child_can_draw(scene: Scene) -> None:
    code = f"""
import os, mujoco, numpy as np
from vlmrm_fast.rendering import Renderer, Scene
model = mujoco.MjModel.from_xml_path({os.path.join(ASSETS, "humanoid.xml")!r})
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = Renderer(Scene.from_model(model), 32, 32, 2)
before = renderer.render([data, data])
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(renderer.render([data, data]), before) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_model_changes_after_from_model_are_not_seen(model: mujoco.MjModel) -> None:
    own = mujoco.MjModel.from_xml_path(os.path.join(ASSETS, "humanoid.xml"))
    data = mujoco.MjData(own)
    mujoco.mj_forward(own, data)
    scene = Scene.from_model(own, VIEW)
    before = Renderer(scene, 32, 32, 1).render(data)
    own.geom_rgba[:] = 0.1
    np.testing.assert_array_equal(Renderer(scene, 32, 32, 1).render(data), before)
