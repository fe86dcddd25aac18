"""The task registry: one entry a task."""

from __future__ import annotations

from vlmrm_fast.errors import ArgumentError, unknown_name
from vlmrm_fast.tasks import cartpole, classic, humanoid, locomotion, reacher
from vlmrm_fast.tasks.gym_task import GymTask
from vlmrm_fast.tasks.task import Fields, PosedStates, Task, fields_from_data, fields_from_states

_NATIVE: tuple[Task, ...] = (
    cartpole.TASK,
    *humanoid.TASKS,
    *locomotion.TASKS,
    reacher.TASK,
)
_GYM: tuple[GymTask, ...] = (classic.CARTPOLE, classic.MOUNTAINCAR)
_TASKS: dict[str, Task | GymTask] = {
    **{task.name: task for task in _NATIVE},
    **{task.name: task for task in _GYM},
}

__all__ = [
    "Fields",
    "GymTask",
    "PosedStates",
    "Task",
    "fields_from_data",
    "fields_from_states",
    "get_native_task",
    "get_task",
    "native_task_names",
    "task_names",
]


def task_names() -> list[str]:
    """Return the names of all tasks, sorted.

    Returns:
        The names that `get_task` takes.
    """
    return sorted(_TASKS)


def native_task_names() -> list[str]:
    """Return the names of the tasks that have a MuJoCo model, sorted.

    Returns:
        The names for which `get_task` returns a `Task`.
    """
    return sorted(name for name, task in _TASKS.items() if isinstance(task, Task))


def get_task(name: str) -> Task | GymTask:
    """Return the task called `name`.

    Args:
        name: one of `task_names()`.

    Returns:
        The task, a `Task` for the names of `native_task_names()`.

    Raises:
        UnknownNameError: if no task has that name; the text lists the names.
    """
    if name not in _TASKS:
        error = unknown_name("task", name, _TASKS)
        raise error
    return _TASKS[name]


def get_native_task(name: str) -> Task:
    """Return the task called `name`, which must have a MuJoCo model.

    Args:
        name: one of `native_task_names()`.

    Returns:
        The task.

    Raises:
        UnknownNameError: if no task has that name; the text lists the names.
        ArgumentError: if the task steps and draws itself.
    """
    task = get_task(name)
    if not isinstance(task, Task):
        names = ", ".join(native_task_names())
        raise ArgumentError(
            f"task must be one with a MuJoCo model here, got {name!r}, which is gymnasium's "
            f"{task.env_id}. Choose one of {names}."
        )
    return task
