"""The pictures of a simulation's worlds from one or several cameras."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.rendering import Poses, Renderer, Scene
from vlmrm_fast.simulation import Simulation


def camera_list(camera: Any) -> list[Any]:
    """Return what a `camera` argument names, one or several, as a list.

    Args:
        camera: as `Scene.from_model` takes it, or a list of those.

    Returns:
        At least one.

    Raises:
        ArgumentError: the list is empty.
    """
    if not isinstance(camera, (list, tuple)):
        return [camera]
    if not camera:
        raise ArgumentError("camera must be one or a list of at least one, got an empty list.")
    return list(camera)


class WorldCameras:
    """Draws N worlds from C cameras into (C * N, H, W, 3), one camera after the other.

    Attributes:
        shape: (C * N, H, W, 3) of all pictures of a step.
        draw_share: of the last `step_and_draw`'s time, what went into drawing, 0 to 1.
    """

    def __init__(
        self,
        simulation: Simulation,
        cameras: Sequence[Any],
        height: int,
        width: int,
        num_threads: int = 0,
        backend: str = "auto",
        supersample: int = 1,
    ) -> None:
        """Build a renderer a camera.

        Args:
            simulation: the worlds.
            cameras: C, as `Scene.from_model` takes them.
            height: of a picture [pixels].
            width: of a picture [pixels].
            num_threads: as `Renderer` takes it.
            backend: as `Renderer` takes it.
            supersample: as `Renderer` takes it.
        """
        self._simulation = simulation
        scenes = [Scene.from_model(simulation.model, camera) for camera in cameras]
        self._sources = [simulation.source(scene) for scene in scenes]
        self._renderers = [
            Renderer(scene, height, width, num_threads, backend, supersample=supersample)
            for scene in scenes
        ]
        self.shape = (len(cameras) * simulation.num_envs, height, width, 3)
        self.draw_share = 0.0

    @property
    def backend(self) -> str:
        """What draws: "ray" or "gl"."""
        return self._renderers[0].backend

    def draw(self, out: np.ndarray) -> None:
        """Draw every world as it stands.

        Args:
            out: (C * N, H, W, 3) uint8, written.
        """
        for part, renderer, source in zip(
            self._split(out), self._renderers, self._sources, strict=True
        ):
            renderer.render(source, out=part)

    def step_and_draw(self, actions: np.ndarray, out: np.ndarray, num_substeps: int) -> np.ndarray:
        """As `Simulation.step_and_draw`, for all cameras.

        Args:
            actions: (N, nu), finite.
            out: (C * N, H, W, 3) uint8, written.
            num_substeps: of the simulation.

        Returns:
            (N,) bool, the worlds that diverged.
        """
        start = time.perf_counter()
        first, *others = self._split(out)
        diverged = self._simulation.step_and_draw(actions, self._renderers[0], first, num_substeps)
        fused = time.perf_counter()
        pairs = zip(others, self._renderers[1:], self._sources[1:], strict=True)
        for part, renderer, source in pairs:
            renderer.render(source, out=part)
        end = time.perf_counter()
        drawing = self._simulation.draw_share * (fused - start) + (end - fused)
        self.draw_share = drawing / max(end - start, 1e-9)
        return diverged

    def step_and_draw_some(
        self, actions: np.ndarray, out: np.ndarray, num_substeps: int, rows: np.ndarray
    ) -> np.ndarray:
        """As `step_and_draw`, but only the pictures of some worlds are drawn.

        Args:
            actions: (N, nu), finite.
            out: (C * N, H, W, 3) uint8; the other worlds' pictures stay.
            num_substeps: of the simulation.
            rows: (N,) bool, the worlds to draw.

        Returns:
            (N,) bool, the worlds that diverged.
        """
        if rows.all():
            return self.step_and_draw(actions, out, num_substeps)
        start = time.perf_counter()
        diverged = self._simulation.step(actions, num_substeps)
        stepped = time.perf_counter()
        if rows.any():
            for part, renderer, source in zip(
                self._split(out), self._renderers, self._sources, strict=True
            ):
                # What changes shape is drawn from the worlds themselves, which come all at once.
                if isinstance(source, Poses):
                    part[rows] = renderer.render(_some(source, rows))
                else:
                    part[rows] = renderer.render(source)[rows]
        end = time.perf_counter()
        self.draw_share = (end - stepped) / max(end - start, 1e-9)
        return diverged

    def _split(self, out: np.ndarray) -> list[np.ndarray]:
        """Return each camera's pictures (N, H, W, 3), views."""
        count = self._simulation.num_envs
        return [out[start : start + count] for start in range(0, len(out), count)]

    def close(self) -> None:
        """Release the renderers."""
        for renderer in self._renderers:
            renderer.close()


def _some(poses: Poses, rows: np.ndarray) -> Poses:
    """Return copies of the poses of some worlds."""
    names = [field.name for field in dataclasses.fields(poses)]
    return Poses(**{name: getattr(poses, name)[rows] for name in names})
