"""Pictures drawn over a cached background are the same bits as pictures drawn in full."""

from __future__ import annotations

import glob
import os

import gymnasium
import mujoco
import numpy as np
import pytest

from vlmrm_fast import _core
from vlmrm_fast.rendering import Camera, Poses, Renderer, Scene

ASSETS = os.path.join(os.path.dirname(gymnasium.__file__), "envs", "mujoco", "assets")
TASKS = os.path.join(os.path.dirname(__file__), "..", "vlmrm_fast", "assets", "tasks")
VIEW = Camera(lookat=(0.0, 0.0, 0.5), distance=3.0, azimuth=130.0, elevation=-25.0)

# Mirror, haze, glass that stands and glass that moves, a spot light, casters above and below the
# lights, sites, a mocap body, a lamp on a moving body (if `lamp`).
ROOM = """
<mujoco>
  <visual><headlight ambient=".2 .2 .2"/><map shadowclip="2"/></visual>
  <asset>
    <texture type="skybox" builtin="gradient" rgb1=".4 .6 .8" rgb2="0 0 0" width="64" height="64"/>
    <texture name="grid" type="2d" builtin="checker" rgb1=".2 .3 .4" rgb2=".1 .2 .3" width="128"
             height="128"/>
    <material name="grid" texture="grid" texrepeat="2 2" texuniform="true"
              reflectance="{reflectance}"/>
  </asset>
  <worldbody>
    <camera name="eye" pos="0 -2.5 1" xyaxes="1 0 0 0 .4 1"/>
    <light pos="0 0 3" dir=".2 .3 -1" directional="true" diffuse=".4 .4 .4"/>
    <light pos="1 1 2.5" dir="-.3 -.4 -1" cutoff="40" exponent="2" diffuse=".6 .5 .4"/>
    <geom type="plane" size="0 0 1" material="grid"/>
    <geom type="box" size=".2 .3 .1" pos=".5 .4 .1" rgba=".8 .3 .2 1"/>
    <geom type="cylinder" size=".1 .4" pos="-.6 .3 .4" rgba=".2 .7 .2 .4"/>
    <geom type="capsule" size=".05 .3" pos="-.5 -.6 .3" euler="60 20 0" rgba=".3 .3 .8 1"/>
    <site type="box" size=".05 .05 .05" pos="0 -.7 .05" rgba="1 1 0 1"/>
    <body pos="0 0 .6"><freejoint/>
      <geom type="box" size=".15 .1 .2" rgba=".9 .9 .2 1"/>
      <geom type="sphere" size=".12" pos=".25 0 0" rgba=".2 .4 .9 .5"/>
      <site type="sphere" size=".05" pos="0 0 .3"/>
      {lamp}
      <body pos="0 0 .25"><joint type="ball"/>
        <geom type="capsule" size=".06" fromto="0 0 0 .4 0 .2" rgba=".7 .2 .7 1"/></body>
    </body>
    <body name="hand" mocap="true" pos="-.3 .5 .4"><geom type="ellipsoid" size=".2 .1 .1"/></body>
  </worldbody>
</mujoco>
"""
LAMP = '<light pos="0 0 .5" dir="0 0 -1" cutoff="60" diffuse=".3 .3 .3"/>'


def _room(reflectance: float = 0.3, lamp: str = "") -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(ROOM.format(reflectance=reflectance, lamp=lamp))


def _states(
    model: mujoco.MjModel, count: int, spread: float = 0.4, seed: int = 0
) -> list[mujoco.MjData]:
    rng = np.random.default_rng(seed)
    worlds = []
    for _ in range(count):
        data = mujoco.MjData(model)
        data.qpos += spread * rng.normal(size=model.nq)
        data.mocap_pos += spread * rng.normal(size=data.mocap_pos.shape)
        mujoco.mj_forward(model, data)
        worlds.append(data)
    return worlds


