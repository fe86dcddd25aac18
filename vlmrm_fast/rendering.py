"""Draw MuJoCo worlds as `mujoco.Renderer` does, on the CPU, many at a time."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

import mujoco
import mujoco.batch
import numpy as np

from vlmrm_fast import _camera, _core
from vlmrm_fast._camera import Camera
from vlmrm_fast._dynamic import DynamicDrawer
from vlmrm_fast._gl import GlDrawer
from vlmrm_fast._outputs import Output, checked_array
from vlmrm_fast._poses import BatchPoses, Poses
from vlmrm_fast._scene_view import Scene
from vlmrm_fast.errors import ArgumentError, RendererError, UnsupportedSceneError, unknown_name

__all__ = ["BACKENDS", "Camera", "Poses", "Renderer", "Scene"]

BACKENDS = ("auto", "gl", "ray")
_DRAWN = ("geom_xpos", "geom_xmat", "site_xpos", "site_xmat", "light_xpos", "light_xdir")

_log = logging.getLogger(__name__)


class Renderer:
    """Draws the worlds of one scene on a fixed pool of threads.

    Pictures are the same bits at any number of threads. `render` releases the GIL; calls from
    several Python threads on one Renderer take turns.

    Attributes:
        scene: what is drawn.
        height: of the pictures [pixels].
        width: of the pictures [pixels].
        num_threads: workers; with "ray" the calling thread is one of them.
        backend: the renderer in use: "ray" or "gl".
        output: the format of the pictures.
    """

    def __init__(
        self,
        scene: Scene,
        height: int = 224,
        width: int = 224,
        num_threads: int = 0,
        backend: str = "auto",
        *,
        layout: str = "nhwc",
        dtype: str = "uint8",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        supersample: int = 1,
        device: int | None = None,
        cache: bool = True,
        facets: bool | None = None,
    ) -> None:
        """Start the workers and allocate their buffers.

        The `ray` renderer is this package's own. `gl` is MuJoCo's, through EGL: the same bits as
        mujoco.Renderer on the same driver, of everything that MuJoCo draws, at its speed.

        Pictures leave as bytes, or as (byte / 255 - mean) / std a channel, computed in float32
        and rounded to `dtype` as torch does; both layouts go with every dtype.

        Args:
            scene: what is drawn.
            height: of the pictures, 1 to 16384 [pixels].
            width: of the pictures, 1 to 16384 [pixels].
            num_threads: workers; 0 for one per CPU that this process may use, and for "gl", whose
                software drivers do not gain by more, one.
            backend: "ray", "gl", or "auto" for "ray" unless it does not draw all of the scene.
            layout: "nhwc" for channels last, "nchw" for channels first.
            dtype: "uint8", "float32", "float16" or "bfloat16".
            mean: of the three channels, where `dtype` is not uint8; None for zeros.
            std: likewise, above 0; None for ones.
            supersample: draw this many times as high and wide, 1 to 8, and average down. Edges
                get smoother; textures get sharper than MuJoCo's.
            device: of "gl": a CUDA ordinal, or an index of EGL's devices without CUDA; None for
                MUJOCO_EGL_DEVICE_ID, else the first that works.
            cache: draw what stands still once for a still camera; the same bits without, slower.
            facets: draw the outlines of round shapes from MuJoCo's polygons, by a third slower;
                None where fewer than 160 rows are drawn, `supersample` included. For "ray"; a scene
                that changes always decides by rows.

        Raises:
            ArgumentError: a number is out of range, the threads are more than the system can
                give, mean or std are given for uint8, or `scene` is not a Scene.
            unknown_name: UnknownNameError, no backend, layout or dtype has that name.
            UnsupportedSceneError: "ray" does not draw the scene, or neither renderer can here.
            RendererError: "gl" was asked for and OpenGL cannot be used here.
        """
        if not isinstance(scene, Scene):
            raise ArgumentError(
                f"`scene` must be a Scene, got {type(scene).__name__}. "
                "Use Scene.from_model(model) to make one."
            )
        if backend not in BACKENDS:
            raise unknown_name("backend", str(backend), BACKENDS)
        for name, value, low, high in (
            ("height", height, 1, 16384),
            ("width", width, 1, 16384),
            ("num_threads", num_threads, 0, 1024),
        ):
            if not isinstance(value, (int, np.integer)) or not low <= value <= high:
                raise ArgumentError(
                    f"`{name}` must be an integer between {low} and {high}, got {value!r}."
                )
        if facets not in (None, True, False):
            raise ArgumentError(f"`facets` must be None, True or False, got {facets!r}.")
        self.scene = scene
        self.height = int(height)
        self.width = int(width)
        self.output = Output.of(
            (self.height, self.width),
            layout=layout,
            dtype=dtype,
            mean=mean,
            std=std,
            supersample=supersample,
        )
        self._native: _core.Renderer | None = None
        self._plain: _core.Renderer | None = None  # of the picture's own size
        self._drawer: GlDrawer | DynamicDrawer | None = None
        self._process = -1
        self._cache = bool(cache)
        self._facets = -1 if facets is None else int(bool(facets))
        self._batch: BatchPoses | None = None
        self.backend = self._choose(backend, int(num_threads), device)
        if self.backend == "ray":
            self.num_threads = int(num_threads) or len(os.sched_getaffinity(0))
            self._start()

    def _choose(self, backend: str, num_threads: int, device: int | None) -> str:
        """Return the backend to use; where that is "gl", start it."""
        reason = self.scene.unsupported
        if backend == "ray" and reason:
            raise UnsupportedSceneError(reason)
        if backend == "ray" or (backend == "auto" and not reason):
            return "ray"
        self.num_threads = num_threads or 1
        try:
            gl = self._drawer = GlDrawer(
                self.scene.model,
                self.scene._view.mjv,
                self.output,
                option=self.scene.option,
                flags=self.scene.flags,
                num_threads=self.num_threads,
                device=device,
            )
        except RendererError as error:
            if backend == "gl":
                raise
            raise UnsupportedSceneError(f"{reason} MuJoCo's OpenGL: {error}") from error
        if backend == "auto":
            _log.warning("Drawing with OpenGL (%s): %s", gl.driver.renderer, reason)
        return "gl"

    def render(
        self,
        source: mujoco.MjData | Sequence[mujoco.MjData] | mujoco.batch.Batch | Poses,
        out: Any = None,
    ) -> Any:
        """Draw N worlds; blocks until all are done.

        Args:
            source: an MjData (N = 1), a sequence of N MjData, a mujoco.batch.Batch of N
                simulations, or Poses. A batch is drawn from its bound arrays, as `Poses.from_batch`
                gives them; worlds that it has not filled yet are drawn at their present state, and
                nothing in the batch changes.
            out: a numpy array or CPU torch tensor of the renderer's layout and dtype, C-contiguous
                and writeable, to draw into; None allocates a numpy array. numpy has no bfloat16:
                there it is the bits, as uint16.

        Returns:
            (N, H, W, 3), or (N, 3, H, W) for "nchw", of the renderer's dtype (uint8 by default),
            C-contiguous, RGB, top row first; `out` itself if it was given.

        Raises:
            ArgumentError: `source` or `out` has the wrong type or shape, or the renderer is closed.
        """
        if self.backend == "ray" and self._process != os.getpid():
            self._start()
        if self._drawer is not None:
            return self._drawer.render(source, out)
        poses = self._poses(source)
        n = poses.num_worlds
        frames = self.output.array(out, n)
        out = frames if out is None else out
        if n == 0:
            return out
        self._draw(poses, frames)
        return out

    def render_depth(self, source: Any, out: np.ndarray | None = None) -> np.ndarray:
        """Measure how far what each pixel's centre shows is; blocks until all worlds are done.

        Transparent geoms count as opaque; layout, dtype and supersample do not matter.

        Args:
            source: as `render` takes it.
            out: (N, H, W) float32, C-contiguous and writeable; None allocates.

        Returns:
            (N, H, W) float32, distance along the camera's axis [m], top row first; about the far
            plane's where nothing is. `out` itself if it was given.

        Raises:
            ArgumentError: as `render`.

        Source:
            mujoco.Renderer.enable_depth_rendering.
        """
        return self._probe(source, out, None)[0]

    def render_segmentation(self, source: Any, out: np.ndarray | None = None) -> np.ndarray:
        """Tell which object each pixel's centre shows; blocks until all worlds are done.

        Args:
            source: as `render` takes it.
            out: (N, H, W, 2) int32, C-contiguous and writeable; None allocates.

        Returns:
            (N, H, W, 2) int32, the object's id and its mjtObj type, -1 and -1 where nothing is.
            `out` itself if it was given.

        Raises:
            ArgumentError: as `render`.

        Source:
            mujoco.Renderer.enable_segmentation_rendering.
        """
        return self._probe(source, None, out)[1]

    def _probe(self, source: Any, depth: Any, objects: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return depths (N, H, W) and objects (N, H, W, 2), in the given arrays if not None."""
        built = self.scene._built
        if self.backend == "ray" and self._process != os.getpid():
            self._start()
        if self._drawer is not None:
            found = self._drawer.probe(source)
            depth = checked_array(depth, found[0].shape, np.dtype(np.float32))
            objects = checked_array(objects, found[1].shape, np.dtype(np.int32))
            depth[...], objects[...] = found
            return depth, objects
        assert built is not None
        poses = self._poses(source)
        shape = (poses.num_worlds, self.height, self.width)
        depth = checked_array(depth, shape, np.dtype(np.float32))
        objects = checked_array(objects, (*shape, 2), np.dtype(np.int32))
        geom = np.empty(shape, np.int32)
        *pose, offset = _camera.rows(self.scene._view, poses)
        if self._process != os.getpid():
            self._start()
        if self._native is None:
            raise ArgumentError("`render` must be called before close(). Make a new Renderer.")
        if self._plain is None:
            size = (self.height, self.width, self.num_threads)
            whole = self.output.supersample == 1
            self._plain = self._native if whole else _core.Renderer(built.native, *size)
        arrays = [np.ascontiguousarray(getattr(poses, name), np.float64) for name in _DRAWN]
        try:
            self._plain.probe(depth, geom, built.background, [*arrays, *pose], offset)
        except ValueError as error:
            raise ArgumentError(f"{error} Poses must come from the scene's model.") from None
        nothing = np.array([[-1, -1]], np.int32)
        objects[...] = np.concatenate([built.objects, nothing])[geom]
        return depth, objects

    def can_draw_stepped(self, stepper: _core.Stepper) -> bool:
        """Whether `draw_stepped` works here.

        Args:
            stepper: what would step.

        Returns:
            True for the "ray" back end with no more workers than the stepper has.
        """
        return self._drawer is None and self.num_threads <= stepper.num_workers

    def draw_stepped(
        self, poses: Poses, frames: np.ndarray, stepper: _core.Stepper, num_substeps: int
    ) -> float:
        """Advance each world, then draw it on the same core. For `Simulation.step_and_draw`.

        Args:
            poses: live arrays that the stepper fills.
            frames: as `Output.array` gives them.
            stepper: advances the worlds.
            num_substeps: of each world.

        Returns:
            The share of the workers' time spent drawing, 0 to 1.
        """
        return self._draw(poses, frames, stepper, num_substeps)

    def _draw(
        self, poses: Poses, frames: np.ndarray, stepper: Any = None, num_substeps: int = 0
    ) -> float:
        """Draw; with a stepper, after advancing each world. Return the share of time for drawing.

        Args:
            poses: where everything is, read after a world's step.
            frames: as `Output.array` gives them.
            stepper: a `_core.Stepper` that fills the arrays of `poses`, or None.
            num_substeps: for the stepper.

        Returns:
            Between 0 and 1.

        Raises:
            ArgumentError: the poses are not of the scene's model, or the renderer is closed.
        """
        camera = _camera.rows(self.scene._view, poses)
        if self._process != os.getpid():
            self._start()
        if self._native is None:
            raise ArgumentError("`render` must be called before close(). Make a new Renderer.")
        arrays = [np.ascontiguousarray(getattr(poses, name), np.float64) for name in _DRAWN]
        draw: Any = self._native.render
        try:
            return draw(frames, *arrays, *camera, stepper, num_substeps)
        except ValueError as error:
            raise ArgumentError(f"{error} Poses must come from the scene's model.") from None

    def close(self) -> None:
        """Stop the workers. Further calls of `render` raise."""
        self._native = self._plain = None
        self._process = os.getpid()
        if self._drawer is not None:
            self._drawer.close()

    def __enter__(self) -> Renderer:
        """Return self."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close."""
        self.close()

    def _start(self) -> None:
        # Threads do not survive a fork, so a child process starts its own.
        built = self.scene._built
        assert built is not None
        self._plain = None
        try:
            self._process = os.getpid()
            if built.changing is not None:
                self._drawer = DynamicDrawer(
                    self.scene.model,
                    self.scene._view.mjv,
                    self.output,
                    option=self.scene.option,
                    native=built.native,
                    changing=built.changing,
                    background=built.background,
                    num_threads=self.num_threads,
                )
                return
            self._native = _core.Renderer(
                built.native,
                self.height,
                self.width,
                self.num_threads,
                self.output.format(),
                self.output.layout == "nchw",
                self.output.supersample,
                self._cache,
                self._facets,
            )
        except (RuntimeError, MemoryError) as error:
            raise ArgumentError(
                "`num_threads` must be few enough for this system's limits on threads and memory, "
                f"got {self.num_threads}. Use num_threads=1 or smaller pictures."
            ) from error
        self._process = os.getpid()

    def _poses(self, source: Any) -> Poses:
        if isinstance(source, Poses):
            return source
        if isinstance(source, mujoco.MjData):
            return Poses.from_data(source)
        if isinstance(source, mujoco.batch.Batch):
            if self._batch is None or self._batch.batch is not source:
                self._batch = BatchPoses(source)
            return self._batch.current()
        if isinstance(source, Sequence) and all(isinstance(d, mujoco.MjData) for d in source):
            if not source:
                return Poses.empty(self.scene.model)
            return Poses.from_data(source)
        raise ArgumentError(
            "`source` must be an MjData, a sequence of MjData, a mujoco.batch.Batch or Poses, "
            f"got {type(source).__name__}."
        )
