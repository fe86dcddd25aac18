"""Small scenes of looks: cameras, lights, materials, flags and options, one feature each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import mujoco
from parity import SIZE, Figures
from small_scenes import HORIZON, SPOTS, SUN, VIEW, SmallScene, scene_xml

from vlmrm_fast.rendering import Camera


@dataclass(frozen=True)
class Look(SmallScene):
    """A small scene with more that it may exercise.

    Attributes:
        size: height and width [pixels].
        option: changes an mjvOption from MuJoCo's defaults.
    """

    size: tuple[int, int] = (SIZE, SIZE)
    option: Callable[[mujoco.MjvOption], None] | None = None


def visual(xml: str, elements: str) -> str:
    """Add elements to the scene's visual section."""
    return xml.replace("<asset>", f"<visual>{elements}</visual><asset>", 1)


def _show(groups: str = "", **flags: bool) -> Callable[[mujoco.MjvOption], None]:
    def change(option: mujoco.MjvOption) -> None:
        if groups:
            option.geomgroup[:] = [int(c) for c in groups]
        for name, value in flags.items():
            option.flags[getattr(mujoco.mjtVisFlag, f"mjVIS_{name.upper()}")] = value

    return change


PLAN = '<camera name="plan" pos="0 0 4" projection="orthographic" fovy="3.2"/>'
SLANT = (
    '<camera name="slant" pos="0 -3 2.5" xyaxes="1 0 0 0 .6 .8" projection="orthographic"'
    ' fovy="3"/>'
)
SENSOR = (
    '<camera name="sensor" pos="0 -3 1.5" xyaxes="1 0 0 0 .4 1" focal="{focal}"'
    ' sensorsize=".016 .012" principal="{principal}" resolution="640 480"/>'
)
ENDLESS = {"b": 'texture="ramp" texrepeat=".7 1.3"', "size": "0 0 .1"}
MIRROR = 'reflectance=".5" rgba=".2 .3 .4 1"'
FREE_BALL = (
    '<body pos="0 -.7 .6"><freejoint/><geom name="ball" size=".2" rgba=".2 .8 .3 1"/>'
    '<geom name="bar" type="box" size=".3 .05 .05" pos="0 0 .3" group="1"/></body>'
)
BULB = '<light type="point" pos="0 0 2" diffuse=".9 .2 .2"/>'


def _lights(count: int) -> str:
    return "".join(
        f'<light pos="{i % 3 - 1} {i // 3 - 1} 3" dir="0 0 -1" cutoff="25" castshadow="false"'
        f' diffuse=".2 {i / count:.2f} .3"/>'
        for i in range(count)
    )


CAMERAS = {
    "orthographic": Look(scene_xml(extra=PLAN), "plan"),
    "orthographic_slant": Look(scene_xml(extra=SLANT), "slant"),
    "orthographic_wide": Look(scene_xml(extra=SLANT), "slant", size=(120, 250)),
    "orthographic_textures": Look(
        scene_xml(
            'texture="checker" texrepeat="2 3"', 'texture="ramp" texrepeat="5 5"', extra=SLANT
        ),
        "slant",
    ),
    "orthographic_cube_textures": Look(
        scene_xml('texture="six"', 'texture="cross" texuniform="true"', extra=SLANT), "slant"
    ),
    "orthographic_mirror": Look(scene_xml(b=MIRROR, extra=SLANT), "slant"),
    "orthographic_glass": Look(scene_xml(shape='rgba=".8 .5 .3 .5"', extra=SLANT), "slant"),
    "orthographic_endless": Look(scene_xml(**ENDLESS, extra=SLANT), "slant"),
    "orthographic_sky": Look(
        scene_xml(extra=SLANT.replace("0 .6 .8", "0 .2 1").replace('"3"', '"8"')), "slant"
    ),
    "orthographic_free": Look(
        visual(scene_xml(), '<global orthographic="true" fovy="2.6"/>'), VIEW
    ),
    "orthographic_haze": Look(
        visual(scene_xml(**ENDLESS), '<global orthographic="true" fovy="12"/>'), HORIZON
    ),
    "sensor": Look(scene_xml(extra=SENSOR.format(focal=".012 .012", principal="0 0")), "sensor"),
    "sensor_off_centre": Look(
        scene_xml(extra=SENSOR.format(focal=".012 .016", principal=".002 -.003")),
        "sensor",
        size=(180, 240),
    ),
    "tracking": Look(
        scene_xml(extra=FREE_BALL), Camera(distance=2.5, elevation=-20.0, track_body=1)
    ),
    "target_com": Look(
        scene_xml(
            extra=FREE_BALL.replace("<body", '<body name="t"')
            + '<camera name="c" pos="1 -3 1" mode="targetbodycom" target="t"/>'
        ),
        "c",
    ),
    "inside_a_sphere": Look(scene_xml(), Camera((-1.0, 0.0, 0.5), 0.05, 70.0, -20.0)),
    "inside_a_capsule": Look(
        visual(scene_xml(), '<map znear=".05"/>'), Camera((-0.3, 0.0, 0.6), 0.2, 70.0, -20.0)
    ),
    "inside_a_box": Look(scene_xml(), Camera((0.0, 0.9, 0.5), 0.1, 70.0, -20.0)),
    "cut_by_the_near_plane": Look(
        visual(scene_xml(), '<map znear=".9"/>'), Camera((0.0, 0.2, 0.4), 3.6, 70.0, -25.0)
    ),
    "beyond_the_far_plane": Look(
        visual(scene_xml(), '<map zfar="1.4"/>'), Camera((0.0, 0.2, 0.4), 3.6, 70.0, -25.0)
    ),
}

