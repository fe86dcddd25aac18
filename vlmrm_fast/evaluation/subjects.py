"""What a reward is judged on: labelled frames, drawn from a task's states or read from a file."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.evaluation.state_sets import GROUPS, StateSet, draw_states

# Frames of a file held at once.
_CHUNK = 64
_NEAR = GROUPS[1]
# What is read of a file beside the frames.
_COLUMNS = ("labels", "groups", "truth")


class Subject(Protocol):
    """N labelled frames that can be gone through again and again.

    Attributes:
        title: what it is, for people.
        goal: (N,) bool, which frames show the goal.
        near: (N,) bool, which of the others are near misses.
        truth: (N,) float64, the ground-truth reward.
        names: (N,) str, one a frame.
        groups: (N,) str, where each comes from.
    """

    title: str
    goal: np.ndarray
    near: np.ndarray
    truth: np.ndarray
    names: np.ndarray
    groups: np.ndarray

    def frames(self, size: int, camera: Any) -> Iterator[np.ndarray]:
        """Yield (n, H, W, 3) uint8 frames in order, drawn at `size` where they are drawn."""
        ...

    def pick(self, indices: Sequence[int], size: int, camera: Any) -> list[np.ndarray]:
        """Return single frames (H, W, 3) uint8, in the order of `indices`."""
        ...


class TaskSubject:
    """States of a task, drawn anew for each camera and size."""

    def __init__(self, task: Any, states: StateSet) -> None:
        """Take the states.

        Args:
            task: a task of the registry.
            states: its labelled states, of both classes.
        """
        self.title = f"task {task.name}"
        self._task, self._states = task, states
        self.goal, self.truth = states.success, states.reward
        if len(self.truth) and self.truth.min() == self.truth.max():
            # A reward for staying alive says nothing about single states.
            self.truth = states.success.astype(np.float64)
        self.near = (states.groups == _NEAR) & ~states.success
        self.groups = states.groups
        self.names = np.array([
            f"{group}: {name}" for group, name in zip(states.groups, states.names, strict=True)
        ])

    def frames(self, size: int, camera: Any) -> Iterator[np.ndarray]:
        """Draw all states.

        Args:
            size: side of the frames [pixels].
            camera: as `draw_states` takes it.

        Returns:
            An iterator over chunks.
        """
        return draw_states(self._task, self._states.states, size, camera)

    def pick(self, indices: Sequence[int], size: int, camera: Any) -> list[np.ndarray]:
        """Draw some states.

        Args:
            indices: which.
            size: side of the frames [pixels].
            camera: as `draw_states` takes it.

        Returns:
            The frames.
        """
        chosen = self._states.states[np.asarray(indices, dtype=np.int64)]
        return [frame for chunk in draw_states(self._task, chosen, size, camera) for frame in chunk]


class FileSubject:
    """Frames and labels of an .npz file; frames are read a chunk at a time."""

    def __init__(self, path: str | Path) -> None:
        """Read labels and check everything but the frames' bytes.

        Args:
            path: a .npz with "frames" (N, H, W, 3) uint8 and "labels" (N,) bool or 0 and 1; also,
                if wanted, "groups" (N,) str, where "near miss" marks near misses, and "truth" (N,),
                a ground-truth reward.

        Raises:
            ArgumentError: the file cannot be read, an array is missing or has another shape, there
                are no frames, one class only, or the truth is constant or not finite.
        """
        self._path = Path(path).expanduser()
        self.title = f"labelled frames of {self._path.name}"
        shape, dtype = self._header()
        if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3:
            raise ArgumentError(
                f"frames must be (N, H, W, 3) uint8, got {shape} {dtype} in {self._path}."
            )
        count = shape[0]
        if not count or not shape[1] * shape[2]:
            raise ArgumentError(f"frames must be at least one, got {shape} in {self._path}.")
        arrays = self._arrays()
        self.goal = _check_labels(arrays["labels"], count)
        self.groups = np.where(self.goal, "goal", "other").astype("<U32")
        if "groups" in arrays:
            self.groups = _check_column("groups", arrays["groups"], count, "U").astype(str)
        self.near = (self.groups == _NEAR) & ~self.goal
        self.truth = self.goal.astype(np.float64)
        if "truth" in arrays:
            self.truth = _check_truth(arrays["truth"], count)
        self.names = np.array([f"{group}: {i}" for i, group in enumerate(self.groups)])

    def frames(self, size: int, camera: Any) -> Iterator[np.ndarray]:
        """Read all frames, in the size that they have.

        Args:
            size: not used.
            camera: not used.

        Yields:
            Chunks (n, H, W, 3) uint8.

        Raises:
            ArgumentError: the file ends early or is broken.
        """
        del size, camera
        (count, *shape), _ = self._header()
        each = int(np.prod(shape))
        try:
            with zipfile.ZipFile(self._path) as archive, archive.open("frames.npy") as file:
                _read_header(file)
                for start in range(0, count, _CHUNK):
                    n = min(_CHUNK, count - start)
                    data = file.read(n * each)
                    if len(data) < n * each:
                        kept = start + len(data) // each
                        raise ArgumentError(
                            f"frames must be {count}, got {kept} in {self._path}, which ends early."
                        )
                    yield np.frombuffer(data, np.uint8).reshape(n, *shape).copy()
        except (OSError, zipfile.BadZipFile, zipfile.zlib.error) as error:  # type: ignore[attr-defined]
            raise ArgumentError(
                f"frames must be readable, got {self._path}: {error}. Write the file anew."
            ) from error

    def pick(self, indices: Sequence[int], size: int, camera: Any) -> list[np.ndarray]:
        """Read some frames; goes through the file once.

        Args:
            indices: which.
            size: not used.
            camera: not used.

        Returns:
            The frames.
        """
        found: dict[int, np.ndarray] = {}
        wanted, start = set(map(int, indices)), 0
        for chunk in self.frames(size, camera):
            found |= {i: chunk[i - start] for i in wanted if start <= i < start + len(chunk)}
            start += len(chunk)
        return [found[int(i)] for i in indices]

    def _header(self) -> tuple[tuple[int, ...], np.dtype]:
        """Return shape and dtype of the frames."""
        try:
            with zipfile.ZipFile(self._path) as archive:
                names = [name.removesuffix(".npy") for name in archive.namelist()]
                for name in ("frames", "labels"):
                    if name not in names:
                        listed = ", ".join(sorted(names)) or "none"
                        raise ArgumentError(
                            f'source must hold an array "{name}", got {listed} in {self._path}.'
                        )
                with archive.open("frames.npy") as file:
                    shape, fortran, dtype = _read_header(file)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            if isinstance(error, ArgumentError):
                raise
            raise ArgumentError(
                f"source must be a readable .npz file, got {self._path}: {error}."
            ) from error
        if fortran:
            raise ArgumentError(
                f"frames must be C-contiguous, got Fortran order in {self._path}. "
                "Save np.ascontiguousarray(frames)."
            )
        return shape, dtype

    def _arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays beside the frames; the file may hold others, in any form."""
        try:
            with np.load(self._path, allow_pickle=False) as loaded:
                return {name: loaded[name] for name in _COLUMNS if name in loaded.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ArgumentError(
                f"source must be a readable .npz file, got {self._path}: {error}."
            ) from error


def _read_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return shape, order and dtype of an open .npy file, which is then at its first element."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0
    return (read if version == (1, 0) else np.lib.format.read_array_header_2_0)(file)


def _check_column(name: str, column: np.ndarray, count: int, kinds: str) -> np.ndarray:
    if column.shape != (count,) or column.dtype.kind not in kinds:
        raise ArgumentError(
            f"{name} must be ({count},), one a frame, got {column.shape} {column.dtype}."
        )
    return column


def _check_labels(labels: np.ndarray, count: int) -> np.ndarray:
    """Return (N,) bool labels of both classes."""
    values = _check_column("labels", labels, count, "biuf")
    if not np.isin(values, (0, 1)).all():
        other = values[~np.isin(values, (0, 1))][0]
        raise ArgumentError(f"labels must be booleans or 0 and 1, got {other}.")
    goal = values == 1
    if goal.all() or not goal.any():
        only = "goal frames" if goal.all() else "other frames"
        raise ArgumentError(
            f"labels must mark goal frames and others, got {count} {only} only. "
            "Add frames of the other class."
        )
    return goal


def _check_truth(truth: np.ndarray, count: int) -> np.ndarray:
    """Return (N,) float64 rewards, finite and not constant."""
    values = _check_column("truth", truth, count, "biuf").astype(np.float64)
    if not np.isfinite(values).all():
        raise ArgumentError(f"truth must be finite, got {values[~np.isfinite(values)][0]}.")
    if values.min() == values.max():
        raise ArgumentError(f"truth must differ between frames, got {values[0]:g} for all.")
    return values
