"""Checkpoints that survive a kill or a full disk, and that run no code when loaded.

A checkpoint is a folder:

    policy.safetensors       network weights, by Stable-Baselines3's names
    optimizers.safetensors   moments of the optimisers
    state.json, state.npz    counters, generators, environment and callback state; no pickles
    replay/*.npy             the replay buffer, only in the newest checkpoint
    config.yaml              the resolved configuration

It is written under a temporary name beside its final one, flushed to the disk, then renamed, so
that a folder with the final name is whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vlmrm_fast.errors import CheckpointError
from vlmrm_fast.snapshot import pack, unpack

FORMAT_VERSION = 1
# A serial number orders checkpoints: a run resumed from an older one reaches a step twice.
_NAME = re.compile(r"(\d{6,})-step-(\d+)")
# Room for metadata, block rounding and the log files that are written meanwhile.
_SPARE_BYTES = 4 * 2**20


@dataclass
class Checkpoint:
    """What a checkpoint holds, in memory.

    Attributes:
        step: environment steps done.
        modules: state dicts of networks by name, tensors or arrays.
        optimizers: state dicts of optimisers by name.
        state: everything else, a tree for `snapshot.pack`.
        replay: the replay buffer's arrays by name, or None.
        config: the resolved configuration as YAML.
    """

    step: int
    modules: dict[str, dict[str, Any]]
    optimizers: dict[str, Any]
    state: dict[str, Any]
    replay: dict[str, np.ndarray] | None = None
    config: str = ""
    path: Path | None = field(default=None, compare=False)


def save(folder: str | Path, checkpoint: Checkpoint, keep: int = 3, *, best: bool = False) -> Path:
    """Write a checkpoint atomically, then drop the oldest ones.

    Blocks until the files are on the disk. Whatever fails, earlier checkpoints stay whole; old
    ones that cannot be dropped are left.

    Args:
        folder: the run's folder of checkpoints; made if missing.
        checkpoint: what to write.
        keep: how many checkpoints to keep, this one included; at least 1. The best one stays.
        best: whether this is the best one so far; the file `best` then names it.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointError: the disk is too full, or writing fails.
    """
    from safetensors import SafetensorError

    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        _check_room(folder, _size(checkpoint))
        final = _free_name(folder, checkpoint.step)
        part = folder / f".part-{final.name}"
        _write(part, checkpoint)
        part.rename(final)
        _sync_folder(folder)
        for pointer in ("latest", "best") if best else ("latest",):
            _write_pointer(folder, pointer, final.name)
    except (OSError, SafetensorError) as error:
        _remove_leftovers(folder)
        raise CheckpointError(
            f"checkpoint must be written under {folder}, got: {error}. Earlier checkpoints are "
            "whole; free some disk space or check the permissions."
        ) from error
    # The new checkpoint is whole: an old one that stays costs room, not the run.
    with contextlib.suppress(OSError):
        _prune(folder, final, keep, drop_replay=checkpoint.replay is not None)
    return final


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint and verify its files.

    Args:
        path: a checkpoint's folder, a run folder, or its folder of checkpoints; of the latter
            two, the newest checkpoint that is whole.

    Returns:
        The checkpoint; its `replay` is None where there was none or it was dropped.

    Raises:
        CheckpointError: there is no checkpoint, or it is damaged.
    """
    path = Path(path)
    if (path / "state.json").is_file():
        return _read(path)
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    found = list_checkpoints(folder)
    if not found:
        raise CheckpointError(f"run must hold a checkpoint, got none under {path}.")
    errors = []
    for item in reversed(found):
        try:
            return _read(item)
        except CheckpointError as error:  # noqa: PERF203 - a damaged one is rare
            errors.append(str(error))
    raise CheckpointError(errors[0])


