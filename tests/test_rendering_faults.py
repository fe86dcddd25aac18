"""Input that no sane scene holds: no crash, and MuJoCo's picture or a clear error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mujoco
import numpy as np
import pytest
from parity import Oracle, compare

from vlmrm_fast.rendering import Camera, Poses, Renderer, Scene

FUZZ = Path(__file__).parent / "fuzz_scenes.py"
BALL = """
<mujoco><asset>{asset}</asset><worldbody>
<light pos="1 -1 3" dir="-.3 .3 -1" directional="true"/>
<geom type="plane" size="3 3 .1" rgba=".4 .5 .6 1"/>
<geom name="ball" size=".3" pos="0 0 .5" {look}/>{extra}</worldbody></mujoco>"""
VIEW = Camera(lookat=(0.0, 0.0, 0.4), distance=2.5, azimuth=70.0, elevation=-25.0)


def _scene(asset: str = "", look: str = "", extra: str = "") -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(BALL.format(asset=asset, look=look, extra=extra))


def _data(model: mujoco.MjModel) -> mujoco.MjData:
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return data


def _draw(model: mujoco.MjModel, camera: Camera = VIEW, size: int = 96) -> np.ndarray:
    return Renderer(Scene.from_model(model, camera), size, size, 1).render(_data(model))[0]


def _same_as_in_mujoco(model: mujoco.MjModel, camera: Camera = VIEW) -> None:
    if os.environ.get("VLMRM_FAST_TEST_CORE"):
        _draw(model, camera)  # under a sanitizer, which OpenGL's drivers do not survive
        return
    with Oracle() as oracle:
        theirs = oracle.draw(model, [_data(model)], camera, (96, 96))[0]
    figures = compare(theirs, _draw(model, camera))
    assert figures.psnr >= 36, figures


@pytest.mark.parametrize("kind", ["sphere", "capsule", "ellipsoid", "cylinder", "box", "plane"])
@pytest.mark.parametrize("size", [0.0, 1e-30])
def test_a_geom_without_extent_leaves_the_rest_of_the_picture(kind: str, size: float) -> None:
    extra = f'<geom name="flat" type="{kind}" size=".2 .2 .2" pos="0 -.6 .5"/>'
    model = _scene(extra=extra)
    shown = _draw(model)
    model.geom("flat").size[:] = size
    flat = _draw(model)
    model.geom("flat").rgba[3] = 0
    gone = _draw(model)
    assert (shown != gone).any()
    if kind == "plane" and size == 0:  # a size of zero is an infinite one's
        assert (flat != gone).any()
    else:
        assert (np.abs(flat.astype(int) - gone).max(-1) > 16).mean() < 0.002


def test_a_disc_is_drawn_as_in_mujoco() -> None:
    model = _scene(extra='<geom name="d" type="cylinder" size=".4 .1" pos="0 -.6 .5"/>')
    model.geom("d").size[1] = 1e-6
    _same_as_in_mujoco(model)


@pytest.mark.parametrize("far", [1e6, 1e10, 1e20])
def test_huge_coordinates_do_not_disturb_the_rest(far: float) -> None:
    model = _scene(extra=f'<body mocap="true" pos="{far} 0 1"><geom size="1"/></body>')
    model.stat.extent = 3.0
    plain = _scene()
    plain.stat.extent = 3.0
    np.testing.assert_array_equal(_draw(model), _draw(plain))


def test_a_huge_geom_is_drawn_as_in_mujoco() -> None:
    model = _scene(extra='<geom name="wall" type="box" size="1 1 1" pos="0 60 0"/>')
    model.geom("wall").size[:] = (1e6, 50, 1e6)
    model.stat.extent = 3.0
    _same_as_in_mujoco(model)


@pytest.mark.parametrize("kind", ["2d", "cube", "skybox"])
def test_a_texture_of_one_texel_is_drawn_as_in_mujoco(kind: str) -> None:
    asset = (
        f'<texture name="t" type="{kind}" builtin="flat" rgb1=".9 .3 .1" width="1" height="1"/>'
        + ("" if kind == "skybox" else '<material name="m" texture="t"/>')
    )
    _same_as_in_mujoco(_scene(asset, "" if kind == "skybox" else 'material="m"'))


@pytest.mark.parametrize("kind", ["sphere", "capsule", "ellipsoid", "cylinder", "box"])
def test_a_camera_inside_a_geom_sees_what_it_sees_in_mujoco(kind: str) -> None:
    extra = f'<geom type="{kind}" size=".5 .5 .5" pos="0 -1.6 1.3" rgba="1 0 0 1"/>'
    model = _scene(extra=extra)
    camera = Camera(lookat=(0.0, -1.6, 1.3), distance=0.02, azimuth=90.0, elevation=-20.0)
    _same_as_in_mujoco(model, camera)


@pytest.mark.parametrize("fovy", [0.01, 1.0, 170.0])
def test_narrow_and_wide_views_are_drawn_as_in_mujoco(fovy: float) -> None:
    model = _scene(look='rgba=".8 .5 .3 1"')
    model.vis.global_.fovy = fovy
    model.light_castshadow[:] = 0  # a texel of the shadow map covers many pixels
    _same_as_in_mujoco(model)


def test_ten_thousand_worlds_are_drawn() -> None:
    model = _scene()
    one = Poses.from_data(_data(model))
    many = Poses(**{name: np.repeat(rows, 10_000, 0) for name, rows in vars(one).items()})
    many.geom_xpos[7_000, 1] += 0.2
    frames = Renderer(Scene.from_model(model, VIEW), 8, 8, 3).render(many)
    assert frames.shape == (10_000, 8, 8, 3)
    different = (frames != frames[0]).any((1, 2, 3))
    np.testing.assert_array_equal(np.flatnonzero(different), [7_000])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300, -1e-300])
@pytest.mark.parametrize("name", ["geom_xpos", "geom_xmat", "light_xpos", "light_xdir"])
def test_spoilt_poses_of_one_world_leave_the_others(name: str, value: float) -> None:
    model = _scene()
    one = Poses.from_data(_data(model))
    poses = Poses(**{key: np.repeat(rows, 3, 0) for key, rows in vars(one).items()})
    getattr(poses, name)[1] = value
    frames = Renderer(Scene.from_model(model, VIEW), 48, 48, 2).render(poses)
    np.testing.assert_array_equal(frames[0], frames[2])
    np.testing.assert_array_equal(frames[0], _draw(model, size=48))


def test_random_scenes_are_drawn_or_refused() -> None:
    # `make fuzz` runs many more.
    command = [sys.executable, str(FUZZ), "--first", "0", "--count", "150"]
    child = subprocess.run(command, capture_output=True, text=True, timeout=120)
    outcomes = child.stdout.split()
    assert child.returncode == 0, (outcomes[-1:], child.stderr[-3000:])
    assert outcomes.count("drawn") >= 30
