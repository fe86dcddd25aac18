"""Positions from the observations that gymnasium's environments and our tasks give."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.relabel.drawing import TaskDrawer

Positions = Callable[[np.ndarray, Mapping[str, Any], slice], np.ndarray]
"""Observations (n, k), the episode's infos and the rows that they are -> (n, nq) float64."""

# Which task draws an environment's states: the first of these that is registered.
_TASKS = {
    "Ant": ("ant",),
    "CartPole": ("cartpole",),
    "HalfCheetah": ("half-cheetah",),
    "Hopper": ("hopper",),
    "Humanoid": ("humanoid-standing", "humanoid-kneeling"),
    "MountainCarContinuous": ("mountaincar",),
    "Reacher": ("reacher",),
    "Walker2d": ("walker2d",),
}


def task_of(env_id: str) -> str | None:
    """Return the task that draws the states of a gymnasium environment.

    Args:
        env_id: such as "Humanoid-v5".

    Returns:
        Its name, or None where there is none.
    """
    from vlmrm_fast.tasks import task_names

    if env_id in task_names():
        return env_id
    base = re.sub(r"-v\d+$", "", env_id.split("/")[-1])
    return next((name for name in _TASKS.get(base, ()) if name in task_names()), None)


def make_positions(drawer: TaskDrawer, width: int, kwargs: Mapping[str, Any]) -> Positions:
    """Return the function that finds positions in observations.

    Args:
        drawer: of the task.
        width: numbers in an observation.
        kwargs: the environment's own, as its specification holds them.

    Returns:
        The function.

    Raises:
        ArgumentError: observations of this width do not tell the positions.

    Source:
        `_get_obs` of gymnasium's MuJoCo environments: positions first, without those along the
        ground unless `exclude_current_positions_from_observation` is False.
    """
    count = drawer.widths[0]
    if drawer.model is None:
        least, find = count, _first(count)
    elif drawer.task_name == "cartpole-upright":
        least, find = 3, _cartpole
    elif drawer.task_name == "reacher":
        least, find = 6, _reacher
    else:
        skipped = _ground_axes(drawer.model)
        if kwargs.get("exclude_current_positions_from_observation") is False:
            skipped = 0
        least, find = count - skipped, _shifted(count, skipped)
    if width < least:
        raise ArgumentError(
            f"observations must hold the positions of {drawer.task_name}, at least {least} "
            f"numbers, got {width}. Choose another --task or --key."
        )

    def positions(rows: np.ndarray, infos: Mapping[str, Any], where: slice) -> np.ndarray:
        stored = infos.get("qpos")
        if stored is not None and stored.shape[1:] == (count,):
            return np.asarray(stored[where], np.float64)
        return find(np.asarray(rows, np.float64), infos, where)

    return positions


def _ground_axes(model: Any) -> int:
    """Return how many positions lead along the ground: 2 of a free joint, 1 of a planar root."""
    import mujoco

    if not model.njnt:
        return 0
    kind = model.jnt_type[0]
    if kind == mujoco.mjtJoint.mjJNT_FREE:
        return 2
    return int(kind == mujoco.mjtJoint.mjJNT_SLIDE and abs(model.jnt_axis[0][0]) == 1)


def _first(count: int) -> Positions:
    """The state is the observation."""
    return lambda rows, infos, where: rows[:, :count]


def _shifted(count: int, skipped: int) -> Positions:
    """Positions along the ground come from the infos, where they were recorded, or are 0."""

    def find(rows: np.ndarray, infos: Mapping[str, Any], where: slice) -> np.ndarray:
        states = np.zeros((len(rows), count))
        states[:, skipped:] = rows[:, : count - skipped]
        for axis, name in enumerate(("x_position", "y_position")[:skipped]):
            stored = infos.get(name)
            if stored is not None and stored.ndim == 1:
                states[:, axis] = stored[where]
        return states

    return find


def _cartpole(rows: np.ndarray, infos: Mapping[str, Any], where: slice) -> np.ndarray:
    """Position, cosine and sine of the angle."""
    del infos, where
    return np.stack([rows[:, 0], np.arctan2(rows[:, 2], rows[:, 1])], axis=1)


def _reacher(rows: np.ndarray, infos: Mapping[str, Any], where: slice) -> np.ndarray:
    """Two cosines, two sines, the target."""
    del infos, where
    return np.concatenate([np.arctan2(rows[:, 2:4], rows[:, :2]), rows[:, 4:6]], axis=1)
