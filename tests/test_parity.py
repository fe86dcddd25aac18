"""Pictures of the `ray` renderer against mujoco.Renderer's."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest

from vlmrm_fast.rendering import Camera, Renderer, Scene

ASSETS = os.path.join(os.path.dirname(gymnasium.__file__), "envs", "mujoco", "assets")
SIZE = 224
PAPER = Camera(lookat=(0.0, 0.0, 1.0), distance=3.5, azimuth=180.0, elevation=-10.0)
NEAR = Camera(lookat=(0.0, 0.0, 0.6), distance=3.0, azimuth=35.0, elevation=-20.0)

SHAPES = """
<geom type="sphere" size=".3" pos="-1 0 .5" {m}/>
<geom type="capsule" size=".2 .3" pos="-.3 0 .6" euler="20 30 0" {m}/>
<geom type="cylinder" size=".25 .3" pos=".4 0 .6" euler="30 20 10" {m}/>
<geom type="ellipsoid" size=".3 .15 .35" pos="1.1 0 .6" euler="10 20 40" {m}/>
<geom type="box" size=".25 .2 .3" pos="0 .9 .5" euler="10 20 30" {m}/>"""
TEXTURES = """
<texture name="checker" type="2d" builtin="checker" rgb1="1 0 0" rgb2="0 0 1" width="64"
 height="64" mark="edge" markrgb="1 1 1"/>
<texture name="ramp" type="2d" builtin="gradient" rgb1="1 1 0" rgb2="0 .3 1" width="64"
 height="32"/>
<texture name="cross" type="cube" builtin="checker" rgb1=".9 .2 .1" rgb2=".1 .6 .3" width="32"
 height="32" mark="cross" markrgb="1 1 1"/>
<texture name="six" type="cube" builtin="gradient" rgb1="1 0 0" rgb2="0 0 1" width="32"
 height="192"/>
<texture name="sky" type="skybox" builtin="gradient" rgb1=".3 .5 .7" rgb2="0 0 0" width="512"
 height="512"/>"""
SUN = '<light pos="1 -1 3" dir="-.3 .3 -1" directional="true"/>'
SPOTS = """
<light pos="1 -2 3" dir="-.3 .6 -1" cutoff="40" exponent="5"/>
<light pos="-2 -1 2.5" dir=".6 .3 -1" cutoff="30" castshadow="false" diffuse=".5 .2 .2"/>"""
TAN = 'rgba=".8 .5 .3 1"'


def _xml(
    a: str = "",
    b: str = "",
    *,
    shape: str = "",
    light: str = SUN,
    size: str = "3 2 .1",
    extra: str = "",
) -> str:
    """A scene of every shape: `a` and `b` are the materials of the shapes and the floor."""
    materials = (f'<material name="a" {a}/>' if a else "") + (
        f'<material name="b" {b}/>' if b else ""
    )
    floor = f'<geom type="plane" size="{size}" ' + ('material="b"/>' if b else "/>")
    shapes = SHAPES.format(m='material="a"' if a else shape or TAN)
    return (
        f"<mujoco><asset>{TEXTURES}{materials}</asset>"
        f"<worldbody>{light}{floor}{shapes}{extra}</worldbody></mujoco>"
    )


SCENES = {
    "plain": _xml(),
    "no_light": _xml(light=""),
    "spot_lights": _xml(light=SPOTS),
    "shiny_and_glowing": _xml('emission=".3" specular=".9" shininess=".9" rgba=".3 .6 .9 1"'),
    "textures_2d": _xml('texture="checker" texrepeat="2 3"', 'texture="ramp" texrepeat="5 5"'),
    "textures_2d_uniform": _xml(
        'texture="checker" texrepeat="4 2.5" texuniform="true"',
        'texture="ramp" texrepeat="2.3 1.7" texuniform="true"',
    ),
    "textures_cube": _xml('texture="cross"', 'texture="six" rgba=".5 1 1 1"'),
    "textures_cube_uniform": _xml(
        'texture="six" texuniform="true"', 'texture="cross" texuniform="true"'
    ),
    "mirror": _xml('texture="cross"', 'texture="checker" texrepeat="4 4" reflectance=".4"'),
    "mirror_box": _xml(
        b='reflectance=".5" rgba=".3 .3 .4 1"',
        size="9 9 .1",
        extra='<geom type="box" size="2 2 .05" pos="0 0 .06" material="b"/>',
    ).replace('"plane" size="9 9 .1" material="b"', '"plane" size="9 9 .1"'),
    "unbounded_floor": _xml(b='texture="ramp" texrepeat=".7 1.3"', size="0 0 .1"),
    "glass": _xml(shape='rgba=".8 .5 .3 .5"', extra='<geom size=".2" pos="0 -.6 .3"/>'),
    "glass_over_mirror": _xml(b='reflectance=".4"', shape='rgba=".8 .5 .3 .5"'),
    "sites": _xml(extra='<site type="box" size=".1 .2 .1" pos="0 -.6 .3" rgba="0 1 0 1"/>'),
}


@pytest.fixture(scope="module", autouse=True)
def _gl() -> None:
    """Skip where mujoco.Renderer cannot make an OpenGL context."""
    os.environ.setdefault("MUJOCO_GL", "egl")
    import triton  # noqa: F401  (before any GL context)

    try:
        mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 8, 8).close()
    except Exception as error:
        pytest.skip(f"mujoco.Renderer cannot draw here: {error}")


def _mjv(model: mujoco.MjModel, camera: Any) -> Any:
    if not isinstance(camera, Camera):
        return -1 if camera is None else camera
    mjv = mujoco.MjvCamera()
    mjv.lookat[:] = camera.lookat
    mjv.distance, mjv.azimuth, mjv.elevation = camera.distance, camera.azimuth, camera.elevation
    if camera.track_body is not None:
        mjv.type = mujoco.mjtCamera.mjCAMERA_TRACKING
        mjv.trackbodyid = model.body(camera.track_body).id
    return mjv


def _pairs(
    renderer: mujoco.Renderer, model: mujoco.MjModel, worlds: list[mujoco.MjData], camera: Any
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (MuJoCo's picture, ours)."""
    ours = Renderer(Scene.from_model(model, camera), SIZE, SIZE, 1).render(worlds)
    for data, frame in zip(worlds, ours, strict=True):
        renderer.update_scene(data, _mjv(model, camera))
        yield renderer.render().copy(), frame


