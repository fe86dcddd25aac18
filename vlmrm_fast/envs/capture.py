"""What must be caught inside an environment's own process: the drawn state of every step.

A vectorised environment resets an ended world inside its step, so a picture taken afterwards
shows the next episode. `install` therefore replaces `step` of an environment by one that puts
the state just reached into `info`: pose arrays of a few hundred numbers where the environment is
a MuJoCo one, else the picture from `render()`. This module is imported by worker processes: numpy
and mujoco only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from vlmrm_fast.errors import ArgumentError

KEY = "_vlmrm_state"
"""Key of the captured state in `info`, on its way to whoever draws it."""

_HOOK = "vlmrm_capture"


def mujoco_parts(env: Any) -> tuple[Any, Any] | None:
    """Return the model and data of a gymnasium environment, if it is a MuJoCo one.

    Args:
        env: a `gymnasium.Env`, wrapped or not.

    Returns:
        (`MjModel`, `MjData`), or None.
    """
    inner = getattr(env, "unwrapped", env)
    model, data = getattr(inner, "model", None), getattr(inner, "data", None)
    if type(model).__name__ != "MjModel" or type(data).__name__ != "MjData":
        return None
    return model, data


def render_camera(env: Any) -> dict[str, Any] | int:
    """Return the camera that a MuJoCo environment's own `render()` uses.

    Args:
        env: a MuJoCo environment.

    Returns:
        A fixed camera's id, or the free camera's lookat, distance, azimuth and elevation.

    Source:
        gymnasium's `MujocoRenderer` and `OffScreenViewer._init_camera`.
    """
    model, data = mujoco_parts(env)  # type: ignore[misc]
    renderer = getattr(env.unwrapped, "mujoco_renderer", None)
    camera_id = getattr(renderer, "camera_id", -1)
    if camera_id is not None and camera_id >= 0:
        return int(camera_id)
    # 90 and -45 degrees are mjv_defaultCamera's.
    camera = {"azimuth": 90.0, "elevation": -45.0, "distance": float(model.stat.extent)}
    camera |= {"lookat": tuple(np.median(data.geom_xpos, axis=0))}  # type: ignore[dict-item]
    config = getattr(renderer, "default_cam_config", None) or {}
    camera |= {name: config[name] for name in camera if name in config}
    return camera | {"lookat": tuple(float(x) for x in camera["lookat"])}  # type: ignore[attr-defined]


def model_signature(model: Any) -> str:
    """Return a digest that two models share exactly if they draw the same.

    Args:
        model: an `MjModel`.

    Returns:
        The digest of the model's binary form.
    """
    import mujoco

    buffer = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, buffer)
    return hashlib.sha256(buffer.tobytes()).hexdigest()


class Capture:
    """Stands in for `step` and `reset` of one environment and keeps its last good observation."""

    def __init__(self, env: Any, names: tuple[str, ...], every: int = 1) -> None:
        """Prepare to capture; `install` puts it to use.

        Args:
            env: the environment, the outermost wrapper.
            names: the `MjData` fields to capture.
            every: k: the first step of an episode is captured, every k-th after it, and the last.
        """
        self._env, self._names = env, names
        self.every = every
        # Steps of the episode so far: which ones are captured depends on it.
        self.length = 0
        self._step: Callable[..., Any] = env.step
        self._reset: Callable[..., Any] = env.reset
        self._parts = mujoco_parts(env)
        self._observation: Any = None
        self.native = self._parts is not None and not self._has_options()
        self._warned = self._warnings()
        if self._parts is not None:
            from vlmrm_fast.simulation import log_mujoco_warnings

            log_mujoco_warnings()

    def _has_options(self) -> bool:
        """Whether the environment's renderer was given visual options, which only it knows."""
        renderer = getattr(self._env.unwrapped, "mujoco_renderer", None)
        return bool(getattr(renderer, "_vopt", None))

    def _warnings(self) -> int:
        """Count MuJoCo's warnings of bad positions, velocities and accelerations so far."""
        if self._parts is None:
            return 0
        import mujoco

        kinds = mujoco.mjtWarning
        bad = (kinds.mjWARN_BADQPOS, kinds.mjWARN_BADQVEL, kinds.mjWARN_BADQACC)
        return sum(int(self._parts[1].warning[int(kind)].number) for kind in bad)

    def describe(self) -> dict[str, Any]:
        """Say how this environment is drawn.

        Returns:
            "native" (bool), "render_mode", and for a MuJoCo environment "camera" and "signature".
        """
        description = {"native": self.native, "render_mode": self._env.render_mode}
        if self._parts is not None:
            description["camera"] = render_camera(self._env)
            description["signature"] = model_signature(self._parts[0])
        return description

    def model(self) -> Any:
        """Return the environment's `MjModel`.

        Returns:
            The model; a copy when it crosses a pipe.
        """
        return self._parts[0] if self._parts else None

    def use_render(self) -> None:
        """Capture pictures from `render()` from now on."""
        self.native = False

    def state(self) -> np.ndarray:
        """Return what is drawn from: a flat pose (K,) float64, or a picture (H, W, 3) uint8.

        Returns:
            A copy.

        Raises:
            ArgumentError: if `render()` gives no picture.
        """
        if self.native and self._parts is not None:
            data = self._parts[1]
            return np.concatenate([getattr(data, name).ravel() for name in self._names])
        picture = self._env.render()
        if not isinstance(picture, np.ndarray) or picture.ndim != 3 or picture.dtype != np.uint8:
            raise ArgumentError(
                "render_mode must be 'rgb_array' for an environment that is drawn by its own "
                f"render(), got {self._env.render_mode!r}. Make it with render_mode='rgb_array'."
            )
        return np.array(picture)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment and put the state just reached into `info`, if it is due.

        A world in which the physics broke down ends truncated, with `info["diverged"]` and its
        last finite observation.

        Args:
            action: passed on.

        Returns:
            What `env.step` returns.
        """
        observation, reward, terminated, truncated, info = self._step(action)
        info = dict(info)
        finite = np.isfinite(reward) and is_finite(observation)
        if self._warnings() > self._warned or not finite:
            info["diverged"] = True
            terminated, truncated, reward = False, True, 0.0
            observation = observation if self._observation is None else self._observation
        self._observation = _copy(observation)
        if self.length % self.every == 0 or terminated or truncated:
            info[KEY] = self.state()
        self.length += 1
        return observation, reward, terminated, truncated, info

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Reset the environment.

        Args:
            kwargs: passed on.

        Returns:
            What `env.reset` returns.
        """
        observation, info = self._reset(**kwargs)
        self._observation = _copy(observation)
        self._warned, self.length = self._warnings(), 0
        return observation, info


