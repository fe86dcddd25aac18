"""What is true of a state, and how true: the numbers from which captions and targets come.

A concept ("kneeling", "upright") has a degree in [0, 1] for every state, computed from the geometry
alone. Degrees fall off with heavy tails, 1 / (1 + (v / w)^2) at a violation v: the log-odds then
keep growing towards the goal from far away, and a model fitted to them gives a dense reward.
"""

from __future__ import annotations

import numpy as np

from vlmrm_fast.tasks.geometry import HumanoidGeometry, unit
from vlmrm_fast.tasks.mountain import GOAL, curve

# Bins of the pole's angle that captions name in degrees.
ANGLE_BINS = (5, 10, 15, 20, 30, 45, 60, 75, 90, 120, 150)

_CARTPOLE = (
    "cartpole",
    "upright",
    "tilted",
    "slightly_left",
    "slightly_right",
    "leaning_left",
    "leaning_right",
    "fallen_left",
    "fallen_right",
    "hanging",
    "cart_left",
    "cart_middle",
    "cart_right",
    *(f"angle_{angle}" for angle in ANGLE_BINS),
)
_HUMANOID = (
    "humanoid",
    "standing",
    "one_leg",
    "kneeling",
    "kneeling_one",
    "crouching",
    "bending",
    "sitting",
    "lotus",
    "splits",
    "all_fours",
    "lying",
    "lying_back",
    "lying_front",
    "lying_side",
    "falling",
    "arms_raised",
    "hands_on_hips",
    "arms_crossed",
    "arms_out",
    "arms_forward",
    "seen_front",
    "seen_back",
    "seen_side",
)
_SHARED = ("near", "far", "nothing")
# Appended later: a concept's place never changes, so that stored degrees keep their meaning.
_MOUNTAINCAR = (
    "mountaincar",
    "car_high",
    "car_flag",
    "car_below_flag",
    "car_valley",
    "car_left",
    "car_right",
)
CONCEPTS: tuple[str, ...] = (*_CARTPOLE, *_HUMANOID, *_SHARED, *_MOUNTAINCAR)
INDEX: dict[str, int] = {name: i for i, name in enumerate(CONCEPTS)}


def at_least(value: np.ndarray, bound: float, width: float) -> np.ndarray:
    """Return 1 where value >= bound, falling as 1 / (1 + (violation / width)^2) below it.

    Args:
        value: any shape.
        bound: where the degree reaches 1.
        width: the violation at which it is one half; same unit as value.

    Returns:
        Degrees in (0, 1], same shape.
    """
    return 1.0 / (1.0 + (np.maximum(bound - value, 0.0) / width) ** 2)


def at_most(value: np.ndarray, bound: float, width: float) -> np.ndarray:
    """Return 1 where value <= bound, falling above it as `at_least` does below.

    Args:
        value: any shape.
        bound: until where the degree is 1.
        width: the violation at which it is one half; same unit as value.

    Returns:
        Degrees in (0, 1], same shape.
    """
    return at_least(-value, -bound, width)


def cartpole_degrees(
    angle: np.ndarray, offset: np.ndarray, distance: np.ndarray, mirrored: np.ndarray
) -> np.ndarray:
    """Return the degree of each concept for cart-pole states.

    Args:
        angle: (N,) pole angle from the vertical [rad], in [-pi, pi], positive towards +x.
        offset: (N,) the cart's horizontal place in the picture, -1 left edge to 1 right edge.
        distance: (N,) camera distance [m].
        mirrored: (N,) bool, True where +x points to the picture's left.

    Returns:
        (N, len(CONCEPTS)) float32 in [0, 1].
    """
    right = np.where(mirrored, -angle, angle)
    size = np.abs(angle)
    out = np.zeros((len(angle), len(CONCEPTS)), np.float32)
    # 0.1 rad is the half-width at which "upright" is as true as not.
    values = {
        "cartpole": np.ones_like(size),
        "upright": at_most(size, 0.0, 0.1),
        "tilted": at_least(size, 0.3, 0.1),
        "slightly_left": _between(-right, 0.1, 0.3, 0.05),
        "slightly_right": _between(right, 0.1, 0.3, 0.05),
        "leaning_left": _between(-right, 0.3, 0.95, 0.1),
        "leaning_right": _between(right, 0.3, 0.95, 0.1),
        "fallen_left": _between(-right, 1.2, 2.0, 0.25),
        "fallen_right": _between(right, 1.2, 2.0, 0.25),
        "hanging": at_least(size, 2.7, 0.3),
        "cart_left": at_most(offset, -0.3, 0.1),
        "cart_middle": at_most(np.abs(offset), 0.15, 0.1),
        "cart_right": at_least(offset, 0.3, 0.1),
        "near": at_most(distance, 3.2, 0.3),
        "far": at_least(distance, 5.8, 0.4),
    }
    for degrees in ANGLE_BINS:
        centre = np.deg2rad(degrees)
        values[f"angle_{degrees}"] = at_most(np.abs(size - centre), 0.0, 0.04 + 0.15 * centre)
    for name, value in values.items():
        out[:, INDEX[name]] = value
    return out


