"""The `gl` renderer: MuJoCo's own pictures, bit for bit."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from mujoco.batch import Batch

from vlmrm_fast import _core, _mujoco_api
from vlmrm_fast.errors import ArgumentError, RendererError, UnsupportedSceneError
from vlmrm_fast.rendering import Camera, Poses, Renderer, Scene

ASSETS = os.path.join(os.path.dirname(gymnasium.__file__), "envs", "mujoco", "assets")
SIZE = (64, 96)
NEAR = Camera(lookat=(0.0, 0.0, 0.6), distance=3.0, azimuth=35.0, elevation=-20.0)
ALL_SORTS = """
<mujoco>
  <asset>
    <texture name="sky" type="skybox" builtin="gradient" rgb1=".3 .5 .7" rgb2="0 0 0" width="32"
     height="32"/>
    <mesh name="tet" vertex="0 0 0 .4 0 0 0 .4 0 0 0 .4"/>
    <hfield name="hill" nrow="3" ncol="3" size=".5 .5 .2 .1" elevation="0 1 0 1 2 1 0 1 0"/>
  </asset>
  <worldbody>
    <light pos="0 -1 3" dir="0 .3 -1"/>
    <geom type="plane" size="0 0 .1" rgba=".6 .7 .6 1"/>
    <geom type="hfield" hfield="hill" pos="1.2 0 0"/>
    <body pos="0 0 1"><freejoint/><geom type="mesh" mesh="tet" rgba=".9 .3 .2 1"/>
      <site name="a" pos=".2 0 0"/></body>
    <body pos="-1 0 1"><joint type="hinge" axis="0 1 0"/>
      <geom type="capsule" size=".1 .3" rgba=".2 .4 .9 .5"/><site name="b" pos="0 0 .3"/></body>
    <camera name="wide" pos="0 -4 2" xyaxes="1 0 0 0 .4 1" fovy="60"/>
    <camera name="plan" pos="0 0 5" projection="orthographic" fovy="5"/>
  </worldbody>
  <tendon><spatial name="rope" width=".03" rgba="1 1 0 1"><site site="a"/><site site="b"/></spatial>
  </tendon>
