"""Variants of a model's look: colours, textures, lights and reflections, drawn at random."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import mujoco

# Least distance in RGB between the robot or pole and its surroundings, so that it stays visible.
LEAST_CONTRAST = 0.35


def vary_looks(model: mujoco.MjModel, rng: np.random.Generator) -> mujoco.MjModel:
    """Return a copy of the model with other colours, textures and lights.

    Geoms keep their shapes, so states of the model are states of the copy.

    Args:
        model: the model to start from; not changed.
        rng: the source of randomness, advanced by this call.

    Returns:
        The copy.
    """
    varied = copy.copy(model)
    sky, floor = rng.uniform(0.0, 1.0, 3), rng.uniform(0.0, 1.0, 3)
    static = varied.geom_bodyid == 0
    # One colour for a robot, one a geom for the cart-pole's few distinct parts.
    # Geoms without a material are parts of their own.
    keys = np.where(varied.geom_matid < 0, -1 - np.arange(varied.ngeom), varied.geom_matid)
    parts = np.unique(keys[~static])
    colours = {int(part): contrasting((sky, floor), rng) for part in parts}
    single = len(parts) == 1
    for geom in range(varied.ngeom):
        material = int(varied.geom_matid[geom])
        if varied.geom_type[geom] == 0:
            colour = np.ones(3)
        elif static[geom]:
            colour = 0.5 * floor + 0.5 * rng.uniform(0.0, 1.0, 3)
        else:
            colour = colours[int(keys[geom])]
        if single and not static[geom]:
            colour = np.clip(colour + rng.normal(0.0, 0.03, 3), 0.0, 1.0)
        varied.geom_rgba[geom, :3] = colour
        if material >= 0:
            varied.mat_rgba[material, :3] = colour
    for texture in range(varied.ntex):
        _paint(varied, texture, sky, floor, rng)
    _light(varied, rng)
    return varied


def contrasting(others: tuple[np.ndarray, ...], rng: np.random.Generator) -> np.ndarray:
    """Return an RGB colour away from the others, the farthest of eight tries if none is.

    Args:
        others: colours (3,) float64, 0 ... 1.
        rng: the source of randomness, advanced by this call.

    Returns:
        (3,) float64.
    """
    tries = rng.uniform(0.0, 1.0, (8, 3))
    gaps = np.min([np.linalg.norm(tries - other, axis=1) for other in others], axis=0)
    good = np.flatnonzero(gaps > LEAST_CONTRAST)
    return tries[good[0] if len(good) else int(gaps.argmax())]


def _paint(
    model: mujoco.MjModel,
    texture: int,
    sky: np.ndarray,
    floor: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Overwrite one texture's pixels: a gradient sky, a floor pattern or a speckled skin."""
    height, width = int(model.tex_height[texture]), int(model.tex_width[texture])
    channels, start = int(model.tex_nchannel[texture]), int(model.tex_adr[texture])
    if model.tex_type[texture] == 2:
        # Skybox: six faces, each from one shade to another.
        second = np.clip(sky + rng.normal(0.0, 0.2, 3), 0.0, 1.0)
        blend = np.tile(np.linspace(0.0, 1.0, width), height // width)[:, None, None]
        pixels = np.broadcast_to(sky * (1 - blend) + second * blend, (height, width, 3))
    elif model.tex_type[texture] == 0:
        pixels = _floor_pattern(height, width, floor, rng)
    else:
        pixels = np.ones((height, width, 3)) - rng.uniform(0.0, 0.15) * rng.random((
            height,
            width,
            1,
        ))
    image = np.clip(pixels * 255.0, 0, 255).astype(np.uint8)[..., :channels]
    model.tex_data[start : start + image.size] = image.ravel()


def _floor_pattern(
    height: int, width: int, floor: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return (height, width, 3) float64 in [0, 1]: plain, two by two tiles or a fine grain."""
    second = np.clip(floor + rng.normal(0.0, 0.25, 3), 0.0, 1.0)
    kind = rng.integers(3)
    if kind == 0:
        mask = np.zeros((height, width, 1))
    elif kind == 1:
        rows, columns = np.indices((height, width))
        tiles = (rows * 2 // height + columns * 2 // width) % 2
        mask = tiles[..., None].astype(np.float64)
    else:
        mask = rng.random((height, width, 1))
    return floor * (1 - mask) + second * mask


def _light(model: mujoco.MjModel, rng: np.random.Generator) -> None:
    """Change the lights' strength and direction and the materials' gloss, in place."""
    for light in range(model.nlight):
        model.light_diffuse[light] = rng.uniform(0.4, 1.0)
        model.light_dir[light] += rng.normal(0.0, 0.25, 3)
        model.light_dir[light] /= np.linalg.norm(model.light_dir[light])
        model.light_castshadow[light] = rng.random() < 0.8
    model.vis.headlight.ambient[:] = rng.uniform(0.1, 0.45)
    model.vis.headlight.diffuse[:] = rng.uniform(0.2, 0.6)
    model.mat_reflectance[:] *= rng.uniform(0.0, 1.0)
    model.mat_specular[:] = rng.uniform(0.0, 0.6)
