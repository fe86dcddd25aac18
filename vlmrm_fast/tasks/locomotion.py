"""`ant`, `half-cheetah`, `hopper` and `walker2d`: gymnasium's robots, asked for a posture.

The settings are Stable-Baselines3's for SAC, with one gradient step for each environment step.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from vlmrm_fast.tasks.gym_robots import ANT, HALF_CHEETAH, HOPPER, WALKER, Robot
from vlmrm_fast.tasks.postures import Posture, draw_postures
from vlmrm_fast.tasks.task import Fields, Task

# On four legs: the torso, a ball of 0.25 m, 0.5 to 0.7 m high, level within 8 degrees and above all
# its legs. A robot that lies has it 0.27 m high, one that leans by 20 degrees has lost its balance.
# A random policy's robot lies on its back most of the time; one that jumps is higher than 0.8 m.
BELLY_HEIGHT = (0.40, 0.80)
LEVEL_TILT = np.deg2rad(14.0)
# Rearing: the spine within 35 degrees of the vertical, half rearing stays 42 away from it. Rump or
# hind leg rest on the floor, the lowest centre of the leg's capsules less than 0.2 m high.
SPINE_TILT = np.deg2rad(35.0)
HIND_HEIGHT = 0.25
# Standing: the torso 1.2 m high on straight legs and within 6 degrees; it is at most 1.04 m high in
# a crouch. Whoever leans by 18 degrees falls. The centre of a foot's capsule is 0.06 to 0.12 m high
# on the floor, 0.27 m or more when the foot is drawn up.
STANDING_HEIGHT = 1.1
STANDING_TILT = np.deg2rad(12.0)
FOOT_HEIGHT = 0.15


def on_four_legs(model: Any, fields: Fields) -> tuple[np.ndarray, np.ndarray]:
    """Say which ants stand on their legs: the belly off the floor, level, every leg pointing down.

    Args:
        model: the `MjModel`; bodies and geoms are found by name.
        fields: xpos (N, nbody, 3), xmat (N, nbody, 9) and geom_xpos (N, ngeom, 3).

    Returns:
        reward (N,) float64, 1 while standing, else 0; success (N,) bool, the same.
    """
    torso = model.body("torso").id
    height = fields["xpos"][:, torso, 2]
    # The last element of a rotation matrix is the cosine between the body's z axis and up.
    level = fields["xmat"][:, torso].reshape(-1, 9)[:, 8] > np.cos(LEVEL_TILT)
    shins = [model.geom(f"{leg}_ankle_geom").id for leg in ("left", "right", "third", "fourth")]
    below = (fields["geom_xpos"][:, shins, 2] < height[:, None]).all(axis=1)
    stands = level & below & (height > BELLY_HEIGHT[0]) & (height < BELLY_HEIGHT[1])
    return stands.astype(np.float64), stands


def rearing(model: Any, fields: Fields) -> tuple[np.ndarray, np.ndarray]:
    """Say which half-cheetahs rear up: the spine upright, head on top, the hind leg on the floor.

    Args:
        model: the `MjModel`; bodies and geoms are found by name.
        fields: xmat (N, nbody, 9) and geom_xpos (N, ngeom, 3).

    Returns:
        reward (N,) float64, 1 while rearing, else 0; success (N,) bool, the same.
    """
    # The spine is the torso's x axis; element 6 of the matrix is its height.
    spine = fields["xmat"][:, model.body("torso").id].reshape(-1, 9)[:, 6]
    hind = [model.geom(name).id for name in ("bthigh", "bshin", "bfoot")]
    down = fields["geom_xpos"][:, hind, 2].min(axis=1) < HIND_HEIGHT
    rears = (spine > np.cos(SPINE_TILT)) & down
    return rears.astype(np.float64), rears


def standing(feet: tuple[str, ...], model: Any, fields: Fields) -> tuple[np.ndarray, np.ndarray]:
    """Say which robots stand: high, upright, and with every foot on the floor.

    Args:
        feet: names of the feet's geoms.
        model: the `MjModel`; bodies and geoms are found by name.
        fields: xpos (N, nbody, 3), xmat (N, nbody, 9) and geom_xpos (N, ngeom, 3).

    Returns:
        reward (N,) float64, 1 while standing, else 0; success (N,) bool, the same.
    """
    torso = model.body("torso").id
    upright = fields["xmat"][:, torso].reshape(-1, 9)[:, 8] > np.cos(STANDING_TILT)
    heights = fields["geom_xpos"][:, [model.geom(name).id for name in feet], 2]
    stands = upright & (fields["xpos"][:, torso, 2] > STANDING_HEIGHT)
    stands &= (heights < FOOT_HEIGHT).all(axis=1)
    return stands.astype(np.float64), stands


# Angles of a straight leg and of a bent one; a planar robot's right and left legs are alike.
_STRAIGHT = {"thigh": (-7.0, 0.0), "leg": (-7.0, 0.0), "foot": (-4.0, 4.0)}
_BENT = {"thigh": (-5.0, 0.0), "leg": (-85.0, -65.0), "foot": (30.0, 45.0)}
_FOLDED = {"thigh": (-30.0, -10.0), "leg": (-75.0, -50.0), "foot": (-10.0, 10.0)}


def _legs(right: dict[str, Any], left: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return joint angles of the right leg and of the left one, by default the same."""
    both = {f"{part}_joint": angles for part, angles in right.items()}
    return both | {f"{part}_left_joint": angles for part, angles in (left or right).items()}