</mujoco>"""


@pytest.fixture(scope="module", autouse=True)
def _gl() -> None:
    """Skip where mujoco.Renderer cannot make an OpenGL context."""
    os.environ.setdefault("MUJOCO_GL", "egl")
    import triton  # noqa: F401  (before any GL context)

    try:
        mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 8, 8).close()
    except Exception as error:
        pytest.skip(f"mujoco.Renderer cannot draw here: {error}")


@pytest.fixture(scope="module")
def humanoid() -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_path(os.path.join(ASSETS, "humanoid.xml"))


def _worlds(model: mujoco.MjModel, count: int) -> list[mujoco.MjData]:
    worlds = [mujoco.MjData(model) for _ in range(count)]
    for i, data in enumerate(worlds):
        data.qvel[:] = np.random.default_rng(i).normal(size=model.nv)
        mujoco.mj_step(model, data, 20 + i)
    return worlds


def _mujoco(model: mujoco.MjModel, worlds: list[mujoco.MjData], camera: Any = -1) -> np.ndarray:
    with mujoco.Renderer(model, *SIZE) as renderer:
        frames = []
        for data in worlds:
            renderer.update_scene(data, camera)
            frames.append(renderer.render().copy())
    return np.array(frames)


@pytest.mark.parametrize("name", ["humanoid", "ant", "walker2d_v5"])
def test_gymnasium_models_are_mujocos_bits(name: str) -> None:
    model = mujoco.MjModel.from_xml_path(os.path.join(ASSETS, f"{name}.xml"))
    worlds = _worlds(model, 2)
    with Renderer(Scene.from_model(model), *SIZE, backend="gl") as renderer:
        assert renderer.backend == "gl"
        frames = renderer.render(worlds)
    np.testing.assert_array_equal(frames, _mujoco(model, worlds))


def test_the_cart_pole_task_is_mujocos_bits() -> None:
    from vlmrm_fast.tasks import get_task

    model = get_task("cartpole-upright").load_model()
    worlds = _worlds(model, 1)
    with Renderer(Scene.from_model(model, 0), *SIZE, backend="gl") as renderer:
        np.testing.assert_array_equal(renderer.render(worlds), _mujoco(model, worlds, 0))


def _tracking(body: int) -> mujoco.MjvCamera:
    camera = mujoco.MjvCamera()
    camera.type, camera.trackbodyid = mujoco.mjtCamera.mjCAMERA_TRACKING, body
    camera.distance, camera.azimuth, camera.elevation = 4.0, 30.0, -15.0
    return camera


def test_every_kind_of_camera_is_mujocos() -> None:
    model = mujoco.MjModel.from_xml_string(ALL_SORTS)
    worlds = _worlds(model, 1)
    followed = Camera(distance=4.0, azimuth=30.0, elevation=-15.0, track_body=1)
    pairs = (("wide", "wide"), ("plan", "plan"), (0, 0), (None, -1), (followed, _tracking(1)))
    with mujoco.Renderer(model, *SIZE) as theirs:
        for camera, same in pairs:
            theirs.update_scene(worlds[0], same)
            expected = theirs.render()
            with Renderer(Scene.from_model(model, camera), *SIZE, backend="gl") as renderer:
                np.testing.assert_array_equal(renderer.render(worlds)[0], expected)


def test_every_source_gives_the_same_pictures(humanoid: mujoco.MjModel) -> None:
    batch = Batch(humanoid, 3, 1)
    speeds = np.random.default_rng(0).normal(size=(3, humanoid.nv))
    batch.bind("qvel")[:] = speeds
    worlds = [mujoco.MjData(humanoid) for _ in range(3)]
    for data, speed in zip(worlds, speeds, strict=True):
        data.qvel[:] = speed
        mujoco.mj_step(humanoid, data, 20)
    with Renderer(Scene.from_model(humanoid, NEAR), *SIZE, backend="gl") as renderer:
        renderer.render(batch)  # binds
        batch.step(nstep=20)
        expected = renderer.render(worlds)
        assert (expected[0] != expected[1]).any()
        np.testing.assert_array_equal(renderer.render(worlds[0])[0], expected[0])
        np.testing.assert_array_equal(renderer.render(Poses.from_data(worlds)), expected)
        np.testing.assert_array_equal(renderer.render(batch), expected)
        twice = renderer.render([worlds[0], worlds[0]])
        np.testing.assert_array_equal(twice, expected[[0, 0]])
        assert renderer.render([]).shape == (0, *SIZE, 3)


def test_threads_and_formats_do_not_change_the_picture(humanoid: mujoco.MjModel) -> None:
    scene, worlds = Scene.from_model(humanoid, NEAR), _worlds(humanoid, 5)
    with Renderer(scene, *SIZE, 1, "gl") as renderer:
        expected = renderer.render(worlds)
    out = np.zeros((5, 3, *SIZE), np.float32)
    with Renderer(scene, *SIZE, 2, "gl", layout="nchw", dtype="float32") as renderer:
        assert renderer.render(worlds, out=out) is out
    np.testing.assert_array_equal(
        out, expected.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    )


def test_a_batch_gives_what_tendons_are_drawn_from() -> None:
    model = mujoco.MjModel.from_xml_string(ALL_SORTS)
    batch = Batch(model, 2, 1)
    with Renderer(Scene.from_model(model, "wide"), *SIZE, backend="gl") as renderer:
        first = renderer.render(batch)
        batch.step(nstep=50)
        later = renderer.render(batch)
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        np.testing.assert_array_equal(first[0], renderer.render(data)[0])
        mujoco.mj_resetData(model, data)
        mujoco.mj_step(model, data, 50)
        np.testing.assert_array_equal(later[1], renderer.render(data)[0])
        with pytest.raises(ArgumentError, match=r"must hold ten_wrapadr.*got Poses\. Draw from"):
            renderer.render(Poses.from_data(data))


def test_depth_and_segmentation_are_mujocos() -> None:
    model = mujoco.MjModel.from_xml_string(ALL_SORTS)
    worlds = _worlds(model, 1)
    with mujoco.Renderer(model, *SIZE) as theirs:
        for camera in ("wide", "plan"):
            scene = Scene.from_model(model, camera)
            theirs.enable_depth_rendering()
            theirs.update_scene(worlds[0], camera)
            depth = theirs.render().copy()
            theirs.enable_segmentation_rendering()
            objects = theirs.render().copy()
            with Renderer(scene, *SIZE, backend="gl", supersample=2) as renderer:
                np.testing.assert_array_equal(renderer.render_depth(worlds)[0], depth)
                np.testing.assert_array_equal(renderer.render_segmentation(worlds)[0], objects)
            # The rope makes it a changing scene; edges may fall to either side.
            with Renderer(scene, *SIZE, 1, "ray", supersample=2) as renderer:
                ours = renderer.render_segmentation(worlds)[0]
                same = (ours == objects).all(-1)
                assert same.mean() > 0.99
                ropes = [(o[..., 1] == mujoco.mjtObj.mjOBJ_TENDON).sum() for o in (ours, objects)]
                assert abs(ropes[0] - ropes[1]) <= 10
                off = abs(renderer.render_depth(worlds)[0] - depth)[same]
                assert np.median(off) < 1e-3


def test_more_geoms_than_there_was_room_for_are_all_drawn() -> None:
    geoms = "".join(
        f'<geom size=".04" pos="{i % 40 * 0.1} {i // 40 * 0.1} 0" rgba="{i % 2} .5 1 1"/>'
        for i in range(1300)
    )
    model = mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{geoms}</worldbody></mujoco>")
    worlds = _worlds(model, 1)
    with Renderer(Scene.from_model(model), *SIZE, backend="gl") as renderer:
        np.testing.assert_array_equal(renderer.render(worlds), _mujoco(model, worlds))


def test_auto_takes_gl_only_for_what_ray_does_not_draw(
    humanoid: mujoco.MjModel, caplog: pytest.LogCaptureFixture
) -> None:
    assert Renderer(Scene.from_model(humanoid), 8, 8, 1).backend == "ray"
    option = mujoco.MjvOption()
    option.label = int(mujoco.mjtLabel.mjLABEL_BODY)
    scene = Scene.from_model(humanoid, option=option)
    assert scene.unsupported
    with pytest.raises(UnsupportedSceneError, match="got labels"):
        Renderer(scene, 8, 8, 1, "ray")
    with caplog.at_level(logging.WARNING), Renderer(scene, 8, 8) as renderer:
        assert renderer.backend == "gl"
    assert len(caplog.records) == 1
    assert "got labels" in caplog.text


def test_a_closed_renderer_and_other_models_are_named(humanoid: mujoco.MjModel) -> None:
    other = mujoco.MjModel.from_xml_string(ALL_SORTS)
    renderer = Renderer(Scene.from_model(humanoid), 8, 8, backend="gl")
    with pytest.raises(ArgumentError, match="`source` must be of the scene's model"):
        renderer.render(mujoco.MjData(other))
    with pytest.raises(ArgumentError, match="`source` must be of the scene's model"):
        renderer.render(Poses.from_data(mujoco.MjData(other)))
    with pytest.raises(ArgumentError, match=r"`source` must be an MjData.*got int"):
        renderer.render(3)  # type: ignore[arg-type]
    renderer.close()
    renderer.close()
    with pytest.raises(ArgumentError, match="before close"):
        renderer.render(mujoco.MjData(humanoid))


def test_a_layout_that_is_wrong_anywhere_is_refused() -> None:
    good = _mujoco_api.read_layout()
    _mujoco_api.check_layout(good)
    checked = ("mjvGeom.", "mjvLight.", "mjvCamera.", "mjvOption.", "mjvGLCamera.")
    fields = [k for k in good if k.startswith(checked) and k != "mjvGeom.label"]
    fields += ["mjvScene.ngeom", "mjvScene.geoms", "mjvScene.flags", "mjvScene.status"]
    assert len(fields) > 60
    for field in fields:
        with pytest.raises(RendererError, match=r"laid out as mujoco\.introspect says"):
            _mujoco_api.check_layout({**good, field: good[field] + 4})
    library = next(Path(mujoco.__file__).parent.glob("libmujoco*"))
    for struct in ("mjvScene", "mjrContext"):
        with pytest.raises(RendererError, match=f"got {struct} of {good[struct]} bytes"):
            _mujoco_api.native(library, {**good, struct: good[struct] - 8})
    with pytest.raises(RendererError, match="libmujoco must load"):
        _mujoco_api.native(library.with_name("libnone.so"), good)
    with pytest.raises(RendererError, match="libmujoco must hold mjv_defaultScene"):
        _mujoco_api.native(Path(_core.__file__), good)


@pytest.mark.parametrize(
    ("cudas", "device", "mujoco_device", "cuda_devices", "expected"),
    [
        ((-1,), -1, "", "", [0]),
        ((-1, -1), -1, "1", "", [1]),
        ((1, 0, -1), -1, "", "", [1, 0, 2]),
        ((1, 0, -1), -1, "", "1", [0, 1, 2]),
        ((1, 0, -1), 0, "", "1,0", [0]),
        ((0, -1), 0, "", "7", [0]),
        ((1, 0, -1), 1, "0", "", [0]),
        ((1, 0, -1), 2, "", "", [2]),
    ],
)
def test_devices_follow_cuda_where_the_driver_knows_it(
    cudas: tuple[int, ...],
    device: int,
    mujoco_device: str,
    cuda_devices: str,
    expected: list[int],
) -> None:
    known = list(enumerate(cudas))
    assert _core.choose_gl_devices(known, device, mujoco_device, cuda_devices) == expected


def test_devices_that_are_not_there_are_named(
    humanoid: mujoco.MjModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene.from_model(humanoid)
    with pytest.raises(RendererError, match=r"`device` must be between 0 and \d+, got 99"):
        Renderer(scene, 8, 8, backend="gl", device=99)
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "first")
    with pytest.raises(RendererError, match="MUJOCO_EGL_DEVICE_ID must be a number"):
        Renderer(scene, 8, 8, backend="gl")


SCRIPT = """
import logging, os, sys
import mujoco
from vlmrm_fast.errors import RendererError, UnsupportedSceneError
from vlmrm_fast.rendering import Renderer, Scene
model = mujoco.MjModel.from_xml_string('''<mujoco><worldbody><site name="a"/><body pos="1 0 0">
<joint/><geom size=".1"/><site name="b"/></body></worldbody><tendon><spatial name="rope"><site
site="a"/><site site="b"/></spatial></tendon></mujoco>''')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
option = mujoco.MjvOption()
option.label = int(mujoco.mjtLabel.mjLABEL_BODY)
scene = Scene.from_model(model, option=option)
"""


def _run(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    command = [sys.executable, "-c", SCRIPT + code]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=environment, check=False
    )


def test_triton_is_loaded_before_opengl_and_nothing_crashes_at_exit() -> None:
    code = """
