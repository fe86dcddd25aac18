"""The task registry: one entry a task."""

from __future__ import annotations

from vlmrm_fast.errors import unknown_name
from vlmrm_fast.tasks import cartpole, humanoid
from vlmrm_fast.tasks.task import Fields, PosedStates, Task, fields_from_data, fields_from_states

_TASKS = {task.name: task for task in (cartpole.TASK, *humanoid.TASKS)}

__all__ = [
    "Fields",
    "PosedStates",
    "Task",
    "fields_from_data",
    "fields_from_states",
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


def get_task(name: str) -> Task:
    """Return the task called `name`.

    Args:
        name: one of `task_names()`.

    Returns:
        The task.

    Raises:
        UnknownNameError: if no task has that name; the text lists the names.
    """
    if name not in _TASKS:
        error = unknown_name("task", name, _TASKS)
        raise error
    return _TASKS[name]
