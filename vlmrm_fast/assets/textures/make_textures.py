"""Write the photographic textures: a sky, a floor of ceramic tiles, brushed metal.

    python vlmrm_fast/assets/textures/make_textures.py [FOLDER]

Everything is noise, gradients and geometry drawn with numpy from fixed seeds: no photograph and no
other picture goes in, and a second run writes the same pictures.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(__file__).resolve().parent
SKY_SIDE, TILES_SIDE, METAL_SIDE = 512, 512, 256
TILES = 4  # tiles along a side of the floor's picture

ZENITH, HORIZON = np.array([0.24, 0.43, 0.74]), np.array([0.80, 0.87, 0.93])
SUNLIT, SHADED = np.array([1.0, 0.99, 0.97]), np.array([0.63, 0.68, 0.76])


def perlin(x: np.ndarray, y: np.ndarray, seed: int, periods: tuple[int, int]) -> np.ndarray:
    """Return gradient noise.

    Args:
        x: any shape, in cells.
        y: the same shape, in cells.
        seed: of the lattice's directions.
        periods: cells after which it repeats along x and y.

    Returns:
        The same shape, about in [-0.7, 0.7], with mean 0.

    Source:
        Perlin, "Improving noise", SIGGRAPH 2002, with random directions of unit length.
    """
    angle = np.random.default_rng(seed).uniform(0, 2 * np.pi, periods)
    column, row = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = x - column, y - row

    def corner(right: int, down: int) -> np.ndarray:
        a = angle[(column + right) % periods[0], (row + down) % periods[1]]
        return np.cos(a) * (fx - right) + np.sin(a) * (fy - down)

    wx, wy = (f**3 * (f * (6 * f - 15) + 10) for f in (fx, fy))
    top = corner(0, 0) * (1 - wx) + corner(1, 0) * wx
    bottom = corner(0, 1) * (1 - wx) + corner(1, 1) * wx
    return top * (1 - wy) + bottom * wy


def fractal(
    x: np.ndarray,
    y: np.ndarray,
    seed: int,
    periods: tuple[int, int] = (64, 64),
    octaves: int = 6,
    footprint: np.ndarray | float = 0.0,
    shape: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Return octaves of noise, each at twice the frequency and half the height of the last.

    Args:
        x: any shape, in cells of the first octave.
        y: the same shape.
        seed: of the first octave.
        periods: of the first octave, see `perlin`.
        octaves: how many.
        footprint: size of a pixel in cells of the first octave; finer octaves fade out.
        shape: applied to each octave, for example `np.abs` for billows.

    Returns:
        The same shape.
    """
    total = np.zeros(np.broadcast(x, y).shape)
    for octave in range(octaves):
        scale = 2**octave
        layer = perlin(
            x * scale, y * scale, seed + octave, (periods[0] * scale, periods[1] * scale)
        )
        kept = np.clip(2.0 - 4.0 * np.asarray(footprint) * scale, 0.0, 1.0)
        total += kept * (layer if shape is None else shape(layer)) / scale
    return total