_ANT = {
    "standing": Posture((0.0, 8.0)),
    "tilted": Posture((20.0, 45.0)),
    "on_its_side": Posture((65.0, 115.0)),
    "on_its_back": Posture((150.0, 180.0)),
}
_CHEETAH = {
    "rearing": Posture((-110.0, -65.0)),
    "half_rearing": Posture((-48.0, -25.0)),
    "on_its_nose": Posture((65.0, 110.0)),
    "on_all_legs": Posture((-8.0, 8.0)),
    "on_its_back": Posture((160.0, 200.0)),
}
_PLANAR = {
    "standing": Posture((-6.0, 6.0), _legs(_STRAIGHT)),
    "crouching": Posture((-42.0, -30.0), _legs(_BENT)),
    "leaning": Posture((18.0, 35.0), _legs(_STRAIGHT), either=True),
    "lying": Posture((80.0, 100.0), _legs(_STRAIGHT), either=True),
    "fallen": Posture((50.0, 140.0), either=True),
}
_WALKER = _PLANAR | {"one_leg": Posture((-6.0, 6.0), _legs(_STRAIGHT, _FOLDED))}


def _task(
    robot: Robot,
    postures: dict[str, Posture],
    goal_poses: tuple[str, ...],
    near_misses: tuple[str, ...],
    **rest: Any,
) -> Task:
    """Return a task of one of gymnasium's robots, seen from its right side and followed."""
    return Task(
        alpha=0.0,
        load_model=robot.load_model,
        observation=robot.observation,
        initial_state=robot.initial_state,
        measures=robot.measures,
        measure_fields=robot.measure_fields,
        fields=tuple(dict.fromkeys((*robot.fields, "xpos", "xmat", "geom_xpos"))),
        frame_skip=robot.frame_skip,
        posed_states=partial(draw_postures, postures, goal_poses, near_misses),
        goal_poses=goal_poses,
        near_misses=near_misses,
        algorithm="SAC",
        hyperparameters={"learning_starts": 10_000, "train_freq": 1, "gradient_steps": 8},
        num_envs=8,
        total_steps=1_000_000,
        **rest,
    )


def _side(distance: float) -> dict[str, Any]:
    """Return a camera beside the robot that looks a little down on it."""
    return {"track_body": "torso", "distance": distance, "azimuth": 90.0, "elevation": -10.0}


TASKS = (
    _task(
        ANT,
        _ANT,
        ("standing",),
        ("tilted",),
        name="ant",
        description="Keep the four-legged robot of Ant-v5 level on its four legs.",
        goal="a four-legged robot standing on its four legs",
        baseline="a four-legged robot",
        ground_truth=on_four_legs,
        view=_side(4.0) | {"elevation": -25.0},
        horizon=200,
        success_steps=20,
    ),
    _task(
        HALF_CHEETAH,
        _CHEETAH,
        ("rearing",),
        ("half_rearing", "on_its_nose"),
        name="half-cheetah",
        description="Rear the robot of HalfCheetah-v5 up on its hind leg.",
        goal="a cheetah robot standing upright on its hind legs",
        baseline="a cheetah robot",
        ground_truth=rearing,
        view=_side(4.0),
        horizon=200,
        success_steps=20,
    ),
    _task(
        HOPPER,
        _PLANAR,
        ("standing",),
        ("crouching", "leaning"),
        name="hopper",
        description="Keep the one-legged robot of Hopper-v5 upright on its foot.",
        goal="a one-legged robot standing upright",
        baseline="a one-legged robot",
        ground_truth=partial(standing, ("foot_geom",)),
        view=_side(3.5),
        horizon=300,
        success_steps=100,
    ),
    _task(
        WALKER,
        _WALKER,
        ("standing",),
        ("crouching", "leaning", "one_leg"),
        name="walker2d",
        description="Keep the two-legged robot of Walker2d-v5 upright on both feet.",
        goal="a two-legged robot standing upright",
        baseline="a two-legged robot",
        ground_truth=partial(standing, ("foot_geom", "foot_left_geom")),
        view=_side(3.5),
        horizon=300,
        success_steps=100,
    ),
)
