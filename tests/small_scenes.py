"""Small scenes, each of which exercises one feature of the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from parity import BOUNDS, Figures

from vlmrm_fast.rendering import Camera

VIEW = Camera(lookat=(0.0, 0.2, 0.4), distance=3.6, azimuth=70.0, elevation=-25.0)
BELOW = Camera(distance=3.6, azimuth=70.0, elevation=25.0)
HORIZON = Camera(lookat=(0.0, 0.0, 0.6), distance=3.6, azimuth=70.0, elevation=-4.0)


@dataclass(frozen=True)
class SmallScene:
    """One feature in a picture.

    Attributes:
        xml: the MJCF.
        camera: as `Scene.from_model` takes it.
        bounds: what the picture must reach.
        reason: why the bounds are not the usual ones.
        flags: of `Scene.from_model`.
    """

    xml: str
    camera: Any = VIEW
    bounds: Figures = BOUNDS
    reason: str = ""
    flags: dict[str, bool] | None = None


SHAPES = """
<geom type="sphere" size=".3" pos="-1 0 .5" {m}/>
<geom type="capsule" size=".2 .3" pos="-.3 0 .6" euler="20 30 0" {m}/>
<geom type="cylinder" size=".25 .3" pos=".4 0 .6" euler="30 20 10" {m}/>
<geom type="ellipsoid" size=".3 .15 .35" pos="1.1 0 .6" euler="10 20 40" {m}/>
<geom type="box" size=".25 .2 .3" pos="0 .9 .5" euler="10 20 30" {m}/>"""
TEXTURES = """
<texture name="checker" type="2d" builtin="checker" rgb1="1 0 0" rgb2="0 0 1" width="64"
 height="64" mark="edge" markrgb="1 1 1"/>
<texture name="ramp" type="2d" builtin="gradient" rgb1="1 1 0" rgb2="0 .3 1" width="64"
 height="32"/>
<texture name="cross" type="cube" builtin="checker" rgb1=".9 .2 .1" rgb2=".1 .6 .3" width="32"
 height="32" mark="cross" markrgb="1 1 1"/>
<texture name="six" type="cube" builtin="gradient" rgb1="1 0 0" rgb2="0 0 1" width="32"
 height="192"/>
