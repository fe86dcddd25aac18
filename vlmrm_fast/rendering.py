"""Draw MuJoCo worlds as `mujoco.Renderer` does, on the CPU, many at a time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import mujoco
import mujoco.batch
import numpy as np

from vlmrm_fast import _core, _scene
from vlmrm_fast.errors import ArgumentError, unknown_name

BACKENDS = ("auto", "ray")
_DRAWN = ("geom_xpos", "geom_xmat", "site_xpos", "site_xmat", "light_xpos", "light_xdir")


@dataclass(frozen=True)
class Camera:
    """A free camera in MuJoCo's convention (`mjvCamera`).

    Attributes:
        lookat: the point looked at, world coordinates [m].
        distance: from the eye to that point [m].
        azimuth: heading of the view [degrees].
        elevation: pitch of the view [degrees]; negative looks down.
        track_body: name or id of the body whose subtree's centre of mass replaces `lookat`, as
            mjCAMERA_TRACKING does.
    """

    lookat: tuple[float, float, float] = (0.0, 0.0, 0.0)
    distance: float = 3.0
    azimuth: float = 90.0
    elevation: float = -45.0
    track_body: str | int | None = None


@dataclass
class Poses:
    """Where everything is in N worlds; drawn as it stands, never recomputed.

    After `mj_step` these arrays lag one substep behind qpos, and gymnasium draws them so.

    Attributes:
        geom_xpos: (N, ngeom, 3) float64.
        geom_xmat: (N, ngeom, 9) float64.
        site_xpos: (N, nsite, 3) float64.
        site_xmat: (N, nsite, 9) float64.
        cam_xpos: (N, ncam, 3) float64.
        cam_xmat: (N, ncam, 9) float64.
        light_xpos: (N, nlight, 3) float64.
        light_xdir: (N, nlight, 3) float64.
        xpos: (N, nbody, 3) float64.
        subtree_com: (N, nbody, 3) float64.
    """

    geom_xpos: np.ndarray
    geom_xmat: np.ndarray
    site_xpos: np.ndarray
    site_xmat: np.ndarray
    cam_xpos: np.ndarray
    cam_xmat: np.ndarray
    light_xpos: np.ndarray
    light_xdir: np.ndarray
    xpos: np.ndarray
    subtree_com: np.ndarray

    @classmethod
    def from_data(cls, data: mujoco.MjData | Sequence[mujoco.MjData]) -> Poses:
        """Copy the poses of one or several MjData.

        Args:
            data: one MjData (N = 1) or a sequence of N.

        Returns:
            Arrays with a leading dimension N.
        """
        worlds = [data] if isinstance(data, mujoco.MjData) else list(data)
        return cls(**{f.name: np.array([getattr(d, f.name) for d in worlds]) for f in fields(cls)})

    @classmethod
    def from_batch(cls, batch: mujoco.batch.Batch) -> Poses:
        """Bind the poses of a batch; they are filled by its next call and stay live as it steps.

        Args:
            batch: the batch, whose arrays are bound once.

        Returns:
            Views of the batch's memory.
        """
        empty = {"site": batch.model.nsite, "cam": batch.model.ncam, "light": batch.model.nlight}
        arrays = {}
        for f in fields(cls):
            prefix = f.name.split("_")[0]
            if empty.get(prefix, 1) == 0:
                width = 9 if f.name.endswith("xmat") else 3
                arrays[f.name] = np.zeros((batch.nsim, 0, width))
            else:
                arrays[f.name] = batch.bind(f.name)
        return cls(**arrays)

    @property
    def num_worlds(self) -> int:
        """N."""
        return len(self.geom_xpos)


class Scene:
    """A model and a camera, ready to draw: immutable, made once, shared by any renderers.

    Attributes:
        model: the mjModel it was read from.
        camera: the camera as it was given.
    """

    def __init__(self, model: mujoco.MjModel, camera: Any = None) -> None:
        """See `Scene.from_model`."""
        self.model = model
        self.camera = camera
        self._view = _resolve_camera(model, camera)
        self._native = _scene.build(model, _frustum(model, self._view), self._view.fixed)

    @classmethod
    def from_model(
        cls,
        model: mujoco.MjModel,
        camera: Camera | mujoco.MjvCamera | int | str | None = None,
    ) -> Scene:
        """Read `model` once into plain arrays.

        Args:
            model: the compiled model. Later changes to it are not seen.
            camera: None for the model's default free camera, a camera id (-1 is the free camera),
                a camera name, a mujoco.MjvCamera, or a Camera.

        Returns:
            The scene.

        Raises:
            UnsupportedSceneError: the model shows elements that are not drawn; each is named.
            UnknownNameError: no camera or body has that name.
            ArgumentError: the camera id is out of range, or the camera is of another type.
        """
        return cls(model, camera)


@dataclass(frozen=True)
class _View:
    """A camera, resolved: a model camera, or a free one that may follow a body."""

    fixed: int = -1
    track: int = -1
    offset: np.ndarray | None = None  # (3,) eye minus what is looked at
    lookat: np.ndarray | None = None  # (3,)
    mat: np.ndarray | None = None  # (9,)


def _resolve_camera(model: mujoco.MjModel, camera: Any) -> _View:
    if camera is None or (isinstance(camera, int) and camera == -1):
        free = mujoco.MjvCamera()
        mujoco.mjv_defaultFreeCamera(model, free)
        return _free_view(free.lookat, free.distance, free.azimuth, free.elevation)
    if isinstance(camera, str):
        return _View(fixed=_camera_id(model, camera))
    if isinstance(camera, (int, np.integer)) and not isinstance(camera, bool):
        if not -1 <= camera < model.ncam:
            raise ArgumentError(
                f"`camera` must be between -1 and {model.ncam - 1}, got {camera}. "
                "Use -1 or None for the free camera."
            )
        return _View(fixed=int(camera))
    if isinstance(camera, Camera):
        track = -1 if camera.track_body is None else _body_id(model, camera.track_body)
        return _free_view(camera.lookat, camera.distance, camera.azimuth, camera.elevation, track)
    if isinstance(camera, mujoco.MjvCamera):
        if camera.type == mujoco.mjtCamera.mjCAMERA_FIXED:
            return _resolve_camera(model, camera.fixedcamid)
        track = camera.trackbodyid if camera.type == mujoco.mjtCamera.mjCAMERA_TRACKING else -1
        return _free_view(camera.lookat, camera.distance, camera.azimuth, camera.elevation, track)
    raise ArgumentError(
        f"`camera` must be None, an id, a name, a mujoco.MjvCamera or a Camera, got {camera!r}."
    )


def _camera_id(model: mujoco.MjModel, name: str) -> int:
    index = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, name)
    if index < 0:
        names = (model.camera(i).name for i in range(model.ncam))
        raise unknown_name("camera", name, filter(None, names))
    return index


def _body_id(model: mujoco.MjModel, body: str | int) -> int:
    if isinstance(body, str):
        index = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, body)
        if index < 0:
            names = (model.body(i).name for i in range(model.nbody))
            raise unknown_name("track_body", body, filter(None, names))
        return index
    if not 0 <= body < model.nbody:
        raise ArgumentError(f"`track_body` must be between 0 and {model.nbody - 1}, got {body}.")
    return int(body)


def _free_view(
    lookat: Any, distance: float, azimuth: float, elevation: float, track: int = -1
) -> _View:
    """Return the view of mjv_cameraFrame for a free or tracking camera."""
    a, e = np.radians(azimuth), np.radians(elevation)
    forward = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    up = np.array([-np.sin(e) * np.cos(a), -np.sin(e) * np.sin(a), np.cos(e)])
    right = np.array([np.sin(a), -np.cos(a), 0.0])
    mat = np.stack([right, up, -forward], axis=1).reshape(9)
    return _View(
        track=track, offset=-distance * forward, lookat=np.array(lookat, np.float64), mat=mat
    )


def _frustum(model: mujoco.MjModel, view: _View) -> _scene.Frustum:
    """Return the image plane of mjv_cameraFrustum."""
    fixed = view.fixed
    fovy = model.vis.global_.fovy if fixed < 0 else model.cam_fovy[fixed]
    if fixed >= 0 and model.cam_sensorsize[fixed, 1] > 0:
        (w, h), (fx, fy, cx, cy) = model.cam_sensorsize[fixed], model.cam_intrinsic[fixed]
        return _scene.Frustum(h / fy / 2, w / fx / 2, cx / fx, -cy / fy)
    return _scene.Frustum(float(np.tan(np.radians(fovy) / 2)))


class Renderer:
    """Draws the worlds of one scene on a fixed pool of threads.

    Pictures are the same bits at any number of threads. `render` releases the GIL; calls from
    several Python threads on one Renderer take turns.

    Attributes:
        scene: what is drawn.
        height: of the pictures [pixels].
        width: of the pictures [pixels].
        num_threads: workers, the calling thread included.
        backend: the renderer in use: "ray".
    """

    def __init__(
        self,
        scene: Scene,
        height: int = 224,
        width: int = 224,
        num_threads: int = 0,
        backend: str = "auto",
    ) -> None:
        """Start the workers and allocate their buffers.

        Args:
            scene: what is drawn.
            height: of the pictures, 1 to 16384 [pixels].
            width: of the pictures, 1 to 16384 [pixels].
            num_threads: workers; 0 for one per CPU that this process may use.
            backend: "ray", or "auto" to choose.

        Raises:
            ArgumentError: a size or the number of threads is out of range.
            unknown_name: UnknownNameError, no backend has that name.
        """
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
        self.num_threads = int(num_threads) or len(os.sched_getaffinity(0))
        self.backend = "ray"
        self._native: _core.Renderer | None = None
        self._process = -1
        self._batch: tuple[Any, Poses] | None = None
        self._start()

    def render(
        self,
        source: mujoco.MjData | Sequence[mujoco.MjData] | mujoco.batch.Batch | Poses,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Draw N worlds; blocks until all are done.

        Args:
            source: an MjData (N = 1), a sequence of N MjData, a mujoco.batch.Batch of N
                simulations, or Poses.
            out: (N, H, W, 3) uint8, C-contiguous and writeable, to draw into; None allocates.

        Returns:
            (N, H, W, 3) uint8, C-contiguous, RGB, top row first; `out` itself if it was given.

        Raises:
            ArgumentError: `source` or `out` has the wrong type or shape, or the renderer is closed.
        """
        poses = self._poses(source)
        n = poses.num_worlds
        out = self._check_out(out, n)
        if n == 0:
            return out
        cam_pos, cam_mat = self._camera_rows(poses)
        if self._process != os.getpid():
            self._start()
        if self._native is None:
            raise ArgumentError("`render` must be called before close(). Make a new Renderer.")
        arrays = [*(getattr(poses, name) for name in _DRAWN), cam_pos, cam_mat]
        try:
            self._native.render(out, *(np.ascontiguousarray(a, np.float64) for a in arrays))
        except ValueError as error:
            raise ArgumentError(f"{error} Poses must come from the scene's model.") from None
        return out

    def close(self) -> None:
        """Stop the workers. Further calls of `render` raise."""
        self._native = None
        self._process = os.getpid()

    def __enter__(self) -> Renderer:
        """Return self."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close."""
        self.close()

    def _start(self) -> None:
        # Threads do not survive a fork, so a child process starts its own.
        self._native = _core.Renderer(self.scene._native, self.height, self.width, self.num_threads)
        self._process = os.getpid()

    def _poses(self, source: Any) -> Poses:
        if isinstance(source, Poses):
            return source
        if isinstance(source, mujoco.MjData):
            return Poses.from_data(source)
        if isinstance(source, mujoco.batch.Batch):
            if self._batch is None or self._batch[0] is not source:
                self._batch = (source, Poses.from_batch(source))
                # A batch fills bound arrays in its next call only, so make them current.
                source.forward(stage=mujoco.mjtStage.mjSTAGE_POS.value)
            return self._batch[1]
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

    def _check_out(self, out: np.ndarray | None, n: int) -> np.ndarray:
        shape = (n, self.height, self.width, 3)
        if out is None:
            return np.empty(shape, np.uint8)
        fix = f"Use np.empty({shape}, np.uint8)."
        if not isinstance(out, np.ndarray):
            raise ArgumentError(f"`out` must be a numpy array, got {type(out).__name__}. {fix}")
        if out.dtype != np.uint8:
            raise ArgumentError(f"`out` must be uint8, got {out.dtype}. {fix}")
        if out.shape != shape:
            raise ArgumentError(f"`out` must be of shape {shape}, got {out.shape}. {fix}")
        if not out.flags.c_contiguous:
            raise ArgumentError(f"`out` must be C-contiguous, got strides {out.strides}. {fix}")
        if not out.flags.writeable:
            raise ArgumentError(f"`out` must be writeable, got a read-only array. {fix}")
        return out

    def _camera_rows(self, poses: Poses) -> tuple[np.ndarray, np.ndarray]:
        view, n = self.scene._view, poses.num_worlds
        if view.fixed >= 0:
            return poses.cam_xpos[:, view.fixed], poses.cam_xmat[:, view.fixed]
        assert view.offset is not None
        assert view.lookat is not None
        assert view.mat is not None
        target = poses.subtree_com[:, view.track] if view.track >= 0 else view.lookat
        return np.broadcast_to(target + view.offset, (n, 3)), np.broadcast_to(view.mat, (n, 9))
