"""MuJoCo's own OpenGL renderer, driven from native threads through EGL."""

from __future__ import annotations

import copy
import dataclasses
import logging
import os
from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np

from vlmrm_fast import _core, _mujoco_api
from vlmrm_fast._outputs import Output
from vlmrm_fast._sources import SourceReader
from vlmrm_fast.errors import ArgumentError, RendererError
from vlmrm_fast.gl_order import load_triton

_log = logging.getLogger(__name__)


def choose_devices(device: int | None = None) -> list[int]:
    """Return the EGL devices to try, in turn.

    Args:
        device: a CUDA ordinal among the visible ones where the driver knows CUDA, else an index of
            EGL's devices; None follows MUJOCO_EGL_DEVICE_ID and CUDA_VISIBLE_DEVICES, as
            mujoco.Renderer does.

    Returns:
        Indices of EGL's devices.

    Raises:
        RendererError: there is no EGL, or no such device.
    """
    try:
        known = [(index, cuda) for index, cuda, _ in _core.gl_devices()]
        return _core.choose_gl_devices(
            known,
            -1 if device is None else device,
            os.environ.get("MUJOCO_EGL_DEVICE_ID", ""),
            os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        )
    except RuntimeError as error:
        raise RendererError(f"{error} Install libegl1, or use backend='ray'.") from error


class GlDrawer:
    """Draws worlds with mjr_render: the pictures of `mujoco.Renderer`, bit for bit.

    Each worker thread has its own context, about 140 MB on a software driver, where further
    threads do not make it faster. Its contexts neither disturb nor need those of mujoco.Renderer.

    Attributes:
        driver: vendor, renderer and version that OpenGL reports, and whether it is software.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        camera: mujoco.MjvCamera,
        output: Output,
        *,
        option: mujoco.MjvOption | None = None,
        flags: Mapping[str, bool] | None = None,
        num_threads: int = 1,
        device: int | None = None,
    ) -> None:
        """Start the threads and make their contexts.

        Args:
            model: what is drawn; copied.
            camera: where it is seen from; copied.
            output: the format of the pictures.
            option: what is shown; None for MuJoCo's defaults.
            flags: how, by the names of mjtRndFlag in lower case; MuJoCo's defaults for the others.
            num_threads: workers.
            device: as `choose_devices` takes it.

        Raises:
            RendererError: EGL or OpenGL cannot be used here.
        """
        # Triton after a software driver of OpenGL would crash this process.
        load_triton()
        self._model, self._output = copy.copy(model), output
        self._reader = SourceReader(self._model, option, num_threads)
        self._process = os.getpid()
        numbers = {
            int(getattr(mujoco.mjtRndFlag, f"mjRND_{name.upper()}")): bool(value)
            for name, value in (flags or {}).items()
        }
        try:
            self._native: _core.GlRenderer | None = _core.GlRenderer(
                _mujoco_api.load(),
                self._model._address,
                _mujoco_api.option_bytes(option),
                _mujoco_api.camera_bytes(camera),
                list(numbers.items()),
                (
                    output.height,
                    output.width,
                    output.format(),
                    output.layout == "nchw",
                    output.supersample,
                ),
                num_threads,
                choose_devices(device),
            )
        except RuntimeError as error:
            raise RendererError(f"{error} Use backend='ray' if it draws this scene.") from error
        self.driver = self._native.driver
        self._again: dict[str, Any] = {
            "option": option,
            "flags": flags,
            "num_threads": num_threads,
            "device": device,
        }
        self._camera, self._plain = copy.copy(camera), self if output.supersample == 1 else None
        self._report()

    def render(self, source: Any, out: Any = None) -> Any:
        """Draw N worlds.

        Args:
            source: as `Renderer.render` takes it.
            out: as `Renderer.render` takes it.

        Returns:
            As `Renderer.render`.
        """
        native = self._usable()
        sources, n, alive = self._reader.read(source)
        frames = self._output.array(out, n)
        self._run(lambda: native.render(sources, frames))
        del alive
        return frames if out is None else out

    def render_depth(self, source: Any) -> np.ndarray:
        """Measure how far away N worlds are.

        Args:
            source: as `Renderer.render` takes it.

        Returns:
            (N, H, W) float32 [m], as mujoco.Renderer computes it from the depth buffer.
        """
        native = self._usable()
        sources, n, alive = self._reader.read(source)
        depth = np.empty((n, *self._drawn), np.float32)
        orthographic = np.zeros(n, np.uint8)
        self._run(lambda: native.render_depth(sources, depth, orthographic))
        del alive
        extent, clip = self._model.stat.extent, self._model.vis.map
        near, far = np.float32(clip.znear * extent), np.float32(clip.zfar * extent)
        scale = -(far + near) / (far - near)
        shift = -(np.float32(2) * far * near) / (far - near)
        # The buffer runs from 1 at the near plane to 0 at the far one.
        scale, shift = np.float32(-0.5) * scale - np.float32(0.5), np.float32(-0.5) * shift
        buffer = depth.astype(np.float64)
        flat = orthographic.astype(bool)[:, None, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            metres = np.where(flat, far - buffer * (far - near), shift / (buffer + scale))
        return metres.astype(np.float32)

    def render_segmentation(self, source: Any) -> np.ndarray:
        """Name what N worlds show.

        Args:
            source: as `Renderer.render` takes it.

        Returns:
            (N, H, W, 2) int32: object id and mjtObj type, -1 and -1 where nothing is.
        """
        native = self._usable()
        sources, n, alive = self._reader.read(source)
        out = np.empty((n, *self._drawn, 2), np.int32)
        self._run(lambda: native.render_segmentation(sources, out))
        del alive
        return out

    def probe(self, source: Any) -> tuple[np.ndarray, np.ndarray]:
        """Measure and name what N worlds show, at the size of the pictures.

        Args:
            source: as `Renderer.render` takes it.

        Returns:
            As `render_depth` and `render_segmentation`.
        """
        self._usable()
        if self._plain is None:
            plain = dataclasses.replace(self._output, supersample=1)
            self._plain = GlDrawer(self._model, self._camera, plain, **self._again)
        return self._plain.render_depth(source), self._plain.render_segmentation(source)

    def close(self) -> None:
        """End the threads and their contexts."""
        self._native = self._plain = None

    @property
    def _drawn(self) -> tuple[int, int]:
        return (
            self._output.height * self._output.supersample,
            self._output.width * self._output.supersample,
        )

    def _usable(self) -> _core.GlRenderer:
        if self._native is None:
            raise ArgumentError("`render` must be called before close(). Make a new Renderer.")
        if self._process != os.getpid():
            raise RendererError(
                "A gl renderer must be used in the process that made it, got a forked child. "
                "Start the child with multiprocessing's 'spawn' method and make one there."
            )
        return self._native

    def _run(self, draw: Any) -> None:
        try:
            draw()
        except RuntimeError as error:
            raise RendererError(f"{error} Use backend='ray' if it draws this scene.") from error
        self._report()

    def _report(self) -> None:
        assert self._native is not None
        for text in self._native.take_warnings():
            _log.warning("MuJoCo: %s", text)
