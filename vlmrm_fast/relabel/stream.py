"""From a source to rewards: one thread reads and draws while another one encodes."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np

from vlmrm_fast.relabel.journal import Ended, Scored
from vlmrm_fast.relabel.source import BrokenEpisodeError, Clock, Source
from vlmrm_fast.scorer import Scorer, Ticket

# Chunks that wait for the encoder. With those in both threads' hands at most five are in memory.
_QUEUE = 3


@dataclass(frozen=True)
class _Chunk:
    """Frames of an episode, or its end; `episode` is -1 after the last one."""

    episode: int
    frames: np.ndarray | None = None
    ended: bool = False
    fault: str = ""
    error: BaseException | None = None


class Reader:
    """A thread that reads a source ahead of its consumer, boundedly."""

    def __init__(
        self, source: Source, start: tuple[int, int], clock: Clock, *, skip_broken: bool
    ) -> None:
        """Start the thread.

        Args:
            source: what to read; nobody else reads it meanwhile.
            start: episode and frame to begin with.
            clock: takes the time of reading.
            skip_broken: whether to go on after a broken episode.
        """
        self._source, self._clock, self._skip = source, clock, skip_broken
        self._queue: queue.Queue[_Chunk] = queue.Queue(_QUEUE)
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=start, name="vlmrm-read", daemon=True
        )
        self._thread.start()

    def _run(self, episode: int, frame: int) -> None:
        try:
            for index in range(episode, len(self._source.names)):
                fault = self._read(index, frame if index == episode else 0)
                self._put(_Chunk(index, ended=True, fault=fault))
                if self._stop.is_set() or (fault and not self._skip):
                    break
            self._put(_Chunk(-1))
        except BaseException as error:
            # Raised where the chunks are taken: there it ends the run.
            self._put(_Chunk(-1, error=error))

    def _read(self, episode: int, frame: int) -> str:
        """Pass an episode's frames on; return what is broken, or ""."""
        frames = iter(self._source.read(episode, frame, self._clock))
        try:
            while not self._stop.is_set():
                with self._clock.time("read"):
                    chunk = next(frames, None)
                if chunk is None:
                    return ""
                self._put(_Chunk(episode, chunk))
        except BrokenEpisodeError as error:
            return str(error)
        return ""

    def _put(self, chunk: _Chunk) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(chunk, timeout=0.1)
                return

    def __iter__(self) -> Iterator[_Chunk]:
        """Yield chunks in order.

        Yields:
            What was read.
        """
        while True:
            with self._clock.time("waited"):
                chunk = self._queue.get()
            if chunk.error is not None:
                raise chunk.error
            if chunk.episode < 0:
                return
            yield chunk

    def close(self) -> None:
        """Stop the thread and wait for it."""
        self._stop.set()
        self._thread.join()


@dataclass
class _Batch:
    """What was submitted together: a claim, and what is known once it is scored."""

    ticket: Ticket | None
    ended: tuple[Ended, ...]
    episode: int
    frame: int


class Encoder:
    """Packs chunks into full batches and yields their rewards in order.

    A batch is cut only where the frames' size changes and at the source's end, so which frames
    share one does not depend on where a run was interrupted, and neither does any bit of a reward.
    """

    def __init__(
        self, scorer: Scorer, batch: int, width: int, clock: Clock, *, skip_broken: bool
    ) -> None:
        """Take the scorer.

        Args:
            scorer: open; it stays open.
            batch: frames to submit at once.
            width: P, rewards a frame.
            clock: takes the time of encoding.
            skip_broken: whether a broken episode counts as ended.
        """
        self._scorer, self._size, self._width, self._clock = scorer, batch, width, clock
        self._skip = skip_broken
        # On a CPU a submission is scored when `submit` returns: no reason to keep it waiting.
        at_once = all(lane.device.type == "cpu" for lane in scorer.lanes)
        self._ahead = 1 if at_once else scorer.num_slots
        self._under_way: deque[_Batch] = deque()
        self._slot: np.ndarray | None = None
        self._filled = 0
        self._ended: list[Ended] = []

    def run(self, chunks: Iterator[_Chunk], start: tuple[int, int]) -> Iterator[Scored]:
        """Score all chunks.

        Args:
            chunks: in order.
            start: episode and frame of the first one.

        Yields:
            Rewards and what they complete.

        Raises:
            BrokenEpisodeError: an episode is broken and not to be skipped; all before was yielded.
        """
        episode, frame = start
        fault = ""
        for chunk in chunks:
            if chunk.frames is None:
                if chunk.fault and not self._skip:
                    # It has not ended: once repaired, its other frames are wanted too.
                    fault = chunk.fault
                    break
                self._ended.append(Ended(chunk.episode, frame, chunk.fault))
                episode, frame = chunk.episode + 1, 0
                continue
            rows = chunk.frames
            if self._slot is not None and self._slot.shape[1:] != rows.shape[1:]:
                yield from self._submit(episode, frame)
            while len(rows):
                taken = self._fill(rows)
                rows, frame = rows[taken:], frame + taken
                if self._filled == self._size:
                    yield from self._submit(episode, frame)
        yield from self._submit(episode, frame)
        while self._under_way:
            yield self._collect()
        if fault:
            raise BrokenEpisodeError(fault)

    def _fill(self, rows: np.ndarray) -> int:
        """Copy as many frames as fit into the batch; return how many."""
        if self._slot is None:
            with self._clock.time("encode"):
                self._slot = self._scorer.acquire((self._size, *rows.shape[1:]))
        taken = min(self._size - self._filled, len(rows))
        self._slot[self._filled : self._filled + taken] = rows[:taken]
        self._filled += taken
        return taken

    def _submit(self, episode: int, frame: int) -> Iterator[Scored]:
        """Hand the batch over, and yield those that are due."""
        ticket = None
        with self._clock.time("encode"):
            if self._slot is not None and self._filled:
                whole = self._filled == len(self._slot)
                ticket = self._scorer.submit(self._slot if whole else self._slot[: self._filled])
        self._under_way.append(_Batch(ticket, tuple(self._ended), episode, frame))
        self._slot, self._filled, self._ended = None, 0, []
        while len(self._under_way) >= self._ahead:
            yield self._collect()

    def _collect(self) -> Scored:
        batch = self._under_way.popleft()
        rewards = np.zeros((0, self._width), np.float32)
        if batch.ticket is not None:
            with self._clock.time("encode"):
                rewards = self._scorer.collect([batch.ticket])[0]
        rewards = np.asarray(rewards, np.float32).reshape(-1, self._width)
        return Scored(rewards, batch.ended, batch.episode, batch.frame)


def stream(
    source: Source,
    scorer: Scorer,
    start: tuple[int, int],
    shape: tuple[int, int],
    clock: Clock,
    *,
    skip_broken: bool = False,
) -> Generator[Scored, None, None]:
    """Read and score a source.

    Args:
        source: the episodes.
        scorer: open.
        start: episode and frame to begin with.
        shape: frames a batch, and rewards a frame.
        clock: takes all times.
        skip_broken: go on after a broken episode.

    Yields:
        Rewards in the order of the source.

    Raises:
        BrokenEpisodeError: as `Encoder.run`.
    """
    reader = Reader(source, start, clock, skip_broken=skip_broken)
    encoder = Encoder(scorer, *shape, clock, skip_broken=skip_broken)
    try:
        yield from encoder.run(iter(reader), start)
    finally:
        reader.close()