LIGHTS = {
    "point_light": Look(scene_xml(light=BULB)),
    "point_and_spot": Look(scene_xml(light=BULB + SPOTS)),
    "no_light_at_all": Look(visual(scene_xml(light=""), '<headlight active="0"/>')),
    "point_light_only": Look(visual(scene_xml(light=BULB), '<headlight active="0"/>')),
    "headlight_colours": Look(
        visual(
            scene_xml(light=""),
            '<headlight ambient=".3 .1 .1" diffuse=".1 .6 .2" specular=".9 .9 .9"/>',
        )
    ),
    "ten_lights": Look(scene_xml(light=_lights(10))),
    "three_casters": Look(
        scene_xml(
            light=SUN
            + '<light pos="-2 -1 2.5" dir=".6 .3 -1" cutoff="50" diffuse=".5 .2 .2"/>'
            + '<light pos="1 2 3" dir="-.3 -.6 -1" cutoff="40" diffuse=".2 .5 .2"/>'
        )
    ),
    "cutoff_90": Look(scene_xml(light='<light pos="0 0 1.5" dir="0 0 -1" cutoff="90"/>')),
    "cutoff_180": Look(
        scene_xml(light='<light pos="0 0 1.5" dir="0 0 -1" cutoff="180" castshadow="false"/>')
    ),
    "narrow_spot": Look(
        scene_xml(light='<light pos="0 -1 2" dir="0 .4 -1" cutoff="15" exponent="60"/>')
    ),
    "exponent_200": Look(
        scene_xml(
            light='<light pos="0 -1 2" dir="0 .4 -1" cutoff="30" exponent="200"'
            ' castshadow="false"/>'
        )
    ),
    "attenuation": Look(
        scene_xml(light='<light pos="0 0 2" dir="0 0 -1" cutoff="80" attenuation=".4 .3 .5"/>')
    ),
    "inactive_light": Look(scene_xml(light=SUN.replace("/>", ' active="false"/>') + SPOTS)),
    "carried_light": Look(
        scene_xml(
            light="",
            extra=FREE_BALL.replace(
                "</body>", '<light pos="0 0 1.5" dir=".1 .2 -1" cutoff="60"/></body>'
            ),
        )
    ),
    "tracking_light": Look(
        scene_xml(
            light="",
            extra=FREE_BALL.replace(
                "</body>", '<light mode="trackcom" pos="0 0 2" dir="0 0 -1" cutoff="50"/></body>'
            )
            + '<body name="t" pos="0 .5 .5"/>'
            + '<light mode="targetbody" target="t" pos="-1 -1 2" cutoff="40" diffuse=".3 .3 .9"/>',
        )
    ),
    "ambient_of_a_caster": Look(
        scene_xml(light=SUN.replace("/>", ' ambient=".3 .1 .2" specular="1 1 1"/>'))
    ),
    "no_shadow_map": Look(visual(scene_xml(), '<quality shadowsize="0"/>')),
    "shadow_clip": Look(visual(scene_xml(), '<map shadowclip=".25"/>')),
    "shadow_scale": Look(visual(scene_xml(light=SPOTS), '<map shadowscale=".3"/>')),
}

