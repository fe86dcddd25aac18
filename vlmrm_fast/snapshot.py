"""The state of a running program as plain trees: random generators, environments, attributes.

A tree is made of dicts, lists, tuples, strings, numbers, None and arrays. `pack` splits it into
JSON and named arrays, which is all that a checkpoint stores: nothing is pickled, so loading one
runs no code.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from vlmrm_fast.errors import CheckpointError

# Attributes above this size are frames or caches, which the next step fills anew.
_MAX_ATTRIBUTE_BYTES = 16 * 2**20
# What catches the states of an environment for drawing, see `envs.capture`.
_CAPTURE = "vlmrm_capture"
_SCALARS = (bool, int, float, str, type(None))


def pack(tree: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """Split a tree into JSON and arrays.

    Args:
        tree: dicts, lists, tuples, strings, numbers, None, numpy arrays and torch tensors.

    Returns:
        What `json.dumps` takes, and the arrays by the names that stand for them in it.

    Raises:
        CheckpointError: the tree holds something else.
    """
    arrays: dict[str, np.ndarray] = {}

    def visit(value: Any) -> Any:
        if isinstance(value, _SCALARS):
            return value
        if isinstance(value, np.generic):
            return value.item()
        if hasattr(value, "detach"):
            value = value.detach().cpu().numpy()
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            arrays[f"a{len(arrays)}"] = value
            return {"__array__": f"a{len(arrays) - 1}"}
        if isinstance(value, Mapping):
            if all(isinstance(key, str) for key in value):
                return {key: visit(item) for key, item in value.items()}
            return {"__items__": [[visit(key), visit(item)] for key, item in value.items()]}
        if isinstance(value, tuple):
            return {"__tuple__": [visit(item) for item in value]}
        if isinstance(value, (list, deque)):
            return [visit(item) for item in value]
        raise CheckpointError(
            f"state must be numbers, text, arrays, lists and dicts, got {type(value).__name__}."
        )

    return visit(tree), arrays


def unpack(packed: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Join what `pack` split.

    Args:
        packed: the JSON part.
        arrays: the arrays by name.

    Returns:
        The tree; tensors come back as arrays.
    """
    if isinstance(packed, list):
        return [unpack(item, arrays) for item in packed]
    if not isinstance(packed, dict):
        return packed
    if "__array__" in packed:
        return arrays[packed["__array__"]]
    if "__tuple__" in packed:
        return tuple(unpack(item, arrays) for item in packed["__tuple__"])
    if "__items__" in packed:
        return {unpack(k, arrays): unpack(v, arrays) for k, v in packed["__items__"]}
    return {key: unpack(item, arrays) for key, item in packed.items()}


