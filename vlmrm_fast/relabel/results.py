"""What relabelling leaves in its folder.

    rewards.npz        rewards (F, P) float32, episode_starts (E + 1,) int64, episodes (E,) str,
                       goals (P,) str; episode e is rows episode_starts[e] to episode_starts[e + 1]
    episodes.csv       one line an episode: name, start, frames, kept, mean reward a goal, fault
    relabel.json       what ran: source, model and its checksum, prompts, versions, rates
    rewards.parquet    of LeRobot datasets: episode_index, frame_index, index and the rewards

Every file is written under another name first, so one that is there is whole.
"""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlmrm_fast.errors import ArgumentError, CheckpointError
from vlmrm_fast.relabel.journal import Ended, Journal
from vlmrm_fast.relabel.source import Source, require

# Rows copied at once where rewards go from one file to another.
_ROWS = 2**16


@dataclass(frozen=True)
class Relabelled:
    """Results in memory.

    Attributes:
        folder: where they lie.
        rewards: (F, P) float32, NaN for frames without one.
        episode_starts: (E + 1,) int64.
        episodes: E names.
        goals: P goals.
        faults: what is broken, by name of the episode.
        report: the content of relabel.json.
    """

    folder: Path
    rewards: np.ndarray
    episode_starts: np.ndarray
    episodes: tuple[str, ...]
    goals: tuple[str, ...]
    faults: dict[str, str]
    report: dict[str, Any]

    def episode(self, index: int) -> np.ndarray:
        """Return the rewards of one episode.

        Args:
            index: 0 to E - 1.

        Returns:
            (T, P) float32.
        """
        return self.rewards[self.episode_starts[index] : self.episode_starts[index + 1]]


def load_results(folder: str | Path) -> Relabelled:
    """Read what relabelling left.

    Args:
        folder: its `out`.

    Returns:
        Rewards and report.

    Raises:
        ArgumentError: the folder holds no results.
    """
    folder = Path(folder).expanduser()
    try:
        report = json.loads((folder / "relabel.json").read_text(encoding="utf-8"))
        with np.load(folder / "rewards.npz", allow_pickle=False) as arrays:
            return Relabelled(
                folder,
                arrays["rewards"],
                arrays["episode_starts"],
                tuple(arrays["episodes"].tolist()),
                tuple(arrays["goals"].tolist()),
                dict(report["faults"]),
                report,
            )
    except (OSError, ValueError, KeyError) as error:
        raise ArgumentError(
            f"folder must hold the results of relabelling, got {folder}: {error}."
        ) from error


@dataclass(frozen=True)
class Layout:
    """Which rows of the results an episode has.

    Attributes:
        ended: the episodes, in order; the last one may still be under way.
        lengths: rows of each in the results: those of the source where it knows them.
    """

    ended: tuple[Ended, ...]
    lengths: tuple[int, ...]

    @property
    def starts(self) -> np.ndarray:
        """(E + 1,) int64 first rows."""
        return np.cumsum([0, *self.lengths], dtype=np.int64)

    def parts(self, rewards: np.ndarray) -> Iterator[np.ndarray]:
        """Yield rows for the results, NaN where an episode's frames have no rewards.

        Args:
            rewards: (rows, P) of the journal.

        Yields:
            (n, P) float32.
        """
        start = 0
        for ended, length in zip(self.ended, self.lengths, strict=True):
            for at in range(start, start + ended.num_frames, _ROWS):
                yield np.asarray(rewards[at : min(at + _ROWS, start + ended.num_frames)])
            if length > ended.num_frames:
                yield np.full((length - ended.num_frames, rewards.shape[1]), np.nan, np.float32)
            start += ended.num_frames


def make_layout(journal: Journal, source: Source) -> Layout:
    """Return the rows of all episodes that were read, the unfinished one included.

    Args:
        journal: committed.
        source: the episodes.

    Returns:
        The layout.
    """
    now = journal.progress
    ended = list(now.ended)
    if now.frame:
        ended.append(Ended(now.episode, now.frame, "not finished"))
    lengths = []
    for one in ended:
        known = source.lengths[one.episode]
        lengths.append(one.num_frames if known is None else max(known, one.num_frames))
    return Layout(tuple(ended), tuple(lengths))


