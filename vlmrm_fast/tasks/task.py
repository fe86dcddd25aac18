"""What a task is: a model, a camera, prompts, a horizon and a ground truth."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from vlmrm_fast.errors import unknown_name
from vlmrm_fast.tasks.textures import TEXTURES

if TYPE_CHECKING:
    import mujoco

    from vlmrm_fast.rendering import Camera

Fields = Mapping[str, np.ndarray]
"""Arrays of N worlds by `MjData` field name, each (N, ...), as `Simulation.fields` holds them."""


@dataclass(frozen=True)
class PosedStates:
    """States set up by hand, at rest, each under the name of its pose.

    Attributes:
        qpos: (N, nq) float64.
        names: (N,) str; what `Task.goal_poses` and `Task.near_misses` do not list are other poses.
    """

    qpos: np.ndarray
    names: np.ndarray

    def __len__(self) -> int:
        return len(self.qpos)


def _no_measures(model: mujoco.MjModel, fields: Fields, before: Fields) -> dict[str, np.ndarray]:
    del model, fields, before
    return {}


@dataclass(frozen=True)
class Task:
    """One task: everything that training, evaluation and scoring need to know about it.

    The three functions work on N worlds at once and neither keep nor change their arguments.
    Derived fields (`xpos`, `cinert`, ...) lag the state by one substep after a step, as in MuJoCo.

    Attributes:
        name: the registry name.
        description: one sentence for people.
        goal: what the agent should look like, as a prompt.
        baseline: what it looks like in general, as a prompt.
        alpha: weight of goal-baseline regularisation, in [0, 1].
        load_model: returns a fresh `MjModel`; takes `textures=` where the task has several looks.
        observation: `(model, fields) -> (N, observation size) float64`.
        initial_state: `(model, rng) -> qpos (nq,), qvel (nv,)` of one world.
        ground_truth: `(model, fields) -> reward (N,) float64, success (N,) bool`; success says that
            the state is a goal state now.
        view: camera: a name or id in the model, None for the default free camera, or the keyword
            arguments of `rendering.Camera`.
        fields: the `MjData` fields that the functions read, apart from qpos, qvel, ctrl and time.
        horizon: episode length [control steps]. Episodes end by truncation only.
        frame_skip: substeps a control step.
        success_steps: an episode succeeds if each of its last `success_steps` states is a goal
            state; equal to `horizon` where every state must be one.
        height: picture height for videos [pixels].
        width: picture width for videos [pixels].
        algorithm: class name in Stable-Baselines3 that the settings below belong to.
        hyperparameters: keyword arguments of that class.
        num_envs: number of worlds that the settings are meant for.
        total_steps: environment steps of a whole training run.
        measures: `(model, fields, before) -> {name: (N,)}`, further numbers for `info`; `before`
            holds copies of `measure_fields` from before the step.
        measure_fields: the fields that `measures` compares across the step.
        posed_states: `(model, rng, count) -> PosedStates`, states that show the goal, near misses
            and others in random order, the three kinds about equally often; None where there are
            none.
        goal_poses: names of posed states that show the goal.
        near_misses: names of posed states that a careless judge takes for the goal.
        textures: the look that `load_model` gives, one of `textures.TEXTURES`.
    """

    name: str
    description: str
    goal: str
    baseline: str | None
    alpha: float
    load_model: Callable[..., mujoco.MjModel]
    observation: Callable[[Any, Fields], np.ndarray]
    initial_state: Callable[[Any, np.random.Generator], tuple[np.ndarray, np.ndarray]]
    ground_truth: Callable[[Any, Fields], tuple[np.ndarray, np.ndarray]]
    view: str | int | Mapping[str, Any] | None = None
    fields: tuple[str, ...] = ()
    horizon: int = 200
    frame_skip: int = 1
    success_steps: int = 1
    height: int = 480
    width: int = 480
    algorithm: str = "SAC"
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    num_envs: int = 8
    total_steps: int = 100_000
    measures: Callable[[Any, Fields, Fields], dict[str, np.ndarray]] = _no_measures
    measure_fields: tuple[str, ...] = ()
    posed_states: Callable[[Any, np.random.Generator, int], PosedStates] | None = None
    goal_poses: tuple[str, ...] = ()
    near_misses: tuple[str, ...] = ()
    textures: str = "original"

    @property
    def camera(self) -> Camera | str | int | None:
        """The camera as `Scene.from_model` takes it."""
        if isinstance(self.view, Mapping):
            from vlmrm_fast.rendering import Camera

            return Camera(**self.view)
        return self.view

    def with_textures(self, textures: str) -> Task:
        """Return the same task in another look; physics and camera stay.

        Args:
            textures: one of `textures.TEXTURES`.

        Returns:
            A task whose `load_model` gives that look.

        Raises:
            UnknownNameError: if no look has that name.
        """
        if textures not in TEXTURES:
            error = unknown_name("textures", str(textures), TEXTURES)
            raise error
        if textures == self.textures:
            return self
        load_model = functools.partial(self.load_model, textures=textures)
        return dataclasses.replace(self, load_model=load_model, textures=textures)


def fields_from_data(data: Any, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return the fields of one or several `MjData` in the form that task functions take.

    Args:
        data: an `MjData` or a sequence of them, all of one model.
        names: the fields to copy; qpos, qvel, ctrl and time are always there.

    Returns:
        `{name: (N, ...) array}`, copies.
    """
    many = data if isinstance(data, (list, tuple)) else [data]
    wanted = dict.fromkeys(("qpos", "qvel", "ctrl", "time", *names))
    return {name: np.stack([np.asarray(getattr(one, name)) for one in many]) for name in wanted}


def fields_from_states(
    model: Any, qpos: np.ndarray, names: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Return the fields of states at rest, with everything that follows from their positions.

    Args:
        model: the `MjModel`.
        qpos: (N, nq) float64.
        names: as in `fields_from_data`.

    Returns:
        `{name: (N, ...) array}`.
    """
    import mujoco

    data = mujoco.MjData(model)
    shapes = {name: rows.shape[1:] for name, rows in fields_from_data(data, names).items()}
    fields = {name: np.empty((len(qpos), *shape)) for name, shape in shapes.items()}
    for index, state in enumerate(qpos):
        mujoco.mj_resetData(model, data)
        data.qpos[:] = state
        mujoco.mj_forward(model, data)
        for name, rows in fields.items():
            rows[index] = getattr(data, name)
    return fields


def draw_names(kinds: Sequence[Sequence[str]], rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw names of poses, the kinds as equally often as `count` allows and their names likewise.

    Args:
        kinds: names by kind: goal poses, near misses, others; a kind without names is left out.
        rng: the source of randomness, advanced by this call.
        count: how many.

    Returns:
        (count,) str, in random order.
    """
    kinds = [names for names in kinds if names]
    turns = [(kinds[i % len(kinds)], i // len(kinds)) for i in range(count)]
    return rng.permutation(np.array([names[turn % len(names)] for names, turn in turns], dtype=str))
