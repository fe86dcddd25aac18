"""Frames of a list of states of a task, a chunk at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from vlmrm_fast._poses import Poses
from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.rendering import Renderer, Scene
from vlmrm_fast.simulation import Simulation
from vlmrm_fast.tasks import GymTask, Task


def draw_states(
    task: Task | GymTask,
    states: ArrayLike,
    size: int | tuple[int, int],
    camera: Any = None,
    textures: str | None = None,
    *,
    chunk: int = 64,
    num_threads: int = 0,
) -> Iterator[np.ndarray]:
    """Return an iterator over the frames of states; everything is checked at once.

    At most `chunk` frames are held. A state is drawn at rest: velocities are 0, and what follows
    from the positions is computed anew, as after `mj_forward`.

    Args:
        task: a task of the registry; one without a MuJoCo model draws itself.
        states: (N, nq) positions of MuJoCo, or (N, d) states of a task that draws itself; finite.
        size: side or (height, width) of the frames [pixels]. A task that draws itself keeps its
            own.
        camera: as `Scene.from_model` takes it; None for the task's.
        textures: the look, as `with_textures` of the task takes it; None for the task's own.
        chunk: frames drawn at once, at least 1.
        num_threads: that draw, 0 for one a CPU.

    Returns:
        An iterator of (n, H, W, 3) uint8, n <= chunk, fresh arrays, in the order of the states.

    Raises:
        ArgumentError: the states have another shape or are not finite, or the size, the camera,
            the textures or the chunk cannot be used.
        UnsupportedSceneError: no renderer here draws the task's scene.
    """
    if chunk < 1:
        raise ArgumentError(f"chunk must be at least 1, got {chunk}.")
    task = task.with_textures(task.textures if textures is None else textures)
    drawer = StateDrawer(task, size, camera, chunk=chunk, num_threads=num_threads)
    try:
        checked = check_states(states, drawer.width)
    except ArgumentError:
        drawer.close()
        raise
    return _chunks(drawer, checked, chunk)


def _chunks(drawer: StateDrawer, states: np.ndarray, chunk: int) -> Iterator[np.ndarray]:
    try:
        for start in range(0, len(states), chunk):
            yield drawer.draw(states[start : start + chunk])
    finally:
        drawer.close()


def check_states(states: ArrayLike, width: int | None = None) -> np.ndarray:
    """Return states as (N, width) float64.

    Args:
        states: what the user gave.
        width: numbers that a state must have; None for any.

    Returns:
        The states.

    Raises:
        ArgumentError: they have another shape or dtype, or one is not finite.
    """
    array = np.asarray(states)
    wanted = "d" if width is None else str(width)
    if array.ndim != 2 or array.dtype.kind not in "fiu" or (width and array.shape[1] != width):
        raise ArgumentError(
            f"states must be (N, {wanted}) numbers, got {array.shape} {array.dtype}."
        )
    array = array.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad):
        raise ArgumentError(
            f"states must be finite, got {array[bad[0]].tolist()} for state {bad[0]} "
            f"({len(bad)} of {len(array)} states)."
        )
    return array


class StateDrawer:
    """Draws states of one task, at rest: velocities are 0, and the rest follows from the positions.

    Attributes:
        width: numbers of a state: nq for MuJoCo.
    """

    def __init__(
        self,
        task: Task | GymTask,
        size: int | tuple[int, int],
        camera: Any = None,
        *,
        chunk: int = 64,
        num_threads: int = 0,
    ) -> None:
        """Build the scene or the environment.

        Args:
            task: as `draw_states` takes it.
            size: likewise.
            camera: likewise.
            chunk: most states drawn at once.
            num_threads: as `draw_states` takes it.

        Raises:
            ArgumentError: the size or the camera cannot be used.
            UnsupportedSceneError: no renderer here draws the task's scene.
        """
        self._task: Any = task
        self._env: Any = None
        if not isinstance(task, Task):
            if camera is not None:
                raise ArgumentError(
                    f"camera must be left out for {task.name!r}, which draws itself."
                )
            self.width = len(task.state_names)
            self._env = task.make()
            self._env.reset(seed=0)
            return
        model = task.load_model()
        self.width = model.nq
        self._worlds = Simulation(model, chunk, num_threads)
        scene = Scene.from_model(self._worlds.model, task.camera if camera is None else camera)
        height, width = size if isinstance(size, tuple) else (size, size)
        self._renderer = Renderer(scene, height, width, num_threads)
        self._source = self._worlds.source(scene)
        self._rest = np.zeros((chunk, model.nv))

    def draw(self, states: np.ndarray) -> np.ndarray:
        """Draw states.

        Args:
            states: (n, width) float64, finite, n at least 1 and at most `chunk`.

        Returns:
            (n, H, W, 3) uint8, a fresh array.
        """
        if self._env is not None:
            return np.stack([self._picture(state) for state in states])
        n = len(states)
        self._worlds.reset(np.arange(n), states, self._rest[:n])
        drawn: np.ndarray
        if isinstance(self._source, Poses):
            # The worlds that a smaller chunk does not fill need not be drawn.
            poses = Poses(**{name: rows[:n] for name, rows in vars(self._source).items()})
            drawn = self._renderer.render(poses)
        else:
            drawn = self._renderer.render(self._source)[:n]
        return drawn

    def _picture(self, state: np.ndarray) -> np.ndarray:
        """Return (H, W, 3) uint8 by the environment's own `render`."""
        self._task.set_state(self._env, state)
        return np.array(self._env.render(), dtype=np.uint8)

    def close(self) -> None:
        """Release the renderer or the environment."""
        closing: Any = self._renderer if self._env is None else self._env
        closing.close()
