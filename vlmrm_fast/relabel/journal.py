"""What is done so far, on disk: a run that was killed goes on where its last line says.

Two files in a folder `journal`: `rewards.f32` holds rows of P float32, and each line of
`lines.jsonl` says how many of them count, where reading goes on, and which episodes ended. Rewards
are flushed to the disk before the line that counts them, so a line that can be read is true; a torn
last line, and rewards beyond the last whole one, are dropped.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vlmrm_fast.errors import ArgumentError, CheckpointError

FORMAT_VERSION = 2
# A kill costs at most so much work; a line costs two flushes, a few milliseconds.
COMMIT_SECONDS = 2.0
_SAME = "Give the options of the first call, or another --out."


@dataclass(frozen=True)
class Ended:
    """An episode that was read to its end.

    Attributes:
        episode: its index.
        num_frames: frames of it that have rewards.
        fault: why it ended early, or "".
    """

    episode: int
    num_frames: int
    fault: str = ""


@dataclass(frozen=True)
class Scored:
    """Rewards of the next frames in the order of the source.

    Attributes:
        rewards: (n, P) float32.
        ended: episodes whose last frame is among these or those before.
        episode: where reading goes on.
        frame: and at which of its frames.
    """

    rewards: np.ndarray
    ended: tuple[Ended, ...]
    episode: int
    frame: int


@dataclass
class Progress:
    """Where a journal stands.

    Attributes:
        rows: frames with rewards.
        episode: the episode to read next.
        frame: its frame to read next.
        ended: all episodes that were read to their end, in order.
    """

    rows: int = 0
    episode: int = 0
    frame: int = 0
    ended: list[Ended] = field(default_factory=list)


class Journal:
    """Open files of a journal; one process writes at a time."""

    def __init__(self, folder: Path, width: int) -> None:
        """Name the files; `start` or `resume` opens them.

        Args:
            folder: where the results go.
            width: P, rewards a frame.
        """
        self.folder = folder / "journal"
        self.progress = Progress()
        self.files: dict[str, str] = {}  # fingerprints of the source's files when they were read
        self._width = width
        self._rewards: Any = None
        self._lines: Any = None
        self._waiting: list[np.ndarray] = []
        self._ended: list[Ended] = []
        self._committed = time.monotonic()
        self._checksum = 0

    @property
    def _data(self) -> Path:
        return self.folder / "rewards.f32"

    @property
    def _index(self) -> Path:
        return self.folder / "lines.jsonl"

    def exists(self) -> bool:
        """Return whether an unfinished run left its journal here, with its first line whole."""
        try:
            with self._index.open("rb") as file:
                return file.readline().endswith(b"\n")
        except FileNotFoundError:
            return False

    def start(self, header: Mapping[str, Any], files: Mapping[str, str]) -> None:
        """Begin anew.

        Args:
            header: what a resumed run must agree with; JSON.
            files: fingerprints of the source's files.

        Raises:
            CheckpointError: the files cannot be written.
        """
        try:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            self._rewards, self._lines = self._data.open("wb"), self._index.open("wb")
            self._write_line({"format": FORMAT_VERSION, **header, "files": dict(files)})
        except OSError as error:
            raise self._failed(error) from error

    def resume(self, header: Mapping[str, Any]) -> None:
        """Go on after the last whole line; `files` are then those that `start` got.

        Args:
            header: as `start` got it.

        Raises:
            ArgumentError: it differs from the journal's.
            CheckpointError: the journal is damaged.
        """
        try:
            size, lines = _whole_lines(self._index)
            self.files = lines[0].pop("files", {})
            refuse_other_work(self.folder.parent, lines[0], {"format": FORMAT_VERSION, **header})
            checksum = 0
            with self._data.open("rb") as data:
                for line in lines[1:]:
                    self._replay(line)
                    rows = self.progress.rows - data.tell() // (4 * self._width)
                    checksum = zlib.crc32(data.read(4 * self._width * rows), checksum)
                    if checksum != line["crc"]:
                        raise CheckpointError(
                            f"journal must match its rewards, got other ones in {self._data}. "
                            "Start anew in another folder."
                        )
            self._open(size)
        except (OSError, KeyError, IndexError, TypeError) as error:
            raise self._failed(error) from error
        self._checksum = checksum

    def _open(self, size: int) -> None:
        """Open the files behind so many bytes of lines, and behind the rows that they count."""
        self._rewards, self._lines = self._data.open("r+b"), self._index.open("r+b")
        # What was written after the last whole line is written once more.
        for file, end in ((self._rewards, self.progress.rows * 4 * self._width),
                          (self._lines, size)):  # fmt: skip
            file.truncate(end)
            file.seek(end)

    def rewrite(
        self, header: Mapping[str, Any], files: Mapping[str, str], episode: int | None
    ) -> None:
        """Note that files changed, and drop the rewards from one episode on.

        Args:
            header: as `start` got it.
            files: the new fingerprints.
            episode: the first one to be read again; None to keep all.

        Raises:
            CheckpointError: the files cannot be written.
        """
        now = self.progress
        if episode is not None:
            now.ended = now.ended[:episode]
            now.rows = sum(one.num_frames for one in now.ended)
            now.episode, now.frame = episode, 0
        self._checksum = zlib.crc32(self.rewards().data)
        part = self.folder / "lines.part"
        try:
            self.close()
            with part.open("wb") as self._lines:
                self._write_line({"format": FORMAT_VERSION, **header, "files": dict(files)})
                self._write_line(self._line(now.ended))
            # Before this the old lines hold with the old rewards, after it the new ones do.
            part.replace(self._index)
            self._open(self._index.stat().st_size)
        except OSError as error:
            raise self._failed(error) from error

    def _replay(self, line: dict[str, Any]) -> None:
        now = self.progress
        now.rows, now.episode, now.frame = line["rows"], line["episode"], line["frame"]
        now.ended += [Ended(**ended) for ended in line["ended"]]

    def add(self, scored: Scored) -> None:
        """Take rewards; they are on disk after the next line, at most `COMMIT_SECONDS` later.

        Args:
            scored: the next rewards.

        Raises:
            CheckpointError: the files cannot be written.
        """
        if len(scored.rewards):
            self._waiting.append(np.ascontiguousarray(scored.rewards, np.float32))
        now = self.progress
        now.rows += len(scored.rewards)
        now.episode, now.frame = scored.episode, scored.frame
        now.ended += scored.ended
        self._ended += scored.ended
        if time.monotonic() - self._committed >= COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Write what waits, rewards first, then the line that counts them.

        Raises:
            CheckpointError: the files cannot be written.
        """
        self._committed = time.monotonic()
        if not self._waiting and not self._ended:
            return
        try:
            for rows in self._waiting:
                self._checksum = zlib.crc32(rows.tobytes(), self._checksum)
                self._rewards.write(rows.tobytes())
            _flush(self._rewards)
            self._write_line(self._line(self._ended))
        except OSError as error:
            raise self._failed(error) from error
        self._waiting, self._ended = [], []

    def _line(self, ended: Iterable[Ended]) -> dict[str, Any]:
        now = self.progress
        line = {"rows": now.rows, "episode": now.episode, "frame": now.frame}
        return line | {"ended": [asdict(one) for one in ended], "crc": self._checksum}

    def _write_line(self, line: Mapping[str, Any]) -> None:
        self._lines.write(json.dumps(line).encode() + b"\n")
        _flush(self._lines)

    def rewards(self) -> np.ndarray:
        """Return (F, P) float32 of all that was committed, on disk, not to be changed."""
        rows = self.progress.rows
        if not rows:
            return np.zeros((0, self._width), np.float32)
        return np.memmap(self._data, np.float32, mode="r", shape=(rows, self._width))

    def close(self) -> None:
        """Close the files."""
        for file in (self._rewards, self._lines):
            if file is not None:
                file.close()

    def remove(self) -> None:
        """Close and delete the files, first the one without which there is no journal."""
        self.close()
        self._index.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _failed(self, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"journal must be readable and writeable, got {self.folder}: {error}. What it holds so "
            "far is whole; free some disk space or check the permissions, then use --resume."
        )