def _assert_equal_with_and_without(
    scene: Scene,
    worlds: list[mujoco.MjData] | Poses,
    size: tuple[int, int] = (61, 83),
    num_threads: int = 2,
) -> tuple[int, int]:
    """Draw twice over the cache, once in full; return the cache's counts."""
    full = Renderer(scene, *size, 1, cache=False).render(worlds)
    with Renderer(scene, *size, num_threads) as renderer:
        for _ in range(2):
            np.testing.assert_array_equal(renderer.render(worlds), full)
        assert renderer._native is not None
        return renderer._native.cache_counts()


@pytest.mark.parametrize(
    "path",
    [
        *sorted(glob.glob(os.path.join(ASSETS, "*.xml"))),
        os.path.join(TASKS, "cartpole_upright.xml"),
    ],
    ids=os.path.basename,
)
@pytest.mark.filterwarnings("ignore:compiler attribute")
def test_every_model_looks_the_same_over_its_background(path: str) -> None:
    model = mujoco.MjModel.from_xml_path(path)
    for size in ((61, 83), (90, 64)):
        counts = _assert_equal_with_and_without(Scene.from_model(model), _states(model, 8), size)
        # The first call draws in full.
        assert counts == (1, 8)


@pytest.mark.parametrize("simd", _core.simd_levels())
def test_every_instruction_set_draws_over_a_background(
    simd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLMRM_FAST_SIMD", simd)
    model = _room()
    for elevation in (-50.0, -5.0):
        view = Camera(lookat=(0.0, 0.0, 0.4), distance=2.5, azimuth=40.0, elevation=elevation)
        _assert_equal_with_and_without(Scene.from_model(model, view), _states(model, 24, 1.5))


@pytest.mark.parametrize("reflectance", [0.0, 0.3])
@pytest.mark.parametrize("spread", [0.1, 0.6, 3.0])
@pytest.mark.parametrize("elevation", [-70.0, -25.0, -5.0, 15.0])
def test_every_feature_looks_the_same_over_a_background(
    reflectance: float, spread: float, elevation: float
) -> None:
    model = _room(reflectance)
    view = Camera(lookat=(0.0, 0.0, 0.4), distance=2.5, azimuth=40.0, elevation=elevation)
    worlds = _states(model, 24, spread, int(100 * spread))
    counts = _assert_equal_with_and_without(Scene.from_model(model, view), worlds)
    assert counts == (1, 24)


def test_a_large_picture_looks_the_same_over_a_background() -> None:
    model = _room()
    # More than 64 packets a row, whatever the instruction set.
    _assert_equal_with_and_without(Scene.from_model(model, VIEW), _states(model, 3), (200, 1100))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (7, 9), (16, 17)])
def test_tiny_pictures_look_the_same_over_a_background(size: tuple[int, int]) -> None:
    model = _room()
    counts = _assert_equal_with_and_without(Scene.from_model(model, VIEW), _states(model, 20), size)
    assert counts == (1, 20)


def test_shadows_on_steep_triangles_look_the_same_over_a_background() -> None:
    # Along outlines a triangle is shaded where the eye ray meets its plane, far from its samples.
    rng = np.random.default_rng(0)
    vertices = rng.normal(size=(60, 3)) * [0.8, 0.8, 0.5]
    faces = np.concatenate([rng.permutation(60)[:3] for _ in range(60)])
    model = mujoco.MjModel.from_xml_string(
        f"""
        <mujoco><asset><mesh name="spikes" inertia="shell"
          vertex="{" ".join(f"{x:.4f}" for x in vertices.ravel())}"
          face="{" ".join(map(str, faces))}"/></asset>
        <worldbody><camera name="eye" pos="0 -3 2" xyaxes="1 0 0 0 .55 .83"/>
          <light directional="true" pos="0 0 4" dir=".5 .3 -1" diffuse=".8 .8 .8"/>
          <geom type="plane" size="5 5 .1"/>
          <geom type="mesh" mesh="spikes" pos="0 0 .8" rgba=".9 .6 .3 1"/>
          <body pos="0 0 2"><freejoint/><geom type="sphere" size=".25"/></body>
        </worldbody></mujoco>"""
    )
    worlds = []
    for _ in range(200):
        data = mujoco.MjData(model)
        data.qpos[:3] = rng.uniform([-2, -2, 0.3], [2, 2, 3.5])
        mujoco.mj_forward(model, data)
        worlds.append(data)
    scene = Scene.from_model(model, "eye")
    assert _assert_equal_with_and_without(scene, worlds, (200, 200)) == (1, 200)


