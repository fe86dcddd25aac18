"""Model files and the hub: one clear error whatever fails, no long waits without a network."""

from __future__ import annotations

import hashlib
import json
import logging
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from vlmrm_fast.errors import ModelError


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hex; the hub's cache names large files by it already."""
    blob = path.resolve()
    if blob.parent.name == "blobs" and len(blob.name) == 64:
        return blob.name
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def clear_errors(model: str, what: str, local: bool, *, offline: bool = False) -> Iterator[None]:
    """Turn whatever open_clip and the hub raise into one ModelError that says what to do.

    Also silences their remarks on the root logger, and where the hub cannot be reached uses its
    cache at once instead of 25 s of retries a file.

    Args:
        model: what the user wrote.
        what: is loaded, for example "the tokenizer".
        local: whether it is read from disk.
        offline: whether everything is on disk: the hub is not even asked for newer files.

    Yields:
        Nothing.

    Raises:
        ModelError: the block raised.
    """
    try:
        with (
            enough_memory(model, what),
            _quiet_log(),
            _cache_only(offline or not (local or hub_answers())),
        ):
            yield
    except ModelError:
        raise
    except ImportError as error:
        raise ModelError(
            f"{what} of {model!r} needs a package that is not installed ({error}). "
            "Install it: pip install transformers sentencepiece."
        ) from error
    except json.JSONDecodeError as error:
        raise ModelError(f"{what} of {model!r} has a broken configuration: {error}.") from error
    except Exception as error:  # the hub, the network and torch.load raise errors of many types
        reason = _first_line(error)
        if local:
            raise ModelError(f"{what} of {model!r} cannot be read: {reason}.") from error
        raise ModelError(
            f"{what} of {model!r} cannot be fetched: {reason}. Check the name and the connection; "
            'or download its folder elsewhere and give the path; or use model="builtin".'
        ) from error


@contextmanager
def enough_memory(model: str, what: str) -> Iterator[None]:
    """Turn a lack of memory into a ModelError that says what to do.

    Args:
        model: what the user wrote.
        what: is loaded, for example "the model".

    Yields:
        Nothing.

    Raises:
        ModelError: the host's or the GPU's memory is full.
        RuntimeError: the block raised it for another reason.
    """
    try:
        yield
    except MemoryError as error:
        raise ModelError(_too_large(model, what, error)) from error
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        raise ModelError(_too_large(model, what, error)) from error


# What else torch says of full memory: the host's allocator, the driver and the matrix library.
_MEMORY_FULL = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Tell full memory from other errors of torch."""
    full = any(text in str(error) for text in _MEMORY_FULL)
    return full or isinstance(error, torch.OutOfMemoryError)


def _too_large(model: str, what: str, error: Exception) -> str:
    return (
        f"{what} of {model!r} must fit into memory, got: {_first_line(error)}. Use a smaller "
        'model, precision="fp16" on a GPU, or device="cpu".'
    )


def _first_line(error: Exception) -> str:
    """Return the first line of an error's text, at most 200 characters, without a full stop."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    line = line.split(" Last error:")[0].rstrip(".")
    if line.startswith("Weights only load failed"):  # torch goes on to recommend unsafe loading
        return "it is neither safetensors nor a checkpoint of plain tensors"
    return line if len(line) <= 200 else line[:200].rsplit(" ", 1)[0] + " ..."


def hub_answers(timeout: float = 3.0) -> bool:
    """Tell whether the hub's host accepts connections; True behind a proxy, which decides.

    Args:
        timeout: of the connection [s].

    Returns:
        False where no connection can be made.
    """
    from huggingface_hub import constants

    address = urllib.parse.urlsplit(constants.ENDPOINT)
    if constants.HF_HUB_OFFLINE or urllib.request.getproxies():
        return True
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), timeout).close()
    except OSError:
        return False
    return True


@contextmanager
def _cache_only(active: bool) -> Iterator[None]:
    """Switch huggingface_hub to its cache within the block."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or active
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextmanager
def _quiet_log() -> Iterator[None]:
    """Silence the root logger within the block: every failure raises anyway."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        root.setLevel(level)
