"""Any Stable-Baselines3 algorithm by name, its arguments checked before any work starts."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from vlmrm_fast.errors import ArgumentError, unknown_name
from vlmrm_fast.sb3.buffers import MaskedReplayBuffer, MaskedRolloutBuffer
from vlmrm_fast.sb3.hyperparameters import build_noise, check_ranges

ALGORITHMS = ("A2C", "DDPG", "DQN", "PPO", "SAC", "TD3")
# Set by the run itself.
_RESERVED = ("policy", "env", "seed", "device", "verbose", "tensorboard_log", "_init_setup_model")
# Beyond this many bytes a default replay buffer is made smaller.
_DEFAULT_BUFFER_BYTES = 4 * 2**30


def find_algorithm(name: str) -> type:
    """Return an algorithm's class.

    Args:
        name: one of `ALGORITHMS`, or "package.module:Class".

    Returns:
        The class.

    Raises:
        ArgumentError: there is no such class, or it is no Stable-Baselines3 algorithm.
    """
    from stable_baselines3.common.base_class import BaseAlgorithm

    if ":" not in name:
        by_case = {valid.lower(): valid for valid in ALGORITHMS}
        if name.lower() not in by_case:
            raise ArgumentError(
                f"{unknown_name('algorithm', name, ALGORITHMS)} Others: package.module:Class."
            )
        return getattr(importlib.import_module("stable_baselines3"), by_case[name.lower()])
    module_name, _, class_name = name.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ArgumentError(
            f"algorithm must be importable as package.module:Class, got {name!r}: {error}."
        ) from error
    if not (isinstance(found, type) and issubclass(found, BaseAlgorithm)):
        raise ArgumentError(f"algorithm must be a Stable-Baselines3 algorithm, got {name!r}.")
    return found


def default_algorithm(action_space: Any) -> str:
    """Return the name of an algorithm that fits an action space.

    Args:
        action_space: a gymnasium space.

    Returns:
        "SAC" for Box, "PPO" for all others.
    """
    return "SAC" if type(action_space).__name__ == "Box" else "PPO"


def is_off_policy(cls: type) -> bool:
    """Return whether an algorithm learns from a replay buffer.

    Args:
        cls: the algorithm's class.

    Returns:
        True if so.
    """
    from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

    return issubclass(cls, OffPolicyAlgorithm)


def check_action_space(cls: type, action_space: Any) -> None:
    """Check that an algorithm takes an action space.

    Args:
        cls: the algorithm's class.
        action_space: the environment's space.

    Raises:
        ArgumentError: it does not; the text names what fits.
    """
    kind = type(action_space).__name__
    supported = {"SAC": ("Box",), "TD3": ("Box",), "DDPG": ("Box",), "DQN": ("Discrete",)}
    accepted = supported.get(cls.__name__)
    if accepted is None or kind in accepted:
        return
    fits = [name for name in ALGORITHMS if kind in supported.get(name, (kind,))]
    raise ArgumentError(
        f"algorithm must take the environment's {kind} actions, got {cls.__name__}, which takes "
        f"{', '.join(accepted)}. Use one of {', '.join(fits)}."
    )


def resolve_hyperparameters(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Check hyperparameters' names and ranges, and turn what YAML can say into what SB3 takes.

    `learning_rate: linear_3e-4` is a schedule that falls to 0, `train_freq: [1, episode]` a pair,
    `action_noise: normal_0.1` (or `ou_0.1`, or a mapping with the name of a class and its numbers)
    a noise process, `policy_kwargs.activation_fn: ReLU` a class of torch.nn.

    Args:
        cls: the algorithm's class.
        values: hyperparameters as the configuration holds them.

    Returns:
        Keyword arguments for the class; action noise stays text, since it needs the action space.

    Raises:
        ArgumentError: a name is unknown or reserved, a number out of range, or an activation
            function unknown.
    """
    known = [name for name in inspect.signature(cls).parameters if name not in _RESERVED]
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            own = " It is an option of the run itself." if name in _RESERVED else ""
            raise ArgumentError(
                f"hyperparameters of {cls.__name__} must be among {', '.join(sorted(known))}, "
                f"got {name!r}.{hint}{own}"
            )
    made = dict(values)
    if isinstance(made.get("train_freq"), list):
        made["train_freq"] = tuple(made["train_freq"])
    for name in ("learning_rate", "clip_range"):
        if isinstance(made.get(name), str):
            made[name] = linear_schedule(made[name], name)
    policy = dict(made.get("policy_kwargs") or {})
    if isinstance(policy.get("activation_fn"), str):
        policy["activation_fn"] = _activation(policy["activation_fn"])
    if policy:
        made["policy_kwargs"] = policy
    return check_ranges(made)


