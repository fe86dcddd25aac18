"""Scenes whose elements come, go or change shape: what `ray` makes of MuJoCo's list of them."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import mujoco
import numpy as np
import pytest
from changing_scenes import DECOR, FLEX, SKIN, TENDONS
from mujoco.batch import Batch

from vlmrm_fast.envs import make_vec_env
from vlmrm_fast.envs.painter import scene_or_none
from vlmrm_fast.errors import ArgumentError, UnsupportedSceneError
from vlmrm_fast.rendering import Camera, Poses, Renderer, Scene
from vlmrm_fast.tasks import Task, get_task

SIZE = 224
CAMERA = Camera(lookat=(0.0, 0.2, 0.6), distance=3.2, azimuth=70.0, elevation=-20.0)


@pytest.fixture(scope="module")
def _gl() -> None:
    """Skip where mujoco.Renderer cannot make an OpenGL context."""
    os.environ.setdefault("MUJOCO_GL", "egl")
    import triton  # noqa: F401  (before any GL context)

    try:
        mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 8, 8).close()
    except Exception as error:
        pytest.skip(f"mujoco.Renderer cannot draw here: {error}")


def _mjv() -> mujoco.MjvCamera:
    camera = mujoco.MjvCamera()
    camera.lookat[:], camera.distance = CAMERA.lookat, CAMERA.distance
    camera.azimuth, camera.elevation = CAMERA.azimuth, CAMERA.elevation
    return camera


def _option(*flags: str, frame: str = "NONE") -> mujoco.MjvOption:
    option = mujoco.MjvOption()
    for flag in flags:
        option.flags[getattr(mujoco.mjtVisFlag, f"mjVIS_{flag}")] = 1
    option.frame = int(getattr(mujoco.mjtFrame, f"mjFRAME_{frame}"))
    return option


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(((a.astype(float) - b) ** 2).mean(), 1e-9)))


def _world(xml: str, steps: int = 60) -> tuple[mujoco.MjModel, mujoco.MjData]:
    model = mujoco.MjModel.from_xml_string(xml)
    data = mujoco.MjData(model)
    data.ctrl[:] = np.linspace(0.5, -0.7, model.nu)
    if xml is SKIN:
        data.qpos[0] = 0.5
    mujoco.mj_step(model, data, steps)
    return model, data


def _ray(model: mujoco.MjModel, option: Any = None, size: int = SIZE) -> Renderer:
    return Renderer(Scene.from_model(model, CAMERA, option=option), size, size, 1, "ray")


@pytest.mark.usefixtures("_gl")
@pytest.mark.parametrize("xml", [TENDONS, FLEX, SKIN], ids=["tendons", "flexes", "skins"])
def test_elements_that_change_shape_look_as_in_mujoco(xml: str) -> None:
    model, data = _world(xml, 1 if xml is SKIN else 100)
    with mujoco.Renderer(model, SIZE, SIZE) as theirs:
        theirs.update_scene(data, _mjv())
        assert _psnr(theirs.render(), _ray(model).render(data)[0]) >= 41


@pytest.mark.usefixtures("_gl")
def test_decor_looks_as_in_mujoco() -> None:
    model, data = _world(DECOR)
    plain = _ray(model).render(data)[0]
    with mujoco.Renderer(model, SIZE, SIZE) as theirs:
        for option in (
            _option("JOINT"),
            _option("CONTACTPOINT", "CONTACTFORCE"),
            _option("CONTACTFORCE", "CONTACTSPLIT"),
            _option("ACTUATOR"),
            _option("AUTOCONNECT"),
            _option("COM", "TRANSPARENT"),
            _option("CAMERA"),
            _option("BODYBVH"),
            _option(frame="BODY"),
            _option(frame="WORLD"),
        ):
            theirs.update_scene(data, _mjv(), option)
            ours = _ray(model, option).render(data)[0]
            # Boxes of lines on the faces of boxes: every pixel is a tie.
            bound = 39 if option.flags[mujoco.mjtVisFlag.mjVIS_BODYBVH] else 41
            assert _psnr(theirs.render(), ours) >= bound, (option.flags, option.frame)
            assert (ours != plain).any(-1).mean() > 0.01


def test_lines_are_as_wide_as_in_mujoco_and_end_at_the_near_plane() -> None:
    beam = (
        '<mujoco><visual><headlight ambient="0 0 0" diffuse="0 0 0" specular="0 0 0"/>'
        '<map znear=".1"/></visual><worldbody><light diffuse="0 0 0"/>'
        '<body pos="{}"><joint/><geom size=".01" rgba="0 0 0 0"/>'
        '<site name="s" zaxis="{}" size=".001" rgba="0 0 0 0"/></body>'
        '<geom type="box" pos="{}" size="1 1 1" rgba="0 0 0 1"/></worldbody>'
        '<sensor><rangefinder site="s"/></sensor></mujoco>'
    )
    lit = {}
    # Across the view, and from behind the eye into it.
    for axis, start, wall in (("1 0 0", "-3 0 0", "4 0 0"), ("0 1 0", "0 -2 0", "0 4 0")):
        model = mujoco.MjModel.from_xml_string(beam.format(start, axis, wall))
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        scene = Scene.from_model(model, Camera((0.5, 0.0, 0.0), 1.0, 90.0, 0.0))
        assert scene.needs == ("sensordata",)
        lit[axis] = Renderer(scene, 100, 100, 1, "ray").render(data)[0].any(-1)
    assert set(lit["1 0 0"].sum(0)) <= {3, 4}  # three pixels, between rows or not
    assert 20 < lit["0 1 0"].sum() < 400


def test_every_source_gives_the_same_picture() -> None:
    model = mujoco.MjModel.from_xml_string(TENDONS)
    batch = Batch(model, 3, 1)
    rows = batch.bind("qpos")
    rows[:, 0] += [0.0, 0.1, 0.2]
    worlds = []
    for row in rows:
        data = mujoco.MjData(model)
        data.qpos[:] = row
        mujoco.mj_step(model, data, 30)
        worlds.append(data)
    renderer = _ray(model, size=64)
    first = renderer.render(batch)  # binds; drawn from the batch's state
    batch.step(nstep=30)
    frames = renderer.render(batch)
    expected = renderer.render(worlds)
    np.testing.assert_array_equal(frames, expected)
    assert (first != frames).any()
    many = Renderer(Scene.from_model(model, CAMERA), 64, 64, 3, "ray", layout="nchw")
    np.testing.assert_array_equal(many.render(worlds), expected.transpose(0, 3, 1, 2))
    with pytest.raises(ArgumentError, match="must hold ten_wrapadr"):
        renderer.render(Poses.from_data(worlds))
    renderer.close()
    with pytest.raises(ArgumentError, match="before close"):
        renderer.render(worlds)


def test_contacts_are_drawn_from_data_only() -> None:
    model, data = _world(DECOR)
    renderer = _ray(model, _option("CONTACTPOINT"), 32)
    assert renderer.render(data).any()
    for source in (Batch(model, 1, 1), Poses.from_data(data)):
        with pytest.raises(ArgumentError, match="must hold"):
            renderer.render(source)


def test_a_scene_at_rest_is_drawn_as_its_static_twin() -> None:
    # Joints of no size: the list changes, the picture does not.
    model, data = _world(DECOR)
    model.vis.scale.jointwidth = model.vis.scale.jointlength = 0
    still, changing = _ray(model), _ray(model, _option("JOINT"))
    a, b = still.render(data)[0].astype(int), changing.render(data)[0].astype(int)
    assert (abs(a - b) > 2).any(-1).mean() < 0.002  # float32 poses move a few edges


def test_later_changes_to_the_model_are_not_seen() -> None:
    model, data = _world(TENDONS)
    renderer = _ray(model, size=64)
    before = renderer.render(data)
    model.geom_rgba[:] = 1
    model.tendon_rgba[:] = 1
    np.testing.assert_array_equal(renderer.render(data), before)


def test_labels_are_named() -> None:
    model, _ = _world(DECOR)
    option = mujoco.MjvOption()
    option.label = int(mujoco.mjtLabel.mjLABEL_BODY)
    with pytest.raises(UnsupportedSceneError, match="got labels"):
        _ray(model, option, 8)


class _Brightness:
    image_size = 32

    def score(self, frames: np.ndarray) -> np.ndarray:
        return frames.mean(axis=(1, 2, 3), dtype=np.float32) / 255


ROPE = """
<mujoco><worldbody><site name="a" pos="0 0 1"/><geom type="plane" size="2 2 .1"/>
  <body name="bob" pos=".5 0 1"><joint name="swing" type="ball" pos="-.5 0 0"/><geom size=".1"/>
    <site name="b"/></body></worldbody>
  <actuator><motor joint="swing" gear="0 1 0"/></actuator>
  <tendon><spatial width=".03" rgba="1 .2 .2 1"><site site="a"/><site site="b"/></spatial></tendon>