def mountaincar_degrees(position: np.ndarray) -> np.ndarray:
    """Return the degree of each concept for mountain cars.

    Args:
        position: (N,) position of the car, -1.2 left to 0.6 right, the flag at 0.45.

    Returns:
        (N, len(CONCEPTS)) float32 in [0, 1].
    """
    height = curve(position)
    values = {
        "mountaincar": np.ones_like(position),
        # Wide: the reward of being at the peak has to grow from the valley on, on both sides.
        "car_high": at_least(height, 0.97, 0.25),
        "car_flag": at_least(position, GOAL, 0.12),
        "car_below_flag": _between(position, 0.15, 0.38, 0.06),
        "car_valley": at_most(height, 0.17, 0.1),
        "car_left": at_most(position, -0.85, 0.1),
        "car_right": _between(position, -0.2, 0.3, 0.1),
    }
    out = np.zeros((len(position), len(CONCEPTS)), np.float32)
    for name, value in values.items():
        out[:, INDEX[name]] = value
    return out


def humanoid_degrees(
    geometry: HumanoidGeometry, view: np.ndarray, distance: np.ndarray
) -> np.ndarray:
    """Return the degree of each concept for humanoid states.

    Args:
        geometry: N states.
        view: (N, 3) unit vectors from the robot to the camera.
        distance: (N,) camera distance [m].

    Returns:
        (N, len(CONCEPTS)) float32 in [0, 1].
    """
    legs = _legs(geometry)
    facing = (geometry.forward * view).sum(1)
    values = {
        "humanoid": np.ones(len(view)),
        **legs,
        **_tilted(geometry, legs["crouching"]),
        **_arms(geometry),
        "seen_front": at_least(facing, 0.75, 0.15),
        "seen_back": at_most(facing, -0.75, 0.15),
        "seen_side": at_least(np.abs((geometry.left * view).sum(1)), 0.75, 0.15),
        "near": at_most(distance, 2.9, 0.3),
        "far": at_least(distance, 4.6, 0.4),
    }
    out = np.zeros((len(view), len(CONCEPTS)), np.float32)
    for name, value in values.items():
        out[:, INDEX[name]] = value
    return out


def _legs(g: HumanoidGeometry) -> dict[str, np.ndarray]:
    """Return the degrees of what torso and legs do, lying and falling apart."""
    up, pelvis = g.up[:, 2], g.pelvis[:, 2]
    knees, feet = g.knees[..., 2], g.feet[..., 2]
    thighs, shins = unit(g.knees - g.hips), unit(g.feet - g.knees)
    bend = np.arccos(np.clip((thighs * shins).sum(-1), -1, 1))
    spread = np.arccos(np.clip((thighs[:, 0] * thighs[:, 1]).sum(-1), -1, 1))
    ahead = ((g.knees - g.hips) * g.forward[:, None]).sum(-1)
    behind = -((g.feet - g.knees) * g.forward[:, None]).sum(-1)

    # Parts that several postures share.
    torso_up = at_least(up, 0.8, 0.15)
    feet_down = at_most(feet.max(1), 0.25, 0.08)
    foot_planted = at_least(knees - feet, 0.22, 0.06) * at_most(feet, 0.2, 0.08)
    knee_down = at_most(knees, 0.16, 0.07) * at_least(behind, 0.08, 0.08)
    knee_down = knee_down * at_least(pelvis[:, None] - knees, 0.18, 0.06)

    kneeling = torso_up * knee_down.min(1) * feet_down * at_most(spread, 1.3, 0.25)
    seated = at_least(up, 0.7, 0.2) * at_most(pelvis, 0.28, 0.06)
    seated = seated * at_least(ahead.min(1), 0.1, 0.08) * (1 - kneeling)
    standing = at_least(up, 0.95, 0.05) * at_least(pelvis, 0.78, 0.07)
    standing = standing * at_most(feet.min(1), 0.25, 0.08)
    folded = at_least(up, 0.7, 0.2) * at_most(pelvis, 0.4, 0.06) * at_least(bend.min(1), 1.9, 0.25)
    crouching = at_least(up, 0.55, 0.15) * _between(pelvis, 0.36, 0.72, 0.05)
    crouching = crouching * foot_planted.min(1) * at_least(bend.min(1), 0.9, 0.2)
    one_knee = np.maximum(
        knee_down[:, 0] * foot_planted[:, 1], knee_down[:, 1] * foot_planted[:, 0]
    )
    return {
        "standing": standing,
        "one_leg": standing * at_least(np.abs(feet[:, 0] - feet[:, 1]), 0.25, 0.06),
        "kneeling": kneeling,
        "kneeling_one": torso_up * one_knee,
        "crouching": crouching,
        "sitting": seated,
        "lotus": folded * at_least(spread, 1.5, 0.2) * feet_down,
        "splits": seated * at_most(bend.max(1), 0.7, 0.2) * at_least(spread, 1.4, 0.2),
    }