def _small_pairs(
    model: mujoco.MjModel, worlds: list[mujoco.MjData], camera: Any
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    with mujoco.Renderer(model, SIZE, SIZE) as renderer:
        yield from _pairs(renderer, model, worlds, camera)


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(((a.astype(float) - b) ** 2).mean(), 1e-9)))


def _ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Mean structural similarity of the grey pictures over 8 x 8 windows (Wang et al., 2004)."""
    x, y = (
        np.lib.stride_tricks.sliding_window_view(i.mean(-1), (8, 8)).reshape(-1, 64) for i in (a, b)
    )
    mx, my = x.mean(1), y.mean(1)
    cov = (x * y).mean(1) - mx * my
    c1, c2 = 6.5025, 58.5225
    top = (2 * mx * my + c1) * (2 * cov + c2)
    return float((top / ((mx**2 + my**2 + c1) * (x.var(1) + y.var(1) + c2))).mean())


def _worlds(model: mujoco.MjModel, count: int) -> list[mujoco.MjData]:
    rng = np.random.default_rng(1)
    worlds = []
    for _ in range(count):
        data = mujoco.MjData(model)
        for j in range(model.njnt):
            at = model.jnt_qposadr[j]
            if model.jnt_type[j] == mujoco.mjtJoint.mjJNT_FREE:
                quat = rng.normal(size=4)
                data.qpos[at + 3 : at + 7] = quat / np.linalg.norm(quat)
            else:
                data.qpos[at] += rng.uniform(-0.6, 0.6)
        mujoco.mj_forward(model, data)
        worlds.append(data)
    return worlds


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["humanoid", "ant", "half_cheetah", "hopper", "walker2d", "inverted_pendulum"]
)
def test_gymnasium_models_look_as_in_mujoco(name: str) -> None:
    model = mujoco.MjModel.from_xml_path(os.path.join(ASSETS, f"{name}.xml"))
    # The other models in that view: see the next test.
    far = PAPER if name == "humanoid" else dataclasses.replace(PAPER, azimuth=145.0)
    cameras = [None, 0 if model.ncam else Camera(distance=2.0, track_body="pole"), far, NEAR]
    worlds = _worlds(model, 2)
    # One context for all cameras: compiling its shaders takes longer than drawing.
    with mujoco.Renderer(model, SIZE, SIZE) as renderer:
        for camera in cameras:
            for theirs, ours in _pairs(renderer, model, worlds, camera):
                assert _psnr(theirs, ours) >= 37, camera
                assert _ssim(theirs, ours) >= 0.99, camera


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ant", "half_cheetah", "walker2d"])
def test_views_below_37_db_differ_by_marks_of_the_shadow_map_only(name: str) -> None:
    # Seen along an axis, MuJoCo's shadow map leaves a dark line on the floor that is not drawn
    # here: 36 to 37 dB. Without shadows the same views agree at 45 dB and more.
    for bound, shadows in ((35.5, 1), (43, 0)):
        model = mujoco.MjModel.from_xml_path(os.path.join(ASSETS, f"{name}.xml"))
        model.light_castshadow[:] &= bool(shadows)
        with mujoco.Renderer(model, SIZE, SIZE) as renderer:
            for theirs, ours in _pairs(renderer, model, _worlds(model, 2), PAPER):
                assert _psnr(theirs, ours) >= bound, shadows


@pytest.mark.parametrize("name", SCENES)
def test_small_scenes_look_as_in_mujoco(name: str) -> None:
    model = mujoco.MjModel.from_xml_string(SCENES[name])
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    camera = Camera(lookat=(0.0, 0.2, 0.4), distance=3.6, azimuth=70.0, elevation=-25.0)
    # Mirrored glass is blended over black, not over what is mirrored behind it.
    bound = 36 if name == "glass_over_mirror" else 37
    for theirs, ours in _small_pairs(model, [data], camera):
        assert _psnr(theirs, ours) >= bound
        assert _ssim(theirs, ours) >= 0.985


def test_a_floor_seen_from_below_is_glass() -> None:
    model = mujoco.MjModel.from_xml_string(SCENES["textures_2d"])
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    for theirs, ours in _small_pairs(
        model, [data], Camera(distance=3.6, azimuth=70.0, elevation=25.0)
    ):
        assert _psnr(theirs, ours) >= 40


def test_glass_above_the_picture_is_mirrored_as_in_mujoco() -> None:
    ball = '<geom size=".4" pos="0 -.6 1.6" rgba=".9 .9 .2 .5"/>'
    floor = 'reflectance=".8" rgba=".1 .1 .2 1"'
    model = mujoco.MjModel.from_xml_string(_xml(b=floor, extra=ball))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    camera = Camera(lookat=(0.0, -0.6, 0.0), distance=2.5, azimuth=70.0, elevation=-40.0)
    for theirs, ours in _small_pairs(model, [data], camera):
        assert _psnr(theirs, ours) >= 40
        assert _ssim(theirs, ours) >= 0.99


def test_haze_lies_on_the_horizon() -> None:
    model = mujoco.MjModel.from_xml_string(SCENES["unbounded_floor"])
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    camera = Camera(lookat=(0.0, 0.0, 0.6), distance=3.6, azimuth=70.0, elevation=-4.0)
    for theirs, ours in _small_pairs(model, [data], camera):
        assert _psnr(theirs, ours) >= 37


def test_a_tracking_camera_is_mujocos() -> None:
    model = mujoco.MjModel.from_xml_path(os.path.join(ASSETS, "humanoid.xml"))
    worlds = _worlds(model, 2)
    worlds[1].qpos[0] = 3.0
    mujoco.mj_forward(model, worlds[1])
    camera = Camera(distance=3.0, azimuth=90.0, elevation=-15.0, track_body="torso")
    for theirs, ours in _small_pairs(model, worlds, camera):
        assert _psnr(theirs, ours) >= 37


def test_the_cart_pole_task_looks_as_in_mujoco() -> None:
    from vlmrm_fast.tasks import get_task

    task = get_task("cartpole-upright")
    model = task.load_model()
    for theirs, ours in _small_pairs(model, _worlds(model, 2), task.camera):
        assert _psnr(theirs, ours) >= 37
        assert _ssim(theirs, ours) >= 0.99
