"""Humanoid poses by name: joint angles with spread, placed so that they touch the floor.

A pose is a table of joint angles in degrees. Sampling one adds noise, mirrors it half of the time,
chooses an arm position and turns it to a random heading; `place_on_floor` then lifts it so that its
lowest geom rests on the floor. The angles suit the humanoid of gymnasium's Humanoid-v5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import mujoco

# A joint angle: (mean, half spread) [degrees].
Angle = tuple[float, float]

# Joints that come in pairs. Mirroring swaps the sides; the shoulders also change sign, as their
# axes are mirror images of each other, which the axes of hips, knees and elbows already encode.
LEGS = ("hip_x", "hip_z", "hip_y", "knee")
ARMS = ("shoulder1", "shoulder2", "elbow")
ABDOMEN = ("abdomen_z", "abdomen_y", "abdomen_x")

# Right-arm angles (shoulder1, shoulder2, elbow) [degrees] found by a search for the hand and elbow
# positions that the name says, within the joint ranges.
ARM_POSITIONS: dict[str, tuple[float, float, float]] = {
    "down": (42, -39, -85),
    "raised": (-85, 7, -62),
    "hips": (48, -70, -7),
    "crossed": (60, -10, 3),
    "side": (-51, -33, -89),
    "forward": (-6, 43, -90),
    "knees": (22, -6, -61),
    "back": (60, -84, -60),
    "head": (-85, -10, 38),
    "zero": (0, 0, 0),
}


@dataclass(frozen=True)
class Pose:
    """One named pose.

    Attributes:
        joints: angles by joint name; a name without a side ("knee") sets both sides.
        roll: rotation of the torso about its forward axis [degrees].
        pitch: rotation about its left axis, positive leans forward [degrees].
        arms: arm positions to choose from; () draws any.
        lift: height above the floor of the lowest point [m], (least, greatest).
        weight: how often the pose is drawn, relative to the others.
    """

    joints: Mapping[str, Angle] = field(default_factory=dict)
    roll: Angle = (0.0, 4.0)
    pitch: Angle = (0.0, 6.0)
    arms: tuple[str, ...] = ()
    lift: tuple[float, float] = (-0.01, 0.01)
    weight: float = 1.0


_STRAIGHT = {"hip_y": (-4.0, 7.0), "knee": (-7.0, 5.0), "hip_x": (-4.0, 4.0)}
_KNEEL = {"hip_x": (-8.0, 8.0), "hip_y": (-8.0, 12.0), "knee": (-98.0, 12.0)}
_HEELS = {"hip_x": (-8.0, 8.0), "hip_y": (-62.0, 12.0), "knee": (-148.0, 10.0)}
_FLAT = {
    "hip_x": (-8.0, 8.0),
    "hip_y": (-8.0, 14.0),
    "knee": (-18.0, 16.0),
    "abdomen_y": (0.0, 12.0),
}
_SIT = {"hip_y": (-96.0, 8.0), "hip_x": (-5.0, 6.0), "knee": (-16.0, 12.0)}

POSES: dict[str, Pose] = {
    "standing": Pose(_STRAIGHT, weight=3.0),
    "standing_arms_raised": Pose(_STRAIGHT, arms=("raised",), weight=1.5),
    "standing_hands_on_hips": Pose(_STRAIGHT, arms=("hips",), weight=1.5),
    "standing_arms_crossed": Pose(_STRAIGHT, arms=("crossed",), weight=1.5),
    "standing_arms_out": Pose(_STRAIGHT, arms=("side",)),
    "standing_one_leg": Pose(
        {**_STRAIGHT, "right_hip_y": (-75.0, 25.0), "right_knee": (-90.0, 35.0)}, weight=2.0
    ),
    "standing_legs_apart": Pose({"hip_x": (-21.0, 4.0), "knee": (-4.0, 3.0), "hip_y": (0.0, 6.0)}),
    "walking": Pose({
        "right_hip_y": (-32.0, 10.0),
        "left_hip_y": (12.0, 7.0),
        "knee": (-16.0, 12.0),
    }),
    "kneeling": Pose(_KNEEL, weight=5.0),
    "kneeling_on_heels": Pose(_HEELS, pitch=(4.0, 8.0), weight=3.0),
    "kneeling_arms_raised": Pose(_KNEEL, arms=("raised",)),
    "kneeling_one_knee": Pose(
        {
            "right_hip_y": (-84.0, 10.0),
            "right_knee": (-86.0, 10.0),
            "left_hip_y": (6.0, 10.0),
            "left_knee": (-94.0, 10.0),
        },
        weight=1.5,
    ),
    "crouching": Pose(
        {"hip_y": (-85.0, 20.0), "knee": (-105.0, 20.0), "abdomen_y": (-20.0, 10.0)},
        pitch=(22.0, 10.0),
        weight=1.5,
    ),
    "bending_forward": Pose(
        {"hip_y": (-60.0, 15.0), "knee": (-6.0, 4.0), "abdomen_y": (-30.0, 20.0)},
        pitch=(85.0, 15.0),
        arms=("forward", "raised", "knees"),
    ),
    "sitting": Pose(_SIT, pitch=(-2.0, 5.0), weight=2.0),
    "sitting_knees_bent": Pose(
        {"hip_y": (-106.0, 4.0), "hip_x": (-5.0, 6.0), "knee": (-48.0, 14.0)}, pitch=(-6.0, 6.0)
    ),
    "sitting_lotus": Pose(
        {
            "hip_y": (-106.0, 4.0),
            "hip_z": (-54.0, 6.0),
            "hip_x": (-20.0, 5.0),
            "knee": (-142.0, 14.0),
        },
        pitch=(-8.0, 5.0),
        arms=("knees",),
        weight=1.5,
    ),
    "splits": Pose(
        {"hip_y": (-84.0, 10.0), "hip_z": (-56.0, 4.0), "hip_x": (-20.0, 5.0), "knee": (-4.0, 2.0)},
        weight=1.5,
    ),
    "all_fours": Pose(
        {"hip_y": (-82.0, 12.0), "knee": (-90.0, 12.0)},
        pitch=(82.0, 8.0),
        arms=("forward",),
        weight=1.5,
    ),
    "lying_back": Pose(_FLAT, pitch=(-90.0, 6.0), weight=2.0),
    "lying_front": Pose(
        _FLAT, pitch=(90.0, 6.0), arms=("down", "side", "hips", "back"), weight=2.0
    ),
    "lying_side": Pose(
        {"hip_y": (-30.0, 30.0), "knee": (-40.0, 36.0)},
        roll=(88.0, 10.0),
        arms=("down", "forward", "knees", "crossed"),
        weight=2.0,
    ),
    "falling_forward": Pose(_FLAT, pitch=(40.0, 18.0), lift=(0.0, 0.2)),
    "falling_backward": Pose(_FLAT, pitch=(-40.0, 18.0), lift=(0.0, 0.2)),
    "falling_sideways": Pose(_FLAT, roll=(40.0, 18.0), lift=(0.0, 0.2)),
    "random": Pose(weight=2.0, lift=(-0.02, 0.25)),
}


def sample_qpos(model: mujoco.MjModel, name: str, rng: np.random.Generator) -> np.ndarray:
    """Draw one state of a named pose, before it is placed on the floor.

    Args:
        model: a model with the joints of gymnasium's humanoid.
        name: a key of `POSES`; "random" draws every joint and the torso's direction uniformly.
        rng: the source of randomness, advanced by this call.

    Returns:
        (nq,) float64 positions; the root is near the origin, its height is not yet set.
    """
    import mujoco

    pose = POSES[name]
    if name == "random":
        angles = {n: rng.uniform(*model.joint(n).range) for n in _joint_names()}
        tilt = rng.normal(size=4)
        tilt /= np.linalg.norm(tilt)
    else:
        angles = _sample_angles(pose, rng)
        roll = np.deg2rad(_draw(pose.roll, rng)) * rng.choice((-1, 1))
        tilt = _quat_product(_axis_quat(1, np.deg2rad(_draw(pose.pitch, rng))), _axis_quat(0, roll))
    qpos = model.qpos0.copy()
    for joint, angle in angles.items():
        low, high = model.joint(joint).range
        qpos[model.joint(joint).qposadr[0]] = np.clip(angle, low, high)
    heading = _axis_quat(2, rng.uniform(-np.pi, np.pi))
    qpos[:2] = rng.normal(0.0, 0.12, 2)
    qpos[2] = 1.0
    qpos[3:7] = _quat_product(heading, tilt)
    mujoco.mju_normalize4(qpos[3:7])
    return qpos


def place_on_floor(model: mujoco.MjModel, data: mujoco.MjData, gap: float = 0.0) -> None:
    """Shift the root so that the lowest point is `gap` [m] above z = 0; changes `data` in place.

    Args:
        model: a model whose first joint is free and whose moving geoms are spheres and capsules.
        data: its state; qpos[2] and all positions derived from it are updated.
        gap: height of the lowest point above the floor [m].
    """
    import mujoco

    mujoco.mj_kinematics(model, data)
    data.qpos[2] += gap - lowest_point(model, data.geom_xpos, data.geom_xmat)
    mujoco.mj_forward(model, data)


def lowest_point(model: mujoco.MjModel, geom_xpos: np.ndarray, geom_xmat: np.ndarray) -> float:
    """Return the lowest height that a moving sphere or capsule reaches [m].

    Args:
        model: the model, for the geoms' sizes.
        geom_xpos: (ngeom, 3) float64 centres.
        geom_xmat: (ngeom, 9) float64 orientations, row-major.

    Returns:
        The height [m].
    """
    moving = model.geom_bodyid > 0
    reach = model.geom_size[:, 0] + np.where(
        model.geom_type == 3, np.abs(geom_xmat[:, 8]) * model.geom_size[:, 1], 0.0
    )
    return float((geom_xpos[:, 2] - reach)[moving].min())


def sample_pose(
    model: mujoco.MjModel, data: mujoco.MjData, name: str, rng: np.random.Generator
) -> None:
    """Put a freshly drawn state of a named pose into `data`, touching the floor; overwrites it.

    Args:
        model: a model with the joints of gymnasium's humanoid.
        data: the state to overwrite.
        name: a key of `POSES`.
        rng: the source of randomness, advanced by this call.
    """
    import mujoco

    mujoco.mj_resetData(model, data)
    data.qpos[:] = sample_qpos(model, name, rng)
    place_on_floor(model, data, rng.uniform(*POSES[name].lift))


def sample_poses(
    model: mujoco.MjModel, names: Sequence[str], rng: np.random.Generator
) -> np.ndarray:
    """Draw one state of each named pose, touching the floor.

    Args:
        model: a model with the joints of gymnasium's humanoid.
        names: N keys of `POSES`.
        rng: the source of randomness, advanced by this call.

    Returns:
        (N, nq) float64.
    """
    import mujoco

    data = mujoco.MjData(model)
    states = np.empty((len(names), model.nq))
    for state, name in zip(states, names, strict=True):
        sample_pose(model, data, str(name), rng)
        state[:] = data.qpos
    return states


def draw_pose_names(count: int, rng: np.random.Generator) -> list[str]:
    """Draw pose names by their weights.

    Args:
        count: how many.
        rng: the source of randomness, advanced by this call.

    Returns:
        `count` keys of `POSES`.
    """
    weights = np.array([pose.weight for pose in POSES.values()])
    return [str(name) for name in rng.choice(list(POSES), count, p=weights / weights.sum())]


def rollout_states(
    model: mujoco.MjModel, count: int, rng: np.random.Generator, num_snapshots: int = 6
) -> list[np.ndarray]:
    """Return states that a random policy visits, from the task's start or from a named pose.

    Args:
        model: a model with the joints of gymnasium's humanoid.
        count: how many states.
        rng: the source of randomness, advanced by this call.
        num_snapshots: states taken from each rollout of 100 control steps (1.5 s).

    Returns:
        `count` arrays qpos (nq,) float64.
    """
    import mujoco

    data = mujoco.MjData(model)
    states: list[np.ndarray] = []
    while len(states) < count:
        if rng.random() < 0.5:
            mujoco.mj_resetData(model, data)
            data.qpos[:] += rng.uniform(-0.01, 0.01, model.nq)
        else:
            sample_pose(model, data, draw_pose_names(1, rng)[0], rng)
        # A policy early in training is noise of some size around some constant push.
        push, size = rng.normal(0.0, 0.15, model.nu), rng.uniform(0.0, 0.5)
        moments = set(rng.choice(100, num_snapshots, replace=False).tolist())
        for step in range(100):
            data.ctrl[:] = np.clip(push + size * rng.normal(size=model.nu), -0.4, 0.4)
            mujoco.mj_step(model, data, 5)
            if step in moments:
                states.append(data.qpos.copy())
    return states[:count]


def _sample_angles(pose: Pose, rng: np.random.Generator) -> dict[str, float]:
    """Return {joint: angle [rad]} with noise, arms and mirroring."""
    mirrored = bool(rng.integers(2))
    arms = [ARM_POSITIONS[str(rng.choice(pose.arms or tuple(ARM_POSITIONS)))]]
    # Both arms do the same most of the time when the pose leaves them free.
    free = not pose.arms and rng.random() < 0.4
    arms.append(ARM_POSITIONS[str(rng.choice(list(ARM_POSITIONS)))] if free else arms[0])
    angles = {name: _draw(pose.joints.get(name, (0.0, 5.0)), rng) for name in ABDOMEN}
    for source, arm in zip(("right", "left"), arms, strict=True):
        side = {"right": "left", "left": "right"}[source] if mirrored else source
        for joint in LEGS:
            spread = pose.joints.get(f"{source}_{joint}", pose.joints.get(joint, (0.0, 4.0)))
            angles[f"{side}_{joint}"] = _draw(spread, rng)
        for joint, angle in zip(ARMS, arm, strict=True):
            sign = -1.0 if side == "left" and joint != "elbow" else 1.0
            angles[f"{side}_{joint}"] = sign * _draw((angle, 6.0), rng)
    return {joint: float(np.deg2rad(angle)) for joint, angle in angles.items()}


def _joint_names() -> list[str]:
    """Return the names of all hinge joints."""
    sided = [f"{side}_{joint}" for side in ("right", "left") for joint in (*LEGS, *ARMS)]
    return [*ABDOMEN, *sided]


def _draw(angle: Angle, rng: np.random.Generator) -> float:
    """Draw from a normal whose two-sigma points are the half spread, cut there."""
    mean, spread = angle
    return mean + spread * float(np.clip(rng.normal(0.0, 0.5), -1.0, 1.0))


def _axis_quat(axis: int, angle: float) -> np.ndarray:
    """Return the (4,) quaternion of a rotation about a coordinate axis [rad]."""
    quat = np.zeros(4)
    quat[0], quat[1 + axis] = np.cos(angle / 2), np.sin(angle / 2)
    return quat


def _quat_product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the (4,) Hamilton product: rotate by `right`, then by `left`."""
    import mujoco

    product = np.empty(4)
    mujoco.mju_mulQuat(product, left, right)
    return product
