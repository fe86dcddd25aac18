"""Small scenes of meshes and height fields, each of which exercises one feature of the picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from parity import Figures
from small_scenes import SPOTS, SUN, TAN, TEXTURES, SmallScene

from vlmrm_fast.rendering import Camera

VIEW = Camera(lookat=(0.0, 0.0, 0.4), distance=3.0, azimuth=35.0, elevation=-20.0)
INSIDE = Camera(lookat=(-1.0, 0.0, 0.5), distance=0.1, azimuth=20.0, elevation=-10.0)
FLOOR = '<geom type="plane" size="3 2 .1" {f}/>'
GEOMS = """
<geom type="mesh" mesh="sphere" pos="-1 0 .5" {m}/>
<geom type="mesh" mesh="torus" pos="-.1 -.3 .5" euler="40 20 0" {m}/>
<geom type="mesh" mesh="round" pos="1 0 .5" {m}/>
<geom type="mesh" mesh="flat" pos="0 1 .5" euler="10 20 30" {m}/>"""
ICOSAHEDRON = """vertex="0 0 1 .894 0 .447 .276 .851 .447 -.724 .526 .447 -.724 -.526 .447
 .276 -.851 .447 .724 .526 -.447 -.276 .851 -.447 -.894 0 -.447 -.276 -.851 -.447
 .724 -.526 -.447 0 0 -1" """
CUBE = """vertex="-.3 -.3 -.3 .3 -.3 -.3 .3 .3 -.3 -.3 .3 -.3 -.3 -.3 .3 .3 -.3 .3 .3 .3 .3
 -.3 .3 .3" face="0 2 1 0 3 2 4 5 6 4 6 7 0 1 5 0 5 4 1 2 6 1 6 5 2 3 7 2 7 6 3 0 4 3 4 7" """


def _text(rows: Sequence[Sequence[float]]) -> str:
    return " ".join(f"{x:.6g}" for row in rows for x in row)


def torus(around: int = 24, along: int = 12, *, texcoords: bool = False, waves: float = 0.0) -> str:
    """Return the attributes of a mesh; with texture coordinates its seams are cut."""
    extra = int(texcoords)
    vertices, uv, faces = [], [], []
    for i in range(around + extra):
        for j in range(along + extra):
            a, b = 2 * np.pi * i / around, 2 * np.pi * j / along
            tube = 0.15 + waves * np.sin(9 * a) * np.sin(7 * b)
            radius = 0.4 + tube * np.cos(b)
            vertices.append((radius * np.cos(a), radius * np.sin(a), tube * np.sin(b)))
            uv.append((i / around * 4, j / along * 2))
    row, rows = along + extra, around + extra
    for i in range(around):
        for j in range(along):
            a, d = i * row + j, i * row + (j + 1) % row
            b, c = (i + 1) % rows * row + j, (i + 1) % rows * row + (j + 1) % row
            faces += [(a, b, c), (a, c, d)]
    text = f'vertex="{_text(vertices)}" face="{_text(faces)}"'
    return text + (f' texcoord="{_text(uv)}"' if texcoords else "")


def mesh_xml(
    material: str = "",
    look: str = TAN,
    *,
    light: str = SUN,
    floor: str = "",
    assets: str = "",
    geoms: str = GEOMS,
    texcoords: bool = False,
) -> str:
    """A floor and four meshes: curved and flat, convex and not."""
    if material:
        assets, look = assets + f'<material name="a" {material}/>', 'material="a"'
    return f"""<mujoco><asset>{TEXTURES}{assets}<material name="f" {floor}/>
<mesh name="sphere" builtin="sphere" params="3" scale=".35 .35 .35"/>
<mesh name="torus" {torus(texcoords=texcoords)}/>
<mesh name="round" smoothnormal="true" {ICOSAHEDRON} scale=".35 .35 .35"/>
<mesh name="flat" {CUBE}/>
</asset><worldbody>{light}{FLOOR.format(f='material="f"')}{geoms.format(m=look)}</worldbody>
</mujoco>"""


def _hills() -> str:
    heights = [
        f"{np.sin(i % 30 * 0.5) * np.cos(i // 30 * 0.4) + 0.05 * (i % 7):.3f}" for i in range(600)
    ]
    return (
        f'<hfield name="h" nrow="20" ncol="30" size="1 .7 .4 .1" elevation="{" ".join(heights)}"/>'
    )


