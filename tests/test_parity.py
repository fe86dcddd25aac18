"""Pictures of the `ray` renderer against mujoco.Renderer's."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from parity import (
    BOUNDS,
    Figures,
    Oracle,
    compare,
    gymnasium_models,
    gymnasium_views,
    load_gymnasium,
    pairs,
    posed_worlds,
    random_worlds,
    task_scenes,
)
from small_scenes import SCENES

from vlmrm_fast.rendering import Camera

TASK_BOUNDS = {
    # Marks of the shadow map near the horizon, as below.
    "hopper": Figures(38.0, 0.995, 0.005),
    # MuJoCo interpolates the glare of the camera's own light between the corners of the floor's
    # few triangles, which shows where the floor is seen from right above.
    "reacher": Figures(25.0, 0.98, 0.23),
}


def _forward(model: mujoco.MjModel) -> mujoco.MjData:
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return data


@pytest.mark.slow
@pytest.mark.parametrize("name", gymnasium_models())
def test_gymnasium_models_look_as_in_mujoco(oracle: Oracle, name: str) -> None:
    model = load_gymnasium(name)
    views = gymnasium_views(name, model)  # `make gallery` compares in all of them
    for theirs, ours in pairs(oracle, model, random_worlds(model, 2), views["own"]):
        figures = compare(theirs, ours)
        assert figures.within(BOUNDS), figures


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "view"),
    [
        ("ant", "paper"),
        ("half_cheetah", "paper"),
        ("humanoid", "oblique"),
        ("humanoidstandup", "oblique"),
        ("point", "paper"),
        ("swimmer", "oblique"),
        ("walker2d", "paper"),
    ],
)
def test_views_below_40_db_differ_by_marks_of_the_shadow_map_only(
    oracle: Oracle, name: str, view: str
) -> None:
    # Where the floor runs from the eye to the horizon, the rounding of its depth in MuJoCo's shadow
    # map leaves dark dashes on it that are not drawn here.
    for bounds, shadows in ((Figures(34.0, 0.99, 0.005), 1), (BOUNDS, 0)):
        model = load_gymnasium(name)
        model.light_castshadow[:] &= bool(shadows)
        camera = gymnasium_views(name, model)[view]
        for theirs, ours in pairs(oracle, model, random_worlds(model, 1), camera):
            figures = compare(theirs, ours)
            assert figures.within(bounds), (shadows, figures)


@pytest.mark.parametrize("name", SCENES)
def test_small_scenes_look_as_in_mujoco(oracle: Oracle, name: str) -> None:
    scene = SCENES[name]
    model = mujoco.MjModel.from_xml_string(scene.xml)
    for theirs, ours in pairs(oracle, model, [_forward(model)], scene.camera):
        figures = compare(theirs, ours)
        assert figures.within(scene.bounds), figures


def test_a_tracking_camera_is_mujocos(oracle: Oracle) -> None:
    model = load_gymnasium("humanoid")
    worlds = random_worlds(model, 2)
    worlds[1].qpos[0] = 3.0
    mujoco.mj_forward(model, worlds[1])
    camera = Camera(distance=3.0, azimuth=90.0, elevation=-15.0, track_body="torso")
    for theirs, ours in pairs(oracle, model, worlds, camera):
        assert compare(theirs, ours).psnr >= 37


@pytest.mark.parametrize("name", task_scenes())
def test_task_scenes_look_as_in_mujoco(oracle: Oracle, name: str) -> None:
    for theirs, ours in pairs(oracle, *posed_worlds(name, 2)):
        figures = compare(theirs, ours)
        assert figures.within(TASK_BOUNDS.get(name, BOUNDS)), figures


def test_equal_pictures_have_the_best_figures() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    assert compare(picture, picture) == Figures(99.0, 1.0, 0.0)
    other = picture.copy()
    other[:4, :4] ^= 128
    figures = compare(picture, other)
    assert figures.off == 1 / 16
    assert figures.psnr < 30