MATERIALS = {
    "emission_0_specular_0": Look(
        scene_xml('emission="0" specular="0" shininess="0" rgba=".3 .6 .9 1"')
    ),
    "emission_1": Look(scene_xml('emission="1" rgba=".3 .4 .5 1"')),
    "specular_1_shininess_0": Look(scene_xml('specular="1" shininess="0" rgba=".3 .4 .5 1"')),
    "specular_1_shininess_1": Look(scene_xml('specular="1" shininess="1" rgba=".3 .4 .5 1"')),
    "reflectance_1": Look(scene_xml(b='reflectance="1" rgba=".1 .1 .1 1"')),
    "alpha_0": Look(scene_xml(extra='<geom size=".4" pos="0 -.6 .5" rgba="1 0 0 0"/>')),
    "alpha_994": Look(scene_xml(shape='rgba=".8 .5 .3 .994"')),
    "alpha_996": Look(scene_xml(shape='rgba=".8 .5 .3 .996"')),
    "two_mirrors": Look(
        scene_xml(
            extra='<geom type="box" size=".7 .5 .02" pos="0 -1 .3" material="m"/>'
            '<geom type="box" size=".5 .5 .02" pos="1 1.3 .3" material="m"/>',
        ).replace("</asset>", f'<material name="m" {MIRROR}/></asset>')
    ),
    "mirror_after_one_from_behind": Look(
        scene_xml(
            extra='<geom type="plane" size=".5 .5 .1" pos="0 -1 .6" euler="180 0 0" material="m"/>'
            '<geom type="box" size=".7 .7 .02" pos="0 -1 .3" material="m"/>',
        ).replace("</asset>", f'<material name="m" {MIRROR}/></asset>')
    ),
    "glass_mirror": Look(scene_xml(b='reflectance=".5" rgba=".2 .3 .4 .6"')),
    "glass_layers": Look(
        scene_xml(
            extra='<geom type="box" size=".5 .02 .4" pos="0 -.8 .5" rgba="1 0 0 .3"/>'
            '<geom type="box" size=".5 .02 .4" pos="0 -1 .5" rgba="0 1 0 .4"/>'
            '<geom size=".2" pos="0 -.9 .5" rgba="0 0 1 .5"/>'
        )
    ),
    "plane_seen_through": Look(
        scene_xml(b='rgba=".2 .3 .8 .4"', extra='<geom size=".3" pos="0 0 -.4"/>')
    ),
    "road": Look(scene_xml(b='texture="checker" texrepeat="1 2"', size="0 1.5 .1")),
    "road_across": Look(scene_xml(b='texture="checker" texrepeat="2 1"', size="1.5 0 .1")),
    "road_uniform": Look(
        scene_xml(b='texture="checker" texrepeat="1 2" texuniform="true"', size="0 1.5 .1")
    ),
    "plain_road": Look(scene_xml(size="0 1.5 .1")),
    "tiny_plane": Look(scene_xml(b='texture="checker"', size="1e-3 2 .1")),
    "huge_plane": Look(scene_xml(b='texture="checker" texrepeat="4 4"', size="1e4 1e4 1")),
    "tall_sky": Look(scene_xml(**ENDLESS), Camera((0.0, 0.0, 1.0), 3.0, 70.0, 30.0)),
}

FLAGS = {
    "no_shadow": Look(scene_xml(), flags={"shadow": False}),
    "no_reflection": Look(scene_xml(b=MIRROR), flags={"reflection": False}),
    "no_skybox": Look(scene_xml(**ENDLESS), HORIZON, flags={"skybox": False}),
    "no_haze": Look(scene_xml(**ENDLESS), HORIZON, flags={"haze": False}),
    "fog": Look(
        visual(scene_xml(), '<map fogstart=".8" fogend="2.2"/><rgba fog=".8 .7 .5 1"/>'),
        flags={"fog": True},
    ),
    "fog_in_a_mirror": Look(
        visual(scene_xml(b=MIRROR), '<map fogstart=".8" fogend="2.5"/><rgba fog=".3 .2 .5 1"/>'),
        flags={"fog": True},
    ),
    "fog_haze": Look(
        visual(scene_xml(**ENDLESS), '<map fogstart="1" fogend="60"/><rgba fog=".9 .2 .1 1"/>'),
        HORIZON,
        flags={"fog": True},
    ),
    "fog_glass": Look(
        visual(
            scene_xml(shape='rgba=".8 .5 .3 .5"'),
            '<map fogstart=".8" fogend="2.2"/><rgba fog=".8 .7 .5 1"/>',
        ),
        flags={"fog": True},
    ),
    "orthographic_fog": Look(
        visual(scene_xml(extra=SLANT), '<map fogstart=".8" fogend="2.2"/><rgba fog=".8 .7 .5 1"/>'),
        "slant",
        flags={"fog": True},
    ),
    "additive": Look(scene_xml(shape='rgba=".8 .5 .3 .5"'), flags={"additive": True}),
    "no_culling": Look(
        visual(scene_xml(), '<map znear=".5"/>'),
        Camera((0.0, 0.2, 0.4), 1.4, 70.0, -25.0),
        flags={"cull_face": False},
    ),
}

