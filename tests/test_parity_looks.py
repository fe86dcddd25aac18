"""Cameras, lights, materials, flags and options against mujoco.Renderer's pictures."""

from __future__ import annotations

import dataclasses

import mujoco
import numpy as np
import pytest
from look_scenes import BY_POLYGONS, BY_SHADOW_MAP, LOOKS, Look
from parity import BOUNDS, SIZE, Figures, Oracle, compare
from small_scenes import VIEW

from vlmrm_fast.rendering import Renderer, Scene


def _both(oracle: Oracle, look: Look, facets: bool | None = None) -> tuple[np.ndarray, np.ndarray]:
    model = mujoco.MjModel.from_xml_string(look.xml)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    option = mujoco.MjvOption()
    if look.option:
        look.option(option)
    theirs = oracle.draw(model, [data], look.camera, look.size, option, look.flags)
    scene = Scene.from_model(model, look.camera, option=option, flags=look.flags)
    with Renderer(scene, *look.size, 1, facets=facets) as renderer:
        return theirs[0], renderer.render(data)[0]


@pytest.mark.parametrize("name", LOOKS)
def test_looks_are_mujocos(oracle: Oracle, name: str) -> None:
    figures = compare(*_both(oracle, LOOKS[name]))
    assert figures.within(LOOKS[name].bounds), figures


@pytest.mark.parametrize("name", [*BY_SHADOW_MAP, *BY_POLYGONS])
def test_what_falls_short_does_so_for_its_reason(oracle: Oracle, name: str) -> None:
    look = LOOKS[name]
    if name in BY_SHADOW_MAP:
        look = dataclasses.replace(look, flags={**(look.flags or {}), "shadow": False})
    figures = compare(*_both(oracle, look, facets=True))
    assert figures.within(BOUNDS), figures


# The shapes of the scene after its floor, in the order of their sizes' rows.
_SPHERE, _CAPSULE, _CYLINDER, _ELLIPSOID, _BOX = range(1, 6)


@pytest.mark.parametrize(
    ("field", "row", "value"),
    [
        ("geom_size", _SPHERE, 0),
        ("geom_size", _CAPSULE, (0.2, 0, 0)),
        ("geom_size", _CYLINDER, (0.3, 0, 0)),
        ("geom_size", _ELLIPSOID, (0.3, 0.3, 0)),
        ("geom_size", _BOX, (0.3, 0.3, 0)),
        ("geom_size", _CYLINDER, 1e10),
        ("geom_xpos", _BOX, np.nan),
        ("geom_xpos", _CAPSULE, np.inf),
        ("geom_xpos", _ELLIPSOID, 1e10),
        ("geom_xmat", _BOX, np.nan),
        ("light_xpos", 0, np.nan),
        ("light_xdir", 0, 0),
    ],
)
def test_bad_values_look_as_in_mujoco(oracle: Oracle, field: str, row: int, value: object) -> None:
    model = mujoco.MjModel.from_xml_string(LOOKS["no_shadow"].xml)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    getattr(model if field == "geom_size" else data, field)[row] = value
    theirs = oracle.draw(model, [data], VIEW)[0]
    with Renderer(Scene.from_model(model, VIEW), SIZE, SIZE, 1) as renderer:
        figures = compare(theirs, renderer.render(data)[0])
    # OpenGL has no right normals for what is scaled to nothing: it is there, in other shades.
    flat = isinstance(value, tuple) and row != _CAPSULE
    assert figures.within(Figures(26.5, 0.94, 0.04) if flat else BOUNDS), figures