def _tilted(g: HumanoidGeometry, crouching: np.ndarray) -> dict[str, np.ndarray]:
    """Return the degrees of postures whose torso is not upright."""
    up, pelvis = g.up[:, 2], g.pelvis[:, 2]
    knees, feet = g.knees[..., 2], g.feet[..., 2]
    legs = unit(g.feet.mean(1) - g.pelvis)
    bending = at_most(up, 0.45, 0.15) * at_least(pelvis, 0.6, 0.08)
    bending = bending * at_most(feet.max(1), 0.25, 0.08)
    bending = bending * at_least(knees.min(1), 0.3, 0.06) * at_least(-legs[:, 2], 0.8, 0.15)
    all_fours = at_most(np.abs(up), 0.5, 0.12) * at_most(g.forward[:, 2], -0.6, 0.2)
    all_fours = all_fours * _between(pelvis, 0.3, 0.68, 0.06) * at_most(knees.max(1), 0.2, 0.08)
    all_fours = all_fours * at_most(g.hands[..., 2].max(1), 0.25, 0.1)
    flat = at_most(np.abs(up), 0.45, 0.12) * at_most(g.torso[:, 2], 0.35, 0.08)
    flat = flat * at_most(pelvis, 0.35, 0.08)
    falling = _between(up, 0.2, 0.88, 0.06) * at_least(pelvis, 0.45, 0.08)
    falling = falling * at_least(np.abs((legs * g.up).sum(1)), 0.6, 0.2)
    return {
        "bending": bending,
        "all_fours": all_fours,
        "lying": flat,
        "lying_back": flat * at_least(g.forward[:, 2], 0.65, 0.12),
        "lying_front": flat * at_most(g.forward[:, 2], -0.65, 0.12),
        "lying_side": flat * at_least(np.abs(g.left[:, 2]), 0.65, 0.12),
        "falling": falling * (1 - crouching) * (1 - bending) * (1 - all_fours),
    }


def _arms(g: HumanoidGeometry) -> dict[str, np.ndarray]:
    """Return the degrees of what the arms do, in the torso's frame."""
    axes = np.stack([g.forward, g.left, g.up], axis=1)
    hands = np.einsum("nsk,njk->nsj", g.hands - g.torso[:, None], axes)
    # Mirror the right hand, so that one point describes both sides.
    hands[:, 0, 1] *= -1.0

    def near(point: tuple[float, float, float]) -> np.ndarray:
        return at_most(np.linalg.norm(hands - np.array(point), axis=-1).max(1), 0.1, 0.08)

    return {
        "arms_raised": at_least(hands[..., 2].min(1), 0.33, 0.08) * at_least(g.up[:, 2], 0.6, 0.15),
        "hands_on_hips": near((0.04, 0.17, -0.33)),
        "arms_crossed": near((0.27, -0.01, -0.05)),
        "arms_out": near((0.01, 0.78, 0.07)),
        "arms_forward": near((0.61, 0.21, 0.07)),
    }


def _between(value: np.ndarray, low: float, high: float, width: float) -> np.ndarray:
    """Return 1 inside [low, high], falling outside as `at_least` does."""
    return at_least(value, low, width) * at_most(value, high, width)