def test_a_lamp_on_a_moving_body_needs_the_whole_picture() -> None:
    model = _room(lamp=LAMP)
    counts = _assert_equal_with_and_without(Scene.from_model(model, VIEW), _states(model, 8))
    assert counts == (0, 0)


def test_a_moving_camera_draws_no_background() -> None:
    model = _room()
    poses = Poses.from_data(_states(model, 6))
    poses.cam_xpos[:, 0, 0] += np.arange(6) * 0.01
    assert _assert_equal_with_and_without(Scene.from_model(model, "eye"), poses) == (0, 0)


def test_nan_poses_look_the_same_over_a_background() -> None:
    model = _room()
    poses = Poses.from_data(_states(model, 10))
    poses.geom_xpos[3, 4] = np.nan
    poses.geom_xmat[4, 5] = np.inf
    poses.geom_xpos[5, 0] = np.nan  # the floor, which stands in all other worlds
    assert _assert_equal_with_and_without(Scene.from_model(model, VIEW), poses)[1] >= 8


def test_a_nan_camera_draws_no_background() -> None:
    model = _room()
    poses = Poses.from_data(_states(model, 4))
    poses.cam_xpos[:] = np.nan
    assert _assert_equal_with_and_without(Scene.from_model(model, "eye"), poses) == (0, 0)


def test_worlds_whose_still_geoms_differ_have_backgrounds_of_their_own() -> None:
    model = _room()
    poses = Poses.from_data(_states(model, 12))
    poses.geom_xpos[4:8, 1, 0] += 0.25
    poses.geom_xpos[8:, 3, 2] += 1e-9
    assert _assert_equal_with_and_without(Scene.from_model(model, VIEW), poses)[0] == 3


def test_more_still_worlds_than_backgrounds_look_the_same() -> None:
    model = _room()
    scene = Scene.from_model(model, VIEW)
    poses = Poses.from_data(_states(model, 40))
    poses.geom_xpos[:, 1, 0] += np.repeat(np.arange(10), 4) * 0.03
    num_backgrounds, found = _assert_equal_with_and_without(scene, poses)
    assert 2 <= num_backgrounds <= 4
    assert found > 0


def test_a_camera_that_jumps_and_returns_looks_the_same() -> None:
    model = _room()
    scene = Scene.from_model(model, "eye")
    poses = Poses.from_data(_states(model, 40))
    poses.cam_xpos[:, 0, 0] += np.random.default_rng(3).integers(3, size=40) * 0.2
    num_backgrounds, found = _assert_equal_with_and_without(scene, poses)
    assert num_backgrounds == 3
    assert found == 40


def test_one_renderer_draws_still_and_moving_views_in_turn() -> None:
    model = _room()
    scene = Scene.from_model(model, VIEW)
    worlds = _states(model, 24)
    with Renderer(scene, 40, 56, 3) as cached, Renderer(scene, 40, 56, 1, cache=False) as full:
        for k in range(6):
            poses = Poses.from_data(worlds[4 * k : 4 * k + 4])
            poses.geom_xpos[k % 4, 1, 2] += 0.1 * k
            np.testing.assert_array_equal(cached.render(poses), full.render(poses))


def test_a_still_and_a_moving_surface_in_one_place_look_the_same() -> None:
    model = mujoco.MjModel.from_xml_string(
        """
        <mujoco><worldbody><light pos="0 0 3"/>
          <body name="hand" mocap="true"><geom type="box" size=".3 .3 .3" rgba="1 0 0 1"/></body>
          <body><geom type="box" size=".3 .3 .3" rgba="0 1 0 1"/></body>
        </worldbody></mujoco>"""
    )
    worlds = [mujoco.MjData(model) for _ in range(4)]
    for i, data in enumerate(worlds):
        data.mocap_pos[0, 0] = 0.1 * (i // 2)
        mujoco.mj_forward(model, data)
    assert _assert_equal_with_and_without(Scene.from_model(model, VIEW), worlds) == (1, 4)