def refuse_other_work(
    folder: Path, found: Mapping[str, Any], header: Mapping[str, Any], fix: str = _SAME
) -> None:
    """Compare what a folder holds with what is asked for.

    Args:
        folder: of the results, for the text.
        found: what it was begun with.
        header: what is asked for.
        fix: what to do.

    Raises:
        ArgumentError: they differ.
    """
    # As JSON, since the header's tuples come back as lists.
    header = json.loads(json.dumps(header))
    for name in sorted(found.keys() | header.keys()):
        if found.get(name) != header.get(name):
            raise ArgumentError(
                f"resume must continue the same work, got {name} {header.get(name)!r} where "
                f"{folder} has {found.get(name)!r}. {fix}"
            )


def _whole_lines(path: Path) -> tuple[int, list[dict[str, Any]]]:
    """Return the bytes and the content of a file's lines up to the first torn one."""
    size, lines = 0, list[dict[str, Any]]()
    for raw in path.read_bytes().splitlines(keepends=True):
        try:
            line = json.loads(raw)
        except ValueError:
            break
        if not raw.endswith(b"\n") or not isinstance(line, dict):
            break
        size += len(raw)
        lines.append(line)
    return size, lines


def _flush(file: Any) -> None:
    """Push a file's bytes to the disk."""
    file.flush()
    os.fsync(file.fileno())


def starts(ended: Iterable[Ended]) -> np.ndarray:
    """Return where each episode's rows begin, and where the last one's end.

    Args:
        ended: E episodes in order.

    Returns:
        (E + 1,) int64.
    """
    return np.cumsum([0, *(one.num_frames for one in ended)], dtype=np.int64)
