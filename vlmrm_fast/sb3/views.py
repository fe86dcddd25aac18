"""From a configuration to the cameras that frames are drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmrm_fast.coercion import name_or_id, parse_camera
from vlmrm_fast.config import CameraConfig, TrainConfig


def more_cameras(config: CameraConfig, view: Any = None) -> list[Any]:
    """Return the further cameras.

    Args:
        config: the camera's part of a configuration.
        view: the first camera of a task; None for an environment's own, which is known later.

    Returns:
        Names, ids and `rendering.Camera`s, or settings that go over an environment's own.
    """
    from vlmrm_fast.rendering import Camera

    found: list[Any] = []
    for text in config.more_cameras:
        camera = parse_camera(text)
        if isinstance(camera, dict):
            camera = {**(view if isinstance(view, Mapping) else free_camera(config)), **camera}
            # An environment's own camera is known when it has been reset.
            found.append(camera if view is None else Camera(**camera))
        else:
            found.append(camera)
    return found


def free_camera(config: CameraConfig, base: Any = None) -> dict[str, Any]:
    """Return the keyword arguments of `rendering.Camera` for a free camera.

    Args:
        config: the camera's part of a configuration.
        base: the task's camera; its values are kept where the configuration says nothing.

    Returns:
        The arguments.
    """
    made = dict(base) if isinstance(base, Mapping) else {}
    for name in ("lookat", "distance", "azimuth", "elevation"):
        if getattr(config, name) is not None:
            made[name] = getattr(config, name)
    if config.track_body is not None:
        made["track_body"] = camera_name(config.track_body)
    return made


def gym_camera(config: TrainConfig) -> Any:
    """Return the camera for an environment of gymnasium.

    Args:
        config: the configuration.

    Returns:
        A name, an id, a `rendering.Camera`, or None for the environment's own.
    """
    if config.camera.camera is not None:
        return camera_name(config.camera.camera)
    if config.camera.is_free:
        from vlmrm_fast.rendering import Camera

        return Camera(**free_camera(config.camera))
    return None


def camera_name(text: str) -> str | int:
    """Return a name, or the id that the text spells.

    Args:
        text: as a configuration holds it.

    Returns:
        A string or a number.
    """
    return name_or_id(text)