def list_checkpoints(folder: str | Path) -> list[Path]:
    """Return the checkpoints in a folder.

    Args:
        folder: a run's folder of checkpoints.

    Returns:
        Their folders, the oldest first.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return []
    found = [item for item in folder.iterdir() if _NAME.fullmatch(item.name) and item.is_dir()]
    return sorted(found, key=lambda item: _serial(item.name))


def pointed(folder: str | Path, pointer: str = "latest") -> Path | None:
    """Return the checkpoint that a pointer names.

    Args:
        folder: a run's folder of checkpoints.
        pointer: "latest" or "best".

    Returns:
        Its folder, or None where the pointer is missing or points nowhere.
    """
    folder = Path(folder)
    try:
        name = (folder / pointer).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    # The pattern also keeps a tampered pointer inside the folder.
    return folder / name if _NAME.fullmatch(name) and (folder / name).is_dir() else None


def check_room(folder: str | Path, num_bytes: int) -> None:
    """Check that a disk has room, before any work starts.

    Args:
        folder: an existing folder on the disk.
        num_bytes: what will be written.

    Raises:
        CheckpointError: there is less room than that.
    """
    try:
        _check_room(Path(folder), num_bytes)
    except OSError as error:
        raise CheckpointError(str(error)) from error


def _serial(name: str) -> int:
    """Return a checkpoint's serial number."""
    match = _NAME.fullmatch(name)
    assert match is not None
    return int(match[1])


def _free_name(folder: Path, step: int) -> Path:
    """Return a name for a checkpoint at `step` that is newer than all others there."""
    serial = max((_serial(item.name) for item in list_checkpoints(folder)), default=0) + 1
    return folder / f"{serial:06d}-step-{step}"


def _size(checkpoint: Checkpoint) -> int:
    """Return about how many bytes a checkpoint takes."""
    trees = (checkpoint.modules, checkpoint.optimizers, checkpoint.state, checkpoint.replay or {})
    return sum(array.nbytes for tree in trees for array in pack(tree)[1].values())


def _check_room(folder: Path, num_bytes: int) -> None:
    """Raise OSError where the disk has no room for `num_bytes`."""
    free, needed = shutil.disk_usage(folder).free, num_bytes + _SPARE_BYTES
    if free < needed:
        raise OSError(
            f"disk of {folder} must have {needed / 2**20:.0f} MiB free, got {free / 2**20:.0f} MiB"
        )


def _write(part: Path, checkpoint: Checkpoint) -> None:
    """Write all files of a checkpoint into a new folder and flush them."""
    from safetensors.numpy import save_file

    part.mkdir()
    modules = {
        f"{name}/{key}": _array(value)
        for name, values in checkpoint.modules.items()
        for key, value in values.items()
    }
    save_file(modules, part / "policy.safetensors")
    optimizers, moments = pack(checkpoint.optimizers)
    save_file(
        {key: _array(value) for key, value in moments.items()}, part / "optimizers.safetensors"
    )
    state, arrays = pack(checkpoint.state)
    with (part / "state.npz").open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    (part / "config.yaml").write_text(checkpoint.config, encoding="utf-8")
    files = {item.name: _digest(item) for item in sorted(part.iterdir())}
    if checkpoint.replay is not None:
        (part / "replay").mkdir()
        for name, array in checkpoint.replay.items():
            np.save(part / "replay" / f"{name}.npy", array, allow_pickle=False)
    document = {
        "format": FORMAT_VERSION,
        "step": checkpoint.step,
        "files": files,
        "replay": None if checkpoint.replay is None else sorted(checkpoint.replay),
        "optimizers": optimizers,
        "state": state,
    }
    (part / "state.json").write_text(json.dumps(document), encoding="utf-8")
    for item in part.rglob("*"):
        _sync_folder(item)
    _sync_folder(part)


def _array(value: Any) -> np.ndarray:
    """Return a tensor or array as a contiguous array that shares no memory."""
    value = value.detach().cpu().numpy() if hasattr(value, "detach") else value
    return np.array(value, order="C")


def _digest(path: Path) -> list[int]:
    """Return a file's size and CRC-32."""
    data = path.read_bytes()
    return [len(data), zlib.crc32(data)]


