"""Training frames of environments that are drawn flat: CartPole-v1 and MountainCarContinuous-v0.

A third of them are the environments' own pictures, the others show the same states in other
colours, sizes and places. All are drawn large and resized like a user's frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from vlmrm_fast.pretrain import concepts
from vlmrm_fast.pretrain.data import FRAMES_PER_BLOCK, BlockSpec, Frames, resize
from vlmrm_fast.pretrain.looks import contrasting
from vlmrm_fast.tasks import GymTask, get_task, mountain
from vlmrm_fast.tasks.classic import POSITION_BOUND

# Blocks by (scene, task look); "mountaincar-original" is the car on gymnasium's black line.
FLAT_SHARES: dict[tuple[str, bool], float] = {
    ("gym-cartpole", True): 0.30,
    ("gym-cartpole", False): 0.22,
    ("mountaincar", True): 0.18,
    ("mountaincar", False): 0.15,
    ("mountaincar-original", True): 0.15,
}
FLAT_SCENES = tuple(dict.fromkeys(scene for scene, _ in FLAT_SHARES))
# Neither near nor far, in the unit of `concepts.cartpole_degrees`.
_MIDDLE_DISTANCE = 4.5
# Carts beyond this offset, 1 being the picture's edge, are out of sight.
_OUT_OF_SIGHT = 1.12


def flat_specs(blocks: int, seed: int) -> list[BlockSpec]:
    """Draw what the flat blocks of a data set show.

    Args:
        blocks: how many.
        seed: lists of the same seed are equal, up to their lengths.

    Returns:
        One description a block.
    """
    rng, kinds = np.random.default_rng((seed, 2)), list(FLAT_SHARES)
    chosen = rng.choice(len(kinds), blocks, p=list(FLAT_SHARES.values()))
    return [BlockSpec(*kinds[index]) for index in chosen]


def draw_flat_block(spec: BlockSpec, side: int, rng: np.random.Generator) -> Frames:
    """Draw the frames of one block.

    Args:
        spec: what it shows; only scene and task look are read.
        side: side of the frames [pixels].
        rng: the source of randomness, advanced by this call.

    Returns:
        `FRAMES_PER_BLOCK` frames; of cars, `angles` is NaN and `offsets` the position.
    """
    draw = _draw_cartpoles if spec.scene == "gym-cartpole" else _draw_cars
    pictures, degrees, angles, offsets = draw(spec, rng)
    groups = np.array([spec.scene] * FRAMES_PER_BLOCK)
    images = resize(pictures, side)
    return Frames(images, degrees, groups, angles.astype(np.float32), offsets.astype(np.float32))


@lru_cache(maxsize=1)
def _environments() -> dict[str, Any]:
    """Return one environment a scene that draws itself."""
    tasks = {"gym-cartpole": "cartpole", "mountaincar-original": "mountaincar"}
    found = {}
    for scene, name in tasks.items():
        task = get_task(name)
        assert isinstance(task, GymTask)
        found[scene] = (task, task.make(textures="original"))
    return found


def _own_pictures(scene: str, states: np.ndarray) -> list[np.ndarray]:
    """Return the environment's own picture of each state."""
    task, env = _environments()[scene]
    pictures = []
    for state in states:
        task.set_state(env, state)
        pictures.append(np.array(env.render()))
    return pictures