def write_results(
    folder: Path,
    journal: Journal,
    source: Source,
    goals: Sequence[str],
    report: Mapping[str, Any],
) -> list[Path]:
    """Write all files of the results.

    Args:
        folder: where to.
        journal: committed.
        source: the episodes.
        goals: P goals.
        report: the content of relabel.json but for the faults.

    Returns:
        The files.

    Raises:
        CheckpointError: they cannot be written.
    """
    layout, rewards = make_layout(journal, source), journal.rewards()
    names = [source.names[one.episode] for one in layout.ended]
    faults = {n: one.fault for n, one in zip(names, layout.ended, strict=True) if one.fault}
    try:
        files = [_write_npz(folder / "rewards.npz", layout, rewards, names, goals)]
        files.append(_write_csv(folder / "episodes.csv", layout, rewards, names, goals))
        if source.kind == "lerobot":
            files.append(_write_parquet(folder / "rewards.parquet", layout, rewards, source, goals))
        path = folder / "relabel.json"
        text = json.dumps({**report, "faults": faults}, indent=2) + "\n"
        _whole(path).write_text(text, encoding="utf-8")
        _whole(path).replace(path)
        return [*files, path]
    except OSError as error:
        raise CheckpointError(
            f"results must be written to {folder}, got: {error}. The rewards are safe in its "
            "journal; free some disk space, then use --resume."
        ) from error


def _whole(path: Path) -> Path:
    """Return the name under which a file is written before it is whole."""
    return path.with_name(f".part-{path.name}")


def _write_npz(
    path: Path, layout: Layout, rewards: np.ndarray, names: list[str], goals: Sequence[str]
) -> Path:
    """Write arrays as numpy.savez does, the rewards a piece at a time."""
    starts = layout.starts
    with zipfile.ZipFile(_whole(path), "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        with archive.open("rewards.npy", "w", force_zip64=True) as file:
            shape = (int(starts[-1]), len(goals))
            np.lib.format.write_array_header_1_0(
                file, {"descr": "<f4", "fortran_order": False, "shape": shape}
            )
            for part in layout.parts(rewards):
                file.write(np.ascontiguousarray(part, "<f4").tobytes())
        small = {
            "episode_starts": starts,
            "episodes": np.array(names, dtype=np.str_),
            "goals": np.array(goals, dtype=np.str_),
        }
        for name, array in small.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    _whole(path).replace(path)
    return path


def _write_csv(
    path: Path, layout: Layout, rewards: np.ndarray, names: list[str], goals: Sequence[str]
) -> Path:
    with _whole(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["episode", "start", "frames", "kept", *goals, "fault"])
        row = 0
        for index, one in enumerate(layout.ended):
            part = rewards[row : row + one.num_frames]
            row += one.num_frames
            means = part.mean(axis=0, dtype=np.float64) if len(part) else [np.nan] * len(goals)
            place = [int(layout.starts[index]), layout.lengths[index], one.num_frames]
            writer.writerow([names[index], *place, *(f"{mean:.6g}" for mean in means), one.fault])
    _whole(path).replace(path)
    return path


def _write_parquet(
    path: Path, layout: Layout, rewards: np.ndarray, source: Any, goals: Sequence[str]
) -> Path:
    """Write a row a frame, with the columns by which LeRobot's own tables can be joined."""
    arrow, parquet = require("pyarrow", "rewards"), require("pyarrow.parquet", "rewards")
    columns = ["reward"] if len(goals) == 1 else [f"reward_{i}" for i in range(len(goals))]
    fields = [(name, arrow.int64()) for name in ("episode_index", "frame_index", "index")]
    schema = arrow.schema([*fields, *((name, arrow.float32()) for name in columns)])
    schema = schema.with_metadata({"goals": json.dumps(list(goals))})
    first = _first_indices(source)
    row = 0
    with parquet.ParquetWriter(_whole(path), schema) as writer:
        for one, length in zip(layout.ended, layout.lengths, strict=True):
            table = np.full((length, len(goals)), np.nan, np.float32)
            table[: one.num_frames] = rewards[row : row + one.num_frames]
            row += one.num_frames
            frames = np.arange(length)
            episode = int(source.episodes[one.episode]["episode_index"])
            arrays = [np.full(length, episode), frames, first[one.episode] + frames, *table.T]
            arrays = [arrow.array(np.ascontiguousarray(array)) for array in arrays]
            writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))
    _whole(path).replace(path)
    return path


def _first_indices(source: Any) -> list[int]:
    """Return the dataset's row number of each episode's first frame."""
    starts = np.cumsum([0, *source.lengths]).tolist()
    return [
        int(row.get("dataset_from_index", start))
        for row, start in zip(source.episodes, starts, strict=False)
    ]
