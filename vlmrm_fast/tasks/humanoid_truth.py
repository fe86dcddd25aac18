"""Ground truths of the humanoid tasks: geometry of a state, no picture and no model.

Each judge says which of N robots show a pose. Bounds lie between the pose and its nearest misses;
the margins are those of the posed states, 2 % quantile of the worse side, in metres and degrees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from vlmrm_fast.tasks.geometry import HumanoidGeometry, humanoid_geometry, unit
from vlmrm_fast.tasks.task import Fields

# Kneeling, in metres above the floor and degrees of tilt. A knee (origin of the shin) is 0.05 to
# 0.1 high with the shin on the floor, 0.4 in a squat and 0.5 when standing; the pelvis is 0.24 high
# when sitting on the heels, 0.45 on upright thighs, and about 0.1 when sitting or lying. Knees are
# bent by 83 degrees or more, by 25 or less when sitting with the legs out.
KNEE_HEIGHT = 0.20
PELVIS_HEIGHT = 0.20
KNEE_BEND = np.deg2rad(55.0)
TORSO_TILT = np.deg2rad(40.0)

# Standing. The pelvis is 0.85 high on straight legs, 0.80 with the legs apart and at most 0.68 in a
# half squat. The centre of a foot is 0.075 high on the floor and up to 0.16 with the legs apart,
# where one may hang; whoever falls leans by more than 22 degrees.
STANDING_HEIGHT = 0.75
FOOT_HEIGHT = 0.17
STANDING_TILT = np.deg2rad(20.0)
# One leg: the other foot is 0.26 or higher when the thigh is raised, 0.14 when only the heel is,
# and 0.23 behind someone who walks.
LIFTED_HEIGHT = 0.24

# Raised: the hands are 0.25 above the centre of the head, whose top is at 0.09; an arm held out
# sideways or forwards stays 0.10 below it.
RAISED_HEIGHT = 0.12
# Hands on hips: a hand rests beside the pelvis, a little above its centre, within 0.13 of this
# point (sideways, up); a hand that hangs is 0.20 away. Elbows point out by 0.06 or more beyond the
# hands, by less than 0.02 when the arms hang.
HIP_POINT = (0.17, 0.08)
HIP_DISTANCE = 0.16
ELBOW_OUT = 0.03
# Crossed: each hand is 0.04 or more on the other side of the chest; hands that meet in front of it
# stay within 0.01. Ahead of the torso's centre by 0.3, and between the waist and the shoulders.
CROSSED = 0.025
CHEST_AHEAD = 0.1
CHEST_HEIGHT = (-0.40, 0.15)

# Seated: the pelvis is 0.10 to 0.16 high, 0.28 on the heels and 0.22 in a low squat.
SEAT_HEIGHT = 0.21
# Lotus: knees bent by 107 degrees or more and 0.47 apart, where someone on the heels has them 0.3
# apart; each foot is past the other, by 0.02 or more. With open shins the knees are bent by at most
# 91 degrees and the feet stay 0.03 apart.
LOTUS_BEND = np.deg2rad(97.0)
LOTUS_KNEES = 0.38
# Side splits: the feet are 1.35 apart sideways, 0.9 in a straddle, on legs that are straight within
# 6 degrees, where bent ones are bent by 50. A foot is up to 0.38 high, 0.6 where legs point up.
SPLIT_WIDTH = 1.1
SPLIT_BEND = np.deg2rad(30.0)
SPLIT_FOOT = 0.45

Judge = Callable[[HumanoidGeometry], np.ndarray]


def judge(show: Judge, model: Any, fields: Fields) -> tuple[np.ndarray, np.ndarray]:
    """Say which worlds show a pose.

    Args:
        show: the judge of the pose.
        model: the `MjModel`; bodies and geoms are found by name.
        fields: xpos (N, nbody, 3) and geom_xpos (N, ngeom, 3).

    Returns:
        reward (N,) float64, 1 while the pose is shown, else 0; success (N,) bool, the same.
    """
    success = show(humanoid_geometry(model, fields["xpos"], fields["geom_xpos"]))
    return success.astype(np.float64), success


def kneeling(model: Any, fields: Fields) -> tuple[np.ndarray, np.ndarray]:
    """Say which worlds kneel: both knees down, the pelvis off the floor, the torso upright.

    Sitting, lying and the lotus position fail by the pelvis, squatting and standing by the knees,
    all fours by the torso, and whoever sits with the pelvis raised on straight legs by their bend.

    Args:
        model: the `MjModel`; bodies are found by name.
        fields: xpos (N, nbody, 3) and xmat (N, nbody, 9).

    Returns:
        reward (N,) float64, 1 while kneeling, else 0; success (N,) bool, the same.
    """
    xpos, xmat = fields["xpos"], fields["xmat"]
    hips, knees, feet = (
        xpos[:, [model.body(f"{side}_{part}").id for side in ("left", "right")]]
        for part in ("thigh", "shin", "foot")
    )
    pelvis = xpos[:, model.body("pelvis").id, 2]
    # The last element of a rotation matrix is the cosine between the body's z axis and up.
    upright = xmat[:, model.body("torso").id].reshape(-1, 9)[:, 8]
    kneels = (knees[..., 2] < KNEE_HEIGHT).all(axis=1)
    kneels &= (_bend(hips, knees, feet) > KNEE_BEND).all(axis=1)
    kneels &= (pelvis > PELVIS_HEIGHT) & (upright > np.cos(TORSO_TILT))
    return kneels.astype(np.float64), kneels


def standing(g: HumanoidGeometry) -> np.ndarray:
    """Say who stands: at height and upright, with both feet down.

    Squatting, sitting and kneeling fail by the pelvis, falling and bending by the torso, one leg
    and jumping by the feet.

    Args:
        g: N states.

    Returns:
        (N,) bool.
    """
    return _at_height(g) & (g.feet[..., 2] < FOOT_HEIGHT).all(axis=1)


def one_leg(g: HumanoidGeometry) -> np.ndarray:
    """Say who stands on one leg: at height and upright, one foot down and the other clear of it.

    Args:
        g: N states.

    Returns:
        (N,) bool.
    """
    heights = g.feet[..., 2]
    return _at_height(g) & (heights.min(1) < FOOT_HEIGHT) & (heights.max(1) > LIFTED_HEIGHT)


def arms_raised(g: HumanoidGeometry) -> np.ndarray:
    """Say who stands with both hands above the head.

    Args:
        g: N states.

    Returns:
        (N,) bool.
    """
    above = g.hands[..., 2] - g.head[:, None, 2]
    return standing(g) & (above > RAISED_HEIGHT).all(axis=1)


def hands_on_hips(g: HumanoidGeometry) -> np.ndarray:
    """Say who stands with a hand at each side of the pelvis and the elbows farther out.

    Args:
        g: N states.

    Returns:
        (N,) bool.
    """
    outward = _outward(g)
    side, up = HIP_POINT
    hips = g.pelvis[:, None] + side * outward + up * g.up[:, None]
    near = np.linalg.norm(g.hands - hips, axis=-1) < HIP_DISTANCE
    elbows_out = ((g.elbows - g.hands) * outward).sum(-1) > ELBOW_OUT
    return standing(g) & (near & elbows_out).all(axis=1)


def arms_crossed(g: HumanoidGeometry) -> np.ndarray:
    """Say who stands with each hand on the other side, in front of the chest.

    Args:
        g: N states.

    Returns:
        (N,) bool.
    """
    hands = g.hands - g.torso[:, None]
    axes = np.stack([g.forward, g.left, g.up], axis=1)
    ahead, left, up = np.moveaxis(np.einsum("nsk,njk->nsj", hands, axes), -1, 0)
    # The right hand is first, its other side the left one.
    crossed = left * np.array([1.0, -1.0]) > CROSSED
    in_front = (ahead > CHEST_AHEAD) & (up > CHEST_HEIGHT[0]) & (up < CHEST_HEIGHT[1])
    return standing(g) & (crossed & in_front).all(axis=1)


def lotus(g: HumanoidGeometry) -> np.ndarray:
    """Say who sits cross-legged: pelvis down, torso upright, knees bent and apart, shins crossed.

    Squatting and kneeling fail by the pelvis, sitting with the legs out or open by knees and feet.

    Args:
        g: N states.

    Returns:
        (N,) bool.
    """
    outward = _outward(g)
    width = ((g.knees - g.pelvis[:, None]) * outward).sum((1, 2))
    gap = ((g.feet - g.pelvis[:, None]) * outward).sum((1, 2))
    folded = (_bend(g.hips, g.knees, g.feet) > LOTUS_BEND).all(axis=1)
    return _seated(g) & folded & (width > LOTUS_KNEES) & (gap < 0)


def splits(g: HumanoidGeometry) -> np.ndarray:
    """Say who does the side splits: pelvis down, torso upright, straight legs far to the sides.

    Standing with the legs apart fails by the pelvis; sitting, the straddle and legs in the air fail
    by the feet.

    Args:
        g: N states.

    Returns:
        (N,) bool.
    """
    width = ((g.feet - g.pelvis[:, None]) * _outward(g)).sum((1, 2))
    straight = (_bend(g.hips, g.knees, g.feet) < SPLIT_BEND).all(axis=1)
    low = (g.feet[..., 2] < SPLIT_FOOT).all(axis=1)
    return _seated(g) & straight & low & (width > SPLIT_WIDTH)


def _at_height(g: HumanoidGeometry) -> np.ndarray:
    """Return (N,) bool: the pelvis as high as on straight legs, the torso upright."""
    return (g.pelvis[:, 2] > STANDING_HEIGHT) & (g.up[:, 2] > np.cos(STANDING_TILT))


def _seated(g: HumanoidGeometry) -> np.ndarray:
    """Return (N,) bool: the pelvis on the floor under an upright torso."""
    return (g.pelvis[:, 2] < SEAT_HEIGHT) & (g.up[:, 2] > np.cos(TORSO_TILT))


def _outward(g: HumanoidGeometry) -> np.ndarray:
    """Return (N, 2, 3) unit vectors from the pelvis to its right and left."""
    left = unit(g.hips[:, 1] - g.hips[:, 0])
    return np.stack([-left, left], axis=1)


def _bend(hips: np.ndarray, knees: np.ndarray, feet: np.ndarray) -> np.ndarray:
    """Return (N, 2) angles between thigh and shin, 0 for a straight leg [rad]."""
    cosine = (unit(knees - hips) * unit(feet - knees)).sum(-1)
    return np.arccos(np.clip(cosine, -1.0, 1.0))
