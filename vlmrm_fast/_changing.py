"""Which scenes change in more than poses: tendons, skins, flexes and MuJoCo's decor."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

# What these hide or show stays put from frame to frame.
_STEADY = {int(mujoco.mjtVisFlag.mjVIS_TRANSPARENT), int(mujoco.mjtVisFlag.mjVIS_CONVEXHULL)}
_PLACED = {int(mujoco.mjtObj.mjOBJ_SITE), int(mujoco.mjtObj.mjOBJ_GEOM)}


def is_changing(model: mujoco.MjModel, option: mujoco.MjvOption, listed: mujoco.MjvScene) -> bool:
    """Say whether what is shown depends on more than where the geoms and sites are.

    Args:
        model: the model.
        option: what is shown.
        listed: what MuJoCo shows at the default state.

    Returns:
        True for a scene that must be listed anew in each frame.
    """
    if any(geom.objtype not in _PLACED for geom in listed.geoms[: listed.ngeom]):
        return True
    finders = model.sensor_type == mujoco.mjtSensor.mjSENS_RANGEFINDER
    if finders.any() and option.flags[mujoco.mjtVisFlag.mjVIS_RANGEFINDER]:
        return True
    default = mujoco.MjvOption().flags
    more = np.flatnonzero((option.flags != 0) & (default == 0))
    return bool(model.nskin or model.nflex or set(more.tolist()) - _STEADY)


def not_drawn(option: mujoco.MjvOption) -> list[str]:
    """Name what a changing scene may show that the `ray` renderer does not draw.

    Args:
        option: what is shown.

    Returns:
        One phrase a kind.
    """
    return ["labels"] if option.label else []


def tables(model: mujoco.MjModel) -> dict[str, Any]:
    """Return the model's part of what `_core.DynamicRenderer` needs.

    Args:
        model: the model.

    Returns:
        Arguments by name.
    """
    skins = []
    for skin in range(model.nskin):
        faces = slice(model.skin_faceadr[skin], model.skin_faceadr[skin] + model.skin_facenum[skin])
        start = model.skin_texcoordadr[skin]
        texcoords = (
            model.skin_texcoord[start : start + model.skin_vertnum[skin]]
            if start >= 0
            else np.zeros((0, 2), np.float32)
        )
        skins.append((model.skin_face[faces].astype(np.int32), texcoords))
    around = 2 * np.pi / model.vis.quality.numslices
    along = np.pi / model.vis.quality.numstacks
    return {
        "skins": skins,
        "around": float(np.sqrt(np.sin(around) / around)),
        "along": float(np.sqrt(np.sin(along) / along)),
        "slices": int(model.vis.quality.numslices),
        "line_width": float(model.vis.global_.linewidth),
        "shadow_scale": float(model.vis.map.shadowscale),
    }
