"""States along one coordinate: a pole's angle, a car's place, a robot's joints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vlmrm_fast.errors import ArgumentError, unknown_name
from vlmrm_fast.tasks import GymTask, Task
from vlmrm_fast.tasks.poses import lowest_point

# What is swept if nothing is named; humanoids from a goal pose, both sides of the body together.
_DEFAULTS = {"cartpole-upright": ("hinge",), "cartpole": ("angle",), "mountaincar": ("position",)}
_HUMANOID = ("hip_y", "knee", "abdomen_y", "shoulder1")
# Right and left shoulders turn about axes that are mirror images of each other.
_MIRRORED = ("shoulder1", "shoulder2")
# Posed states among which a named pose is looked for, and the reach of a coordinate.
_POSED = 400

# How far a slide without limits goes from where it is [m]: about a robot's own length.
_REACH = 1.0


@dataclass(frozen=True)
class Sweep:
    """States that differ in one coordinate.

    Attributes:
        name: of the coordinate: a joint, a pair of joints, or a part of a state.
        unit: "rad", "m" or "".
        values: (K,) float64, increasing.
        states: (K, nq) or (K, d) float64.
    """

    name: str
    unit: str
    values: np.ndarray
    states: np.ndarray


def make_sweeps(
    task: Task | GymTask, names: tuple[str, ...] = (), points: int = 101, pose: str | None = None
) -> list[Sweep]:
    """Return the sweeps of a task.

    Args:
        task: a task of the registry.
        names: coordinates: joints of the model ("right_knee"), pairs of them without their side
            ("knee"), or parts of a state ("angle"); empty for the task's usual ones.
        points: states a sweep, at least 2.
        pose: the posed state that is varied; None for a goal pose, or all coordinates 0 where a
            task's usual sweep says all.

    Returns:
        One sweep a name.

    Raises:
        ArgumentError: there are too few points.
        unknown_name: UnknownNameError, no coordinate or pose has that name.
    """
    if points < 2:
        raise ArgumentError(f"points must be at least 2, got {points}.")
    wanted = names or _DEFAULTS.get(task.name) or _usual(task)
    base = _base(task, pose)
    if isinstance(task, GymTask):
        return [_gym_sweep(task, name, base, points) for name in wanted]
    return [_native_sweep(task, name, base, points) for name in wanted]


def _usual(task: Task | GymTask) -> tuple[str, ...]:
    """Return the coordinates of a task without usual ones: its first limited hinges."""
    assert isinstance(task, Task)
    if task.name.startswith("humanoid"):
        return _HUMANOID
    model = task.load_model()
    hinges = [i for i in range(model.njnt) if model.jnt_type[i] == 3 and model.jnt_limited[i]]
    return tuple(model.joint(i).name for i in hinges[:4])


def _base(task: Task | GymTask, pose: str | None) -> np.ndarray:
    """Return the state that is varied."""
    if pose is None and task.goal_poses and task.name not in _DEFAULTS:
        pose = task.goal_poses[0]
    if pose is None:
        if isinstance(task, GymTask):
            return np.zeros(len(task.state_names))
        return task.load_model().qpos0.copy()
    drawn = _posed(task)
    if drawn is None or pose not in drawn.names:
        raise unknown_name("pose", pose, [] if drawn is None else set(drawn.names.tolist()))
    return drawn.qpos[int(np.flatnonzero(drawn.names == pose)[0])].copy()


def _posed(task: Task | GymTask) -> Any:
    rng = np.random.default_rng(0)
    if isinstance(task, GymTask):
        return task.posed_states(rng, _POSED)
    return task.posed_states and task.posed_states(task.load_model(), rng, _POSED)


def _gym_sweep(task: GymTask, name: str, base: np.ndarray, points: int) -> Sweep:
    """Vary one part of a state over what posed states reach."""
    parts = [text.partition(" [") for text in task.state_names]
    labels = [label for label, _, _ in parts]
    if name not in labels:
        raise unknown_name("over", name, labels)
    index = labels.index(name)
    reached = _posed(task).qpos[:, index]
    values = np.linspace(reached.min(), reached.max(), points)
    states = np.tile(base, (points, 1))
    states[:, index] = values
    return Sweep(name, parts[index][2].rstrip("]"), values, states)


def _native_sweep(task: Task, name: str, base: np.ndarray, points: int) -> Sweep:
    """Vary a joint, or both joints of a pair, within their range."""
    import mujoco

    model = task.load_model()
    joints = [(model.joint(i).name, i) for i in range(model.njnt) if model.jnt_type[i] >= 2]
    places = dict(joints)
    pair = [side for side in ("right", "left") if f"{side}_{name}" in places]
    chosen = [f"{side}_{name}" for side in pair] if pair and name not in places else [name]
    if chosen[0] not in places:
        pairs = {n.split("_", 1)[1] for n in places if n.startswith(("right_", "left_"))}
        raise unknown_name("over", name, {*places, *pairs})
    first = places[chosen[0]]
    hinge = model.jnt_type[first] == 3
    vertical = not hinge and abs(model.jnt_axis[first, 2]) > 0.5
    if model.jnt_limited[first]:
        low, high = model.jnt_range[first]
    elif hinge:
        low, high = -np.pi, np.pi
    else:
        # Upwards only: the robot that is varied stands on the floor.
        start = base[model.jnt_qposadr[first]]
        low, high = start - (0.0 if vertical else _REACH), start + _REACH
    values = np.linspace(low, high, points)
    states = np.tile(base, (points, 1))
    for joint in chosen:
        sign = -1.0 if joint.startswith("left_") and name in _MIRRORED else 1.0
        states[:, model.jnt_qposadr[places[joint]]] = sign * values
    height = _height_index(model)
    # Setting the robot on the floor would undo the sweep of a height.
    if height is not None and not vertical:
        data = mujoco.MjData(model)
        for state in states:
            data.qpos[:] = state
            mujoco.mj_kinematics(model, data)
            state[height] -= lowest_point(model, data.geom_xpos, data.geom_xmat)
    return Sweep(name, "rad" if hinge else "m", values, states)


def _height_index(model: Any) -> int | None:
    """Return where a robot's height is in qpos; None for what stands on no floor."""
    if model.jnt_type[0] == 0:
        return 2
    names = [model.joint(i).name for i in range(model.njnt)]
    return int(model.jnt_qposadr[names.index("rootz")]) if "rootz" in names else None
