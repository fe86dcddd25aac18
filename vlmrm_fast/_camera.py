"""Resolve a camera into the view that a scene is drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from vlmrm_fast import _scene
from vlmrm_fast.errors import ArgumentError, UnsupportedSceneError, unknown_name


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


@dataclass(frozen=True)
class View:
    """A camera, resolved: a model camera, or a free one that may follow a body."""

    fixed: int = -1
    track: int = -1
    offset: np.ndarray | None = None  # (3,) eye minus what is looked at
    lookat: np.ndarray | None = None  # (3,)
    mat: np.ndarray | None = None  # (9,)


def resolve(model: mujoco.MjModel, camera: Any) -> View:
    """Return the view of a camera.

    Args:
        model: the compiled model.
        camera: as `Scene.from_model` takes it.

    Returns:
        A model's camera by its id, or a free view.

    Raises:
        UnknownNameError: no camera or body has that name.
        ArgumentError: an id is out of range, or the camera is of another type.
        UnsupportedSceneError: an orthographic MjvCamera.
    """
    if camera is None or (isinstance(camera, int) and camera == -1):
        free = mujoco.MjvCamera()
        mujoco.mjv_defaultFreeCamera(model, free)
        return _free_view(free.lookat, free.distance, free.azimuth, free.elevation)
    if isinstance(camera, str):
        return View(fixed=_camera_id(model, camera))
    if isinstance(camera, (int, np.integer)) and not isinstance(camera, bool):
        if not -1 <= camera < model.ncam:
            raise ArgumentError(
                f"`camera` must be between -1 and {model.ncam - 1}, got {camera}. "
                "Use -1 or None for the free camera."
            )
        return View(fixed=int(camera))
    if isinstance(camera, Camera):
        track = -1 if camera.track_body is None else _body_id(model, camera.track_body)
        return _free_view(camera.lookat, camera.distance, camera.azimuth, camera.elevation, track)
    if isinstance(camera, mujoco.MjvCamera):
        return _resolve_mjv(model, camera)
    raise ArgumentError(
        f"`camera` must be None, an id, a name, a mujoco.MjvCamera or a Camera, got {camera!r}."
    )


def _resolve_mjv(model: mujoco.MjModel, camera: mujoco.MjvCamera) -> View:
    kinds = mujoco.mjtCamera
    if camera.type == kinds.mjCAMERA_FIXED:
        if not 0 <= camera.fixedcamid < model.ncam:
            raise ArgumentError(
                f"`camera.fixedcamid` must be between 0 and {model.ncam - 1} for a fixed camera, "
                f"got {camera.fixedcamid}. Use type mjCAMERA_FREE for the free camera."
            )
        return View(fixed=int(camera.fixedcamid))
    if camera.type not in {kinds.mjCAMERA_FREE, kinds.mjCAMERA_TRACKING}:
        raise ArgumentError(
            "`camera.type` must be mjCAMERA_FREE, mjCAMERA_TRACKING or mjCAMERA_FIXED, "
            f"got {camera.type}. Use a Camera or a camera of the model."
        )
    # A fixed camera's own field is not read: its projection is the model's.
    if camera.orthographic:
        raise UnsupportedSceneError(
            "`camera` must be one that the ray renderer draws, got an orthographic MjvCamera. "
            "Set camera.orthographic = 0 or use mujoco.Renderer."
        )
    track = -1
    if camera.type == kinds.mjCAMERA_TRACKING:
        track = int(camera.trackbodyid)
        if not 0 <= track < model.nbody:
            raise ArgumentError(
                f"`camera.trackbodyid` must be between 0 and {model.nbody - 1} for a tracking "
                f"camera, got {track}. Use type mjCAMERA_FREE to follow no body."
            )
    return _free_view(camera.lookat, camera.distance, camera.azimuth, camera.elevation, track)


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
) -> View:
    """Return the view of mjv_cameraFrame for a free or tracking camera."""
    a, e = np.radians(azimuth), np.radians(elevation)
    forward = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    up = np.array([-np.sin(e) * np.cos(a), -np.sin(e) * np.sin(a), np.cos(e)])
    right = np.array([np.sin(a), -np.cos(a), 0.0])
    mat = np.stack([right, up, -forward], axis=1).reshape(9)
    return View(
        track=track, offset=-distance * forward, lookat=np.array(lookat, np.float64), mat=mat
    )


def mjv_camera(model: mujoco.MjModel, camera: Any) -> mujoco.MjvCamera:
    """Return a camera as MuJoCo's own functions take it.

    Args:
        model: the compiled model.
        camera: as `Scene.from_model` takes it, resolved before.

    Returns:
        The camera itself if it is a mujoco.MjvCamera, else a new one.
    """
    if isinstance(camera, mujoco.MjvCamera):
        return camera
    made = mujoco.MjvCamera()
    if camera is None or (isinstance(camera, (int, np.integer)) and camera == -1):
        mujoco.mjv_defaultFreeCamera(model, made)
    elif isinstance(camera, Camera):
        made.lookat[:] = camera.lookat
        made.distance, made.azimuth = camera.distance, camera.azimuth
        made.elevation = camera.elevation
        if camera.track_body is not None:
            made.type = mujoco.mjtCamera.mjCAMERA_TRACKING
            made.trackbodyid = _body_id(model, camera.track_body)
    else:
        made.type = mujoco.mjtCamera.mjCAMERA_FIXED
        made.fixedcamid = _camera_id(model, camera) if isinstance(camera, str) else int(camera)
    return made


def frustum(model: mujoco.MjModel, view: View) -> _scene.Frustum:
    """Return the image plane of mjv_cameraFrustum.

    Args:
        model: the compiled model.
        view: the resolved camera.

    Returns:
        The half sizes and the offset of its centre.
    """
    fixed = view.fixed
    fovy = model.vis.global_.fovy if fixed < 0 else model.cam_fovy[fixed]
    if fixed >= 0 and model.cam_sensorsize[fixed, 1] > 0:
        (w, h), (fx, fy, cx, cy) = model.cam_sensorsize[fixed], model.cam_intrinsic[fixed]
        return _scene.Frustum(h / fy / 2, w / fx / 2, cx / fx, -cy / fy)
    return _scene.Frustum(float(np.tan(np.radians(fovy) / 2)))
