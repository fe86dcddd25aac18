"""Frames of stored states, drawn by a task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.relabel.source import BrokenEpisodeError, Clock

# States drawn in one go: enough to keep every thread busy.
_CHUNK = 64


class _Rows(Protocol):
    """Rows of states, read a slice at a time."""

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return consecutive rows."""


class StateDrawer:
    """Draws states of one task; everything is built when the first one is drawn.

    Attributes:
        task: the task.
        task_name: its name.
        widths: numbers that a state may have: positions, or positions and velocities.
        size: side of the frames [pixels]; set it before drawing. A task that draws itself keeps
            its own.
    """

    def __init__(self, name: str) -> None:
        """Look the task up.

        Args:
            name: of a registered task.

        Raises:
            UnknownNameError: no task has that name.
        """
        from vlmrm_fast.tasks import Task, get_task

        self.task: Any = get_task(name)
        self.task_name = name
        self.size = 224
        self._draw: Any = None
        self._close: list[Any] = []
        if isinstance(self.task, Task):
            self.model: Any = self.task.load_model()
            self.widths: tuple[int, ...] = (self.model.nq, self.model.nq + self.model.nv)
        else:
            self.model = None
            states = self.task.posed_states(np.random.default_rng(0), 1).qpos
            self.widths = (states.shape[1],)

    @property
    def facts(self) -> dict[str, str]:
        """What a resumed run must agree with."""
        return {"task": self.task_name}

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
        if self._draw is None:
            self._draw = self._gym() if self.model is None else self._native()
        frames: np.ndarray = self._draw(states)
        return frames

    def _native(self) -> Any:
        """Return the function that draws states of a MuJoCo model."""
        from vlmrm_fast.rendering import Poses, Renderer, Scene
        from vlmrm_fast.simulation import Simulation

        worlds = Simulation(self.model, _CHUNK)
        scene = Scene.from_model(worlds.model, self.task.camera)
        renderer = Renderer(scene, self.size, self.size)
        self._close.append(renderer)
        source, rest = worlds.source(scene), np.zeros((_CHUNK, worlds.model.nv))

        def draw(states: np.ndarray) -> np.ndarray:
            n = len(states)
            worlds.reset(np.arange(n), states, rest[:n])
            if isinstance(source, Poses):
                drawn: np.ndarray = renderer.render(
                    Poses(**{name: rows[:n] for name, rows in vars(source).items()})
                )
                return drawn
            every: np.ndarray = renderer.render(source)
            return every[:n]

        return draw

    def _gym(self) -> Any:
        """Return the function that draws states by the environment's own `render`."""
        env = self.task.make()
        self._close.append(env)
        env.reset(seed=0)

        def picture(state: np.ndarray) -> np.ndarray:
            self.task.set_state(env, state)
            return np.array(env.render(), dtype=np.uint8)

        return lambda states: np.stack([picture(state) for state in states])

    def close(self) -> None:
        """Release the renderer."""
        for item in self._close:
            item.close()
        self._close, self._draw = [], None


def check_name(name: str | None) -> None:
    """Check a task's name before any file is opened.

    Args:
        name: what the user gave, or None.

    Raises:
        ArgumentError: the name is empty.
        UnknownNameError: no task has that name.
    """
    if name is None:
        return
    if not name:
        raise ArgumentError("task must be a name, got an empty one.")
    from vlmrm_fast.tasks import get_task

    get_task(name)


def _short(state: np.ndarray) -> str:
    return np.array2string(state, precision=3, threshold=6, edgeitems=2)
