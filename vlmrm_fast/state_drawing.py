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
    if isinstance(task, Task):
        return _draw_native(task, states, size, camera, chunk, num_threads)
    if camera is not None:
        raise ArgumentError(f"camera must be left out for {task.name!r}, which draws itself.")
    checked = check_states(states, len(task.state_names))
    return _draw_gym(task, task.make(), checked, chunk)


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


def _draw_native(
    task: Task,
    states: ArrayLike,
    size: int | tuple[int, int],
    camera: Any,
    chunk: int,
    num_threads: int,
) -> Iterator[np.ndarray]:
    """Check and build; the returned iterator poses and draws."""
    model = task.load_model()
    checked = check_states(states, model.nq)
    simulation = Simulation(model, max(1, min(chunk, len(checked))), num_threads)
    scene = Scene.from_model(simulation.model, task.camera if camera is None else camera)
    height, width = size if isinstance(size, tuple) else (size, size)
    renderer = Renderer(scene, height, width, num_threads)
    return _chunks(simulation, scene, renderer, checked)


def _chunks(
    simulation: Simulation, scene: Scene, renderer: Renderer, states: np.ndarray
) -> Iterator[np.ndarray]:
    source = simulation.source(scene)
    ids, rest = np.arange(simulation.num_envs), np.zeros((simulation.num_envs, simulation.model.nv))
    with renderer:
        for start in range(0, len(states), simulation.num_envs):
            part = states[start : start + simulation.num_envs]
            n = len(part)
            simulation.reset(ids[:n], part, rest[:n])
            if isinstance(source, Poses):
                # The worlds that the last chunk does not fill need not be drawn.
                yield renderer.render(Poses(**{k: rows[:n] for k, rows in vars(source).items()}))
            else:
                yield renderer.render(source)[:n]


def _draw_gym(task: GymTask, env: Any, states: np.ndarray, chunk: int) -> Iterator[np.ndarray]:
    """Draw with the environment's own `render`, one state after the other, and close it."""
    try:
        env.reset(seed=0)
        for start in range(0, len(states), chunk):
            frames = []
            for state in states[start : start + chunk]:
                task.set_state(env, state)
                frames.append(np.array(env.render(), dtype=np.uint8))
            yield np.stack(frames)
    finally:
        env.close()
