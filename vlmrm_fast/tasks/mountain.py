"""A picture of MountainCarContinuous-v0 with sky, rock, grass and a car, all of it computed.

A model that was trained on photographs takes the environment's own lines on white for a chart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

# The environment's own: where the car may be, where the flag stands, the curve it drives on.
LEFT, RIGHT, GOAL = -1.2, 0.6, 0.45
HEIGHT, WIDTH = 400, 600
_SCALE = WIDTH / (RIGHT - LEFT)
# The car is drawn this many times as large and averaged down.
_OVERSAMPLE = 4

Colour = tuple[float, float, float]
"""Red, green and blue, 0 ... 255."""


@dataclass(frozen=True)
class MountainLook:
    """Colours and the seed of all that is irregular.

    Attributes:
        sky: colour at the top of the picture; it pales towards the horizon.
        clouds: how much of the sky they cover, 0 ... 1.
        far: colour of the mountains in the distance.
        grass: colour of the ground's surface.
        rock: colour of the ground below it.
        car: colour of the car's body.
        flag: colour of the flag.
        seed: of clouds, ridges and grain.
    """

    sky: Colour = (86, 141, 211)
    clouds: float = 0.45
    far: Colour = (112, 128, 156)
    grass: Colour = (92, 128, 58)
    rock: Colour = (124, 108, 92)
    car: Colour = (186, 32, 36)
    flag: Colour = (250, 212, 20)
    seed: int = 0


PHOTOGRAPHIC = MountainLook()


def curve(position: np.ndarray | float) -> np.ndarray:
    """Return the height of the track.

    Args:
        position: the car's position, any shape.

    Returns:
        The height in the same unit, same shape.

    Source:
        gymnasium's `Continuous_MountainCarEnv._height`.
    """
    return np.sin(3 * np.asarray(position)) * 0.45 + 0.55


def paint(state: np.ndarray, look: MountainLook = PHOTOGRAPHIC) -> np.ndarray:
    """Draw one state.

    Args:
        state: (2,) position and speed; the speed is not seen.
        look: the colours.

    Returns:
        (400, 600, 3) uint8, the places and sizes those of the environment's own picture.
    """
    picture = background(look).copy()
    position = float(np.clip(state[0], LEFT, RIGHT))
    # The environment's own picture tilts the car by cos(3 x), the curve's slope up to a factor.
    angle = float(np.cos(3 * position))
    colour, cover = _car(round(2 * np.rad2deg(angle)) / 2, look.car)
    side = len(cover)
    column = round((position - LEFT) * _SCALE - side / 2)
    row = round(HEIGHT - float(curve(position)) * _SCALE - 10 - side / 2)
    rows = slice(max(row, 0), min(row + side, HEIGHT))
    columns = slice(max(column, 0), min(column + side, WIDTH))
    part = (
        slice(rows.start - row, rows.stop - row),
        slice(columns.start - column, columns.stop - column),
    )
    patch, share = picture[rows, columns], cover[part][..., None]
    patch[:] = np.rint(patch * (1 - share) + colour[part] * share).astype(np.uint8)
    return picture


@lru_cache(maxsize=8)
def background(look: MountainLook) -> np.ndarray:
    """Draw everything but the car, once a look.

    Args:
        look: the colours.

    Returns:
        (400, 600, 3) uint8, to be copied before it is drawn on.
    """
    rng = np.random.default_rng(look.seed)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    picture = _sky(rows, look, rng)
    _ridges(picture, rows, columns, look, rng)
    _ground(picture, rows, columns, look, rng)
    _flag(picture, rows, columns, look)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def noise(rng: np.random.Generator, height: int, width: int, coarsest: int) -> np.ndarray:
    """Return smooth noise: the sum of random grids, each twice as fine and half as strong.

    Args:
        rng: the source of randomness, advanced by this call.
        height: rows.
        width: columns.
        coarsest: width of the coarsest grid's cells [pixels].

    Returns:
        (height, width) float64, mean 0, standard deviation 1.
    """
    total = np.zeros((height, width))
    cell, strength = float(coarsest), 1.0
    while cell >= 2:
        grid = rng.normal(size=(int(height / cell) + 2, int(width / cell) + 2))
        total += strength * _enlarge(grid, height, width, cell)
        cell, strength = cell / 2, strength / 2
    return (total - total.mean()) / max(float(total.std()), 1e-9)


def _enlarge(grid: np.ndarray, height: int, width: int, cell: float) -> np.ndarray:
    """Return (height, width) values between the points of a grid, smoothly blended."""
    y, x = np.arange(height) / cell, np.arange(width) / cell
    row, column = y.astype(int), x.astype(int)
    # Smoothstep: the grid's lines must not show as creases.
    down, right = (t * t * (3 - 2 * t) for t in (y - row, x - column))
    upper = grid[row][:, column] * (1 - right) + grid[row][:, column + 1] * right
    lower = grid[row + 1][:, column] * (1 - right) + grid[row + 1][:, column + 1] * right
    return upper * (1 - down[:, None]) + lower * down[:, None]


def _sky(rows: np.ndarray, look: MountainLook, rng: np.random.Generator) -> np.ndarray:
    """Return a sky that pales downwards, with clouds flattened towards the horizon."""
    pale = np.clip(rows / (0.75 * HEIGHT), 0, 1)[..., None] ** 1.3
    sky = np.array(look.sky) * (1 - pale) + (0.25 * np.array(look.sky) + 178.0) * pale
    # Cells twice as wide as high: the noise is drawn narrow and stretched.
    field = np.repeat(noise(rng, HEIGHT, WIDTH // 2, 64), 2, axis=1)
    edge = 1.2 - 2.0 * look.clouds
    cover = np.clip((field - edge) / 1.4, 0, 1)[..., None] * 0.85
    return sky * (1 - cover) + np.array([248.0, 249.0, 251.0]) * cover


def _ridges(
    picture: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    look: MountainLook,
    rng: np.random.Generator,
) -> None:
    """Draw two ranges of mountains in the haze, the farther paler and capped with snow."""
    for level, size, haze in ((150.0, 42.0, 0.55), (205.0, 30.0, 0.3)):
        crest = level + size * noise(rng, 2, WIDTH, 150)[0]
        grain = noise(rng, HEIGHT, WIDTH, 24)
        depth = rows - crest[columns.astype(int)]
        colour = np.array(look.far) + 12.0 * grain[..., None]
        snow = np.clip((level - 6.0 - rows + 9.0 * grain) / 14.0, 0, 1)[..., None]
        colour = colour * (1 - snow) + 236.0 * snow
        colour = colour * (1 - haze) + 205.0 * haze
        inside = np.clip(depth + 0.5, 0, 1)[..., None]
        picture[:] = picture * (1 - inside) + colour * inside


def _ground(
    picture: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    look: MountainLook,
    rng: np.random.Generator,
) -> None:
    """Draw the mountain that the car drives on: grass on rock, lit from the upper left."""
    position = LEFT + columns / _SCALE
    depth = rows - (HEIGHT - curve(position) * _SCALE)
    coarse, fine = noise(rng, HEIGHT, WIDTH, 48), noise(rng, HEIGHT, WIDTH, 6)
    # A slope that rises to the right turns away from the light.
    light = 1.0 - 0.14 * np.cos(3 * position)
    rock = np.array(look.rock) * (light * (1 + 0.16 * coarse + 0.10 * fine))[..., None]
    grass = np.array(look.grass) * (light * (1 + 0.10 * coarse + 0.14 * fine))[..., None]
    share = np.clip((26.0 + 14.0 * coarse - depth) / 12.0, 0, 1)[..., None]
    inside = np.clip(depth + 0.5, 0, 1)[..., None]
    picture[:] = picture * (1 - inside) + (grass * share + rock * (1 - share)) * inside


def _flag(picture: np.ndarray, rows: np.ndarray, columns: np.ndarray, look: MountainLook) -> None:
    """Draw the flag: where the environment's own stands, of the same height, a bit larger."""
    x = (GOAL - LEFT) * _SCALE
    foot = HEIGHT - float(curve(GOAL)) * _SCALE
    pole = (np.abs(columns - x) <= 1) & (rows <= foot) & (rows >= foot - 50)
    picture[pole] = (70.0, 62.0, 56.0)
    along = columns - x
    cloth = (along > 1) & (along <= 30) & (np.abs(rows - (foot - 41)) <= 9 * (1 - along / 31))
    # Folds across the cloth.
    shade = 1.0 - 0.1 * np.sin(along / 3.0)
    picture[cloth] = (np.array(look.flag) * shade[..., None])[cloth]


