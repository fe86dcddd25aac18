"""Draw scenes whose elements come, go or change shape, as MuJoCo lists them frame by frame."""

from __future__ import annotations

import copy
from typing import Any

import mujoco

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
        self._native: _core.DynamicRenderer | None = _core.DynamicRenderer(
            setup,
            (
                output.height,
                output.width,
                output.format(),
                output.layout == "nchw",
                output.supersample,
            ),
            num_threads,
        )

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

    def close(self) -> None:
        """Stop the workers."""
        self._native = None
