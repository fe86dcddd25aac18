"""Check what a scene shows and how: mjvOption and the render flags of mjvScene."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import mujoco

from vlmrm_fast.errors import ArgumentError, UnsupportedSceneError, unknown_name

# The render flags of mjtRndFlag that are drawn, with the defaults of mjv_defaultScene.
DEFAULT_FLAGS = {
    "additive": False,
    "cull_face": True,
    "fog": False,
    "haze": True,
    "reflection": True,
    "shadow": True,
    "skybox": True,
}
_OTHER_OUTPUT = {
    "depth": "Use Renderer.render_depth for depth.",
    "idcolor": "Use Renderer.render_segmentation for object ids.",
    "segment": "Use Renderer.render_segmentation for object ids.",
    "wireframe": "Use mujoco.Renderer for wireframes.",
}


def resolve_flags(flags: Mapping[str, bool] | None) -> dict[str, bool]:
    """Return all render flags, MuJoCo's defaults where none is given.

    Args:
        flags: some of them by name, as `Scene.from_model` takes them.

    Returns:
        Every flag of `DEFAULT_FLAGS`.

    Raises:
        ArgumentError: `flags` is not a mapping or a value is not a bool.
        UnsupportedSceneError: a flag of MuJoCo's that is not drawn is on.
        unknown_name: UnknownNameError, no flag has that name.
    """
    if flags is None:
        return dict(DEFAULT_FLAGS)
    if not isinstance(flags, Mapping):
        raise ArgumentError(
            f"`flags` must be a mapping of names to bools, got {type(flags).__name__}. "
            'Use for example {"shadow": False}.'
        )
    resolved = dict(DEFAULT_FLAGS)
    for name, value in flags.items():
        if name not in DEFAULT_FLAGS and name not in _OTHER_OUTPUT:
            raise unknown_name("flag", str(name), DEFAULT_FLAGS)
        if value not in (False, True):
            raise ArgumentError(f"`flags[{name!r}]` must be True or False, got {value!r}.")
        if name in DEFAULT_FLAGS:
            resolved[name] = bool(value)
        elif value:
            raise UnsupportedSceneError(
                f"`flags` must be among {', '.join(DEFAULT_FLAGS)}, got {name}. "
                f"{_OTHER_OUTPUT[name]}"
            )
    return resolved


def resolve_option(option: mujoco.MjvOption | None) -> mujoco.MjvOption:
    """Return a copy of the option, or MuJoCo's default.

    Args:
        option: what to show, as `Scene.from_model` takes it.

    Returns:
        An option that nobody else changes.

    Raises:
        ArgumentError: `option` is of another type.
    """
    if option is None:
        return mujoco.MjvOption()
    if not isinstance(option, mujoco.MjvOption):
        raise ArgumentError(
            f"`option` must be a mujoco.MjvOption or None, got {type(option).__name__}."
        )
    return copy.copy(option)