@lru_cache(maxsize=256)
def _car(degrees: float, body: Colour) -> tuple[np.ndarray, np.ndarray]:
    """Return a car at a tilt: colours (S, S, 3) float32 and how much it covers (S, S)."""
    from PIL import Image, ImageDraw

    side, k = 64, _OVERSAMPLE
    image = Image.new("RGBA", (side * k, side * k))
    draw = ImageDraw.Draw(image)

    def at(x: float, y: float) -> tuple[float, float]:
        return (side / 2 + x) * k, (side / 2 - y) * k

    def shade(factor: float) -> tuple[int, int, int, int]:
        red, green, blue = (int(min(255, factor * part)) for part in body)
        return red, green, blue, 255

    # Body, cabin, windows, wheels; the wheels stand where the environment's own do.
    draw.polygon([at(-21, 1), at(-21, 9), at(-17, 11), at(18, 11), at(21, 8), at(21, 1)], shade(1))
    draw.polygon([at(-14, 10), at(-9, 19), at(6, 19), at(13, 10)], shade(0.82))
    draw.polygon([at(-11, 11), at(-7.5, 17.5), at(-2, 17.5), at(-2, 11)], (186, 214, 230, 255))
    draw.polygon([at(0, 11), at(0, 17.5), at(5, 17.5), at(10, 11)], (186, 214, 230, 255))
    draw.line([at(-21, 4), at(21, 4)], shade(0.6), width=k)
    for x in (-11, 11):
        for radius, grey in ((7, 26), (3.4, 168)):
            draw.ellipse([at(x - radius, radius), at(x + radius, -radius)], (grey, grey, grey, 255))
    turned = image.rotate(degrees, Image.Resampling.BICUBIC)
    pixels = np.asarray(turned, np.float32).reshape(side, k, side, k, 4)
    weight = pixels[..., 3:] / 255.0
    cover = weight.mean(axis=(1, 3))
    colour = (pixels[..., :3] * weight).mean(axis=(1, 3)) / np.maximum(cover, 1e-9)
    return colour, cover[..., 0]