def random_state() -> dict[str, Any]:
    """Return the state of Python's, numpy's and torch's global generators.

    Returns:
        A tree for `set_random_state`.
    """
    import torch

    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (name, keys, position, has_gauss, cached),
        "torch": torch.get_rng_state().numpy(),
    }
    if torch.cuda.is_available():
        state["cuda"] = [item.numpy() for item in torch.cuda.get_rng_state_all()]
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """Set the global generators of Python, numpy and torch.

    Args:
        state: what `random_state` returned, perhaps on another machine: states of GPUs that are
            not here are left out.
    """
    import torch

    random.setstate(state["python"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    torch.set_rng_state(torch.from_numpy(np.array(state["torch"])))
    for index, item in enumerate(state.get("cuda", ())):
        if index < torch.cuda.device_count():
            torch.cuda.set_rng_state(torch.from_numpy(np.array(item)), index)


def attributes(owner: Any) -> dict[str, Any]:
    """Return the attributes of an object that are plain values or generators.

    Args:
        owner: any object with a `__dict__`.

    Returns:
        A tree for `set_attributes`.
    """
    found = {name: value for name, value in vars(owner).items() if _is_plain(value)}
    generators = {
        name: value.bit_generator.state
        for name, value in vars(owner).items()
        if isinstance(value, np.random.Generator)
    }
    return {"plain": found, "generators": generators}


def set_attributes(owner: Any, state: Mapping[str, Any]) -> None:
    """Set attributes that `attributes` returned.

    Args:
        owner: the object. Arrays of equal shape and type are written in place, since other
            objects may hold views of them.
        state: the tree.
    """
    for name, value in state["plain"].items():
        current = getattr(owner, name, None)
        fits = isinstance(current, np.ndarray) and isinstance(value, np.ndarray)
        if fits and current.shape == value.shape and current.dtype == value.dtype:  # type: ignore[union-attr]
            if current.flags.writeable:  # type: ignore[union-attr]
                current[...] = value  # type: ignore[index]
        else:
            setattr(owner, name, value)
    for name, generator_state in state["generators"].items():
        generator = getattr(owner, name, None)
        if not isinstance(generator, np.random.Generator):
            generator = np.random.default_rng()
            setattr(owner, name, generator)
        generator.bit_generator.state = generator_state


def _is_plain(value: Any, depth: int = 0) -> bool:
    """Return whether `pack` takes the value, and it is not large."""
    if isinstance(value, (*_SCALARS, np.generic)):
        return True
    if isinstance(value, np.ndarray):
        return not value.dtype.hasobject and value.nbytes <= _MAX_ATTRIBUTE_BYTES
    if depth < 4 and isinstance(value, (list, tuple)):
        return all(_is_plain(item, depth + 1) for item in value)
    if depth < 4 and type(value) is dict:
        return all(isinstance(k, str) and _is_plain(v, depth + 1) for k, v in value.items())
    return False


def environment_state(env: Any) -> list[dict[str, Any]]:
    """Return the state of a vectorised environment and of all that it wraps.

    An object with `get_state` answers for itself, one with `get_label_state` for its rewards;
    gymnasium environments are read layer by layer (plain attributes, generators, MuJoCo's data).
    Environments in other processes are left out.

    Args:
        env: a Stable-Baselines3 VecEnv.

    Returns:
        One entry a layer, the outermost first.
    """
    layers = []
    for layer in _layers(env, "venv"):
        # Asked of the class: wrappers answer for what they wrap.
        if hasattr(type(layer), "get_state"):
            layers.append({"state": layer.get_state()})
        else:
            entry: dict[str, Any] = {"attributes": attributes(layer)}
            if hasattr(type(layer), "get_label_state"):
                entry["labels"] = layer.get_label_state()
            if isinstance(getattr(layer, "envs", None), list):
                entry["envs"] = [
                    [_gym_state(item) for item in _layers(e, "env")] for e in layer.envs
                ]
            layers.append(entry)
    return layers


def set_environment_state(env: Any, state: list[dict[str, Any]]) -> None:
    """Bring an environment, which has been reset once, to a state.

    Args:
        env: an environment built as the one that `environment_state` read.
        state: what that returned.

    Raises:
        CheckpointError: the environment is built differently.
    """
    layers = _layers(env, "venv")
    if len(layers) != len(state):
        raise CheckpointError(
            f"environment must have {len(state)} layers as when it was saved, got {len(layers)}. "
            "Resume with the configuration of the run."
        )
    for layer, entry in zip(layers, state, strict=True):
        if "state" in entry:
            layer.set_state(entry["state"])
            continue
        set_attributes(layer, entry["attributes"])
        if "labels" in entry:
            layer.set_label_state(entry["labels"])
        for inner, saved in zip(getattr(layer, "envs", []), entry.get("envs", []), strict=False):
            for item, values in zip(_layers(inner, "env"), saved, strict=True):
                _set_gym_state(item, values)


def is_whole(env: Any) -> bool:
    """Return whether `environment_state` reads all that decides how episodes go on.

    Physics of another engine than MuJoCo (Box2D, an emulator) lies in objects that it cannot read.

    Args:
        env: a Stable-Baselines3 VecEnv.

    Returns:
        False if some environment holds such an object, or runs in another process.
    """
    layers = _layers(env, "venv")
    if any(hasattr(type(layer), "get_state") for layer in layers):
        return True
    inner = vars(layers[-1]).get("envs")
    return isinstance(inner, list) and all(_is_readable(_layers(e, "env")[-1]) for e in inner)


def _is_readable(env: Any) -> bool:
    """Return whether the innermost environment's state is MuJoCo's data or plain attributes."""
    from gymnasium import Space
    from gymnasium.envs.registration import EnvSpec

    # Known by name: these also hold windows and tables, which no step changes.
    known = ("gymnasium.envs.classic_control.", "gymnasium.envs.toy_text.")
    if _has_mujoco(env) or type(env).__module__.startswith(known):
        return True
    constant = (Space, EnvSpec, np.random.Generator)
    return all(_is_plain(value) or isinstance(value, constant) for value in vars(env).values())


def _layers(env: Any, attribute: str) -> list[Any]:
    """Return an environment and everything that it wraps, the outermost first."""
    layers = [env]
    while attribute in vars(layers[-1]):
        layers.append(vars(layers[-1])[attribute])
    return layers


def _gym_state(env: Any) -> dict[str, Any]:
    """Return the state of one layer of a gymnasium environment."""
    state = attributes(env)
    if hasattr(type(env), "get_label_state"):
        state["labels"] = env.get_label_state()
    # How far an episode is decides which of its steps are scored.
    if _CAPTURE in vars(env):
        state["length"] = vars(env)[_CAPTURE].length
    if _has_mujoco(env):
        import mujoco

        kind = int(mujoco.mjtState.mjSTATE_INTEGRATION)
        physics = np.empty(mujoco.mj_stateSize(env.model, kind))
        mujoco.mj_getState(env.model, env.data, physics, kind)
        state["mujoco"] = physics
        # Rewards and observations read poses of before the next step, which the physics state
        # does not hold.
        state["derived"] = {
            name: np.array(getattr(env.data, name))
            for name in dir(env.data)
            if name.startswith(("x", "c", "qfrc", "subtree", "geom", "site", "actuator", "sensor"))
            and isinstance(getattr(env.data, name), np.ndarray)
        }
    return state


def _set_gym_state(env: Any, state: Mapping[str, Any]) -> None:
    """Set the state of one layer of a gymnasium environment."""
    set_attributes(env, state)
    if "labels" in state:
        env.set_label_state(state["labels"])
    if "length" in state and _CAPTURE in vars(env):
        vars(env)[_CAPTURE].length = state["length"]
    if "mujoco" in state:
        import mujoco

        kind = int(mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_setState(env.model, env.data, state["mujoco"], kind)
        mujoco.mj_forward(env.model, env.data)
        # mj_forward moves the warm start, which is part of the state.
        mujoco.mj_setState(env.model, env.data, state["mujoco"], kind)
        for name, value in state["derived"].items():
            current = getattr(env.data, name)
            if current.shape == value.shape:
                current[...] = value


def _has_mujoco(env: Any) -> bool:
    """Return whether this layer itself owns MuJoCo data."""
    return type(vars(env).get("data")).__name__ == "MjData" and "model" in vars(env)
