"""Errors that users see: each says what is wrong, with which value, and how to fix it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class VLMRMError(Exception):
    """Base of every error that this package raises on purpose."""


class ArgumentError(VLMRMError, ValueError):
    """An argument or configuration value is outside what is accepted."""


class UnknownNameError(ArgumentError):
    """A name (task, model, camera, key) is not one of the known ones."""


class UnsupportedSceneError(VLMRMError):
    """A model holds elements that the chosen renderer does not draw."""


class RendererError(VLMRMError):
    """A renderer cannot run on this system."""


class ModelError(VLMRMError):
    """A vision-language model or a MuJoCo model cannot be loaded."""


class CheckpointError(VLMRMError):
    """A run folder or checkpoint cannot be read, written or resumed."""


def unknown_name(kind: str, name: str, choices: Iterable[str]) -> UnknownNameError:
    """Return the error for a name that is not among `choices`, with the nearest one.

    Args:
        kind: what is named, for example "task".
        name: what the user wrote.
        choices: the valid names.

    Returns:
        The error, ready to raise. Its text lists the choices, sorted.
    """
    valid = sorted(choices)
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UnknownNameError(f"{kind} must be one of {', '.join(valid)}, got {name!r}.{hint}")
