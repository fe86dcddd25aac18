"""Episodes in video files, decoded in order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.relabel.source import BrokenEpisodeError, Clock, Source, chunk_frames, listed

VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")

# How far before its wanted time a frame may lie and still be the wanted one, in frames.
_SLACK = 0.5
# Decoding so far ahead costs no more than a jump to a key frame and decoding from there.
_NEAR_SECONDS = 2.0


class VideoFile:
    """An open video; frames come in order, and jumps land on the wanted frame exactly."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Args:
            path: the file.

        Raises:
            BrokenEpisodeError: it is missing or no video.
        """
        import av

        self.path = path
        try:
            self._container: Any = av.open(str(path))
        except (OSError, av.FFmpegError) as error:
            raise BrokenEpisodeError(f"video must be readable, got {path}: {error}.") from error
        if not self._container.streams.video:
            self._container.close()
            raise BrokenEpisodeError(f"video must hold pictures, got {path} without.")
        self._stream: Any = self._container.streams.video[0]
        # On few cores frames in flight would compete with the encoder for them.
        self._stream.thread_type = "AUTO" if len(os.sched_getaffinity(0)) > 3 else "SLICE"
        self._frames = self._container.decode(self._stream)
        # One for all frames: a frame's own would be made anew, three times the cost of decoding.
        self._reformatter = av.video.reformatter.VideoReformatter()
        self._pushed: Any = None
        self._time: float | None = None  # of the last frame that was decoded
        self.decoded = 0

    def seek(self, seconds: float, frame_seconds: float) -> None:
        """Make the next frame the first one at or after a time.

        Decodes on where the time is ahead, jumps to the key frame before it where that is not
        near.

        Args:
            seconds: of the wanted frame, from the start of the file's clock.
            frame_seconds: how long a frame stands.

        Raises:
            BrokenEpisodeError: as `__next__`.
        """
        wanted = seconds - _SLACK * frame_seconds
        if self._time is None or not 0 < wanted - self._time < _NEAR_SECONDS:
            tick = max(int(seconds / self._stream.time_base), 0)
            self._container.seek(tick, stream=self._stream, backward=True)
            self._frames, self._pushed = self._container.decode(self._stream), None
        for frame in self._decoded():
            if frame.time is None or frame.time >= wanted:
                self._pushed = frame
                return

    def _decoded(self) -> Iterator[Any]:
        """Yield frames as PyAV gives them, first the one that was put back."""
        import av

        if self._pushed is not None:
            frame, self._pushed = self._pushed, None
            yield frame
        while True:
            try:
                frame = next(self._frames)
            except StopIteration:
                return
            except (OSError, av.FFmpegError) as error:
                raise BrokenEpisodeError(
                    f"video must be whole, got {self.path} broken after frame {self.decoded}: "
                    f"{error.strerror or error}."
                ) from error
            self.decoded += 1
            self._time = frame.time
            yield frame

    def pictures(self, count: int | None = None) -> Iterator[np.ndarray]:
        """Yield the next frames in chunks.

        Args:
            count: how many at most; None for all that are left.

        Yields:
            (n, H, W, 3) uint8.

        Raises:
            BrokenEpisodeError: decoding fails; the frames before it were yielded.
        """
        frames: list[np.ndarray] = []
        left = count
        broken: BrokenEpisodeError | None = None
        while left is None or left > 0:
            try:
                frame = next(self._decoded(), None)
            except BrokenEpisodeError as error:
                broken, frame = error, None
            if frame is None:
                break
            if frame.is_corrupt:
                # The decoder's guess at what is missing must not get a reward.
                broken = BrokenEpisodeError(
                    f"video must be whole, got {self.path} damaged at frame {self.decoded - 1}."
                )
                break
            picture = self._reformatter.reformat(frame, format="rgb24").to_ndarray()
            if frames and picture.shape != frames[0].shape:
                yield np.stack(frames)
                frames = []
            frames.append(picture)
            left = None if left is None else left - 1
            if len(frames) == chunk_frames(picture.shape):
                yield np.stack(frames)
                frames = []
        if frames:
            yield np.stack(frames)
        if broken is not None:
            raise broken

    def skip(self, count: int) -> None:
        """Decode and drop frames.

        Args:
            count: how many at most.

        Raises:
            BrokenEpisodeError: decoding fails.
        """
        for _ in range(count):
            if next(self._decoded(), None) is None:
                return

    @property
    def missing(self) -> str:
        """What the header promises and decoding to the end did not give; "" where all is there.

        Frames cut away by an edit list are in the header's count, but not in its duration.
        """
        stream, promised = self._stream, int(self._stream.frames)
        if not self.decoded or self._time is None:
            return "" if self.decoded else "all frames"
        if stream.duration is not None:
            end = float((stream.start_time or 0) + stream.duration) * float(stream.time_base)
        elif self._container.duration is not None and len(self._container.streams) == 1:
            end = float(self._container.duration) / 1e6
        else:
            return ""
        frame_seconds = float(1 / stream.average_rate) if stream.average_rate else 0.0
        lost = end - self._time - frame_seconds
        if 0 < promised <= self.decoded or lost <= 0.5 * frame_seconds:
            return ""
        if promised:
            return f"{promised - self.decoded} of {promised} frames"
        return f"{lost:.1f} of {end:.1f} seconds"

    def close(self) -> None:
        """Close the file."""
        self._container.close()


class VideoFolder(Source):
    """A folder of videos, or one video: a file an episode."""

    kind = "video"

    def __init__(self, path: Path) -> None:
        """List the files; none is opened yet.

        Args:
            path: a folder or a file.

        Raises:
            ArgumentError: the folder holds no video.
        """
        self._files = listed(path, VIDEOS) if path.is_dir() else [path]
        if not self._files:
            raise ArgumentError(
                f"source must be a folder with videos ({', '.join(VIDEOS)}), got {str(path)!r}."
            )
        self.root = self._files[0].parent
        self.names = [file.name for file in self._files]
        self.lengths = [None] * len(self._files)
        self.facts = {}

    def read(self, episode: int, start: int, clock: Clock) -> Iterator[np.ndarray]:
        """As `Source.read`; a header that promises more frames than there are counts as broken."""
        del clock
        video = VideoFile(self._files[episode])
        try:
            video.skip(start)
            yield from video.pictures()
            if video.missing:
                raise BrokenEpisodeError(
                    f"video must be whole, got {video.path} without {video.missing} at its end."
                )
        finally:
            video.close()

    def files(self, episode: int) -> list[Path]:
        """As `Source.files`."""
        return [self._files[episode]]
