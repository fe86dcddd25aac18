"""Episodes in NumPy files: frames, or states that a task draws."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.relabel.drawing import TaskDrawer
from vlmrm_fast.relabel.source import BrokenEpisodeError, Clock, Source, chunk_frames, listed

ARRAYS = (".npy", ".npz")
_FRAMES, _STATES = ("frames", "images", "observations"), ("states", "state")
# An episode ends with a row for which one of these is true, as in D4RL, gymnasium and others.
_DONE = ("terminals", "timeouts", "terminations", "truncations", "terminated", "truncated",
         "dones", "done")  # fmt: skip

# What reading a damaged archive raises.
_DAMAGE = (OSError, EOFError, zipfile.BadZipFile, zlib.error)


class Rows(Protocol):
    """An array on disk of which rows are read."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return a copy of consecutive rows."""


class ZippedRows:
    """An array in a .npz file; rows that are read in order are read once, nothing is kept."""

    def __init__(self, path: Path, name: str) -> None:
        """Read the header.

        Args:
            path: of the .npz file.
            name: of the array.

        Raises:
            ArgumentError: its rows do not lie together.
        """
        self._path, self._name = path, name
        self._stream: Any = None
        self._row = 0
        self._rewind()
        if self._fortran and len(self.shape) > 1:
            raise ArgumentError(
                f"array must be stored row by row, got {name} of {path} in Fortran order. Save it "
                "with numpy.ascontiguousarray."
            )

    def _rewind(self) -> None:
        if self._stream is not None:
            self._stream.close()
        # The archive object closes with the last stream of it.
        with zipfile.ZipFile(self._path) as archive:
            self._stream = archive.open(f"{self._name}.npy")
        version = np.lib.format.read_magic(self._stream)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        self.shape, self._fortran, self.dtype = read(self._stream)
        if self.dtype.hasobject:
            raise ArgumentError(
                f"array must hold numbers, got Python objects in {self._name} of {self._path}."
            )
        self._row = 0

    def __getitem__(self, rows: slice) -> np.ndarray:
        """As `Rows.__getitem__`; raises BrokenEpisodeError where the file is damaged."""
        start, stop, _ = rows.indices(self.shape[0])
        size = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        try:
            if start < self._row:
                self._rewind()
            while self._row < start:
                skipped = min(start - self._row, max(2**22 // max(size, 1), 1))
                self._read(skipped * size)
                self._row += skipped
            raw = self._read((stop - start) * size)
        except (*_DAMAGE, ValueError) as error:
            # Where the stream stands is unknown: whoever reads on begins at the start.
            row, self._row = self._row, self.shape[0] + 1
            raise BrokenEpisodeError(
                f"array must be whole, got {self._name} of {self._path} broken at row {row}: "
                f"{error}."
            ) from error
        self._row = stop
        return np.frombuffer(raw, self.dtype).reshape(stop - start, *self.shape[1:])

    def _read(self, size: int) -> bytes:
        """Return exactly so many bytes."""
        parts = []
        while size:
            part = self._stream.read(size)
            if not part:
                raise EOFError("the file ends")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


class StackedRows:
    """Arrays beside each other, as one: qpos and qvel as states."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        """Take them.

        Args:
            parts: (N, k) each.
        """
        self._parts = parts
        width = sum(part.shape[1] for part in parts)
        self.shape: tuple[int, ...] = (parts[0].shape[0], width)
        self.dtype = np.dtype(np.float64)

    def __getitem__(self, rows: slice) -> np.ndarray:
        """As `Rows.__getitem__`."""
        return np.concatenate([np.asarray(part[rows], np.float64) for part in self._parts], axis=1)


class ArrayFiles(Source):
    """NumPy files, each with one or several episodes."""

    kind = "array"

    def __init__(self, path: Path, drawer: TaskDrawer | None, key: str | None = None) -> None:
        """Read the headers and the episodes' ends.

        Args:
            path: a .npy or .npz file, or a folder of them.
            drawer: draws states; None: the files must hold frames.
            key: the array to read of a .npz file.

        Raises:
            ArgumentError: a file holds no usable array, or several.
        """
        files = listed(path, ARRAYS) if path.is_dir() else [path]
        if not files:
            raise ArgumentError(f"source must be a folder with .npy or .npz, got {str(path)!r}.")
        self.drawer, self.root = drawer, files[0].parent
        self.names, self.lengths = [], []
        self._paths: list[Path] = []
        # Of each episode its rows, and where they start.
        self._places: list[tuple[Rows, int]] = []
        self._files: list[Rows] = []
        for file in files:
            rows, ends = _open(file, key, drawer)
            self._files.append(rows)
            for index, (start, stop) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
                self.names.append(file.name if len(ends) == 1 else f"{file.name}:{index}")
                self.lengths.append(int(stop - start))
                self._places.append((rows, int(start)))
                self._paths.append(file)
        self.facts = {"key": key or ""} | ({} if drawer is None else drawer.facts)

    def read(self, episode: int, start: int, clock: Clock) -> Iterator[np.ndarray]:
        """As `Source.read`; a state that is not finite ends its episode."""
        rows, first = self._places[episode]
        stop = first + (self.lengths[episode] or 0)
        if self.drawer is not None:
            yield from self.drawer.draw_rows(rows, (first, first + start, stop), clock)
            return
        step = chunk_frames(rows.shape[1:])
        for at in range(first + start, stop, step):
            yield np.array(rows[at : min(at + step, stop)])

    def files(self, episode: int) -> list[Path]:
        """As `Source.files`."""
        return [self._paths[episode]]

    def close(self) -> None:
        """As `Source.close`."""
        for rows in self._files:
            if isinstance(rows, ZippedRows):
                rows.close()
        super().close()


def _open(path: Path, key: str | None, drawer: TaskDrawer | None) -> tuple[Rows, np.ndarray]:
    """Return a file's rows and where its episodes end, (E,) int64, cumulative."""
    try:
        if path.suffix.lower() == ".npz":
            return _open_zip(path, key, drawer)
        whole = np.load(path, mmap_mode="r", allow_pickle=False)
    except ArgumentError:
        raise
    except (*_DAMAGE, ValueError, KeyError) as error:
        raise ArgumentError(f"source must be a NumPy file, got {path}: {error}.") from error
    # One more dimension than a frame or state needs: episodes of equal lengths.
    episodes = whole.ndim == (3 if drawer is not None else 5)
    _refuse_empty(path, "array", whole.shape, drawer)
    rows = whole.reshape(-1, *whole.shape[2:]) if episodes else whole
    _check(path, "array", rows, drawer)
    count = whole.shape[0] if episodes else 1
    return rows, np.arange(1, count + 1, dtype=np.int64) * (len(rows) // count)


def _open_zip(path: Path, key: str | None, drawer: TaskDrawer | None) -> tuple[Rows, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        names = [name[:-4] for name in archive.namelist() if name.endswith(".npy")]
    rows: Rows
    if key is None and drawer is not None and "qpos" in names:
        parts = [ZippedRows(path, name) for name in ("qpos", "qvel") if name in names]
        if any(part.shape[:1] != parts[0].shape[:1] or len(part.shape) != 2 for part in parts):
            raise ArgumentError(f"qpos and qvel must be (N, nq) and (N, nv), got others in {path}.")
        rows = StackedRows(parts)
    else:
        rows = ZippedRows(path, _pick(path, names, key, drawer))
    _check(path, key or "array", rows, drawer)
    with np.load(path, allow_pickle=False) as small:
        return rows, _episode_ends(path, small, names, rows.shape[0])


def _pick(path: Path, names: list[str], key: str | None, drawer: TaskDrawer | None) -> str:
    """Return the name of the array to read."""
    known = (*_STATES, *_FRAMES) if drawer is not None else _FRAMES
    wanted = [key] if key is not None else [name for name in known if name in names]
    if key is None and not wanted and len(names) == 1:
        return names[0]
    if not wanted or wanted[0] not in names:
        listed = ", ".join(sorted(names)) or "none"
        what = repr(key) if key else "frames, or states or qpos with --task"
        raise ArgumentError(f"source must hold an array {what}, got {listed} in {path}.")
    return str(wanted[0])


def _refuse_empty(path: Path, name: str, shape: tuple[int, ...], drawer: TaskDrawer | None) -> None:
    """Raise ArgumentError for an array without a number in it."""
    if not math.prod(shape):
        what = "frame" if drawer is None else "state"
        raise ArgumentError(f"{name} must hold at least one {what}, got {shape} in {path}.")


def _check(path: Path, name: str, rows: Rows, drawer: TaskDrawer | None) -> None:
    """Raise ArgumentError unless rows are frames, or states of the task."""
    shape, dtype = rows.shape, rows.dtype
    _refuse_empty(path, name, shape, drawer)
    if drawer is not None and dtype != np.uint8:
        if len(shape) != 2 or dtype.kind not in "fiu" or shape[1] not in drawer.widths:
            widths = " or ".join(map(str, drawer.widths))
            raise ArgumentError(
                f"{name} must hold states (N, {widths}) of {drawer.task_name}, got {shape} {dtype} "
                f"in {path}."
            )
        return
    if drawer is not None:
        raise ArgumentError(
            f"{name} must hold states where a task is given, got frames in {path}. Leave out "
            "--task; its prompts can be given by --goal and --baseline."
        )
    if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3:
        raise ArgumentError(
            f"{name} must hold frames (N, H, W, 3) uint8, or states together with --task, got "
            f"{shape} {dtype} in {path}."
        )


def _episode_ends(path: Path, arrays: Any, names: list[str], count: int) -> np.ndarray:
    """Return where the episodes end; a last one without an end ends with the file."""
    if "episode_ends" in names:
        ends = np.asarray(arrays["episode_ends"])
        valid = ends.ndim == 1 and len(ends) and ends.dtype.kind in "iu" and ends[-1] == count
        if not valid or (np.diff(ends.astype(np.int64), prepend=0) < 0).any():
            raise ArgumentError(
                f"episode_ends must rise up to the number of rows, {count}, got "
                f"{np.array2string(ends, threshold=8)} in {path}."
            )
        return ends.astype(np.int64)
    last = np.zeros(count, bool)
    for name in _DONE:
        if name in names:
            flags = np.asarray(arrays[name]).reshape(-1)
            if len(flags) != count:
                raise ArgumentError(
                    f"{name} must hold a flag a row, {count}, got {len(flags)} in {path}."
                )
            last |= flags.astype(bool)
    if count:
        last[-1] = True
    return np.flatnonzero(last).astype(np.int64) + 1