def smoothstep(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return 0 below `low`, 1 above `high` and a smooth ramp between."""
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return t * t * (3 - 2 * t)


def blend(below: np.ndarray, above: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Return (..., 3) `above` over `below` with opacity `alpha` (...)."""
    return below + (above - below) * alpha[..., None]


def cube_directions(side: int) -> np.ndarray:
    """Return where the texels of MuJoCo's six sky faces lie.

    Args:
        side: of a face [texels].

    Returns:
        (6, side, side, 3) float64 unit vectors, z up, faces in MuJoCo's order: right, left, up,
        down, front, back.
    """
    centre = (np.arange(side) + 0.5) * 2 / side - 1
    t, s = np.meshgrid(centre, centre, indexing="ij")
    one = np.ones_like(s)
    # OpenGL's cube has y up and z towards MuJoCo's -y.
    faces = [
        (one, s, -t),
        (-one, -s, -t),
        (s, -t, one),
        (s, t, -one),
        (s, -one, -t),
        (-s, one, -t),
    ]
    directions = np.stack([np.stack(face, -1) for face in faces])
    return directions / np.linalg.norm(directions, axis=-1, keepdims=True)


def sky(side: int = SKY_SIDE) -> np.ndarray:
    """Return the sky box: blue air, veils above, heaps of cloud, hills and a plain.

    Args:
        side: of a face [texels].

    Returns:
        (6 * side, side, 3) uint8, the faces below each other.
    """
    direction = cube_directions(side)
    azimuth = np.arctan2(direction[..., 1], direction[..., 0]) / (2 * np.pi) % 1.0
    elevation = np.degrees(np.arcsin(direction[..., 2]))
    height = np.clip(elevation, 0, 90) / 90
    colour = HORIZON + (ZENITH - HORIZON) * (1 - (1 - height) ** 3.2)[..., None]
    colour = veils(colour, direction)
    # Far heaps first: small, low and pale; near ones large, high and clear.
    for seed, (cells, base, pale) in enumerate([
        (90, 1.2, 0.55),
        (54, 3.0, 0.35),
        (30, 6.5, 0.18),
        (15, 15.0, 0.05),
    ]):
        colour = heaps(colour, azimuth, elevation, cells, base, pale, 100 + 20 * seed)
    colour = land(colour, azimuth, elevation, direction)
    return to_bytes(colour.reshape(-1, side, 3))


def veils(colour: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Return the sky with thin high cloud, on a flat layer seen in perspective."""
    up = np.clip(direction[..., 2], 0, 1)
    depth = up + 0.10
    x, y = direction[..., 0] / depth, direction[..., 1] / depth
    footprint = (np.pi / 2 / SKY_SIDE) / depth**2
    bend = fractal(x * 0.7 + 9, y * 0.7 + 5, 40, octaves=3, footprint=footprint)
    streaks = fractal(x * 1.1 + bend, y * 0.55 + 2 * bend + 30, 50, footprint=footprint)
    alpha = 0.6 * smoothstep(streaks, 0.02, 0.75) * smoothstep(up, 0.03, 0.25)
    return blend(colour, np.broadcast_to(SUNLIT, colour.shape), alpha)


def heaps(
    colour: np.ndarray,
    azimuth: np.ndarray,
    elevation: np.ndarray,
    cells: int,
    base: float,
    pale: float,
    seed: int,
) -> np.ndarray:
    """Return the sky with one belt of cumulus: flat grey below, billowing and bright above.

    Args:
        colour: (..., 3) what lies behind.
        azimuth: (...) in turns.
        elevation: (...) [degrees].
        cells: noise cells around the horizon; 360 / cells degrees is the size of a cloud.
        base: elevation of the clouds' flat base [degrees].
        pale: how much of the horizon's colour the air in front adds, in [0, 1].
        seed: of the noise.

    Returns:
        (..., 3).
    """
    u, v = azimuth * cells, (elevation - base) * cells / 360
    around = (cells, 64)
    top = 1.5 * fractal(u, np.full_like(u, 0.5), seed, around, octaves=3) + 0.12
    top -= 0.25 * perlin(u / 3, np.full_like(u, 7.5), seed + 5, (cells // 3, 64)) + 0.1
    billow = 0.55 - fractal(u * 2, v * 2 + 20, seed + 6, (cells * 2, 64), 5, 0.02, np.abs)
    lower = 0.55 - fractal(u * 2, v * 2 + 20.25, seed + 6, (cells * 2, 64), 4, 0.02, np.abs)
    density = top - v + 0.5 * billow - 0.12
    ragged = 0.10 * fractal(u * 3, v * 3 + 5, seed + 15, (cells * 3, 64), 3)
    alpha = smoothstep(density, 0.0, 0.12) * smoothstep(v + ragged, -0.02, 0.05)
    # Lit from above: bright where the billows above are thinner, grey towards the base.
    light = 0.35 + 0.9 * np.clip(v / np.maximum(top + 0.2, 0.15), 0, 1)
    light = np.clip(light + 0.8 * (billow - lower) + 0.5 * (billow - 0.2), 0, 1)
    shade = SHADED + (SUNLIT - SHADED) * light[..., None]
    shade += (HORIZON - shade) * pale
    return blend(colour, shade, alpha * (elevation < 60))


def land(
    colour: np.ndarray, azimuth: np.ndarray, elevation: np.ndarray, direction: np.ndarray
) -> np.ndarray:
    """Return the sky with three ridges of hills and, below the horizon, a plain of grass."""
    row = np.full_like(azimuth, 0.5)
    # (seed, cells around the horizon, mean height, height of the waves [degrees], colour)
    ridges = [
        (200, 10, 1.9, 1.6, (0.62, 0.72, 0.82)),
        (210, 17, 1.0, 1.2, (0.46, 0.57, 0.62)),
        (220, 31, 0.35, 0.8, (0.33, 0.43, 0.34)),
    ]
    for seed, cells, mean, wave, tint in ridges:
        crest = mean + wave * fractal(azimuth * cells, row, seed, (cells, 64), octaves=6)
        grain = fractal(azimuth * 300, elevation * 3, seed + 7, (300, 64), 3)
        low = smoothstep(crest - elevation, 0.0, 2.5)
        rock = np.array(tint) * (1 + 0.16 * grain[..., None])
        rock += (HORIZON - rock) * (0.35 * low)[..., None]
        colour = blend(colour, rock, smoothstep(crest - elevation, -0.08, 0.08))
    down = np.clip(-direction[..., 2], 1e-3, 1)
    x, y = direction[..., 0] / down, direction[..., 1] / down
    footprint = (np.pi / 2 / SKY_SIDE) / down**2
    grass = fractal(x + 20, y + 20, 230, octaves=7, footprint=footprint)
    plain = np.array([0.42, 0.48, 0.30]) * (1 + 0.35 * grass[..., None])
    plain += (HORIZON * 0.92 - plain) * (0.75 * np.exp(-down / 0.12))[..., None]
    return blend(colour, plain, smoothstep(-elevation, 0.0, 0.12))


def tiles(side: int = TILES_SIDE) -> np.ndarray:
    """Return glazed ceramic tiles: each of its own shade and marbling, rounded edges, grout.

    Args:
        side: of the picture [pixels]; it repeats without a seam.

    Returns:
        (side, side, 3) uint8.
    """
    rng = np.random.default_rng(300)
    y, x = (np.indices((side, side)) + 0.5) * TILES / side
    tile = np.floor(y).astype(int), np.floor(x).astype(int)
    shift = rng.uniform(0, 50, (2, TILES, TILES))
    u, v = x + shift[0][tile], y + shift[1][tile]
    # Darker than ceramic is, since the light from above and the headlight shine on it together.
    # Marbling: veins where a bent noise crosses zero, over clouds of the second colour.
    bend = fractal(u * 1.5, v * 1.5, 310, octaves=4)
    clouds = fractal(u * 2 + bend, v * 2 - bend, 320, octaves=5)
    veins = np.exp(-np.abs(fractal(u * 1.3 + 1.5 * bend, v * 1.3 + 3, 330, octaves=4)) / 0.03)
    colour = np.array([0.62, 0.575, 0.51]) * (1 + 0.09 * clouds[..., None])
    colour = blend(colour, np.broadcast_to([0.46, 0.41, 0.35], colour.shape), 0.35 * veins)
    colour *= 1 + 0.045 * rng.uniform(-1, 1, (TILES, TILES))[tile][..., None]
    colour *= 1 + 0.018 * rng.uniform(-1, 1, (TILES, TILES, 3))[tile]
    colour *= 1 + 0.012 * rng.normal(size=(side, side, 1))
    # Edges round off over a few hundredths of a tile: lit towards the top left, dark opposite.
    fx, fy = x % 1, y % 1
    edge = np.minimum(np.minimum(fx, 1 - fx), np.minimum(fy, 1 - fy))
    bevel = np.exp(-np.minimum(fx, fy) / 0.02) - np.exp(-np.minimum(1 - fx, 1 - fy) / 0.02)
    colour *= 1 + 0.10 * bevel[..., None]
    wobble = 0.003 * fractal(x * 8, y * 8, 340, (8 * TILES, 8 * TILES), 2)
    grout = 0.36 * np.array([1.0, 0.97, 0.92]) * (1 + 0.12 * rng.normal(size=(side, side, 1)))
    return to_bytes(blend(colour, grout, 1 - smoothstep(edge + wobble, 0.010, 0.020)))


def metal(side: int = METAL_SIDE) -> np.ndarray:
    """Return brushed metal: fine streaks along rows, faint stains, a few scratches.

    Args:
        side: of the picture [pixels]; it repeats without a seam.

    Returns:
        (side, side, 3) uint8.
    """
    y, x = (np.indices((side, side)) + 0.5) / side
    streaks = sum(
        perlin(x * along, y * across, 400 + across, (along, across)) * weight
        for along, across, weight in [(2, 64, 0.5), (4, 128, 0.7), (3, 32, 0.3)]
    )
    stains = fractal(x * 3, y * 3, 450, (3, 3), 4)
    scratch = perlin(x * 5, y * 128, 470, (5, 128))
    value = 0.86 + 0.16 * streaks + 0.07 * stains - 0.10 * smoothstep(scratch, 0.45, 0.6)
    return to_bytes(value[..., None] * np.array([0.97, 0.99, 1.02]))


def to_bytes(colour: np.ndarray) -> np.ndarray:
    """Return colours in [0, 1] as bytes."""
    return np.rint(np.clip(colour, 0, 1) * 255).astype(np.uint8)


PICTURES = {"sky.png": sky, "tiles.png": tiles, "metal.png": metal}


def main(folder: Path = FOLDER) -> None:
    """Write all pictures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        Image.fromarray(draw()).save(folder / name, optimize=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
