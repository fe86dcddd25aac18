"""Draw MuJoCo worlds as `mujoco.Renderer` does, on the CPU, many at a time."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import mujoco
import mujoco.batch
import numpy as np

from vlmrm_fast import _camera, _core, _look, _scene
from vlmrm_fast._camera import Camera
from vlmrm_fast._dynamic import DynamicDrawer
from vlmrm_fast._gl import GlDrawer
from vlmrm_fast._outputs import Output
from vlmrm_fast._poses import BatchPoses, Poses
from vlmrm_fast._sources import extra_fields
from vlmrm_fast.errors import ArgumentError, RendererError, UnsupportedSceneError, unknown_name

__all__ = ["BACKENDS", "Camera", "Poses", "Renderer", "Scene"]

BACKENDS = ("auto", "gl", "ray")
_DRAWN = ("geom_xpos", "geom_xmat", "site_xpos", "site_xmat", "light_xpos", "light_xdir")

_log = logging.getLogger(__name__)


class Scene:
    """A model and a camera, ready to draw: immutable, made once, shared by any renderers.

    Attributes:
        model: the mjModel it was read from.
        camera: the camera as it was given.
        unsupported: why the `ray` renderer cannot draw it, naming every element that it does not
            draw; None if it can.
        needs: `MjData` fields that it is drawn from beyond those of `Poses`: worlds must then come
            as MjData, or as a batch unless "contact" is among them.
        option: what is shown; a copy.
        flags: every render flag by name.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        camera: Any = None,
        *,
        option: mujoco.MjvOption | None = None,
        flags: Mapping[str, bool] | None = None,
    ) -> None:
        """See `Scene.from_model`."""
        if not isinstance(model, mujoco.MjModel):
            raise ArgumentError(
                f"`model` must be a mujoco.MjModel, got {type(model).__name__}. "
                "Use mujoco.MjModel.from_xml_path(path) to load one."
            )
        self.model = model
        self.camera = camera
        self.option = _look.resolve_option(option)
        self.flags = _look.resolve_flags(flags)
        self._view = _camera.resolve(model, camera)
        self.needs = extra_fields(model, self.option)
        self.unsupported: str | None = None
        self._built: _scene.Built | None = None
        try:
            self._built = _scene.build(model, self._view.mjv, self.option, self.flags)
        except UnsupportedSceneError as error:
            self.unsupported = str(error)

    @classmethod
    def from_model(
        cls,
        model: mujoco.MjModel,
        camera: Camera | mujoco.MjvCamera | int | str | None = None,
        *,
        option: mujoco.MjvOption | None = None,
        flags: Mapping[str, bool] | None = None,
    ) -> Scene:
        """Read `model` once into plain arrays.

        A model may show elements that the `ray` renderer does not draw: `unsupported` names them,
        and a Renderer of backend "ray" refuses the scene.

        Args:
            model: the compiled model. Later changes to it are not seen.
            camera: None for the model's default free camera, a camera id (-1 is the free camera),
                a camera name, a mujoco.MjvCamera, or a Camera. Perspective or orthographic as the
                model says.
            option: which groups and elements are shown; None for MuJoCo's default.
            flags: render flags by their mjtRndFlag names in lower case: additive, cull_face, fog,
                haze, reflection, shadow, skybox. Those not given are MuJoCo's defaults: all on
                but additive and fog.

        Returns:
            The scene.

        Raises:
            UnsupportedSceneError: a flag asks for what is not drawn.
            UnknownNameError: no camera, body or flag has that name.
            ArgumentError: the camera's or its body's id is out of range, or an argument is of
                another type.
        """
        return cls(model, camera, option=option, flags=flags)


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
            backend: "ray", "gl", or "auto" for "ray" unless the scene holds elements that it does
                not draw.
            layout: "nhwc" for channels last, "nchw" for channels first.
            dtype: "uint8", "float32", "float16" or "bfloat16".
            mean: of the three channels, where `dtype` is not uint8; None for zeros.
            std: likewise, above 0; None for ones.
            supersample: draw this many times as high and wide, 1 to 8, and average down. Edges
                get smoother; textures get sharper than MuJoCo's.
            device: of "gl": a CUDA ordinal, or an index of EGL's devices without CUDA; None for
                MUJOCO_EGL_DEVICE_ID, else the first that works.
            cache: draw what stands still once for a camera that stands still; the pictures are the
                same bits without, slower.

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
        self._drawer: GlDrawer | DynamicDrawer | None = None
        self._process = -1
        self._cache = bool(cache)
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
        camera = self._camera_rows(poses)
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
        self._native = None
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
                return self._no_worlds()
            return Poses.from_data(source)
        raise ArgumentError(
            "`source` must be an MjData, a sequence of MjData, a mujoco.batch.Batch or Poses, "
            f"got {type(source).__name__}."
        )

    def _no_worlds(self) -> Poses:
        m = self.scene.model
        rows = (m.ngeom, m.ngeom, m.nsite, m.nsite, m.ncam, m.ncam, m.nlight, m.nlight)
        return Poses(*(np.zeros((0, k, 3)) for k in (*rows, m.nbody, m.nbody)))

    def _camera_rows(self, poses: Poses) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
        """Return views (N, 3) and (N, 9) of the camera's pose, and what its position adds."""
        view, n = self.scene._view, poses.num_worlds
        if view.fixed >= poses.cam_xpos.shape[1] or view.track >= poses.subtree_com.shape[1]:
            raise ArgumentError(
                "`source` must be of the scene's model, got poses without the camera or body that "
                "the scene is seen from. Use one Scene per model."
            )
        if view.fixed >= 0:
            xpos, xmat = poses.cam_xpos[:, view.fixed], poses.cam_xmat[:, view.fixed]
            return _float_rows(xpos), _float_rows(xmat), (0.0, 0.0, 0.0)
        assert view.offset is not None
        assert view.lookat is not None
        assert view.mat is not None
        mat = np.broadcast_to(np.asarray(view.mat, np.float64), (n, 9))
        if view.track < 0:
            eye = np.broadcast_to(np.asarray(view.lookat + view.offset, np.float64), (n, 3))
            return eye, mat, (0.0, 0.0, 0.0)
        return _float_rows(poses.subtree_com[:, view.track]), mat, tuple(view.offset)


def _float_rows(array: np.ndarray) -> np.ndarray:
    """Return float64 rows, each contiguous; a view where they are already."""
    fits = array.dtype == np.float64 and array.strides[-1] == 8
    return array if fits else np.ascontiguousarray(array, np.float64)
