"""Minari datasets: stored pictures, or observations that a task draws.

The reward of a step is that of the state it leads to: observation t + 1 for step t, so an episode
of T steps and T + 1 observations gets T rewards.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.relabel.drawing import TaskDrawer
from vlmrm_fast.relabel.observations import make_positions, task_of
from vlmrm_fast.relabel.source import BrokenEpisodeError, Clock, Source, chunk_frames, require

MAIN_FILE = "main_data.hdf5"


def minari_folder(source: str) -> Path | None:
    """Return the folder with a Minari dataset's files, or None where it is none.

    Args:
        source: its folder (with or without `data`), or the id of one in the local cache.

    Returns:
        The folder of `metadata.json`.
    """
    path = Path(source).expanduser()
    root = os.environ.get("MINARI_DATASETS_PATH")
    cache = Path(root) if root else Path.home() / ".minari" / "datasets"
    for folder in (path, path / "data", cache / source / "data"):
        if (folder / "metadata.json").is_file():
            return folder
    return None


class Minari(Source):
    """A Minari dataset in one kind of storage: HDF5 by slices, Arrow by whole episodes."""

    kind = "minari"

    def __init__(
        self,
        folder: Path,
        drawer: TaskDrawer | None = None,
        key: str | None = None,
        textures: str | None = None,
    ) -> None:
        """Read the metadata and the episodes' lengths.

        Args:
            folder: with `metadata.json`.
            drawer: draws the observations; None: pictures are stored, or the environment is a
                task's.
            key: the observation to read of several, such as "pixels" or "camera/front".
            textures: the look to draw where the environment names the task.

        Raises:
            ArgumentError: the dataset cannot be read, or neither pictures nor a task are there.
        """
        minari = require("minari", "a Minari dataset")
        self.folder = self.root = folder
        try:
            self.dataset: Any = minari.MinariDataset(folder)
            self.metadata: dict[str, Any] = self.dataset.storage.metadata
            self.indices = [int(index) for index in self.dataset.episode_indices]
            table = self.dataset.storage.get_episode_metadata(self.indices)
            self.lengths = [int(row["total_steps"]) for row in table]
        except (OSError, ValueError, KeyError, AssertionError, ImportError) as error:
            raise ArgumentError(
                f"source must be a readable Minari dataset, got {folder}: {error}."
            ) from error
        if not self.indices:
            raise ArgumentError(f"source must hold at least one episode, got none in {folder}.")
        self.names = [f"episode_{index}" for index in self.indices]
        self._hdf5 = (folder / MAIN_FILE).is_file()
        self._file: Any = None
        self._step = 8  # pictures read at once until their size is known
        self.drawer = drawer
        self._choose(key, textures)
        self.facts = {"dataset": str(self.dataset.id), "key": self._key}
        if self.drawer is not None:
            self.facts |= self.drawer.facts

    def _choose(self, key: str | None, textures: str | None) -> None:
        """Decide what to read: a picture observation, or states and the task that draws them."""
        leaves = _leaves(self.dataset.observation_space)
        pictures = sorted(name for name, space in leaves.items() if _is_picture(space))
        if key is not None and key not in leaves:
            names = ", ".join(sorted(leaves)) or "none"
            raise ArgumentError(f"key must be one of the observations {names}, got {key!r}.")
        wanted = [key] if key is not None else pictures
        if self.drawer is None and wanted and all(name in pictures for name in wanted):
            if len(wanted) > 1:
                raise ArgumentError(
                    f"key must name one of the pictures {', '.join(wanted)}, got none. Add --key "
                    f"{wanted[0]}."
                )
            self._key = wanted[0]
            return
        spec = self.dataset.env_spec
        env_id = "" if spec is None else str(spec.id)
        name = task_of(env_id)
        if self.drawer is None and name is None:
            raise ArgumentError(
                "source must hold pictures, or be of an environment that a task draws, got "
                f"{env_id or 'no environment'} with {', '.join(sorted(leaves))}. Add --task NAME "
                "of a task with the same model."
            )
        self.drawer = self.drawer or TaskDrawer(str(name), textures)
        vectors = [n for n, space in leaves.items() if len(getattr(space, "shape", ())) == 1]
        self._key = key or ("observation" if "observation" in vectors else (vectors or [""])[0])
        if self._key not in vectors:
            raise ArgumentError(f"source must hold vectors of numbers to draw, got {leaves}.")
        width = int(leaves[self._key].shape[0])
        kwargs = {} if spec is None else dict(spec.kwargs)
        self._positions = make_positions(self.drawer, width, kwargs)

    def read(self, episode: int, start: int, clock: Clock) -> Iterator[np.ndarray]:
        """As `Source.read`; frame t is observation t + 1."""
        index, count = self.indices[episode], self.lengths[episode] or 0
        try:
            rows, infos = self._rows(index)
            if len(rows) != count + 1:
                raise BrokenEpisodeError(
                    f"episode must hold {count + 1} observations for its {count} steps, got "
                    f"{len(rows)} in episode {index} of {self.folder}."
                )
            if self.drawer is not None:
                states = _States(rows, infos, self._positions)
                where = (1, 1 + start, 1 + count)
                yield from self.drawer.draw_rows(states, where, clock)
                return
            at = 1 + start
            while at <= count:
                frames = _pictures(rows[at : min(at + self._step, count + 1)])
                at += len(frames)
                yield frames
                self._step = chunk_frames(frames.shape[1:])
        except (OSError, KeyError, ValueError) as error:
            if isinstance(error, ArgumentError):
                raise
            raise BrokenEpisodeError(
                f"episode must be readable, got episode {index} of {self.folder}: {error}."
            ) from error

    def files(self, episode: int) -> list[Path]:
        """As `Source.files`: one HDF5 file of all episodes, or a folder an episode."""
        if self._hdf5:
            return [self.folder / MAIN_FILE]
        folder = self.folder / str(self.indices[episode])
        return sorted(path for path in folder.rglob("*") if path.is_file())

    def _rows(self, index: int) -> tuple[Any, Mapping[str, Any]]:
        """Return the observations of an episode, sliceable, and its infos."""
        parts = [part for part in self._key.split("/") if part]
        if not self._hdf5:
            found = next(iter(self.dataset.storage.get_episodes([index])))
            rows, infos = found["observations"], found.get("infos") or {}
            for part in parts:
                rows = rows[part]
            return rows, infos
        if self._file is None:
            h5py = require("h5py", "a Minari dataset")
            self._file = h5py.File(self.folder / MAIN_FILE, "r")
        group = self._file[f"episode_{index}"]
        return group["/".join(["observations", *parts])], group.get("infos", {})

    def close(self) -> None:
        """As `Source.close`."""
        if self._file is not None:
            self._file.close()
            self._file = None
        super().close()


class _States:
    """Observations of an episode as positions."""

    def __init__(self, rows: Any, infos: Mapping[str, Any], positions: Any) -> None:
        self._rows, self._infos, self._positions = rows, infos, positions

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return (n, nq) float64."""
        states: np.ndarray = self._positions(np.asarray(self._rows[rows]), self._infos, rows)
        return states


