"""Draw scenes whose elements come, go or change shape, as MuJoCo lists them frame by frame."""

from __future__ import annotations

import copy
from typing import Any

import mujoco
import numpy as np

from vlmrm_fast import _core, _mujoco_api
from vlmrm_fast._outputs import Output
from vlmrm_fast._sources import SourceReader
from vlmrm_fast.errors import ArgumentError


class DynamicDrawer:
    """Draws a changing scene with the `ray` kernels: lists what a world shows, then draws that."""

    def __init__(
        self,
        model: mujoco.MjModel,
        camera: mujoco.MjvCamera,
        output: Output,
        *,
        option: mujoco.MjvOption,
        native: _core.Scene,
        changing: dict[str, Any],
        background: float,
        num_threads: int,
    ) -> None:
        """Start the workers.

        Args:
            model: what is drawn; copied.
            camera: where it is seen from; copied.
            output: the format of the pictures.
            option: what is shown; copied.
            native: as `_scene.Built`.
            changing: as `_scene.Built`.
            background: as `_scene.Built`.
            num_threads: workers.
        """
        self._output = output
        self._model = copy.copy(model)
        self._reader = SourceReader(self._model, option, num_threads)
        setup = {
            **changing,
            "api": _mujoco_api.load(),
            "scene": native,
            "model": self._model._address,
            "option": _mujoco_api.option_bytes(option),
            "camera": _mujoco_api.camera_bytes(camera),
        }
        self._setup, self._background, self._num_threads = setup, background, num_threads
        self._native: _core.DynamicRenderer | None = self._make(output.supersample)
        self._plain: _core.DynamicRenderer | None = None

    def _make(self, supersample: int) -> _core.DynamicRenderer:
        out = self._output
        sink = (out.height, out.width, out.format(), out.layout == "nchw", supersample)
        return _core.DynamicRenderer(self._setup, sink, self._num_threads)

    def render(self, source: Any, out: Any = None) -> Any:
        """Draw N worlds.

        Args:
            source: as `Renderer.render` takes it.
            out: as `Renderer.render` takes it.

        Returns:
            As `Renderer.render`.

        Raises:
            ArgumentError: the scene shows an element that is not drawn, or the drawer is closed.
        """
        if self._native is None:
            raise ArgumentError("`render` must be called before close(). Make a new Renderer.")
        sources, n, alive = self._reader.read(source)
        frames = self._output.array(out, n)
        try:
            self._native.render(sources, frames)
        except RuntimeError as error:
            raise ArgumentError(str(error)) from error
        del alive
        return frames if out is None else out

    def probe(self, source: Any) -> tuple[np.ndarray, np.ndarray]:
        """Measure and name what N worlds show, at the size of the pictures.

        Args:
            source: as `Renderer.render` takes it.

        Returns:
            (N, H, W) float32 [m] and (N, H, W, 2) int32, as `Renderer.render_depth` and
            `Renderer.render_segmentation`.

        Raises:
            ArgumentError: as `render`.
        """
        if self._native is None:
            raise ArgumentError("`render` must be called before close(). Make a new Renderer.")
        if self._plain is None:
            self._plain = self._native if self._output.supersample == 1 else self._make(1)
        sources, n, alive = self._reader.read(source)
        shape = (n, self._output.height, self._output.width)
        depth, objects = np.empty(shape, np.float32), np.empty((*shape, 2), np.int32)
        try:
            self._plain.probe(sources, depth, objects, self._background)
        except RuntimeError as error:
            raise ArgumentError(str(error)) from error
        del alive
        return depth, objects

    def close(self) -> None:
        """Stop the workers."""
        self._native = self._plain = None
