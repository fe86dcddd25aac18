"""Plain values, as YAML and command lines give them, into typed dataclasses."""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

from vlmrm_fast.errors import ArgumentError, unknown_name

T = TypeVar("T")

# YAML 1.1, which PyYAML speaks, reads "3e-4" (no dot) as a string.
_NUMBER = re.compile(r"[-+]?(\d[\d_]*(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
# Short enough for a number; `str.isdigit` also takes "\u00b2", which `int` does not.
_ID = re.compile(r"-?[0-9]{1,9}")
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def from_dict(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Build a dataclass of this module from plain values, each brought to its field's type.

    None, as YAML reads an empty key, means the default where a field takes no None.

    Args:
        cls: the dataclass.
        values: its fields by name; nested mappings for nested dataclasses.
        where: prefix for names in errors, for example "reward.".

    Returns:
        The instance.

    Raises:
        ArgumentError: a key is unknown, or a value does not fit its field.
    """
    if not isinstance(values, Mapping):
        name = where.removesuffix(".") or "configuration"
        raise ArgumentError(f"{name} must be a mapping, got {values!r}.")
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            raise ArgumentError(_unknown_key(str(key), where, hints))
    given = {
        key: value for key, value in values.items() if value is not None or _is_optional(hints[key])
    }
    made = {key: _coerce(value, hints[key], where + str(key)) for key, value in given.items()}
    return cls(**made)


def _is_optional(hint: Any) -> bool:
    return type(None) in typing.get_args(hint)


def load_yaml(text: str) -> Any:
    """Read YAML in which no mapping has a key twice.

    Args:
        text: the YAML.

    Returns:
        Its content, as `yaml.safe_load` returns it.

    Raises:
        yaml.YAMLError: it is not YAML, or has a key twice.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Checks mappings as they are written, before `<<` merges others into them."""

        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            seen = set()
            for key, _ in node.value:
                if (key.tag, str(key.value)) in seen:
                    raise yaml.composer.ComposerError(
                        None, None, f"found the key {key.value!r} twice", key.start_mark
                    )
                seen.add((key.tag, str(key.value)))
            return node

    return yaml.load(text, Loader)


def parse_value(text: str) -> Any:
    """Return the value that one hyperparameter's text stands for.

    Args:
        text: YAML, for example "3e-4", "[64, 64]" or "auto".

    Returns:
        The value; numbers in any notation become numbers.

    Raises:
        ArgumentError: the text is not YAML.
    """
    import yaml

    try:
        return _coerce_any(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ArgumentError(f"value must be valid YAML, got {text!r}.") from error


def parse_assignments(items: Sequence[str], name: str = "hyperparameters") -> dict[str, Any]:
    """Return NAME=VALUE texts as a dict; NAME may be dotted for nested mappings.

    Args:
        items: the texts, for example ("learning_rate=3e-4", "policy_kwargs.net_arch=[64,64]").
        name: what to call them in errors.

    Returns:
        The values by name.

    Raises:
        ArgumentError: a text has no "=".
    """
    found: dict[str, Any] = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or not key.strip():
            raise ArgumentError(f"{name} must be given as NAME=VALUE, got {item!r}.")
        *parents, leaf = key.strip().replace("-", "_").split(".")
        inner = found
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[leaf] = parse_value(text)
    return found


_CAMERA = ("azimuth", "distance", "elevation", "lookat", "track_body")


def parse_camera(text: str) -> str | int | dict[str, Any]:
    """Return the camera that a text stands for.

    Args:
        text: a name, an id, or a free camera as "distance=4,azimuth=90,lookat=0/0/1,
            track_body=torso", any of these.

    Returns:
        The name, the id, or the settings, which go over another camera's.

    Raises:
        ArgumentError: a setting is unknown or has no such value.
    """
    if "=" not in text:
        return name_or_id(text)
    found: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name not in _CAMERA:
            error = unknown_name("camera value", name, _CAMERA)
            raise error
        found[name] = name_or_id(value) if name == "track_body" else _numbers(name, value)
    return found


def name_or_id(text: str) -> str | int:
    """Return the number that a text spells, or else the text as a name.

    Args:
        text: as a user wrote it.

    Returns:
        An id, or the text without the space around it.
    """
    text = text.strip()
    return int(text) if _ID.fullmatch(text) else text


def check_camera(values: Mapping[str, Any]) -> None:
    """Check the numbers of a free camera.

    Args:
        values: lookat, distance, azimuth and elevation, those that are known.

    Raises:
        ArgumentError: one is not finite, the distance is not above 0, or lookat is not three.
    """
    for name in ("distance", "azimuth", "elevation"):
        value = values.get(name, 1.0)
        if not math.isfinite(value) or (name == "distance" and value <= 0):
            wanted = "finite and above 0" if name == "distance" else "finite"
            raise ArgumentError(f"{name} must be {wanted}, got {value}.")
    place = values.get("lookat", (0.0, 0.0, 0.0))
    if len(place) != 3 or not all(map(math.isfinite, place)):
        raise ArgumentError(f"lookat must be three finite numbers, got {place}.")


def _numbers(name: str, text: str) -> float | tuple[float, ...]:
    """Return one finite number, or the three of lookat."""
    try:
        numbers = tuple(float(part) for part in text.split("/"))
    except ValueError:
        numbers = ()
    count = 3 if name == "lookat" else 1
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        wanted = "three numbers such as 0/0/1" if count == 3 else "a number"
        raise ArgumentError(f"camera value {name} must be {wanted}, got {text!r}.")
    return numbers if count == 3 else numbers[0]


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another, nested mappings key by key.

    Args:
        below: the values that give way.
        above: the values that win.

    Returns:
        A new dict.
    """
    made = dict(below)
    for key, value in above.items():
        old = made.get(key)
        nested = isinstance(old, Mapping) and isinstance(value, Mapping)
        made[key] = merge(old, value) if nested else value  # type: ignore[arg-type]
    return made


def _unknown_key(key: str, where: str, hints: Mapping[str, Any]) -> str:
    """Return the error text for an unknown key, pointing at another section that has it."""
    if not where:
        for section, hint in hints.items():
            if dataclasses.is_dataclass(hint) and key in typing.get_type_hints(hint):
                return (
                    f"configuration key must be known, got {key!r}. "
                    f"It belongs under {section!r}: write {section}.{key}."
                )
    return str(unknown_name("configuration key", where + key, [where + name for name in hints]))


def _coerce(value: Any, hint: Any, name: str) -> Any:
    """Return `value` as the type `hint`; raise ArgumentError where it does not fit."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in {typing.Union, types.UnionType}:
        if value is None and type(None) in args:
            return None
        return _coerce(value, next(arg for arg in args if arg is not type(None)), name)
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), {} if value is None else value, name + ".")
    if origin is tuple:
        return _coerce_tuple(value, args, name)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ArgumentError(f"{name} must be a mapping, got {value!r}.")
        return {str(key): _coerce_any(item) for key, item in value.items()}
    if origin is Literal:
        # YAML reads the bare word `off` as False.
        text = "off" if value is False and "off" in args else str(value)
        if text not in args:
            raise unknown_name(name, text, args)
        return text
    return _coerce_scalar(value, hint, name)


def _coerce_tuple(value: Any, args: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    """Return a list, or one bare item, as a tuple of the type `args` describes."""
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    if args[-1] is Ellipsis:
        return tuple(_coerce(item, args[0], name) for item in items)
    if len(items) != len(args):
        raise ArgumentError(f"{name} must hold {len(args)} values, got {value!r}.")
    return tuple(_coerce(item, arg, name) for item, arg in zip(items, args, strict=True))


def _coerce_scalar(value: Any, hint: Any, name: str) -> Any:
    """Return `value` as a str, bool, int or float."""
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    if hint is bool:
        text = str(value).lower()
        if text in _TRUE + _FALSE:
            return text in _TRUE
    elif hint is str and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    elif hint in {int, float} and not isinstance(value, bool):
        number = _coerce_any(value)
        if isinstance(number, (int, float)):
            if hint is float:
                return float(number)
            if float(number).is_integer():
                return int(number)
    raise ArgumentError(f"{name} must be {words[hint]}, got {value!r}.")


def _coerce_any(value: Any) -> Any:
    """Return a free-form value with numbers in strings turned into numbers."""
    if isinstance(value, Mapping):
        return {str(key): _coerce_any(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_coerce_any(item) for item in value]
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        number = float(value)
        return int(number) if number.is_integer() and not set(value) & set(".eE") else number
    return value
