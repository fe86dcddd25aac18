"""Humanoid poses by name: joint angles with spread, placed so that they touch the floor.

A pose is a table of joint angles in degrees. Sampling one adds noise, mirrors it half of the time,
chooses an arm position and turns it to a random heading; `place_on_floor` then lifts it so that its
lowest geom rests on the floor. The angles suit the humanoid of gymnasium's Humanoid-v5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vlmrm_fast.tasks.pose_tables import (
    ABDOMEN,
    ARM_POSITIONS,
    ARMS,
    LEGS,
    POSES,
    TASK_ARM_POSITIONS,
    TASK_POSES,
    Angle,
    Pose,
    find_pose,
)

if TYPE_CHECKING:
    import mujoco

__all__ = [
    "ARMS",
    "ARM_POSITIONS",
    "LEGS",
    "POSES",
    "TASK_POSES",
    "draw_pose_names",
    "find_pose",
    "lowest_point",
    "place_on_floor",
    "rollout_states",
    "sample_pose",
    "sample_poses",
    "sample_qpos",
]


def sample_qpos(model: mujoco.MjModel, name: str, rng: np.random.Generator) -> np.ndarray:
    """Draw one state of a named pose, before it is placed on the floor.

    Args:
        model: a model with the joints of gymnasium's humanoid.
        name: a key of `POSES` or `TASK_POSES`; "random" draws every joint and the torso's direction
            uniformly.
        rng: the source of randomness, advanced by this call.

    Returns:
        (nq,) float64 positions; the root is near the origin, its height is not yet set.
    """
    import mujoco

    pose = find_pose(name)
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
        name: a key of `POSES` or `TASK_POSES`.
        rng: the source of randomness, advanced by this call.
    """
    import mujoco

    mujoco.mj_resetData(model, data)
    data.qpos[:] = sample_qpos(model, name, rng)
    place_on_floor(model, data, rng.uniform(*find_pose(name).lift))


def sample_poses(
    model: mujoco.MjModel, names: Sequence[str] | np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw one state of each named pose, touching the floor.

    Args:
        model: a model with the joints of gymnasium's humanoid.
        names: N keys of `POSES` or `TASK_POSES`.
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
    arms = [str(rng.choice(pose.arms or tuple(ARM_POSITIONS)))]
    # Both arms do the same most of the time when the pose leaves them free.
    free = pose.other_arm or (not pose.arms and rng.random() < 0.4)
    others = pose.other_arm or tuple(ARM_POSITIONS)
    arms.append(str(rng.choice(others)) if free else arms[0])
    angles = {name: _draw(pose.joints.get(name, (0.0, 5.0)), rng) for name in ABDOMEN}
    for source, position in zip(("right", "left"), arms, strict=True):
        arm = (ARM_POSITIONS | TASK_ARM_POSITIONS)[position]
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
