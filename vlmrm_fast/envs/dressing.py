"""Another look for a gymnasium environment that MuJoCo simulates."""

from __future__ import annotations

from typing import Any

from vlmrm_fast.envs.capture import mujoco_parts
from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.tasks import textures as looks


def dress(env: Any, textures: str) -> None:
    """Give an environment the model that it has in another look; changes it, before any reset.

    Its own `render()` and native drawing both show the look; the physics stay bit-equal.

    Args:
        env: a fresh `gymnasium.Env`, wrapped or not.
        textures: one of `textures.TEXTURES`.

    Raises:
        ArgumentError: the environment is not one of gymnasium's MuJoCo environments.
    """
    if textures == "original":
        return
    inner, parts = env.unwrapped, mujoco_parts(env)
    path, renderer = (getattr(inner, name, None) for name in ("fullpath", "mujoco_renderer"))
    if parts is None or path is None or renderer is None:
        raise ArgumentError(
            f"textures must be original for {type(inner).__name__}, got {textures!r}. Only "
            "gymnasium's MuJoCo environments can be shown in another look."
        )
    import mujoco

    model = looks.load(path, textures)
    for name in ("offwidth", "offheight"):
        setattr(model.vis.global_, name, getattr(parts[0].vis.global_, name))
    data = mujoco.MjData(model)
    inner.model, inner.data = model, data
    renderer.model, renderer.data = model, data
