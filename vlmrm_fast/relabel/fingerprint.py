"""Whether the files behind rewards are still the ones that the rewards were computed from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.relabel.source import Source

# At most 4 MiB of a file are read, two milliseconds: decoding as much video takes fifty times that.
_BLOCK, _BLOCKS = 2**16, 64


def fingerprint(path: Path) -> str:
    """Return the size of a file and a digest of its content.

    Up to 4 MiB all bytes count; of a larger file 64 blocks of 64 KiB do, evenly spread, its first
    and last ones among them.

    Args:
        path: the file.

    Returns:
        "SIZE-DIGEST", or "missing".
    """
    digest = hashlib.blake2b(digest_size=8)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            # Of a small file the blocks would overlap, so they follow each other.
            last = max(size, _BLOCK * _BLOCKS) - _BLOCK
            for start in np.linspace(0, last, _BLOCKS, dtype=np.int64).tolist():
                file.seek(start)
                digest.update(file.read(_BLOCK))
    except OSError:
        return "missing"
    return f"{size}-{digest.hexdigest()}"


def fingerprints(source: Source) -> dict[str, str]:
    """Return the fingerprints of all files with frames or states.

    Args:
        source: an open source.

    Returns:
        By path relative to the source's root.
    """
    paths = {path for episode in range(len(source.names)) for path in source.files(episode)}
    return {_name(source, path): fingerprint(path) for path in sorted(paths)}


def _name(source: Source, path: Path) -> str:
    return os.path.relpath(path, source.root)


def restart(
    source: Source, was: Mapping[str, str], now: Mapping[str, str], place: tuple[int, int]
) -> int | None:
    """Return the episode to go back to since its file changed.

    Args:
        source: an open source.
        was: fingerprints of the files that the rewards so far are from.
        now: fingerprints of the files as they are.
        place: the episode and the frame to read next.

    Returns:
        The first episode of the changed file that is read at `place`; None where only files
        changed of which nothing was read.

    Raises:
        ArgumentError: a file changed all episodes of which have their rewards.
    """
    changed = {name for name in {*was, *now} if was.get(name) != now.get(name)}
    if not changed:
        return None
    episode, frame = place
    where: dict[str, list[int]] = {}
    for index in range(len(source.names)):
        for path in source.files(index):
            where.setdefault(_name(source, path), []).append(index)
    read = episode + (frame > 0)
    touched = {name for name in changed if min(where.get(name, [-1])) < read}
    done = sorted(name for name in touched if max(where.get(name, [-1])) < episode)
    if done:
        raise ArgumentError(
            f"resume must continue with the same data, got {done[0]} of {source.root} changed "
            "after its rewards were computed. Put the old file back, or use another --out."
        )
    return min((where[name][0] for name in touched), default=None)
