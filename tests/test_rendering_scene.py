"""What a scene accepts: cameras, elements that are drawn and those that are not."""

from __future__ import annotations

import os

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


def test_an_orthographic_mjvcamera_is_unsupported(model: mujoco.MjModel) -> None:
    camera = mujoco.MjvCamera()
    camera.orthographic = 1
    with pytest.raises(UnsupportedSceneError, match=r"got an orthographic MjvCamera\. Set camera"):
        Scene.from_model(model, camera)


def test_an_unknown_tracked_body_is_refused(model: mujoco.MjModel) -> None:
    with pytest.raises(UnknownNameError, match=r"track_body must be one of .*Did you mean 'torso'"):
        Scene.from_model(model, Camera(track_body="torsoo"))


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


def test_every_element_that_is_not_drawn_is_named() -> None:
    mesh = '<asset><mesh name="tet" vertex="0 0 0 1 0 0 0 1 0 0 0 1"/></asset>'
    xml = BOX.format('<geom name="rock" type="mesh" mesh="tet"/>').replace(
        "<worldbody>", mesh + "<worldbody>"
    )
    xml = xml.replace("<worldbody>", '<worldbody><light name="bulb" type="point"/>')
    with pytest.raises(UnsupportedSceneError, match=r"mesh 'rock'.*point light 'bulb'"):
        Renderer(Scene.from_model(mujoco.MjModel.from_xml_string(xml)), 8, 8, 1, "ray")


def test_an_orthographic_camera_is_named() -> None:
    xml = BOX.format('<camera name="plan" projection="orthographic"/>')
    model = mujoco.MjModel.from_xml_string(xml)
    with pytest.raises(UnsupportedSceneError, match="orthographic camera 'plan'"):
        Renderer(Scene.from_model(model, "plan"), 8, 8, 1, "ray")
    Scene.from_model(model)
    model.vis.global_.orthographic = 1
    with pytest.raises(UnsupportedSceneError, match="orthographic free camera"):
        Renderer(Scene.from_model(model), 8, 8, 1, "ray")


def test_textures_of_few_channels_are_named() -> None:
    spec = mujoco.MjSpec.from_string(BOX.format(""))
    flat, sky = mujoco.mjtTexture.mjTEXTURE_2D, mujoco.mjtTexture.mjTEXTURE_SKYBOX
    for name, kind, channels, height in (
        ("grey", flat, 1, 8),
        ("dusk", sky, 2, 48),
        ("unused", flat, 1, 8),
    ):
        texture = spec.add_texture(name=name, type=kind, nchannel=channels, width=8, height=height)
        texture.data = bytes(8 * height * channels)
    spec.add_material(name="m").textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "grey"
    spec.geom("b").material = "m"
    with pytest.raises(UnsupportedSceneError) as raised:
        Renderer(Scene.from_model(spec.compile()), 8, 8, 1, "ray")
    assert "got 1-channel texture 'grey', 2-channel texture 'dusk'. " in str(raised.value)


def test_more_lights_than_are_drawn_are_named() -> None:
    light = "<light/>"  # the headlight is one more
    Scene.from_model(mujoco.MjModel.from_xml_string(BOX.format(light * 31)))
    with pytest.raises(UnsupportedSceneError, match="got 33 lights, more than 32"):
        Renderer(
            Scene.from_model(mujoco.MjModel.from_xml_string(BOX.format(light * 32))), 8, 8, 1, "ray"
        )


def test_a_textured_plane_infinite_in_one_direction_is_named() -> None:
    xml = BOX.format('<geom name="road" type="plane" size="0 2 1" material="tiles"/>').replace(
        "<worldbody>",
        '<asset><texture name="t" type="2d" builtin="checker" width="8" height="8"/>'
        '<material name="tiles" texture="t"/></asset><worldbody>',
    )
    with pytest.raises(UnsupportedSceneError, match="textured plane 'road'"):
        Renderer(Scene.from_model(mujoco.MjModel.from_xml_string(xml)), 8, 8, 1, "ray")


def test_a_hidden_element_does_not_matter() -> None:
    mesh = '<asset><mesh name="tet" vertex="0 0 0 1 0 0 0 1 0 0 0 1"/></asset>'
    xml = BOX.format('<geom name="rock" type="mesh" mesh="tet" group="3"/>').replace(
        "<worldbody>", mesh + "<worldbody>"
    )
    Scene.from_model(mujoco.MjModel.from_xml_string(xml))