def linear_schedule(text: str, name: str) -> Callable[[float], float]:
    """Return the schedule that falls from a value to 0 over the run.

    Args:
        text: "linear_VALUE".
        name: what to call it in errors.

    Returns:
        A function of the remaining progress, from 1 to 0.

    Raises:
        ArgumentError: the text is something else.
    """
    kind, _, value = text.partition("_")
    try:
        start = float(value)
    except ValueError:
        start = float("nan")
    if kind != "linear" or not 0 < start < float("inf"):
        raise ArgumentError(f"{name} must be a number or linear_NUMBER, got {text!r}.")
    return lambda remaining: remaining * start


def build_algorithm(
    cls: type,
    env: Any,
    hyperparameters: Mapping[str, Any],
    *,
    policy: str,
    seed: int,
    device: str,
    steps: int,
) -> Any:
    """Build an algorithm on an environment.

    Buffers are the masked ones, which never sample a diverged step; a default replay buffer is no
    larger than the run.

    Args:
        cls: the algorithm's class.
        env: a Stable-Baselines3 VecEnv.
        hyperparameters: as the configuration holds them.
        policy: the policy's name, for example "MlpPolicy".
        seed: seed of weights, exploration and environment.
        device: torch device of the networks.
        steps: environment steps of the whole run.

    Returns:
        The algorithm, ready for `learn`.

    Raises:
        ArgumentError: algorithm, action space and hyperparameters do not fit.
    """
    check_action_space(cls, env.action_space)
    arguments = resolve_hyperparameters(cls, hyperparameters)
    frequency = arguments.get("train_freq")
    if isinstance(frequency, tuple) and frequency[1] == "episode" and env.num_envs > 1:
        raise ArgumentError(
            f"hyperparameter train_freq must count steps for {env.num_envs} environments, got "
            f"{list(frequency)}. Episodes are counted with --num-envs 1 only."
        )
    if isinstance(arguments.get("action_noise"), (str, Mapping)):
        arguments["action_noise"] = build_noise(arguments["action_noise"], env.action_space.shape)
    if is_off_policy(cls):
        arguments.setdefault("buffer_size", _buffer_size(env, steps))
    _set_masked_buffer(cls, env, arguments)
    try:
        return cls(policy, env, seed=seed, device=device, **arguments)
    except (TypeError, ValueError, ArithmeticError, AssertionError, KeyError, MemoryError) as error:
        raise ArgumentError(
            f"hyperparameters of {cls.__name__} must be valid, got {dict(hyperparameters)}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _set_masked_buffer(cls: type, env: Any, arguments: dict[str, Any]) -> None:
    """Choose the buffer that leaves diverged steps out, where the algorithm's own is plain."""
    # Dictionaries of observations and action masks need buffers of Stable-Baselines3's own.
    plain = not hasattr(env.observation_space, "spaces")
    if not plain or not cls.__module__.startswith("stable_baselines3."):
        return
    if is_off_policy(cls):
        if not arguments.get("optimize_memory_usage") and arguments.get("n_steps", 1) == 1:
            arguments.setdefault("replay_buffer_class", MaskedReplayBuffer)
    elif "rollout_buffer_class" in inspect.signature(cls).parameters and hasattr(env, "diverged"):
        arguments.setdefault("rollout_buffer_class", MaskedRolloutBuffer)
        if arguments["rollout_buffer_class"] is MaskedRolloutBuffer:
            arguments.setdefault("rollout_buffer_kwargs", {"source": env})


def _buffer_size(env: Any, steps: int) -> int:
    """Return the default size of the replay buffer [transitions]."""
    shape = getattr(env.observation_space, "shape", None)
    numbers = 1
    for side in shape or (1024,):
        numbers *= side
    # Observations before and after, float32, and some room for actions and flags.
    affordable = _DEFAULT_BUFFER_BYTES // (8 * numbers + 64)
    return max(env.num_envs, min(steps, 1_000_000, affordable))


def _activation(name: str) -> type:
    """Return an activation function of torch.nn by name."""
    import torch

    found = getattr(torch.nn, name, None)
    if not (isinstance(found, type) and issubclass(found, torch.nn.Module)):
        raise ArgumentError(
            f"policy_kwargs.activation_fn must name a class of torch.nn such as ReLU, got {name!r}."
        )
    return found
