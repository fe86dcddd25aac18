"""The arguments of `vlmrm-fast train`: a target, and a flag for every field."""

from __future__ import annotations

import dataclasses
import os.path
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from vlmrm_fast.coercion import merge, parse_assignments
from vlmrm_fast.config import RewardConfig, TrainConfig, load_config
from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.run_folder import find_config


@dataclass(frozen=True)
class TrainCommand:
    """What `vlmrm-fast train` is asked to do."""

    config: TrainConfig = field(default_factory=lambda: TrainConfig(task="cartpole-upright"))
    resume: str | None = None
    """Run folder, or one of its checkpoints, to continue."""
    overwrite: bool = False
    """Replace the run that --run-dir holds already."""
    dry_run: bool = False
    """Build everything, draw and score one frame, estimate time and memory; train nothing."""


def parse_train(arguments: Sequence[str]) -> TrainCommand:
    """Return what the arguments of `train` describe.

    Flags go over the YAML file or the resumed run; hyperparameters are merged one by one.

    Args:
        arguments: what follows `vlmrm-fast train`.

    Returns:
        The command.
    """
    import tyro

    rest = list(arguments)
    target = rest.pop(0) if rest and not rest[0].startswith("-") else None
    if target is None and {"-h", "--help"} & set(rest):
        base = TrainCommand().config
    else:
        base = _base(target, _flag(rest, "--resume"), _flag(rest, "--env"))
    command = tyro.cli(
        TrainCommand,
        default=TrainCommand(config=base),
        args=rest,
        prog="vlmrm-fast train TARGET",
        description="TARGET: a task, a YAML file, or a sentence together with --env ID.",
        config=(tyro.conf.OmitArgPrefixes,),
        registry=_registry(),
    )
    chosen = command.config.algorithm
    merged = merge(base.algorithm.hyperparameters, chosen.hyperparameters)
    algorithm = dataclasses.replace(chosen, hyperparameters=merged)
    env_kwargs = merge(base.env_kwargs, command.config.env_kwargs)
    config = dataclasses.replace(command.config, algorithm=algorithm, env_kwargs=env_kwargs)
    return dataclasses.replace(command, config=config)


def _base(target: str | None, resume: str | None, env: str | None) -> TrainConfig:
    """Return the configuration that the flags go over."""
    if resume is not None:
        if target is not None:
            raise ArgumentError(
                f"TARGET must be left out with --resume, got {target!r}. "
                "The run folder knows what is trained."
            )
        return find_config(resume)
    if target is None:
        raise ArgumentError(
            'TARGET must be a task, a YAML file or a sentence, got none. Try "cartpole-upright".'
        )
    if target.endswith((".yaml", ".yml")) or os.path.isfile(target):
        return load_config(target)
    if env is not None:
        return TrainConfig(env=env, reward=RewardConfig(goal=(target,)))
    if len(target.split()) > 1:
        raise ArgumentError(
            f"--env must name the environment that a sentence is trained in, got none for "
            f'{target!r}. Write: vlmrm-fast train "{target}" --env Humanoid-v5'
        )
    from vlmrm_fast.tasks import get_task

    return TrainConfig(task=get_task(target).name)


def _flag(arguments: Sequence[str], name: str) -> str | None:
    """Return a flag's value, needed before the parser runs."""
    for index, item in enumerate(arguments):
        if item.startswith(name + "="):
            return item[len(name) + 1 :]
        if item == name and index + 1 < len(arguments):
            return arguments[index + 1]
    return None


def _registry() -> Any:
    """Return tyro's rules with two more: a dict is a list of NAME=VALUE, an int may be 1e6."""
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec

    registry = ConstructorRegistry()

    @registry.primitive_rule
    def _dict_rule(info: Any) -> Any:
        if getattr(info.type, "__origin__", None) is not dict:
            return None
        return PrimitiveConstructorSpec(
            nargs="*",
            metavar="[NAME=VALUE ...]",
            instance_from_str=parse_assignments,
            is_instance=lambda value: isinstance(value, dict),
            str_from_instance=lambda value: [f"{key}={item}" for key, item in value.items()],
        )

    @registry.primitive_rule
    def _int_rule(info: Any) -> Any:
        if info.type is not int:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="INT",
            instance_from_str=lambda texts: _whole_number(texts[0]),
            is_instance=lambda value: isinstance(value, int) and not isinstance(value, bool),
            str_from_instance=lambda value: [str(value)],
        )

    return registry


def _whole_number(text: str) -> int:
    """Return a whole number in any notation, so that --steps 1e6 works as in YAML."""
    number = float(text)
    if not number.is_integer():
        raise ValueError(f"{text} is no whole number")
    return int(text) if text.lstrip("+-").isdigit() else int(number)