def _copy(observation: Any) -> Any:
    """Copy the arrays of an observation: environments may hand out their own buffers."""
    if isinstance(observation, dict):
        return {name: _copy(part) for name, part in observation.items()}
    if isinstance(observation, tuple):
        return tuple(_copy(part) for part in observation)
    return np.array(observation) if isinstance(observation, np.ndarray) else observation


def is_finite(observation: Any) -> bool:
    """Return whether an observation or action, nested or not, holds only finite numbers.

    Args:
        observation: an array, a number, or dictionaries and tuples of them.

    Returns:
        False if a float is NaN or infinite.
    """
    if isinstance(observation, dict):
        return all(is_finite(part) for part in observation.values())
    if isinstance(observation, tuple):
        return all(is_finite(part) for part in observation)
    array = np.asarray(observation)
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def installed(env: Any) -> Capture | None:
    """Return the capture that was installed in an environment, or None.

    Args:
        env: one layer of an environment.

    Returns:
        The capture.
    """
    return vars(env).get(_HOOK)


def install(env: Any, names: tuple[str, ...], every: int = 1) -> None:
    """Replace `step` and `reset` of an environment by capturing ones, once.

    Args:
        env: the environment, the outermost wrapper; it is changed.
        names: the `MjData` fields to capture.
        every: as `Capture` takes it; a later call sets it anew.
    """
    capture = installed(env)
    if capture is not None:
        capture.every = every
        return
    capture = Capture(env, names, every)
    env.step, env.reset = capture.step, capture.reset
    setattr(env, _HOOK, capture)
    env.vlmrm_describe, env.vlmrm_model = capture.describe, capture.model
    env.vlmrm_use_render = capture.use_render


class Installer:
    """Something for `VecEnv.env_is_wrapped` to ask about that installs a capture instead.

    That call is the one way in which a `SubprocVecEnv` hands each environment, in its own process,
    to code of ours: it asks `isinstance(env, wrapper_class)`, which Python lets the second
    argument answer. It asks about gymnasium wrappers only.
    """

    def __init__(self, names: tuple[str, ...], every: int = 1) -> None:
        """Keep the arguments of `install`.

        Args:
            names: the `MjData` fields to capture.
            every: which steps are captured.
        """
        self._names, self._every = names, every

    def __instancecheck__(self, instance: Any) -> bool:
        """Install into the outermost wrapper and end the search.

        Args:
            instance: the environment.

        Returns:
            True.
        """
        install(instance, self._names, self._every)
        return True