OPTIONS = {
    "groups": Look(scene_xml(extra=FREE_BALL), option=_show("010000")),
    "transparent": Look(scene_xml(extra=FREE_BALL), option=_show(transparent=True)),
    "no_static": Look(scene_xml(extra=FREE_BALL), option=_show(static=False)),
    "no_textures": Look(
        scene_xml('texture="six"', 'texture="checker"'), option=_show(texture=False)
    ),
}

LOOKS = CAMERAS | LIGHTS | MATERIALS | FLAGS | OPTIONS

# What falls short of the usual bounds, and why.
_MAP = "dots that MuJoCo's shadow map leaves on surfaces that light grazes"
_VERTEX = "MuJoCo lights vertices and blends between them: an edge of light is a zigzag"
_HALO = "the silhouettes of MuJoCo's polygons, in a picture with little else"
_OPEN = "not traced: neither shadows nor facets are the reason"
_SHORT = {
    "orthographic": (39, 0.987, 0.005, _MAP),
    "orthographic_slant": (38, 0.983, 0.005, _MAP),
    "orthographic_wide": (30, 0.93, 0.012, _MAP),
    "orthographic_textures": (36, 0.985, 0.005, _MAP),
    "orthographic_cube_textures": (35.5, 0.982, 0.005, _MAP),
    "orthographic_mirror": (40, 0.985, 0.005, _MAP),
    "orthographic_glass": (37.5, 0.982, 0.005, _MAP),
    "orthographic_endless": (37, 0.981, 0.005, _MAP),
    "orthographic_sky": (39, 0.992, 0.005, _MAP),
    "orthographic_fog": (39, 0.983, 0.005, _MAP),
    "orthographic_haze": (40, 0.992, 0.005, _OPEN),
    "orthographic_free": (38.5, 0.993, 0.008, _HALO),
    "sensor_off_centre": (40, 0.993, 0.005, _MAP),
    "beyond_the_far_plane": (39, 0.994, 0.006, "MuJoCo's sky is a prism, not a cylinder"),
    "ten_lights": (36, 0.955, 0.02, _VERTEX),
    "three_casters": (40, 0.994, 0.005, _MAP),
    "narrow_spot": (44, 0.99, 0.003, _VERTEX),
    "exponent_200": (27, 0.9, 0.08, _VERTEX),
    "tracking_light": (40, 0.99, 0.005, _VERTEX),
    "ambient_of_a_caster": (37, 0.989, 0.009, _MAP),
    "shadow_clip": (37, 0.98, 0.005, _MAP),
    "specular_1_shininess_0": (33.5, 0.982, 0.012, _VERTEX),
    "specular_1_shininess_1": (40, 0.993, 0.005, _VERTEX),
    "glass_mirror": (43, 0.993, 0.005, _OPEN),
    "plane_seen_through": (40.5, 0.992, 0.008, _OPEN),
    "tiny_plane": (44, 0.992, 0.005, _OPEN),
    "tall_sky": (46, 0.993, 0.001, _OPEN),
    "fog_in_a_mirror": (44, 0.994, 0.003, _HALO),
    "no_textures": (37.5, 0.996, 0.005, _MAP),
}
for _name, (*_figures, _reason) in _SHORT.items():
    LOOKS[_name] = replace(LOOKS[_name], bounds=Figures(*_figures), reason=_reason)

BY_SHADOW_MAP = [name for name, look in LOOKS.items() if look.reason == _MAP]
BY_POLYGONS = [name for name, look in LOOKS.items() if look.reason == _HALO]
