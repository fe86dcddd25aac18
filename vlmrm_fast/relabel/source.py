"""What relabelling reads: episodes in a fixed order, each a stream of frames."""

from __future__ import annotations

import abc
import contextlib
import importlib
import math
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vlmrm_fast.errors import ArgumentError

if TYPE_CHECKING:
    from vlmrm_fast.relabel.drawing import TaskDrawer

# A chunk is what is decoded or drawn in one go. 64 frames keep the overhead of a chunk below a
# thousandth; large frames come in smaller chunks, so that half a dozen of them stay small.
CHUNK_FRAMES = 64
CHUNK_BYTES = 32 * 2**20


class BrokenEpisodeError(ArgumentError):
    """An episode's frames end or fail before its end; those before were read."""


@dataclass
class Clock:
    """Seconds of wall time by activity; each is written by one thread only.

    Attributes:
        read: in `Source.read`, drawing included.
        draw: drawing states.
        encode: handing frames to the model and waiting for its rewards.
        waited: for frames, while the model had nothing to do.
    """

    read: float = 0.0
    draw: float = 0.0
    encode: float = 0.0
    waited: float = 0.0

    @contextlib.contextmanager
    def time(self, what: str) -> Iterator[None]:
        """Add the time spent in a `with` block.

        Args:
            what: the attribute to add to.

        Yields:
            Nothing.
        """
        start = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, what, getattr(self, what) + time.perf_counter() - start)


class Source(abc.ABC):
    """Stored episodes. `read` runs in one thread; everything else is fixed when it is opened.

    Attributes:
        kind: "array", "video", "lerobot" or "minari".
        root: the folder that holds the files.
        names: E names, one an episode.
        lengths: E numbers of frames, None where only reading tells.
        facts: further things that must be the same when a run is resumed.
        drawer: what draws states, or None where frames are stored.
    """

    kind: str
    root: Path
    names: list[str]
    lengths: list[int | None]
    facts: dict[str, str]
    drawer: TaskDrawer | None = None

    @abc.abstractmethod
    def read(self, episode: int, start: int, clock: Clock) -> Iterator[np.ndarray]:
        """Yield the frames of an episode from number `start` on.

        Args:
            episode: its index.
            start: the first frame to yield.
            clock: where drawing adds its time.

        Yields:
            (n, H, W, 3) uint8, n >= 1.

        Raises:
            BrokenEpisodeError: the episode ends early, after all its good frames were yielded.
        """

    @abc.abstractmethod
    def files(self, episode: int) -> list[Path]:
        """Return the files with an episode's frames or states.

        Args:
            episode: its index.

        Returns:
            Paths below `root`; a file may hold several episodes.
        """

    def close(self) -> None:
        """Release files and renderers."""
        if self.drawer is not None:
            self.drawer.close()


def identity(source: Source) -> dict[str, str]:
    """Return what tells a source from another one, but for the content of its files.

    Args:
        source: an open source.

    Returns:
        Kind, number of episodes, a checksum of names and lengths, and the source's own facts.
    """
    listed = repr(list(zip(source.names, source.lengths, strict=True))).encode()
    return {
        "kind": source.kind,
        "episodes": str(len(source.names)),
        "names": f"{zlib.crc32(listed):08x}",
        **source.facts,
    }


def chunk_frames(shape: Sequence[int]) -> int:
    """Return how many frames make a chunk.

    Args:
        shape: of one frame or state row.

    Returns:
        1 to `CHUNK_FRAMES`.
    """
    # Asked for each frame, where numpy's functions would cost as much as decoding a small one.
    return min(max(CHUNK_BYTES // max(math.prod(shape), 1), 1), CHUNK_FRAMES)


def listed(folder: Path, endings: Sequence[str]) -> list[Path]:
    """Return the files of a folder with one of these endings, sorted by name; hidden ones not.

    Args:
        folder: an existing folder.
        endings: lower case, with the dot.

    Returns:
        The paths.
    """
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in endings and file.is_file() and not file.name.startswith(".")
    )


def require(module: str, what: str) -> Any:
    """Import an optional package.

    Args:
        module: its name.
        what: what needs it, for the text.

    Returns:
        The module.

    Raises:
        ArgumentError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ArgumentError(
            f"{what} must be read with {module.split('.')[0]}, got: {error}. "
            "Run: pip install 'vlmrm-fast[datasets]'"
        ) from error
