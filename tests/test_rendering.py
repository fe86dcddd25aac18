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

from vlmrm_fast.errors import ArgumentError, UnknownNameError
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
    live = Poses.from_batch(batch)
    batch.forward()
    with Renderer(scene, 48, 48, 1) as renderer:
        expected = renderer.render(worlds)
        np.testing.assert_array_equal(renderer.render(Poses.from_data(worlds)), expected)
        np.testing.assert_array_equal(renderer.render(batch), expected)
        np.testing.assert_array_equal(renderer.render(live), expected)
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


def test_drawing_a_batch_leaves_its_arrays(model: mujoco.MjModel, scene: Scene) -> None:
    batch = mujoco.batch.Batch(model, 2, 1)
    live = Poses.from_batch(batch)
    batch.bind("qpos")[1, 2] -= 0.4
    batch.step()  # the poses lag the state now
    arrays = {"state": batch.state, **vars(live)}
    before = {name: array.copy() for name, array in arrays.items()}
    with Renderer(scene, 48, 48, 1) as renderer:
        frames = renderer.render(batch)
        np.testing.assert_array_equal(frames, renderer.render(live))
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, before[name])


def test_a_batch_that_has_filled_nothing_is_drawn_at_its_state(
    model: mujoco.MjModel, worlds: list[mujoco.MjData]
) -> None:
    batch = mujoco.batch.Batch(model, len(worlds), 1)
    batch.bind("qpos")[:] = [data.qpos for data in worlds]
    with Renderer(Scene.from_model(model, "track"), 48, 48, 1) as renderer:
        expected = renderer.render(worlds)
        for _ in range(2):
            np.testing.assert_array_equal(renderer.render(batch), expected)
        assert not batch.bind("geom_xpos").any()
        batch.forward([1])  # fills one row of the bound arrays
        np.testing.assert_array_equal(renderer.render(batch), expected)
        batch.forward()
        np.testing.assert_array_equal(renderer.render(batch), expected)
        batch.bind("qpos")[:, 2] += 0.5
        batch.forward()
        assert (renderer.render(batch) != expected).any()


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


def test_a_model_in_place_of_a_scene_is_refused(model: mujoco.MjModel) -> None:
    with pytest.raises(ArgumentError, match=r"`scene` must be a Scene, got MjModel\. Use Scene\.f"):
        Renderer(model)  # type: ignore[arg-type]


def test_data_of_two_models_are_refused(scene: Scene, worlds: list[mujoco.MjData]) -> None:
    other = mujoco.MjData(mujoco.MjModel.from_xml_string(BOX.format("")))
    with pytest.raises(ArgumentError, match=r"`data` must be of one model, got geom_xpos .*\. Use"):
        Renderer(scene, 8, 8, 1).render([worlds[0], other])


@pytest.mark.parametrize("camera", ["track", Camera(track_body="torso")])
def test_data_without_the_scenes_camera_or_body_are_refused(
    model: mujoco.MjModel, camera: Camera | str
) -> None:
    other = mujoco.MjData(mujoco.MjModel.from_xml_string("<mujoco/>"))
    with pytest.raises(ArgumentError, match=r"`source` must be of the scene's model, got .*\. Use"):
        Renderer(Scene.from_model(model, camera), 8, 8, 1).render(other)


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
        ({"facets": "no"}, "`facets` must be None, True or False, got 'no'"),
    ],
)
def test_wrong_sizes_are_refused(scene: Scene, arguments: dict, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Renderer(scene, **arguments)


def test_more_threads_than_the_system_gives_are_refused() -> None:
    code = """
import resource
import mujoco
from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.rendering import Renderer, Scene
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
scene = Scene.from_model(model)
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 100_000_000, resource.RLIM_INFINITY))
try:
    Renderer(scene, 32, 32, 64)
except ArgumentError as error:
    assert "`num_threads` must be few enough" in str(error), error
    assert "got 64. Use num_threads=1" in str(error), error
else:
    raise AssertionError("64 threads started")
assert Renderer(scene, 32, 32, 1).render(data).any()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_an_unknown_backend_is_refused(scene: Scene) -> None:
    with pytest.raises(
        UnknownNameError, match=r"backend must be one of auto, gl, ray, got 'rai'\. Did"
    ):
        Renderer(scene, backend="rai")


def test_a_closed_renderer_refuses(scene: Scene, worlds: list[mujoco.MjData]) -> None:
    renderer = Renderer(scene, 8, 8, 1)
    renderer.close()
    with pytest.raises(ArgumentError, match=r"before close\(\)"):
        renderer.render(worlds[0])


MIRRORED = """
<mujoco><worldbody>
<light pos="1 -1 3" dir="-.3 .3 -1" directional="true" castshadow="false"/>
<geom type="plane" size="5 5 .1" material="m"/>
<geom type="box" size=".2 .2 .2" pos="0 0 .2"/>
<geom name="glass" size=".4" pos="0 1 1.5" rgba=".9 .4 .2 .5"/>
</worldbody><asset><material name="m" reflectance=".5"/></asset></mujoco>"""


def test_glass_above_the_picture_shows_in_the_mirror() -> None:
    model = mujoco.MjModel.from_xml_string(MIRRORED)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    camera = Camera(distance=4.0, azimuth=90.0, elevation=-25.0)
    model.vis.global_.fovy = 30.0
    low = Renderer(Scene.from_model(model, camera), 64, 64, 1).render(data)[0]
    # The same view, twice as tall, holds the glass itself.
    model.vis.global_.fovy = np.degrees(2 * np.arctan(2 * np.tan(np.radians(15.0))))
    tall = Renderer(Scene.from_model(model, camera), 128, 64, 1).render(data)[0]
    model.geom("glass").rgba[3] = 0.0
    without = Renderer(Scene.from_model(model, camera), 128, 64, 1).render(data)[0]
    changed = (tall != without).any(-1)
    assert changed[:32].any()
    assert changed[32:96].sum() > 50
    assert (abs(tall[32:96].astype(int) - low) > 2).any(-1).mean() < 0.002  # rounding at edges


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
