"""The `ray` renderer's instruction sets draw one picture."""

from __future__ import annotations

import os

import gymnasium
import mujoco
import numpy as np
import pytest

from vlmrm_fast import _core
from vlmrm_fast.doctor import examine
from vlmrm_fast.rendering import Camera, Renderer, Scene

ASSETS = os.path.join(os.path.dirname(gymnasium.__file__), "envs", "mujoco", "assets")
VIEW = Camera(lookat=(0.0, 0.0, 1.0), distance=3.5, azimuth=180.0, elevation=-10.0)
LEVELS = _core.simd_levels()


@pytest.fixture(scope="module")
def worlds() -> list[mujoco.MjData]:
    model = mujoco.MjModel.from_xml_path(os.path.join(ASSETS, "humanoid.xml"))
    rng = np.random.default_rng(0)
    worlds = []
    for _ in range(4):
        data = mujoco.MjData(model)
        data.qpos[2] = rng.uniform(0.8, 1.5)
        data.qpos[7:] += rng.uniform(-0.7, 0.7, model.nq - 7)
        mujoco.mj_forward(model, data)
        worlds.append(data)
    return worlds


@pytest.fixture(scope="module")
def scene(worlds: list[mujoco.MjData]) -> Scene:
    return Scene.from_model(worlds[0].model, VIEW)


def _draw(
    monkeypatch: pytest.MonkeyPatch,
    level: str,
    scene: Scene,
    worlds: list[mujoco.MjData],
    num_threads: int,
) -> np.ndarray:
    monkeypatch.setenv("VLMRM_FAST_SIMD", level)
    assert _core.simd_level() == level
    # An odd width: the last packet of a row is not full.
    with Renderer(scene, 96, 123, num_threads) as renderer:
        return renderer.render(worlds)


def test_the_preferred_level_runs_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLMRM_FAST_SIMD", raising=False)
    assert _core.simd_level() == LEVELS[0]


@pytest.mark.parametrize("level", LEVELS[1:])
def test_levels_draw_the_same_picture(
    level: str,
    scene: Scene,
    worlds: list[mujoco.MjData],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fast = _draw(monkeypatch, LEVELS[0], scene, worlds, 1)
    off = abs(fast.astype(int) - _draw(monkeypatch, level, scene, worlds, 1))
    assert (off > 2).any(-1).mean() < 0.001  # fused multiply-adds move a few edges
    assert off.mean() < 0.02


@pytest.mark.parametrize("level", LEVELS)
def test_threads_do_not_change_a_bit_at_any_level(
    level: str,
    scene: Scene,
    worlds: list[mujoco.MjData],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = _draw(monkeypatch, level, scene, worlds, 1)
    np.testing.assert_array_equal(one, _draw(monkeypatch, level, scene, worlds, 2))


def test_an_unknown_level_is_refused_with_the_choices(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLMRM_FAST_SIMD", "mmx")
    expected = f"VLMRM_FAST_SIMD must be one of {', '.join(LEVELS)}, got 'mmx'."
    with pytest.raises(ValueError, match=expected):
        Renderer(scene, 8, 8, 1)


def test_doctor_names_the_level_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLMRM_FAST_SIMD", LEVELS[-1])
    finding = next(f for f in examine(measure=False) if f.name == "renderer")
    assert finding.value.startswith(f"ray, {LEVELS[-1]} (of {', '.join(LEVELS)})")
    assert (finding.status == "note") == (len(LEVELS) > 1)
