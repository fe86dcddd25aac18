"""Photographic looks: a model's sky, floor, robot and light replaced before it is compiled.

Physics stay what they were, bit for bit: only textures, materials, colours and lights change.
"""

from __future__ import annotations

import warnings
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from vlmrm_fast.errors import ModelError, unknown_name

TEXTURES = ("original", "photographic")
FOLDER = Path(__file__).parent.parent / "assets" / "textures"

# The floor's picture shows 4 x 4 tiles; on large floors they are half a metre wide.
TILED = 2.0
# A ceramic glaze mirrors little when seen from above.
FLOOR = {"specular": 0.3, "shininess": 0.6, "reflectance": 0.1}
# What light from above leaves dark is lifted a little, as the floor's light would.
METAL = {"specular": 0.6, "shininess": 0.35, "reflectance": 0.0, "emission": 0.12}
# The colour of the air at the sky's horizon, which MuJoCo's haze takes up.
HORIZON = (0.80, 0.87, 0.93, 1.0)


def load(path: str | Path, textures: str = "original") -> Any:
    """Compile a model file with one of the looks.

    Args:
        path: the MJCF file.
        textures: one of `TEXTURES`.

    Returns:
        A fresh `MjModel`; "original" is what `MjModel.from_xml_path` gives.

    Raises:
        UnknownNameError: no look has that name.
        ModelError: the file cannot be read or compiled, or a texture's file is missing.
    """
    import mujoco

    if textures not in TEXTURES:
        error = unknown_name("textures", str(textures), TEXTURES)
        raise error
    try:
        if textures == "original":
            return mujoco.MjModel.from_xml_path(str(path))
        spec = mujoco.MjSpec.from_file(str(path))
        make_photographic(spec)
        with warnings.catch_warnings():
            # Of gymnasium's files, about old attributes; from_xml_path does not say it.
            warnings.simplefilter("ignore", UserWarning)
            return spec.compile()
    except (OSError, ValueError) as error:
        raise ModelError(f"model must be a readable MJCF file, got {path}: {error}") from error


def make_photographic(spec: Any) -> None:
    """Give a model a photographic sky, a floor of ceramic tiles and brushed metal; in place.

    Planes that are fixed to the world become floors. What moves becomes bare metal where it has the
    colour of at least half of the model's moving geoms, and metal of its own colour elsewhere.
    Lights that are fixed to the world become one directional light of full strength, straight down;
    the headlight is MuJoCo's default.

    Args:
        spec: a `mujoco.MjSpec`, changed.

    Source:
        Rocamonde et al., ICLR 2024, appendix: the humanoid's modified textures and light.
    """
    import mujoco

    kinds = mujoco.mjtTexture
    for texture in [item for item in spec.textures if item.type == kinds.mjTEXTURE_SKYBOX]:
        spec.delete(texture)
    _add_texture(spec, "sky", kinds.mjTEXTURE_SKYBOX)
    _add_material(spec, "metal", kinds.mjTEXTURE_CUBE, METAL)
    floors = [
        geom
        for geom in spec.geoms
        if geom.type == mujoco.mjtGeom.mjGEOM_PLANE and geom.parent.id == 0
    ]
    for index, floor in enumerate(floors):
        _tile(spec, floor, index)
    _plate(spec)
    _light(spec)
    spec.visual.rgba.haze = HORIZON


def _tile(spec: Any, floor: Any, index: int) -> None:
    """Lay tiles on a plane, smaller ones on a small plane."""
    import mujoco

    extent = [size for size in floor.size[:2] if size > 0]
    # MuJoCo repeats an even texture every two metres over its texrepeat.
    repeats = 2 / min([TILED, *(size / 2 for size in extent)])
    material = _add_material(spec, f"tiles{index or ''}", mujoco.mjtTexture.mjTEXTURE_2D, FLOOR)
    material.texrepeat = (repeats, repeats)
    floor.material, floor.rgba = material.name, (1, 1, 1, 1)


def _plate(spec: Any) -> None:
    """Turn what moves into metal."""
    moving = [geom for geom in spec.geoms if geom.parent.id != 0]
    colours = [_colour(spec, geom) for geom in moving]
    most, count = Counter(colours).most_common(1)[0] if colours else (None, 0)
    for geom, colour in zip(moving, colours, strict=True):
        bare = colour == most and 2 * count >= len(moving)
        geom.material = "photographic_metal"
        geom.rgba = (1, 1, 1, colour[3]) if bare else colour


def _colour(spec: Any, geom: Any) -> tuple[float, ...]:
    """Return the colour that a geom is drawn in: its own, or its material's if it has none."""
    own = tuple(float(value) for value in geom.rgba)
    material = spec.material(geom.material) if geom.material else None
    if own != (0.5, 0.5, 0.5, 1.0) or material is None:
        return own
    return tuple(float(value) for value in material.rgba)


def _light(spec: Any) -> None:
    """Leave one fixed light, straight down."""
    import mujoco

    fixed = [light for light in spec.lights if light.parent.id == 0]
    sun = fixed[0] if fixed else spec.worldbody.add_light(pos=(0, 0, 4))
    for light in fixed[1:]:
        spec.delete(light)
    sun.type = mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
    sun.dir, sun.diffuse = (0, 0, -1), (1, 1, 1)
    sun.ambient, sun.specular = (0, 0, 0), (0.1, 0.1, 0.1)
    default = mujoco.MjSpec().visual.headlight
    for name in ("ambient", "diffuse", "specular", "active"):
        setattr(spec.visual.headlight, name, getattr(default, name))


def _add_material(spec: Any, name: str, kind: Any, surface: dict[str, float]) -> Any:
    """Add a texture and a material that shows it in metres."""
    import mujoco

    texture = _add_texture(spec, name, kind)
    material = spec.add_material(name=texture.name, texuniform=True, rgba=(1, 1, 1, 1), **surface)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = texture.name
    return material


def _add_texture(spec: Any, name: str, kind: Any) -> Any:
    """Add one of the pictures as a texture; digits at the end of `name` tell copies apart."""
    import mujoco

    picture = _picture(name.rstrip("0123456789"))
    texture = spec.add_texture(name=f"photographic_{name}", type=kind, nchannel=3)
    # Shown as it is: MuJoCo does not gamma-correct its pictures.
    texture.colorspace = mujoco.mjtColorSpace.mjCOLORSPACE_LINEAR
    texture.height, texture.width = picture.shape[:2]
    texture.data = picture.tobytes()
    return texture


@lru_cache(maxsize=8)
def _picture(name: str) -> np.ndarray:
    """Return one of the committed pictures, (H, W, 3) uint8."""
    from PIL import Image

    return np.asarray(Image.open(FOLDER / f"{name}.png").convert("RGB"))