renderer = Renderer(scene, 16, 16, 2, "gl")
assert "triton" in sys.modules
ours = renderer.render(data)
with mujoco.Renderer(model, 16, 16) as theirs:  # ends its display when the process ends
    theirs.update_scene(data, -1, option)
    assert (theirs.render() == ours[0]).all()
assert (renderer.render(data) == ours).all()
print("fine")
"""
    done = _run(code, MUJOCO_GL="egl")
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr


def test_a_forked_child_gets_an_error_instead_of_a_hang() -> None:
    code = """
renderer = Renderer(scene, 16, 16, 1, "gl")
if os.fork() == 0:
    for draw in (lambda: renderer.render(data), lambda: Renderer(scene, 16, 16, 1, "gl")):
        try:
            draw()
            os._exit(1)
        except RendererError as error:
            assert "fork" in str(error) and "spawn" in str(error), error
    del renderer
    os._exit(7)
print(os.waitstatus_to_exitcode(os.wait()[1]), renderer.render(data).shape)
"""
    done = _run(code)
    assert (done.returncode, done.stdout) == (0, "7 (1, 16, 16, 3)\n"), done.stderr


def test_without_egl_both_reasons_are_named(tmp_path: Path) -> None:
    # Empty files in its place are what the loader finds first.
    (tmp_path / "libEGL.so.1").touch()
    (tmp_path / "libEGL.so").touch()
    code = """
for backend, kind in (("gl", RendererError), ("auto", UnsupportedSceneError)):
    try:
        Renderer(scene, 16, 16, 1, backend)
    except kind as error:
        print(error)
"""
    done = _run(code, LD_LIBRARY_PATH=str(tmp_path), MUJOCO_GL="disable")
    assert done.stdout.count("\n") == 2, done.stderr
    first, second = done.stdout.splitlines()
    assert "EGL must be installed, got" in first
    assert "backend='ray'" in first
    assert "got labels" in second
    assert "EGL must be installed" in second
