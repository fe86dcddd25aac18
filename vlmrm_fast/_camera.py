"""Resolve a camera into the view that a scene is drawn from."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from vlmrm_fast._poses import Poses
from vlmrm_fast.coercion import check_camera
from vlmrm_fast.errors import ArgumentError, unknown_name


@dataclass(frozen=True)
class Camera:
    """A free camera in MuJoCo's convention (`mjvCamera`); its numbers are finite.

    Attributes:
        lookat: the point looked at, world coordinates [m].
        distance: from the eye to that point, above 0 [m].
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

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ArgumentError: one is not finite, or the distance is not above 0.
        """
        check_camera(vars(self))


@dataclass(frozen=True)
class View:
    """A camera, resolved: a model camera, or a free one that may follow a body."""

    mjv: mujoco.MjvCamera
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
    """
    mjv = mujoco.MjvCamera()
    if camera is None or (isinstance(camera, int) and camera == -1):
        mujoco.mjv_defaultFreeCamera(model, mjv)
    elif isinstance(camera, str):
        mjv.type, mjv.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, _camera_id(model, camera)
    elif isinstance(camera, (int, np.integer)) and not isinstance(camera, bool):
        if not -1 <= camera < model.ncam:
            raise ArgumentError(
                f"`camera` must be between -1 and {model.ncam - 1}, got {camera}. "
                "Use -1 or None for the free camera."
            )
        mjv.type, mjv.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, int(camera)
    elif isinstance(camera, Camera):
        mjv.lookat[:] = camera.lookat
        mjv.distance, mjv.azimuth = camera.distance, camera.azimuth
        mjv.elevation = camera.elevation
        if camera.track_body is not None:
            mjv.type = mujoco.mjtCamera.mjCAMERA_TRACKING
            mjv.trackbodyid = _body_id(model, camera.track_body)
    elif isinstance(camera, mujoco.MjvCamera):
        _check_mjv(model, camera)
        mjv = copy.copy(camera)
    else:
        raise ArgumentError(
            f"`camera` must be None, an id, a name, a mujoco.MjvCamera or a Camera, got {camera!r}."
        )
    return _view(mjv)


def _check_mjv(model: mujoco.MjModel, camera: mujoco.MjvCamera) -> None:
    kinds = mujoco.mjtCamera
    if camera.type == kinds.mjCAMERA_FIXED:
        if not 0 <= camera.fixedcamid < model.ncam:
            raise ArgumentError(
                f"`camera.fixedcamid` must be between 0 and {model.ncam - 1} for a fixed camera, "
                f"got {camera.fixedcamid}. Use type mjCAMERA_FREE for the free camera."
            )
    elif camera.type not in {kinds.mjCAMERA_FREE, kinds.mjCAMERA_TRACKING}:
        raise ArgumentError(
            "`camera.type` must be mjCAMERA_FREE, mjCAMERA_TRACKING or mjCAMERA_FIXED, "
            f"got {camera.type}. Use a Camera or a camera of the model."
        )
    elif camera.type == kinds.mjCAMERA_TRACKING and not 0 <= camera.trackbodyid < model.nbody:
        raise ArgumentError(
            f"`camera.trackbodyid` must be between 0 and {model.nbody - 1} for a tracking "
            f"camera, got {camera.trackbodyid}. Use type mjCAMERA_FREE to follow no body."
        )


def _view(mjv: mujoco.MjvCamera) -> View:
    """Return the frame of mjv_cameraFrame."""
    if mjv.type == mujoco.mjtCamera.mjCAMERA_FIXED:
        return View(mjv, fixed=int(mjv.fixedcamid))
    tracking = mjv.type == mujoco.mjtCamera.mjCAMERA_TRACKING
    a, e = np.radians(mjv.azimuth), np.radians(mjv.elevation)
    forward = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    up = np.array([-np.sin(e) * np.cos(a), -np.sin(e) * np.sin(a), np.cos(e)])
    right = np.array([np.sin(a), -np.cos(a), 0.0])
    return View(
        mjv,
        track=int(mjv.trackbodyid) if tracking else -1,
        offset=-mjv.distance * forward,
        lookat=np.array(mjv.lookat, np.float64),
        mat=np.stack([right, up, -forward], axis=1).reshape(9),
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


def rows(view: View, poses: Poses) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """Return where a view's camera is in each world.

    Args:
        view: the resolved camera.
        poses: of N worlds.

    Returns:
        Views (N, 3) and (N, 9) of the camera's pose, and what its position adds.

    Raises:
        ArgumentError: the poses are of a model without that camera or body.
    """
    n = poses.num_worlds
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
