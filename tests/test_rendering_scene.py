"""What a scene accepts: cameras, elements that are drawn and those that are not."""

from __future__ import annotations

import os
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest

from vlmrm_fast.errors import ArgumentError, UnknownNameError, UnsupportedSceneError
from vlmrm_fast.rendering import Camera, Renderer, Scene

ASSETS = os.path.join(os.path.dirname(gymnasium.__file__), "envs", "mujoco", "assets")
BOX = '<mujoco><worldbody>{}<geom name="b" type="box" size=".2 .3 .4"/></worldbody></mujoco>'


@pytest.fixture(scope="module")
def model() -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_path(os.path.join(ASSETS, "humanoid.xml"))


@pytest.fixture(scope="module")
def worlds(model: mujoco.MjModel) -> list[mujoco.MjData]:
    rng = np.random.default_rng(0)
    worlds = []
    for _ in range(3):
        data = mujoco.MjData(model)
        data.qpos[7:] += rng.uniform(-0.7, 0.7, model.nq - 7)
        mujoco.mj_forward(model, data)
        worlds.append(data)
    return worlds


def test_a_path_in_place_of_a_model_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"`model` must be a mujoco\.MjModel, got str\. Use mu"):
        Scene.from_model("humanoid.xml")  # type: ignore[arg-type]


def test_an_unknown_camera_is_refused_with_the_nearest(model: mujoco.MjModel) -> None:
    with pytest.raises(UnknownNameError, match=r"camera must be one of track, got 'trak'. Did you"):
        Scene.from_model(model, "trak")


def test_a_camera_id_out_of_range_is_refused(model: mujoco.MjModel) -> None:
    with pytest.raises(ArgumentError, match=r"`camera` must be between -1 and 1, got 3"):
        Scene.from_model(model, 3)


def test_a_camera_of_another_type_is_refused(model: mujoco.MjModel) -> None:
    with pytest.raises(ArgumentError, match=r"`camera` must be None, an id, a name"):
        Scene.from_model(model, 2.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"type": 2, "fixedcamid": -1},
            r"`camera\.fixedcamid` must be between 0 and 1 .* got -1\.",
        ),
        (
            {"type": 2, "fixedcamid": 2},
            r"`camera\.fixedcamid` must be between 0 and 1 .* got 2\.",
        ),
        ({"type": 3}, r"`camera\.type` must be mjCAMERA_FREE, .* got 3\. Use a Camera"),
        (
            {"type": 1, "trackbodyid": -1},
            r"`camera\.trackbodyid` must be between 0 .* got -1\.",
        ),
        (
            {"type": 1, "trackbodyid": 99},
            r"`camera\.trackbodyid` must be between 0 .* got 99\.",
        ),
    ],
)
def test_a_wrong_mjvcamera_is_refused(
    model: mujoco.MjModel, settings: dict[str, int], message: str
) -> None:
    camera = mujoco.MjvCamera()
    for name, value in settings.items():
        setattr(camera, name, value)
    with pytest.raises(ArgumentError, match=message):
        Scene.from_model(model, camera)


def test_an_unknown_tracked_body_is_refused(model: mujoco.MjModel) -> None:
    with pytest.raises(UnknownNameError, match=r"track_body must be one of .*Did you mean 'torso'"):
        Scene.from_model(model, Camera(track_body="torsoo"))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"distance": 0}, "distance must be finite and above 0, got 0."),
        ({"distance": np.inf}, "distance must be finite and above 0, got inf."),
        ({"elevation": np.nan}, "elevation must be finite, got nan."),
        ({"lookat": (0, 1)}, "lookat must be three finite numbers, got (0, 1)."),
        ({"lookat": (0, 1, -np.inf)}, "lookat must be three finite numbers, got (0, 1, -inf)."),
    ],
)
def test_a_free_camera_that_sees_nothing_is_refused(values: dict[str, Any], text: str) -> None:
    with pytest.raises(ArgumentError) as error:
        Camera(**values)
    assert str(error.value) == text
    assert Camera(lookat=np.zeros(3), distance=np.float32(2)).distance == 2  # type: ignore[arg-type]


