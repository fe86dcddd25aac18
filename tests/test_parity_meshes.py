"""Meshes and height fields of the `ray` renderer: pictures, exactness and degenerate input."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from mesh_scenes import CUBE, MESH_SCENES, mesh_xml, torus
from parity import Oracle, compare, pairs

from vlmrm_fast._meshes import mesh_triangles
from vlmrm_fast.rendering import Camera, Renderer, Scene

EYE = Camera(lookat=(0.0, 0.0, 0.0), distance=1.6, azimuth=35.0, elevation=-40.0)
LIT = '<visual><headlight ambient="1 1 1" diffuse="0 0 0" specular="0 0 0"/></visual>'


def _load(xml: str) -> tuple[mujoco.MjModel, mujoco.MjData]:
    model = mujoco.MjModel.from_xml_string(xml)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


def _one(mesh: str, geom: str = "", extra: str = "") -> str:
    """A white mesh without shading, alone."""
    return (
        f'<mujoco>{LIT}<asset><mesh name="m" inertia="shell" {mesh}/></asset><worldbody>'
        f'<geom type="mesh" mesh="m" contype="0" conaffinity="0" rgba="1 1 1 1" {geom}/>{extra}'
        "</worldbody></mujoco>"
    )


@pytest.mark.parametrize("name", MESH_SCENES)
def test_meshes_look_as_in_mujoco(oracle: Oracle, name: str) -> None:
    scene = MESH_SCENES[name]
    model, data = _load(scene.xml)
    for theirs, ours in pairs(oracle, model, [data], scene.camera):
        figures = compare(theirs, ours)
        assert figures.within(scene.bounds), figures


def test_every_pixel_agrees_with_a_test_of_every_triangle() -> None:
    model, data = _load(_one(torus(40, 20)))
    size = 97
    frame = Renderer(Scene.from_model(model, EYE), size, size, 1).render(data)[0]
    scene = mujoco.MjvScene(model, 10)
    camera = mujoco.MjvCamera()
    camera.distance, camera.azimuth, camera.elevation = EYE.distance, EYE.azimuth, EYE.elevation
    mujoco.mjv_updateScene(model, data, mujoco.MjvOption(), mujoco.MjvPerturb(), camera, 7, scene)
    eye = (scene.camera[0].pos + scene.camera[1].pos) / 2
    forward, up = scene.camera[0].forward, scene.camera[0].up
    half = np.tan(np.radians(model.vis.global_.fovy) / 2)
    grid = ((np.arange(size) + 0.5) / size * 2 - 1) * half
    d = forward + grid[:, None] * np.cross(forward, up) - grid[:, None, None] * up
    corners = mesh_triangles(model, 0)[0] @ data.geom_xmat[0].reshape(3, 3).T + data.geom_xpos[0]
    hit = np.zeros((size, size), bool)
    for a, b, c in corners.astype(float):
        n = np.cross(b - a, c - a)
        det = -(d @ n)
        q = np.cross(eye - a, d)
        u, v = q @ (c - a), -(q @ (b - a))
        hit |= (det > 0) & (u >= 0) & (v >= 0) & (u + v <= det)
    # Pixels on the outline show a share of what is behind.
    inner = hit.copy()
    outer = hit.copy()
    for axis in (0, 1):
        for step in (-1, 1):
            inner &= np.roll(hit, step, axis)
            outer |= np.roll(hit, step, axis)
    assert inner.sum() > 1000
    assert (frame[inner] == frame[inner].max()).all()
    assert (frame[~outer] == 0).all()


def test_threads_do_not_change_a_bit_of_a_mesh() -> None:
    model, data = _load(MESH_SCENES["mesh_glass"].xml)
    scene = Scene.from_model(model, MESH_SCENES["mesh_glass"].camera)
    one = Renderer(scene, 61, 75, 1).render([data] * 3)
    two = Renderer(scene, 61, 75, 2).render([data] * 3)
    np.testing.assert_array_equal(one, two)


def test_meshes_of_any_size_share_a_mirror_under_glass(oracle: Oracle) -> None:
    # Packets of pixels show both images: the few triangles of one mesh and the many of the other.
    model, data = _load(
        f"""<mujoco><asset><mesh name="small" {CUBE}/><mesh name="large" {torus(200, 125)}/>
        <material name="m" reflectance=".7"/></asset><worldbody>
        <light pos="1 .5 4" dir="-.25 -.1 -1"/><geom type="plane" size="5 5 .1" material="m"/>
        <geom type="mesh" mesh="small" pos="-.25 0 .9" rgba=".8 .4 .3 1"/>
        <geom type="mesh" mesh="large" pos=".35 0 .9" euler="90 0 0" rgba=".3 .7 .4 1"/>
        <geom type="box" size="1 1 .02" pos="0 0 .35" rgba=".5 .5 .9 .3"/></worldbody></mujoco>"""
    )
    for azimuth in range(0, 360, 45):
        camera = Camera(lookat=(0, 0, 0.4), distance=3, azimuth=azimuth, elevation=-25)
        scene = Scene.from_model(model, camera)
        with Renderer(scene, 111, 111, 1, cache=False) as one, Renderer(scene, 111, 111, 3) as some:
            first = one.render(data).copy()
            for _ in range(2):
                np.testing.assert_array_equal(one.render(data), first)
                np.testing.assert_array_equal(some.render(data), first)
        for theirs, ours in pairs(oracle, model, [data], camera):
            assert compare(theirs, ours).psnr >= 35


def test_a_dense_mesh_has_no_holes() -> None:
    model, data = _load(_one(torus(160, 100)))
    camera = Camera(lookat=(0.0, 0.0, 0.0), distance=6.0, azimuth=20.0, elevation=-90.0)
    frame = Renderer(Scene.from_model(model, camera), 480, 480, 1).render(data)[0]
    far = np.hypot(*(np.mgrid[:480, :480] - 239.5))
    seen = far[frame.any(-1)]
    inside = (far > seen.min() + 2) & (far < seen.max() - 2)
    assert inside.sum() > 5000
    assert (frame[inside] == frame.max()).all()


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e6])
def test_a_mesh_looks_the_same_at_any_scale(scale: float) -> None:
    frames = []
    for s in (1.0, scale):
        xml = _one(torus(), extra='<light directional="true" dir="0 0 -1"/>').replace(
            "<asset>", f'<statistic extent="{s}" center="0 0 0"/><asset>'
        )
        xml = xml.replace('name="m"', f'name="m" scale="{s} {s} {s}"')
        model, data = _load(xml)
        camera = Camera(lookat=(0, 0, 0), distance=1.6 * s, azimuth=35, elevation=-40)
        frames.append(Renderer(Scene.from_model(model, camera), 64, 64, 1).render(data)[0])
    assert frames[0].std() > 20
    assert (np.abs(frames[0].astype(int) - frames[1]).max(-1) > 8).mean() < 0.01


def test_triangles_without_area_are_left_out(oracle: Oracle) -> None:
    # One real triangle, one whose corners lie on a line, one whose corners are one point.
    mesh = 'vertex="-.3 -.3 0 .3 -.3 0 0 .4 0 0 0 0" face="0 1 2 0 3 3 3 3 3"'
    model, data = _load(_one(mesh))
    camera = Camera(lookat=(0, 0, 0), distance=1.6, azimuth=35, elevation=-60)
    for theirs, ours in pairs(oracle, model, [data], camera):
        assert ours.any()
        assert compare(theirs, ours).psnr >= 40


def test_numbers_that_are_not_finite_draw_nothing() -> None:
    model, data = _load(_one(torus()))
    model.mesh_vert[:] = np.nan
    assert not Renderer(Scene.from_model(model, EYE), 32, 32, 1).render(data).any()
    model.mesh_vert[:] = 1e30
    assert not Renderer(Scene.from_model(model, EYE), 32, 32, 1).render(data).any()


def test_normals_that_are_not_finite_give_way_to_those_of_the_faces() -> None:
    model, data = _load(mesh_xml())
    usual = Renderer(Scene.from_model(model, EYE), 64, 64, 1).render(data)
    model.mesh_normal[:] = np.nan
    broken = Renderer(Scene.from_model(model, EYE), 64, 64, 1).render(data)
    assert np.abs(usual.astype(int) - broken).mean() < 10
