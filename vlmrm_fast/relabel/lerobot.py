"""LeRobot datasets: parquet files beside one video an episode (v2) or one of many episodes (v3).

Source: the layouts that lerobot's `LeRobotDatasetMetadata` reads: `meta/info.json` with path
templates; v2.0 and v2.1 list episodes in `meta/episodes.jsonl`, v3.0 in `meta/episodes/*/*.parquet`
with the part of each video file that is an episode's.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.relabel.source import BrokenEpisodeError, Clock, Source, chunk_frames, require
from vlmrm_fast.relabel.tables import TableRows
from vlmrm_fast.relabel.videos import VideoFile


def is_lerobot(folder: Path) -> bool:
    """Return whether a folder is laid out as a LeRobot dataset.

    Args:
        folder: an existing folder.

    Returns:
        True where `meta/info.json` is there.
    """
    return (folder / "meta" / "info.json").is_file()


class LeRobot(Source):
    """A LeRobot dataset of one camera."""

    kind = "lerobot"

    def __init__(self, folder: Path, key: str | None = None) -> None:
        """Read the metadata; no video is opened.

        Args:
            folder: of the dataset.
            key: the camera, such as "observation.images.top"; None for the only one.

        Raises:
            ArgumentError: the metadata cannot be read, or the camera is not there.
        """
        self._folder = self.root = folder
        try:
            info = json.loads((folder / "meta" / "info.json").read_text(encoding="utf-8"))
            self._info = dict(info)
            self._version = str(info["codebase_version"])
            self._key = _camera(folder, info["features"], key)
            self._stored = info["features"][self._key]["dtype"]
            self._fps = float(info["fps"])
            rows = _episodes(folder, self._version)
            self.episodes: list[Mapping[str, Any]] = sorted(
                rows, key=lambda row: int(row["episode_index"])
            )
            self.lengths = [int(row["length"]) for row in self.episodes]
        except ArgumentError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArgumentError(
                f"source must be a LeRobot dataset of version 2 or 3, got {folder}: "
                f"{type(error).__name__}: {error}."
            ) from error
        if not self.episodes:
            raise ArgumentError(f"source must hold at least one episode, got none in {folder}.")
        self.names = [f"episode_{int(row['episode_index']):06d}" for row in self.episodes]
        self.facts = {"key": self._key, "version": self._version, "fps": str(self._fps)}
        self._video: VideoFile | None = None
        self._table: TableRows | None = None

    def read(self, episode: int, start: int, clock: Clock) -> Iterator[np.ndarray]:
        """As `Source.read`; an episode with fewer frames than its length counts as broken."""
        del clock
        row, wanted = self.episodes[episode], (self.lengths[episode] or 0)
        found = start
        pictures = self._frames(row, start) if self._stored == "video" else self._images(row, start)
        for frames in pictures:
            found += len(frames)
            yield frames
        if found < wanted:
            raise BrokenEpisodeError(
                f"episode must hold {wanted} frames of {self._key}, got {found} in "
                f"{self._path(row)}."
            )

    def files(self, episode: int) -> list[Path]:
        """As `Source.files`; pictures that a table names by their paths are left out."""
        return [self._path(self.episodes[episode])]

    def _path(self, row: Mapping[str, Any]) -> Path:
        """Return the file that holds an episode's frames."""
        index = int(row["episode_index"])
        chunk = index // int(self._info.get("chunks_size", 1000))
        names = {"video_key": self._key, "episode_index": index, "episode_chunk": chunk}
        template = "video_path" if self._stored == "video" else "data_path"
        prefix = f"videos/{self._key}" if self._stored == "video" else "data"
        for name in ("chunk_index", "file_index"):
            names[name] = int(row.get(f"{prefix}/{name}", 0))
        path = self._folder / str(self._info[template]).format(**names)
        if not path.resolve().is_relative_to(self._folder.resolve()):
            raise ArgumentError(f"{template} must stay inside the dataset, got {path}.")
        return path

    def _frames(self, row: Mapping[str, Any], start: int) -> Iterator[np.ndarray]:
        """Yield frames of a video from the episode's part of it."""
        path = self._path(row)
        begin = row.get(f"videos/{self._key}/from_timestamp")
        if self._video is None or self._video.path != path or begin is None:
            self.close()
            self._video = VideoFile(path)
        if begin is None:
            # A file of its own, whose clock need not start at 0.
            self._video.skip(start)
        else:
            self._video.seek(float(begin) + start / self._fps, 1 / self._fps)
        yield from self._video.pictures(int(row["length"]) - start)

    def _images(self, row: Mapping[str, Any], start: int) -> Iterator[np.ndarray]:
        """Yield frames that are stored as pictures in the parquet files."""
        frames: list[np.ndarray] = []
        try:
            for cell in self._open_table(self._path(row)).cells(int(row["episode_index"]), start):
                frames.append(_picture(self._folder, cell))
                if len(frames) == chunk_frames(frames[0].shape):
                    yield np.stack(frames)
                    frames = []
        except (OSError, ValueError, IndexError) as error:
            if frames:
                yield np.stack(frames)
            raise BrokenEpisodeError(
                f"pictures must be readable, got {self._path(row)}: {error}."
            ) from error
        if frames:
            yield np.stack(frames)

    def _open_table(self, path: Path) -> TableRows:
        """Return the table, open since the last episode where that one lies in it too."""
        if self._table is None or self._table.path != path:
            self.close()
            self._table = TableRows(path, self._key)
        return self._table

    def close(self) -> None:
        """As `Source.close`."""
        if self._table is not None:
            self._table.close()
            self._table = None
        if self._video is not None:
            self._video.close()
            self._video = None


def _camera(folder: Path, features: Mapping[str, Any], key: str | None) -> str:
    """Return the name of the camera to read."""
    cameras = sorted(
        name for name, feature in features.items() if feature.get("dtype") in {"image", "video"}
    )
    if not cameras:
        raise ArgumentError(f"source must have a camera, got none in {folder}.")
    if key is None and len(cameras) > 1:
        raise ArgumentError(
            f"key must name one of the cameras {', '.join(cameras)}, got none. Add --key "
            f"{cameras[0]}."
        )
    if key is not None and key not in cameras:
        raise ArgumentError(f"key must be one of {', '.join(cameras)}, got {key!r}.")
    return key or cameras[0]


def _episodes(folder: Path, version: str) -> list[dict[str, Any]]:
    """Return the rows of the episode table."""
    if version.startswith("v2"):
        text = (folder / "meta" / "episodes.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    if not version.startswith("v3"):
        raise ArgumentError(
            f"source must be a LeRobot dataset of version v2.0, v2.1 or v3.0, got {version} in "
            f"{folder}."
        )
    parquet = require("pyarrow.parquet", "LeRobot's parquet files")
    rows: list[dict[str, Any]] = []
    for path in sorted((folder / "meta" / "episodes").glob("*/*.parquet")):
        names = [n for n in parquet.read_schema(path).names if not n.startswith("stats/")]
        rows += parquet.read_table(path, columns=names).to_pylist()
    return rows


def _picture(folder: Path, cell: Any) -> np.ndarray:
    """Return (H, W, 3) uint8 of a stored picture: its bytes, or a path inside the dataset."""
    from PIL import Image

    raw = cell.get("bytes") if isinstance(cell, dict) else cell
    if raw is None:
        path = (folder / str(cell["path"])).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise ValueError(f"the path {path} leads out of the dataset")
        raw = path.read_bytes()
    try:
        with Image.open(io.BytesIO(raw)) as picture:
            return np.array(picture.convert("RGB"))
    except (SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error
