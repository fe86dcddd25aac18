"""Frames of stored states, drawn by a task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from vlmrm_fast.relabel.source import BrokenEpisodeError, Clock

# States drawn in one go: enough to keep every thread busy.
_CHUNK = 64


class _Rows(Protocol):
    """Rows of states, read a slice at a time."""

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return consecutive rows."""


class TaskDrawer:
    """Draws states of one task; everything is built when the first one is drawn.

    Attributes:
        task: the task.
        task_name: its name.
        widths: numbers that a state may have: positions, or positions and velocities.
        size: side of the frames [pixels]; set it before drawing. A task that draws itself keeps
            its own.
    """

    def __init__(self, name: str, textures: str | None = None) -> None:
        """Look the task up.

        Args:
            name: of a registered task.
            textures: the look to draw; None for the task's.

        Raises:
            UnknownNameError: no task has that name, or it has no such look.
        """
        from vlmrm_fast.tasks import Task, get_task

        self.task: Any = get_task(name)
        if textures is not None:
            self.task = self.task.with_textures(textures)
        self.task_name = name
        self.size = 224
        self._drawer: Any = None
        if isinstance(self.task, Task):
            self.model: Any = self.task.load_model()
            self.widths: tuple[int, ...] = (self.model.nq, self.model.nq + self.model.nv)
        else:
            self.model = None
            self.widths = (len(self.task.state_names),)

    @property
    def facts(self) -> dict[str, str]:
        """What a resumed run must agree with."""
        return {"task": self.task_name, "textures": str(self.task.textures)}

    def draw_rows(
        self, rows: _Rows, where: tuple[int, int, int], clock: Clock
    ) -> Iterator[np.ndarray]:
        """Yield the frames of consecutive states.

        Args:
            rows: (N, nq) or (N, nq + nv); velocities do not show and are not read.
            where: the episode's first row, the first row to draw, and the row after the last one.
            clock: takes the time of drawing.

        Yields:
            (n, H, W, 3) uint8.

        Raises:
            BrokenEpisodeError: a state is not finite; the frames before it were yielded.
        """
        first, start, stop = where
        for at in range(start, stop, _CHUNK):
            states = np.asarray(rows[at : min(at + _CHUNK, stop)], np.float64)
            states = states[:, : self.widths[0]]
            finite = np.isfinite(states).all(axis=1)
            good = len(states) if finite.all() else int(np.argmin(finite))
            if good:
                with clock.time("draw"):
                    frames = self.draw(states[:good])
                yield frames
            if good < len(states):
                raise BrokenEpisodeError(
                    f"states must be finite, got {_short(states[good])} for state "
                    f"{at + good - first} of the episode."
                )

    def draw(self, states: np.ndarray) -> np.ndarray:
        """Draw states.

        Args:
            states: (n, nq) float64, finite, n <= 64.

        Returns:
            (n, H, W, 3) uint8, a fresh array.
        """
        if self._drawer is None:
            from vlmrm_fast.state_drawing import StateDrawer

            self._drawer = StateDrawer(self.task, self.size, chunk=_CHUNK)
        frames: np.ndarray = self._drawer.draw(states)
        return frames

    def close(self) -> None:
        """Release the renderer."""
        if self._drawer is not None:
            self._drawer.close()
            self._drawer = None


def make_drawer(name: str | None, textures: str | None) -> TaskDrawer | None:
    """Return what draws states, checked before any file is opened.

    Args:
        name: of a task, or None.
        textures: the look to draw, or None.

    Returns:
        The drawer, or None without a task.

    Raises:
        UnknownNameError: no task has that name, or it has no such look.
    """
    return None if name is None else TaskDrawer(name, textures)


def _short(state: np.ndarray) -> str:
    return np.array2string(state, precision=3, threshold=6, edgeitems=2)