def _draw_cartpoles(
    spec: BlockSpec, rng: np.random.Generator
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """Draw poles near upright, around it or anywhere, on carts all over the picture."""
    count = FRAMES_PER_BLOCK
    spread = rng.choice((0.12, 0.4, np.inf), count, p=(0.4, 0.25, 0.35))
    angles = np.where(
        np.isinf(spread),
        rng.uniform(-np.pi, np.pi, count),
        rng.normal(0.0, np.where(np.isinf(spread), 1.0, spread)),
    )
    places = rng.uniform(-0.98, 0.98, count)
    away = rng.random(count) < 0.04
    places = np.where(away, rng.choice((-1, 1), count) * rng.uniform(1.2, 2.5, count), places)
    if spec.task_look:
        states = np.zeros((count, 4))
        states[:, 0], states[:, 2] = places * POSITION_BOUND, angles
        pictures = _own_pictures(spec.scene, states)
    else:
        look = _random_cartpole(rng)
        pictures = [look.draw(a, p) for a, p in zip(angles, places, strict=True)]
    far = np.full(count, _MIDDLE_DISTANCE)
    degrees = concepts.cartpole_degrees(angles, places, far, np.zeros(count, bool))
    # Nothing is true of a picture that the cart has left.
    degrees[np.abs(places) > _OUT_OF_SIGHT] = 0.0
    return pictures, degrees, angles, places * POSITION_BOUND


@dataclass(frozen=True)
class _FlatCartpole:
    """A drawing of a cart-pole: sizes [pixels] and colours (red, green, blue)."""

    width: int
    track: int
    cart: tuple[float, float]
    pole: tuple[float, float]
    line: int
    colours: tuple[tuple[int, int, int], ...]

    def draw(self, angle: float, place: float) -> np.ndarray:
        """Return (400, width, 3) uint8 of a pole [rad] on a cart, at -1 left edge to 1 right."""
        from PIL import Image, ImageDraw

        sky, floor, cart, pole, line = self.colours
        image = Image.new("RGB", (self.width, 400), sky)
        draw = ImageDraw.Draw(image)
        draw.rectangle((0, self.track, self.width, 400), floor)
        if self.line:
            draw.line((0, self.track, self.width, self.track), line, self.line)
        x, (wide, high) = (1 + place) * self.width / 2, self.cart
        draw.rectangle(
            (x - wide / 2, self.track - high / 2, x + wide / 2, self.track + high / 2), cart
        )
        length, thick = self.pole
        along = np.array([np.sin(angle), -np.cos(angle)])
        across = np.array([along[1], -along[0]]) * thick / 2
        foot = np.array([x, self.track - high / 4])
        corners = [foot - across, foot + across, foot + along * length + across]
        corners.append(foot + along * length - across)
        draw.polygon([(float(a), float(b)) for a, b in corners], pole)
        return np.array(image)


def _random_cartpole(rng: np.random.Generator) -> _FlatCartpole:
    """Return a drawing with random sizes and colours that can be told apart."""
    sky = rng.uniform(0.0, 1.0, 3)
    floor = sky if rng.random() < 0.6 else rng.uniform(0.0, 1.0, 3)
    cart = contrasting((sky, floor), rng)
    pole = contrasting((sky, floor, cart), rng)
    line = contrasting((sky,), rng)
    parts = [tuple(int(255 * part) for part in colour) for colour in (sky, floor, cart, pole, line)]
    return _FlatCartpole(
        width=int(rng.integers(400, 641)),
        track=int(rng.integers(200, 331)),
        cart=(rng.uniform(36, 80), rng.uniform(18, 46)),
        pole=(rng.uniform(85, 180), rng.uniform(6, 18)),
        line=int(rng.integers(0, 4)),
        colours=tuple(parts),  # type: ignore[arg-type]
    )


def _draw_cars(
    spec: BlockSpec, rng: np.random.Generator
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """Draw cars at the flag, near it, in the valley or anywhere."""
    count = FRAMES_PER_BLOCK
    ranges = np.array([(-1.2, 0.6), (mountain.GOAL - 0.02, 0.6), (0.2, 0.5), (-0.7, -0.35)])
    low, high = ranges[rng.choice(4, count, p=(0.4, 0.2, 0.2, 0.2))].T
    positions = rng.uniform(low, high)
    states = np.stack([positions, np.zeros(count)], axis=1)
    if spec.scene == "mountaincar-original":
        pictures = _own_pictures(spec.scene, states)
    else:
        look = mountain.PHOTOGRAPHIC if spec.task_look else _random_mountain(rng)
        pictures = [mountain.paint(state, look) for state in states]
    return pictures, concepts.mountaincar_degrees(positions), np.full(count, np.nan), positions


def _random_mountain(rng: np.random.Generator) -> mountain.MountainLook:
    """Return another season, rock and car; the flag stays some yellow, as captions call it."""

    def near(colour: mountain.Colour, spread: float) -> mountain.Colour:
        red, green, blue = np.clip(np.array(colour) + rng.normal(0, spread, 3), 0, 255)
        return float(red), float(green), float(blue)

    usual = mountain.PHOTOGRAPHIC
    ground = near(usual.grass, 45.0)
    car = contrasting((np.array(ground) / 255, np.array(usual.sky) / 255), rng) * 255
    return mountain.MountainLook(
        sky=near(usual.sky, 40.0),
        clouds=float(rng.uniform(0.0, 0.9)),
        far=near(usual.far, 30.0),
        grass=ground,
        rock=near(usual.rock, 40.0),
        car=(float(car[0]), float(car[1]), float(car[2])),
        flag=near(usual.flag, 18.0),
        seed=int(rng.integers(2**31)),
    )
