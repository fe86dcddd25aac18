"""Posed states of robots other than the humanoid: a tilt and joint angles, put on the floor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vlmrm_fast.tasks.poses import lowest_point
from vlmrm_fast.tasks.task import PosedStates, draw_names

# (least, greatest) angle [degrees].
Range = tuple[float, float]


@dataclass(frozen=True)
class Posture:
    """One named posture.

    Attributes:
        tilt: of the torso from upright: about the y axis for planar robots, positive leans towards
            +x; about any horizontal axis for others [degrees].
        joints: angles by joint name [degrees]; other limited joints are anywhere in their ranges.
        either: the tilt goes to either side.
    """

    tilt: Range = (-5.0, 5.0)
    joints: Mapping[str, Range] = field(default_factory=dict)
    either: bool = False


def draw_postures(
    postures: Mapping[str, Posture],
    goal: tuple[str, ...],
    near: tuple[str, ...],
    model: Any,
    rng: np.random.Generator,
    count: int,
) -> PosedStates:
    """Draw states that show the goal, almost show it, or do something else.

    Args:
        postures: all of them by name.
        goal: names of those that show the goal.
        near: names of near misses.
        model: an `MjModel` whose moving geoms are spheres and capsules.
        rng: the source of randomness, advanced by this call.
        count: how many.

    Returns:
        The states, each with its lowest point on the floor.
    """
    import mujoco

    others = [name for name in postures if name not in {*goal, *near}]
    names = draw_names((goal, near, others), rng, count)
    data, qpos = mujoco.MjData(model), np.empty((count, model.nq))
    for state, name in zip(qpos, names, strict=True):
        state[:] = _draw(model, postures[str(name)], rng)
        data.qpos[:] = state
        mujoco.mj_kinematics(model, data)
        # The height is the third coordinate of a free root and the second of a planar one.
        height = 2 if model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE else 1
        state[height] -= lowest_point(model, data.geom_xpos, data.geom_xmat)
    return PosedStates(qpos, names)


def _draw(model: Any, posture: Posture, rng: np.random.Generator) -> np.ndarray:
    """Return (nq,) of one state, not yet put on the floor."""
    import mujoco

    qpos = model.qpos0.copy()
    tilt = np.deg2rad(rng.uniform(*posture.tilt)) * (rng.choice((-1, 1)) if posture.either else 1)
    if model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE:
        axis, heading = rng.uniform(-np.pi, np.pi, 2)
        lean, turn = np.empty(4), np.empty(4)
        mujoco.mju_axisAngle2Quat(lean, np.array([np.cos(axis), np.sin(axis), 0.0]), tilt)
        mujoco.mju_axisAngle2Quat(turn, np.array([0.0, 0.0, 1.0]), heading)
        mujoco.mju_mulQuat(qpos[3:7], lean, turn)
    else:
        qpos[2] = tilt
    for index in range(model.njnt):
        if model.jnt_limited[index]:
            low, high = np.rad2deg(model.jnt_range[index])
            low, high = posture.joints.get(model.joint(index).name, (low, high))
            qpos[model.jnt_qposadr[index]] = np.deg2rad(rng.uniform(low, high))
    return qpos