def _leaves(space: Any, prefix: str = "") -> dict[str, Any]:
    """Return the spaces inside a dictionary space by path; a lone space has the path ""."""
    inner = getattr(space, "spaces", None)
    if not isinstance(inner, Mapping):
        return {prefix: space}
    leaves: dict[str, Any] = {}
    for name, part in inner.items():
        leaves |= _leaves(part, f"{prefix}/{name}" if prefix else name)
    return leaves


def _is_picture(space: Any) -> bool:
    """Return whether a space is of RGB or grey pictures, channels first or last."""
    shape: tuple[int, ...] = getattr(space, "shape", None) or ()
    if getattr(space, "dtype", None) != np.uint8:
        return False
    return len(shape) == 2 or (len(shape) == 3 and (shape[2] in {1, 3} or shape[0] in {1, 3}))


def _pictures(rows: Any) -> np.ndarray:
    """Return (n, H, W, 3) uint8 of stored pictures, JPEG files among them."""
    frames: Any = rows
    if rows.dtype == object or rows.ndim == 2:
        from PIL import Image

        frames = np.stack([np.array(Image.open(io.BytesIO(bytes(row)))) for row in rows])
    if frames.ndim == 3:
        frames = frames[..., None]
    if frames.shape[3] not in {1, 3}:
        frames = frames.transpose(0, 2, 3, 1)
    if frames.shape[3] == 1:
        frames = frames.repeat(3, axis=3)
    return np.ascontiguousarray(frames)
