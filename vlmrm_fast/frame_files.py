"""Frames from files: arrays, pictures, folders of pictures and videos, a chunk at a time."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vlmrm_fast.errors import ArgumentError

PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")

# Frames held at once: 64 of 1080p are 400 MB.
_CHUNK = 64

Chunks = Iterator[tuple[list[str], np.ndarray]]


def frame_chunks(source: str) -> Chunks:
    """Return the frames of a file or folder as an iterator; the source is checked at once.

    Args:
        source: a .npy or .npz file of (B, H, W, 3) or (H, W, 3) uint8, a picture, a folder of
            pictures (sorted by name, sizes may differ) or a video.

    Returns:
        An iterator of labels and frames (n, H, W, 3) uint8, n <= 64, equal sizes in a chunk.

    Raises:
        ArgumentError: the source does not exist, holds no frames or cannot be read. Pictures and
            videos that turn out broken later raise it while iterating.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURES)
        if not files:
            kinds = ", ".join(PICTURES)
            raise ArgumentError(f"source must be a folder with pictures ({kinds}), got {source!r}.")
        return _pictures(files)
    if not path.is_file():
        raise ArgumentError(f"source must be an existing file or folder, got {source!r}.")
    if path.suffix.lower() in {".npy", ".npz"}:
        return _array_chunks(_load_array(path))
    if path.suffix.lower() in PICTURES:
        return _pictures([path])
    return _video(path, _open_video(path))


def _load_array(path: Path) -> np.ndarray:
    """Return (B, H, W, 3) uint8 frames of a NumPy file; .npy files stay on disk."""
    try:
        loaded: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        if path.suffix.lower() == ".npz":
            names = loaded.files
            if "frames" not in names and len(names) != 1:
                listed = ", ".join(sorted(names)) or "none"
                raise ArgumentError(f'source must hold an array "frames", got {listed} in {path}.')
            loaded = loaded["frames" if "frames" in names else names[0]]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentError(
            f"source must be a NumPy file of frames, got {path}: {error}"
        ) from error
    frames = loaded[None] if loaded.ndim == 3 else loaded
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        raise ArgumentError(
            f"source must hold frames (B, H, W, 3) uint8, got {loaded.shape} {loaded.dtype} "
            f"in {path}."
        )
    return frames


def _array_chunks(frames: np.ndarray) -> Chunks:
    for start in range(0, len(frames), _CHUNK):
        chunk = frames[start : start + _CHUNK]
        yield [str(start + index) for index in range(len(chunk))], np.array(chunk)


def _pictures(files: list[Path]) -> Chunks:
    names: list[str] = []
    pictures: list[np.ndarray] = []
    for file in files:
        picture = _read_picture(file)
        if pictures and (len(pictures) == _CHUNK or picture.shape != pictures[0].shape):
            yield names, np.stack(pictures)
            names, pictures = [], []
        names.append(file.name)
        pictures.append(picture)
    yield names, np.stack(pictures)


def _read_picture(file: Path) -> np.ndarray:
    """Return (H, W, 3) uint8; transparency is dropped."""
    from PIL import Image

    try:
        with Image.open(file) as picture:
            return np.array(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ArgumentError(f"source must be a readable picture, got {file}: {error}.") from error


def _open_video(path: Path) -> Any:
    """Return an open PyAV container with at least one video stream."""
    import av

    try:
        container = av.open(str(path))
    except (OSError, av.FFmpegError) as error:
        kinds = ", ".join((".npy", ".npz", *PICTURES))
        raise ArgumentError(
            f"source must be a video or one of {kinds}, got {path}: {error}."
        ) from error
    if not container.streams.video:
        container.close()
        raise ArgumentError(f"source must be a video with pictures in it, got {path} without.")
    return container


def _video(path: Path, container: Any) -> Chunks:
    import av

    frames: list[np.ndarray] = []
    start = 0
    with container:
        try:
            for frame in container.decode(video=0):
                frames.append(frame.to_ndarray(format="rgb24"))
                if len(frames) == _CHUNK:
                    yield [str(start + index) for index in range(_CHUNK)], np.stack(frames)
                    start, frames = start + _CHUNK, []
        except (OSError, av.FFmpegError) as error:
            raise ArgumentError(
                f"source must be a whole video, got {path} broken after frame "
                f"{start + len(frames)}: {error}."
            ) from error
    if not start and not frames:
        raise ArgumentError(f"source must hold at least one frame, got none in {path}.")
    if frames:
        yield [str(start + index) for index in range(len(frames))], np.stack(frames)
