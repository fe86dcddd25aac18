"""Ranges of the hyperparameters that Stable-Baselines3 takes unseen, and its action noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from vlmrm_fast.errors import ArgumentError, unknown_name

# The least that a whole number may be.
_COUNTS = {
    "batch_size": 1,
    "buffer_size": 1,
    "learning_starts": 0,
    "n_epochs": 1,
    "n_steps": 1,
    "policy_delay": 1,
    "target_update_interval": 1,
    "train_freq": 1,
}
# Larger batches than this are typing mistakes, and fail where the first one is drawn.
_MOST_IN_A_BATCH = 2**20
# Between which a number lies, and whether it may be the lower one.
_RANGES = {
    "clip_range": (0.0, math.inf, False),
    "ent_coef": (0.0, math.inf, True),
    "exploration_final_eps": (0.0, 1.0, True),
    "exploration_fraction": (0.0, 1.0, True),
    "exploration_initial_eps": (0.0, 1.0, True),
    "gae_lambda": (0.0, 1.0, True),
    "gamma": (0.0, 1.0, True),
    "learning_rate": (0.0, math.inf, False),
    "max_grad_norm": (0.0, math.inf, False),
    "target_noise_clip": (0.0, math.inf, True),
    "target_policy_noise": (0.0, math.inf, True),
    "tau": (0.0, 1.0, False),
    "vf_coef": (0.0, math.inf, True),
}
_NOISE = {"normal": "NormalActionNoise", "ou": "OrnsteinUhlenbeckActionNoise"}
# Numbers of a noise process that may not be negative.
_SCALES = ("sigma", "theta", "dt")


def check_ranges(values: Mapping[str, Any]) -> dict[str, Any]:
    """Check hyperparameters whose meaning is the same in every algorithm.

    Args:
        values: hyperparameters as Stable-Baselines3 takes them; schedules pass unseen.

    Returns:
        The same, whole numbers as int: YAML reads 1e6 as a float.

    Raises:
        ArgumentError: a number is out of range, or none.
    """
    made = dict(values)
    for name, value in values.items():
        if name == "train_freq" and isinstance(value, tuple):
            made[name] = _frequency(value)
        elif name == "gradient_steps":
            # -1 stands for as many as there were steps.
            made[name] = -1 if value == -1 else _count(name, value, 1, ", or -1")
        elif name in _COUNTS:
            made[name] = _count(name, value, _COUNTS[name])
            if name == "batch_size" and made[name] > _MOST_IN_A_BATCH:
                raise ArgumentError(
                    f"hyperparameter batch_size must be at most {_MOST_IN_A_BATCH}, got {value!r}."
                )
        elif name in _RANGES and not callable(value):
            _check_range(name, value)
    if isinstance(made.get("action_noise"), (str, Mapping)):
        _parse_noise(made["action_noise"])
    return made


def _is_number(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _count(name: str, value: Any, least: int, other: str = "") -> int:
    """Return a whole number that is at least `least`."""
    if not _is_number(value) or value != int(value) or value < least:
        raise ArgumentError(
            f"hyperparameter {name} must be a whole number of at least {least}{other}, "
            f"got {value!r}."
        )
    return int(value)


def _frequency(pair: tuple[Any, ...]) -> tuple[int, str]:
    """Return a train_freq of a number and its unit."""
    if len(pair) != 2 or pair[1] not in {"step", "episode"}:
        raise ArgumentError(
            "hyperparameter train_freq must be a whole number, or a pair such as [1, episode], "
            f"got {list(pair)!r}."
        )
    return _count("train_freq", pair[0], 1), pair[1]


def _check_range(name: str, value: Any) -> None:
    """Check one number of `_RANGES`; an entropy coefficient may be learned instead."""
    low, high, closed = _RANGES[name]
    number = value
    if name == "ent_coef" and isinstance(value, str):
        if value == "auto":
            return
        try:
            number = float(value.removeprefix("auto_"))
        except ValueError:
            number = math.nan
    if _is_number(number) and (low <= number if closed else low < number) and number <= high:
        return
    if high < math.inf:
        wanted = f"lie in {'[' if closed else '('}{low:g}, {high:g}]"
    else:
        wanted = f"be a finite number {'of at least' if closed else 'above'} {low:g}"
    auto = ", auto or auto_NUMBER" if name == "ent_coef" else ""
    raise ArgumentError(f"hyperparameter {name} must {wanted}{auto}, got {value!r}.")


def build_noise(value: str | Mapping[str, Any], shape: tuple[int, ...]) -> Any:
    """Return the noise process that a hyperparameter describes.

    Args:
        value: "normal_SIGMA", "ou_SIGMA", or a mapping of a class by "name" and its numbers, one
            of each or one an action.
        shape: of the action space.

    Returns:
        An ActionNoise of Stable-Baselines3.

    Raises:
        ArgumentError: kind or numbers do not fit.
    """
    import numpy as np
    from stable_baselines3.common import noise

    name, numbers = _parse_noise(value)
    try:
        for key in ("mean", "sigma"):
            if key in numbers:
                numbers[key] = np.full(shape, numbers[key], dtype=np.float64)
        return getattr(noise, name)(**numbers)
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"action_noise must hold the numbers of {name} for {shape[0]} actions, got "
            f"{value!r}: {error}."
        ) from error


def _parse_noise(value: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return class name and checked arguments of a noise process."""
    if isinstance(value, str):
        kind, _, text = value.partition("_")
        try:
            sigma = float(text)
        except ValueError:
            sigma = math.nan
        if kind not in _NOISE or not 0 <= sigma < math.inf:
            raise ArgumentError(f"action_noise must be normal_SIGMA or ou_SIGMA, got {value!r}.")
        return _NOISE[kind], {"mean": 0.0, "sigma": sigma}
    name = str(value.get("name"))
    if name not in _NOISE.values():
        error = unknown_name("action_noise.name", name, list(_NOISE.values()))
        raise error
    numbers = {"mean": 0.0, **{key: item for key, item in value.items() if key != "name"}}
    for key, item in numbers.items():
        items = item if isinstance(item, (list, tuple)) else [item]
        if not items or not all(
            _is_number(each) and (each >= 0 or key not in _SCALES) for each in items
        ):
            least = " of at least 0" if key in _SCALES else ""
            raise ArgumentError(
                f"action_noise.{key} must hold finite numbers{least}, got {item!r}."
            )
    return name, numbers