<texture name="sky" type="skybox" builtin="gradient" rgb1=".3 .5 .7" rgb2="0 0 0" width="512"
 height="512"/>"""
SUN = '<light pos="1 -1 3" dir="-.3 .3 -1" directional="true"/>'
SPOTS = """
<light pos="1 -2 3" dir="-.3 .6 -1" cutoff="40" exponent="5"/>
<light pos="-2 -1 2.5" dir=".6 .3 -1" cutoff="30" castshadow="false" diffuse=".5 .2 .2"/>"""
TAN = 'rgba=".8 .5 .3 1"'


def scene_xml(
    a: str = "",
    b: str = "",
    *,
    shape: str = "",
    light: str = SUN,
    size: str = "3 2 .1",
    extra: str = "",
) -> str:
    """A scene of every shape: `a` and `b` are the materials of the shapes and the floor."""
    materials = (f'<material name="a" {a}/>' if a else "") + (
        f'<material name="b" {b}/>' if b else ""
    )
    floor = f'<geom type="plane" size="{size}" ' + ('material="b"/>' if b else "/>")
    shapes = SHAPES.format(m='material="a"' if a else shape or TAN)
    return (
        f"<mujoco><asset>{TEXTURES}{materials}</asset>"
        f"<worldbody>{light}{floor}{shapes}{extra}</worldbody></mujoco>"
    )


_USUAL = {
    "plain": scene_xml(),
    "no_light": scene_xml(light=""),
    "spot_lights": scene_xml(light=SPOTS),
    "attenuation": scene_xml(
        light='<light pos=".5 -1 2" dir="-.1 .5 -1" cutoff="60" attenuation=".5 .2 .3"/>'
    ),
    "two_casters": scene_xml(
        light=SUN + '<light pos="-2 1 3" dir=".5 -.2 -1" directional="true" diffuse=".3 .4 .6"/>'
    ),
    "light_without_shadow": scene_xml(light=SUN.replace("/>", ' castshadow="false"/>')),
    "headlight_only": scene_xml(light="").replace(
        "<asset>", '<visual><headlight ambient=".3 .2 .1" diffuse=".6 .6 .7"/></visual><asset>'
    ),
    "shiny_and_glowing": scene_xml('emission=".3" specular=".9" shininess=".9" rgba=".3 .6 .9 1"'),
    "textures_2d": scene_xml('texture="checker" texrepeat="2 3"', 'texture="ramp" texrepeat="5 5"'),
    "textures_2d_uniform": scene_xml(
        'texture="checker" texrepeat="4 2.5" texuniform="true"',
        'texture="ramp" texrepeat="2.3 1.7" texuniform="true"',
    ),
    "textures_cube": scene_xml('texture="cross"', 'texture="six" rgba=".5 1 1 1"'),
    "textures_cube_uniform": scene_xml(
        'texture="six" texuniform="true"', 'texture="cross" texuniform="true"'
    ),
    "mirror": scene_xml('texture="cross"', 'texture="checker" texrepeat="4 4" reflectance=".4"'),
    "mirror_box": scene_xml(
        b='reflectance=".5" rgba=".3 .3 .4 1"',
        size="9 9 .1",
        shape=TAN + ' material="matt"',
        extra='<geom type="box" size="2 2 .05" pos="0 0 .06" material="b"/>',
    )
    .replace("<asset>", '<asset><material name="matt" specular=".1"/>')
    .replace('"plane" size="9 9 .1" material="b"', '"plane" size="9 9 .1"'),
    "unbounded_floor": scene_xml(b='texture="ramp" texrepeat=".7 1.3"', size="0 0 .1"),
    "glass": scene_xml(shape='rgba=".8 .5 .3 .5"', extra='<geom size=".2" pos="0 -.6 .3"/>'),
    "fovy": scene_xml().replace("<asset>", '<visual><global fovy="60"/></visual><asset>'),
    "fine_polygons": scene_xml().replace(
        "<asset>", '<visual><quality numslices="64" numstacks="32"/></visual><asset>'
    ),
    "sites": scene_xml(extra='<site type="box" size=".1 .2 .1" pos="0 -.6 .3" rgba="0 1 0 1"/>'),
}

SCENES = {name: SmallScene(xml) for name, xml in _USUAL.items()} | {
    "coarse_textures_2d_uniform": SmallScene(
        _USUAL["textures_2d_uniform"],
        bounds=Figures(37, 0.995, 0.011),
        reason="MuJoCo bends 2d textures along the polygons of its sphere.",
    ),
    "textures_2d_uniform": SmallScene(
        _USUAL["textures_2d_uniform"].replace(
            "<asset>", '<visual><quality numslices="64" numstacks="32"/></visual><asset>'
        )
    ),
    "light_ambient": SmallScene(
        scene_xml(light=SUN.replace("/>", ' ambient=".3 .2 .1"/>')),
        bounds=Figures(37, 0.99, 0.008),
        reason="The offset of the shadow map's depth moves the edge of a shape's own shadow.",
    ),
    "glass_over_mirror": SmallScene(
        scene_xml(b='reflectance=".4"', shape='rgba=".8 .5 .3 .5"'),
        bounds=Figures(38, 0.994, 0.005),
        reason="The shadow map's dots are bright on a floor that the mirror fills with white.",
    ),
    "glass_in_mirror": SmallScene(
        scene_xml(
            b='reflectance=".8" rgba=".1 .1 .2 1"',
            extra='<geom size=".4" pos="0 -.6 1.6" rgba=".9 .9 .2 .5"/>',
        ),
        Camera(lookat=(0.0, -0.6, 0.0), distance=2.5, azimuth=70.0, elevation=-40.0),
    ),
    "floor_from_below": SmallScene(_USUAL["textures_2d"], BELOW),
    "haze": SmallScene(_USUAL["unbounded_floor"], HORIZON),
    "fixed_camera": SmallScene(
        scene_xml(extra='<camera name="c" pos="0 -2.5 1.5" xyaxes="1 0 0 0 .5 1" fovy="60"/>'), "c"
    ),
    "targeting_camera": SmallScene(
        scene_xml(
            extra='<body name="t" pos="0 0 .5"/>'
            '<camera name="c" pos="1 -3 1" mode="targetbody" target="t"/>'
        ),
        "c",
    ),
}