def _sync_folder(path: Path) -> None:
    """Flush a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_pointer(folder: Path, pointer: str, name: str) -> None:
    """Point `latest` or `best` at a checkpoint, atomically."""
    part = folder / f".part-{pointer}"
    part.write_text(name + "\n", encoding="ascii")
    _sync_folder(part)
    part.replace(folder / pointer)


def _remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left, as far as it can be removed."""
    with contextlib.suppress(OSError):
        for item in folder.glob(".part-*"):
            if item.is_dir():
                shutil.rmtree(item, ignore_errors=True)
            else:
                item.unlink(missing_ok=True)


def _prune(folder: Path, newest: Path, keep: int, drop_replay: bool) -> None:
    """Drop the oldest checkpoints, and the replay buffers of all but the newest that has one."""
    found = list_checkpoints(folder)
    best = pointed(folder, "best")
    for item in found[:-keep]:
        if item == best:
            continue
        # Renamed first, so that a kill leaves no half-deleted checkpoint under a good name.
        gone = folder / f".part-gone-{item.name}"
        item.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
    for item in list_checkpoints(folder):
        if drop_replay and item != newest and (item / "replay").is_dir():
            gone = folder / f".part-replay-{item.name}"
            (item / "replay").rename(gone)
            shutil.rmtree(gone, ignore_errors=True)


def _read(path: Path) -> Checkpoint:
    """Read one checkpoint's folder; raise CheckpointError where it is damaged."""
    from safetensors.numpy import load_file

    try:
        document = json.loads((path / "state.json").read_text(encoding="utf-8"))
        if document["format"] != FORMAT_VERSION:
            raise CheckpointError(
                f"checkpoint format must be {FORMAT_VERSION}, got {document['format']} in {path}. "
                "Use the version of vlmrm-fast that wrote it."
            )
        for name, expected in document["files"].items():
            if Path(name).name != name or _digest(path / name) != expected:
                raise CheckpointError(
                    f"checkpoint file {path / name} must be as written, got damage."
                )
        modules: dict[str, dict[str, Any]] = {}
        for key, value in load_file(path / "policy.safetensors").items():
            name, _, inner = key.partition("/")
            modules.setdefault(name, {})[inner] = value
        with np.load(path / "state.npz", allow_pickle=False) as archive:
            arrays = dict(archive)
        return Checkpoint(
            step=int(document["step"]),
            modules=modules,
            optimizers=unpack(document["optimizers"], load_file(path / "optimizers.safetensors")),
            state=unpack(document["state"], arrays),
            replay=_read_replay(path, document["replay"]),
            config=(path / "config.yaml").read_text(encoding="utf-8"),
            path=path,
        )
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"checkpoint must be whole, got {type(error).__name__} reading {path}: {error}. "
            "Name an earlier checkpoint's folder to resume from that."
        ) from error


def _read_replay(path: Path, names: list[str] | None) -> dict[str, np.ndarray] | None:
    """Return the replay arrays, memory-mapped read-only; None where they were dropped."""
    folder = path / "replay"
    if names is None or not folder.is_dir():
        return None
    if any(Path(name).name != name for name in names):
        raise CheckpointError(f"replay arrays of {path} must be plain names, got {names}.")
    return {
        name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in names
    }


def module_tensors(values: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return arrays as torch tensors, ready for `load_state_dict`.

    Args:
        values: arrays by name.

    Returns:
        CPU tensors by name.
    """
    import torch

    return {key: torch.from_numpy(np.array(value)) for key, value in values.items()}


def tree_tensors(tree: Any) -> Any:
    """Return a tree with its arrays as torch tensors, as optimisers want their state.

    Args:
        tree: dicts, lists, tuples, scalars and arrays.

    Returns:
        The tree with CPU tensors.
    """
    import torch

    if isinstance(tree, np.ndarray):
        return torch.from_numpy(np.array(tree))
    if isinstance(tree, dict):
        return {key: tree_tensors(item) for key, item in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(tree_tensors(item) for item in tree)
    return tree
