"""Cameras, lights, materials, flags and options against mujoco.Renderer's pictures."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np
import pytest
from look_scenes import LOOKS, Look
from parity import Oracle, compare

from vlmrm_fast.rendering import Renderer, Scene


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    """MuJoCo's renderer; skips where it cannot make an OpenGL context."""
    with Oracle() as oracle:
        try:
            oracle.draw(mujoco.MjModel.from_xml_string("<mujoco/>"), [])
        except Exception as error:
            pytest.skip(f"mujoco.Renderer cannot draw here: {error}")
        yield oracle


def _both(oracle: Oracle, look: Look) -> tuple[np.ndarray, np.ndarray]:
    model = mujoco.MjModel.from_xml_string(look.xml)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    option = mujoco.MjvOption()
    if look.option:
        look.option(option)
    theirs = oracle.draw(model, [data], look.camera, look.size, option, look.flags)
    scene = Scene.from_model(model, look.camera, option=option, flags=look.flags)
    with Renderer(scene, *look.size, 1) as renderer:
        return theirs[0], renderer.render(data)[0]


@pytest.mark.parametrize("name", LOOKS)
def test_looks_are_mujocos(oracle: Oracle, name: str) -> None:
    figures = compare(*_both(oracle, LOOKS[name]))
    assert figures.within(LOOKS[name].bounds), figures