HILLS = '<geom type="hfield" hfield="h" pos="0 0 .2" {m}/>'
GREEN = 'rgba=".5 .7 .4 1"'
_MIRRORED = '<mesh name="left" scale="-1 1 1" {}/>'
MESH_SCENES = {
    name: SmallScene(xml, camera)
    for name, xml, camera in (
        ("mesh_plain", mesh_xml(), VIEW),
        ("mesh_no_light", mesh_xml(light=""), VIEW),
        ("mesh_spot_lights", mesh_xml(light=SPOTS), VIEW),
        ("mesh_shiny", mesh_xml('emission=".3" specular=".9" shininess=".9"'), VIEW),
        ("mesh_texture_2d", mesh_xml('texture="checker" texrepeat="2 3"'), VIEW),
        (
            "mesh_texture_2d_uniform",
            mesh_xml('texture="checker" texrepeat="2 3" texuniform="true"'),
            VIEW,
        ),
        ("mesh_texcoords", mesh_xml('texture="checker" texrepeat="2 1"', texcoords=True), VIEW),
        (
            "mesh_texcoords_uniform",
            mesh_xml('texture="ramp" texrepeat="2 1" texuniform="true"', texcoords=True),
            VIEW,
        ),
        ("mesh_texture_cube", mesh_xml('texture="six"'), VIEW),
        ("mesh_texture_cube_uniform", mesh_xml('texture="cross" texuniform="true"'), VIEW),
        ("mesh_mirror", mesh_xml(floor='reflectance=".5" rgba=".4 .5 .6 1"'), VIEW),
        ("mesh_glass", mesh_xml(look='rgba=".8 .5 .3 .5"'), VIEW),
        (
            "mesh_mirrored_and_shared",
            mesh_xml(
                assets=_MIRRORED.format(torus(9, 5)),
                geoms='<geom type="mesh" mesh="left" pos="0 0 .5" euler="40 30 0" {m}/>'
                '<geom type="mesh" mesh="left" pos="-.8 .8 .5" euler="80 10 0" rgba="1 0 0 1"/>'
                '<geom type="mesh" mesh="left" pos=".9 -.6 .5" euler="0 0 50" rgba="0 1 0 .5"/>',
            ),
            VIEW,
        ),
        ("inside_a_mesh", mesh_xml(), INSIDE),
        ("hfield", mesh_xml(look=GREEN, assets=_hills(), geoms=HILLS), VIEW),
        (
            "hfield_texture_2d",
            mesh_xml('texture="checker" texrepeat="2 3"', assets=_hills(), geoms=HILLS),
            VIEW,
        ),
        ("hfield_texture_cube", mesh_xml('texture="six"', assets=_hills(), geoms=HILLS), VIEW),
    )
}
# One triangle a pixel, where OpenGL shows those of four samples, would fall short of these.
MESH_SCENES["triangles_smaller_than_a_pixel"] = SmallScene(
    mesh_xml(
        light='<light pos="0 0 4" dir=".1 .1 -1" diffuse=".8 .8 .8"/>',
        floor='reflectance=".5" rgba=".4 .5 .6 1"',
        assets=f'<mesh name="dense" {torus(160, 100, waves=0.04)}/>',
        geoms='<geom type="mesh" mesh="dense" pos="0 0 .5" euler="40 20 0" {m}/>'
        '<geom type="mesh" mesh="dense" pos="-.9 .6 .6" euler="80 50 0" {m}/>',
    ),
    VIEW,
    Figures(45.0, 0.998, 0.003),
)
# Without a slope towards the light, rounding alone decides whether a face shades itself.
MESH_SCENES["face_turned_to_the_light"] = SmallScene(
    mesh_xml(
        light='<light pos="0 0 4" dir="0 0 -1" diffuse=".8 .8 .8"/>',
        assets=f'<mesh name="cube" {CUBE}/>',
        geoms='<geom type="mesh" mesh="cube" pos="-.25 0 .9" {m}/>'
        '<geom type="mesh" mesh="cube" pos=".5 .3 .4" {m}/>',
    ),
    VIEW,
    Figures(45.0, 0.998, 0.003),
)


def _panes(count: int) -> str:
    """Return the attributes of a mesh of squares, one over the other."""
    corners = [(-0.4, -0.4), (0.4, -0.4), (0.4, 0.4), (-0.4, 0.4)]
    vertices = [(x, y, 0.04 * k) for k in range(count) for x, y in corners]
    faces = [(4 * k, 4 * k + i, 4 * k + i + 1) for k in range(count) for i in (1, 2)]
    return f'inertia="shell" vertex="{_text(vertices)}" face="{_text(faces)}"'


MESH_SCENES["glass_of_many_layers"] = SmallScene(
    mesh_xml(
        light='<light pos="0 0 4" dir=".1 .1 -1" diffuse=".8 .8 .8"/>',
        assets=f'<mesh name="panes" {_panes(18)}/>',
        geoms='<geom type="mesh" mesh="panes" pos="0 0 .5" euler="20 10 0" rgba=".9 .5 .3 .1"/>',
    ),
    VIEW,
)