</mujoco>"""


def _rope_task() -> Task:
    return dataclasses.replace(
        get_task("cartpole-upright"),
        load_model=lambda: mujoco.MjModel.from_xml_string(ROPE),
        observation=lambda model, fields: fields["qpos"],
        initial_state=lambda model, rng: (model.qpos0, rng.normal(size=model.nv)),
        ground_truth=lambda model, fields: (fields["time"], fields["time"] > 1e9),
        measures=lambda model, fields, before: {},
        measure_fields=(),
        fields=(),
        view=None,
        horizon=3,
    )


@pytest.mark.usefixtures("_gl")
@pytest.mark.parametrize("renderer", ["ray", "gl"])
def test_environments_draw_elements_that_change(renderer: str) -> None:
    env = make_vec_env(
        _rope_task(), 3, reward=_Brightness(), api="gymnasium", seed=0, renderer=renderer
    )
    worlds = env.unwrapped.worlds
    env.reset()
    twins = [mujoco.MjData(worlds.model) for _ in range(3)]
    for twin, qpos, qvel in zip(twins, worlds.simulation.qpos, worlds.simulation.qvel, strict=True):
        twin.qpos[:], twin.qvel[:] = qpos, qvel
        mujoco.mj_forward(worlds.model, twin)
    draw = Renderer(Scene.from_model(worlds.model), 32, 32, 1, renderer)
    np.testing.assert_array_equal(worlds.last_frames, draw.render(twins))
    for _ in range(2):
        env.step(np.zeros((3, 1), np.float32))
        mujoco.mj_step(worlds.model, twins[1], worlds.task.frame_skip)
        np.testing.assert_array_equal(worlds.last_frames[1], draw.render(twins[1])[0])


def test_captured_environments_with_changing_elements_draw_themselves(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert scene_or_none(mujoco.MjModel.from_xml_string(ROPE), None) is None
    assert "drawn from ten_wrapadr" in caplog.text
    assert scene_or_none(mujoco.MjModel.from_xml_string(DECOR), None) is not None