def test_camera_by_name_id_and_mjvcamera_agree(
    model: mujoco.MjModel, worlds: list[mujoco.MjData]
) -> None:
    fixed = mujoco.MjvCamera()
    fixed.type, fixed.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, 0
    frames = [
        Renderer(Scene.from_model(model, camera), 32, 32, 1).render(worlds)
        for camera in ("track", 0, fixed)
    ]
    np.testing.assert_array_equal(frames[0], frames[1])
    np.testing.assert_array_equal(frames[0], frames[2])


def test_a_tracking_camera_follows_its_body(model: mujoco.MjModel) -> None:
    scene = Scene.from_model(model, Camera(distance=3.0, elevation=-90.0, track_body="torso"))
    near, far = mujoco.MjData(model), mujoco.MjData(model)
    far.qpos[0] = 2 * 40 / 60  # the floor looks the same after one period of its texture
    for data in (near, far):
        mujoco.mj_forward(model, data)
    with Renderer(scene, 64, 64, 1) as renderer:
        a, b = renderer.render([near, far]).astype(int)
    assert (abs(a - b) > 8).any(-1).mean() < 0.05


def test_what_is_not_drawn_is_named(model: mujoco.MjModel) -> None:
    option = mujoco.MjvOption()
    option.label = int(mujoco.mjtLabel.mjLABEL_BODY)
    scene = Scene.from_model(model, option=option)
    with pytest.raises(UnsupportedSceneError, match=r"got labels\. Hide them"):
        Renderer(scene, 8, 8, 1, "ray")


@pytest.mark.parametrize(
    ("flags", "error", "message"),
    [
        ({"shadows": False}, UnknownNameError, r"flag must be one of additive, .*'shadow'\?"),
        ({"fog": 2}, ArgumentError, r"`flags\['fog'\]` must be True or False, got 2\."),
        ({"segment": True}, UnsupportedSceneError, r"got segment\. Use Renderer\.render_segm"),
        ({"wireframe": True}, UnsupportedSceneError, r"got wireframe\. Use mujoco\.Renderer"),
        (["fog"], ArgumentError, r"`flags` must be a mapping of names to bools, got list\."),
    ],
)
def test_wrong_flags_are_refused(
    model: mujoco.MjModel, flags: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Scene.from_model(model, flags=flags)


def test_flags_that_are_off_by_name_are_mujocos_defaults(model: mujoco.MjModel) -> None:
    scene = Scene.from_model(model, flags={"wireframe": False, "haze": False})
    assert scene.flags == {
        "additive": False,
        "cull_face": True,
        "fog": False,
        "haze": False,
        "reflection": True,
        "shadow": True,
        "skybox": True,
    }


def test_an_option_of_another_type_is_refused(model: mujoco.MjModel) -> None:
    with pytest.raises(ArgumentError, match=r"`option` must be a mujoco\.MjvOption or None, got d"):
        Scene.from_model(model, option={})  # type: ignore[arg-type]


def test_an_option_is_copied(model: mujoco.MjModel) -> None:
    option = mujoco.MjvOption()
    scene = Scene.from_model(model, option=option)
    option.geomgroup[0] = 0
    assert scene.option.geomgroup[0] == 1


def test_a_near_plane_at_the_eye_is_named() -> None:
    model = mujoco.MjModel.from_xml_string(BOX.format(""))
    model.vis.map.znear = 1e-18
    with pytest.raises(UnsupportedSceneError, match=r"near plane .* beyond 1e-15 m, got 1"):
        Renderer(Scene.from_model(model), 8, 8, 1, "ray")


def test_a_hidden_element_does_not_matter() -> None:
    mesh = '<asset><mesh name="tet" vertex="0 0 0 1 0 0 0 1 0 0 0 1"/></asset>'
    xml = BOX.format('<geom name="rock" type="mesh" mesh="tet" group="3"/>').replace(
        "<worldbody>", mesh + "<worldbody>"
    )
    Scene.from_model(mujoco.MjModel.from_xml_string(xml))
