"""Labelled states of a task: posed goal states, near misses, and what a random policy visits."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.simulation import Simulation
from vlmrm_fast.state_drawing import check_states, draw_states
from vlmrm_fast.tasks import GymTask, PosedStates, Task, fields_from_states

__all__ = [
    "GROUPS",
    "StateSet",
    "draw_states",
    "join_sets",
    "label_states",
    "load_states",
    "make_state_set",
]

# By origin; whether a state shows the goal is what the ground truth says of it, not its group.
GROUPS = ("goal pose", "near miss", "other pose", "random policy", "trajectory")

# Two thirds of a set are posed: a random policy seldom meets the goal.
_POSED_SHARE = 2 / 3
# Worlds that a random policy runs in; states are taken evenly over the horizon.
_WORLDS = 16
# States whose derived fields are held at once: a humanoid's are 40 kB.
_CHUNK = 128


@dataclass(frozen=True)
class StateSet:
    """N states of one task with their ground truth.

    Attributes:
        states: (N, nq) float64 positions of MuJoCo, or (N, d) of a task of another kind.
        groups: (N,) str, where each comes from: one of `GROUPS`.
        names: (N,) str: the pose, or world and step.
        reward: (N,) float64, the task's own reward of the state at rest.
        success: (N,) bool, whether it is a goal state.
    """

    states: np.ndarray
    groups: np.ndarray
    names: np.ndarray
    reward: np.ndarray
    success: np.ndarray

    def __len__(self) -> int:
        """Return N."""
        return len(self.states)

    def counts(self) -> dict[str, int]:
        """Return the number of states of each group that occurs."""
        return {
            group: int((self.groups == group).sum()) for group in GROUPS if group in self.groups
        }

    def check_classes(self) -> None:
        """Refuse a set that no reward could be judged by.

        Raises:
            ArgumentError: it is empty, or holds goal states only or none.
        """
        goals = int(self.success.sum())
        if not len(self):
            raise ArgumentError("states must hold at least one, got none. Raise num_states.")
        if goals in {0, len(self)}:
            only = "no goal states" if goals == 0 else "goal states only"
            raise ArgumentError(
                f"states must hold goal states and others, got {len(self)} states with {only}. "
                "Raise num_states, or add states that show the other class."
            )


def load_states(path: str) -> np.ndarray:
    """Return the states of a NumPy file.

    Args:
        path: a .npy or .npz with (M, d) states, or (episodes, steps, d); of several arrays in an
            .npz, those called "qpos".

    Returns:
        (M, d) float64, finite.

    Raises:
        ArgumentError: the file cannot be read, or holds something else.
    """
    try:
        loaded: Any = np.load(Path(path).expanduser(), allow_pickle=False)
        if not isinstance(loaded, np.ndarray):
            names = loaded.files
            if "qpos" not in names and len(names) != 1:
                listed = ", ".join(sorted(names)) or "none"
                raise ArgumentError(f'states must hold an array "qpos", got {listed} in {path}.')
            loaded = loaded["qpos" if "qpos" in names else names[0]]
    except ArgumentError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ArgumentError(f"states must be a NumPy file, got {path}: {error}.") from error
    # A file of episodes holds (episodes, steps, nq).
    if loaded.ndim == 3:
        loaded = loaded.reshape(loaded.shape[0] * loaded.shape[1], loaded.shape[2])
    return check_states(loaded)


def make_state_set(
    task: Task | GymTask, num_states: int, seed: int = 0, *, trajectory: ArrayLike | None = None
) -> StateSet:
    """Return labelled states of a task; the same seed gives the same states.

    Two thirds are posed (goal poses, near misses and other poses about equally often), the rest are
    visited by uniformly random actions from the task's own starts. A task without posed states has
    the latter only. Trajectory states come on top.

    Args:
        task: a task of the registry.
        num_states: posed and random states together, at least 1.
        seed: of states and actions, from 0.
        trajectory: (M, nq) further states, for example those of a trained policy.

    Returns:
        The states.

    Raises:
        ArgumentError: a number is out of range, or the trajectory is not (M, nq) finite numbers.
    """
    if num_states < 1:
        raise ArgumentError(f"num_states must be at least 1, got {num_states}.")
    if seed < 0:
        raise ArgumentError(f"seed must be at least 0, got {seed}.")
    rng = np.random.default_rng(seed)
    posed = 0 if task.posed_states is None else int(np.ceil(_POSED_SHARE * num_states))
    sets = []
    if posed:
        drawn = _posed(task, rng, posed)
        groups = np.full(posed, GROUPS[2], dtype="<U16")
        groups[np.isin(drawn.names, task.goal_poses)] = GROUPS[0]
        groups[np.isin(drawn.names, task.near_misses)] = GROUPS[1]
        sets.append(label_states(task, drawn.qpos, groups, drawn.names))
    if num_states > posed:
        left = num_states - posed
        if isinstance(task, Task):
            states, names = _visit_native(task, left, rng)
        else:
            states, names = _visit_gym(task, left, rng)
        sets.append(label_states(task, states, GROUPS[3], names))
    if trajectory is not None:
        states = check_states(trajectory, state_width(task))
        names = [f"state {index}" for index in range(len(states))]
        sets.append(label_states(task, states, GROUPS[4], names))
    return join_sets(sets)


def state_width(task: Task | GymTask) -> int:
    """Return how many numbers a state has: nq of MuJoCo, or d of a task that draws itself.

    Args:
        task: a task of the registry.

    Returns:
        The number.
    """
    return int(task.load_model().nq) if isinstance(task, Task) else len(task.state_names)


def label_states(
    task: Task | GymTask,
    states: np.ndarray,
    groups: str | np.ndarray,
    names: Sequence[str] | np.ndarray,
) -> StateSet:
    """Return states with the ground truth of a task.

    Args:
        task: a task of the registry.
        states: (N, nq) float64, or (N, d) of a task of another kind.
        groups: one of `GROUPS` for all, or (N,).
        names: (N,) str.

    Returns:
        The set.
    """
    rewards, successes = [np.zeros(0)], [np.zeros(0, bool)]
    model = task.load_model() if isinstance(task, Task) else None
    for start in range(0, len(states), _CHUNK):
        part = states[start : start + _CHUNK]
        if isinstance(task, Task):
            truth = task.ground_truth(model, fields_from_states(model, part, task.fields))
        else:
            truth = task.ground_truth(part)
        rewards.append(np.asarray(truth[0], np.float64))
        successes.append(np.asarray(truth[1], bool))
    listed = np.full(len(states), groups) if isinstance(groups, str) else groups
    return StateSet(
        states,
        listed.astype(str),
        np.asarray(names, dtype=str),
        np.concatenate(rewards),
        np.concatenate(successes),
    )


def join_sets(sets: Sequence[StateSet]) -> StateSet:
    """Return all states of several sets of one task, at least one set, in order.

    Args:
        sets: the sets.

    Returns:
        One set.
    """
    columns = ("states", "groups", "names", "reward", "success")
    return StateSet(*(np.concatenate([getattr(one, name) for one in sets]) for name in columns))


def _posed(task: Task | GymTask, rng: np.random.Generator, count: int) -> PosedStates:
    if isinstance(task, GymTask):
        return task.posed_states(rng, count)
    assert task.posed_states is not None
    return task.posed_states(task.load_model(), rng, count)


def _visit_native(task: Task, count: int, rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
    """Return (count, nq) states under random actions, evenly over the horizon, and their names."""
    worlds = min(_WORLDS, count)
    simulation = Simulation(task.load_model(), worlds)
    model, ids = simulation.model, np.arange(worlds)
    limited = model.actuator_ctrllimited.astype(bool)
    low, high = np.where(limited[:, None], model.actuator_ctrlrange, [-1.0, 1.0]).T

    def restart(which: np.ndarray) -> None:
        starts = [task.initial_state(model, rng) for _ in which]
        if starts:
            simulation.reset(which, *(np.stack(part) for part in zip(*starts, strict=True)))

    per_world = -(-count // worlds)
    restart(ids)
    states: list[np.ndarray] = []
    names: list[str] = []
    step = 0
    # More states than steps are left: another episode, from new starts.
    while len(states) < count:
        step += 1
        actions = rng.uniform(low, high, (worlds, model.nu))
        diverged = np.flatnonzero(simulation.step(actions, task.frame_skip))
        restart(diverged)
        if _is_taken(step, per_world, task.horizon):
            states += list(simulation.qpos.copy())
            names += [f"world {world} step {step}" for world in ids]
        if step % task.horizon == 0:
            restart(ids)
    return np.stack(states[:count]), names[:count]


def _is_taken(step: int, per_world: int, horizon: int) -> bool:
    """Whether step 1, 2, ... of a world is one of `per_world` spread evenly over the horizon."""
    taken = min(per_world, horizon)
    place = (step - 1) % horizon + 1
    return place * taken // horizon != (place - 1) * taken // horizon


def _visit_gym(task: GymTask, count: int, rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
    """Return (count, d) states of a task that is an environment of gymnasium, and their names."""
    env = task.make()
    worlds = min(_WORLDS, count)
    per_world = -(-count // worlds)
    env.action_space.seed(int(rng.integers(2**31)))
    states: list[np.ndarray] = []
    names: list[str] = []
    try:
        world = 0
        while len(states) < count:
            env.reset(seed=int(rng.integers(2**31)))
            for step in range(1, task.horizon + 1):
                env.step(env.action_space.sample())
                if _is_taken(step, per_world, task.horizon):
                    states.append(np.array(env.get_wrapper_attr("state"), np.float64))
                    names.append(f"world {world} step {step}")
            world += 1
    finally:
        env.close()
    return np.stack(states[:count]), names[:count]
