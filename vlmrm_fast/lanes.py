"""Where frames are scored: on the CPU, at once or in a background thread, or on a GPU."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import torch

from vlmrm_fast.errors import VLMRMError
from vlmrm_fast.frames import Fence

Encode = Callable[[torch.Tensor], torch.Tensor]
"""(B, H, W, 3) uint8 frames -> (B, P) float32 rewards, on one device."""

# Rewards of so many submissions lie in one piece of GPU memory; 0.5 MB at N = 32 and P = 64.
_PAGE_ROWS = 64

_log = logging.getLogger(__name__)


class Lane(Protocol):
    """A device that scores frames in the order in which they are launched."""

    device: torch.device

    def launch(self, frames: torch.Tensor, slot: int) -> tuple[Fence, Any]:
        """Score (n, H, W, 3) host frames; return when they may be rewritten, and a claim."""

    def gather(self, claims: Sequence[Any]) -> torch.Tensor:
        """Return the rewards (T, n, P) float32 of T claims on the host; blocks."""

    def close(self) -> None:
        """Finish what was launched and free threads and memory."""


def has_idle_core() -> bool:
    """Return whether torch uses fewer threads than this process has CPUs.

    Only then can scoring in the background hide anything.
    """
    return torch.get_num_threads() < len(os.sched_getaffinity(0))


class _Done:
    """A fence that is always done."""

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        return


class _FutureFence:
    """Done once a future is, also where it failed: `gather` raises what went wrong."""

    def __init__(self, future: Future[torch.Tensor]) -> None:
        self._future = future

    def query(self) -> bool:
        return self._future.done()

    def synchronize(self) -> None:
        self._future.exception()


class CpuLane:
    """Scores on the CPU: during `launch`, or in one background thread while the caller goes on.

    The rewards are the same bits either way: the thread takes over the caller's number of torch
    threads, which decides how sums are split.
    """

    def __init__(self, encode: Encode, *, background: bool) -> None:
        """Start the thread, if there is to be one.

        Args:
            encode: scores a batch of any size.
            background: whether `launch` returns before the frames are scored.
        """
        self.device = torch.device("cpu")
        self._encode = encode
        self._pool = ThreadPoolExecutor(1, "vlmrm-score") if background else None

    def launch(self, frames: torch.Tensor, slot: int) -> tuple[Fence, Any]:
        """As `Lane.launch`."""
        del slot
        if self._pool is None:
            return _Done(), self._encode(frames)
        future = self._pool.submit(self._run, frames, torch.get_num_threads())
        return _FutureFence(future), future

    def _run(self, frames: torch.Tensor, num_threads: int) -> torch.Tensor:
        if torch.get_num_threads() != num_threads:
            torch.set_num_threads(num_threads)
        return self._encode(frames)

    def gather(self, claims: Sequence[Any]) -> torch.Tensor:
        """As `Lane.gather`; raises what scoring raised."""
        return torch.stack([c.result() if isinstance(c, Future) else c for c in claims])

    def close(self) -> None:
        """As `Lane.close`."""
        if self._pool is not None:
            self._pool.shutdown()


class _Graph:
    """A CUDA graph of `encode` for one batch shape, with the memory that it reads and writes."""

    def __init__(
        self, encode: Encode, shape: tuple[int, ...], stream: torch.cuda.Stream, pool: Any
    ) -> None:
        # Zeros: rows beyond a smaller batch are scored too, and thrown away.
        self.inputs = torch.zeros(shape, dtype=torch.uint8, device=stream.device)
        # Kernels compile and libraries take their workspaces before the capture.
        for _ in range(2):
            encode(self.inputs)
        self._graph = torch.cuda.CUDAGraph()
        # "thread_local": what other threads allocate meanwhile is not our business.
        with torch.cuda.graph(
            self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"
        ):
            self.outputs = encode(self.inputs)

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Return rewards (b, P) of b frames, at most the captured number; valid until reused."""
        count = len(frames)
        self.inputs[:count].copy_(frames)
        self._graph.replay()
        return self.outputs[:count]


class CudaLane:
    """Scores on one GPU; `launch` only enqueues.

    Frames go to the device on a stream of their own, non-blocking from pinned memory, while the
    compute stream still scores earlier ones. Preprocessing, tower and reward run as one CUDA graph
    a batch size: the number of frames of that size first launched, else the next power of two, with
    the spare rows thrown away. Where a capture fails, the same functions run eagerly. Rewards leave
    on a third stream, which waits for the submissions asked for and not for newer ones.
    """

    def __init__(
        self, encode: Encode, device: torch.device, batch_size: int, num_slots: int
    ) -> None:
        """Make the streams.

        Args:
            encode: scores a batch on the device without waiting for it.
            device: the GPU.
            batch_size: most frames scored at once.
            num_slots: frames of so many submissions have room on the device.
        """
        self.device = device
        self.batch_size = batch_size
        self._encode = encode
        self._copying = torch.cuda.Stream(device)
        self._computing = torch.cuda.Stream(device)
        self._fetching = torch.cuda.Stream(device)
        # The model's weights may still be on their way.
        self._computing.wait_stream(torch.cuda.current_stream(device))
        # (num_slots, most frames so far, H, W, 3)
        self._staging: torch.Tensor | None = None
        self._copied = [torch.cuda.Event() for _ in range(num_slots)]
        self._consumed = [torch.cuda.Event() for _ in range(num_slots)]
        self._page: torch.Tensor | None = None
        self._used = 0
        # By (H, W, 3): the number of frames first launched.
        self._first_counts: dict[tuple[int, ...], int] = {}
        self._forget_graphs()

    def _forget_graphs(self) -> None:
        self._graphs: dict[tuple[int, ...], _Graph | None] = {}
        self._pool = torch.cuda.graph_pool_handle()

    def launch(self, frames: torch.Tensor, slot: int) -> tuple[Fence, Any]:
        """As `Lane.launch`; the fence is done when the frames have left the host."""
        with torch.cuda.device(self.device), torch.inference_mode():
            staged = self._stage(frames, slot)
            try:
                row = self._claim(len(frames), staged)
            except BaseException:
                # Nobody gets the fence: the host's frames must be read before this returns.
                self._copied[slot].synchronize()
                raise
            finally:
                # A new event: the claim's stays what it is when the slot is used again.
                self._consumed[slot] = torch.cuda.Event()
                self._consumed[slot].record(self._computing)
        return self._copied[slot], (row, self._consumed[slot])

    def _stage(self, frames: torch.Tensor, slot: int) -> torch.Tensor:
        """Enqueue the copy to the device; return where the frames will be."""
        staged = self._room(tuple(frames.shape))[slot, : len(frames)]
        # The compute stream may still read what this place held before.
        self._copying.wait_event(self._consumed[slot])
        with torch.cuda.stream(self._copying):
            staged.copy_(frames, non_blocking=True)
            self._copied[slot].record(self._copying)
        self._computing.wait_event(self._copied[slot])
        return staged

    def _room(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Return staging memory for at least `shape`, (n, H, W, 3), in every slot."""
        count, *picture = shape
        self._first_counts.setdefault(shape[1:], count)
        old = self._staging
        if old is not None and list(old.shape[2:]) == picture and old.shape[1] >= count:
            return old
        self._synchronize()
        # Free before the new memory is asked for: both may not fit.
        self._staging = old = None
        room = (len(self._copied), *shape)
        try:
            # On the stream that writes it: no other work still uses that memory.
            with torch.cuda.stream(self._copying):
                self._staging = torch.empty(room, dtype=torch.uint8, device=self.device)
        except torch.OutOfMemoryError as error:
            raise VLMRMError(
                f"{self.device} has no memory for {math.prod(room) / 1e6:.0f} MB of frames that "
                "wait. Lower num_slots or num_envs."
            ) from error
        return self._staging

    def _claim(self, count: int, staged: torch.Tensor) -> torch.Tensor:
        """Enqueue the scoring; return the row (n, P) that will hold the rewards."""
        with torch.cuda.stream(self._computing):
            while True:
                try:
                    return self._score(count, staged)
                except torch.OutOfMemoryError as error:
                    smaller = self.batch_size // 2
                    if smaller < 1:
                        raise VLMRMError(
                            f"{self.device} has no memory for scoring one frame. Use a smaller "
                            'model or device="cpu".'
                        ) from error
                # Outside the handler, so that the failed batch's tensors are free.
                warnings.warn(f"GPU out of memory: batch_size is now {smaller}.", stacklevel=4)
                self._synchronize()
                self.batch_size = smaller
                self._forget_graphs()
                torch.cuda.empty_cache()

    def _score(self, count: int, staged: torch.Tensor) -> torch.Tensor:
        row: torch.Tensor | None = None
        for start in range(0, count, self.batch_size):
            part = self._rewards(staged[start : start + self.batch_size])
            if row is None:
                row = self._row(count, part)
            row[start : start + len(part)].copy_(part)
        assert row is not None
        return row

    def _row(self, count: int, like: torch.Tensor) -> torch.Tensor:
        """Return the next row of the reward buffer, which lives as long as a claim on it."""
        shape = (_PAGE_ROWS, count, like.shape[1])
        if self._page is None or self._page.shape != shape or self._used == _PAGE_ROWS:
            self._page, self._used = like.new_empty(shape), 0
        self._used += 1
        return self._page[self._used - 1]

    def _rewards(self, frames: torch.Tensor) -> torch.Tensor:
        """Return rewards (b, P) of b frames on the device, valid until the next call."""
        shape = (self._bucket(tuple(frames.shape)), *frames.shape[1:])
        if shape not in self._graphs:
            self._graphs[shape] = self._capture(shape)
        graph = self._graphs[shape]
        return self._encode(frames) if graph is None else graph(frames)

    def _bucket(self, shape: tuple[int, ...]) -> int:
        """Return the batch size whose graph scores frames of `shape`, (b, H, W, 3)."""
        bucket = min(1 << (shape[0] - 1).bit_length(), self.batch_size)
        first = self._first_counts[shape[1:]]
        return first if shape[0] <= first < bucket else bucket

    def _capture(self, shape: tuple[int, ...]) -> _Graph | None:
        """Return a graph, or None, with one log line, where `encode` cannot be captured."""
        try:
            return _Graph(self._encode, shape, self._computing, self._pool)
        except torch.OutOfMemoryError:
            # A smaller batch may fit: no reason to do without graphs.
            raise
        except Exception as error:
            text = str(error).splitlines()[0] if str(error) else ""
            _log.warning(
                "Scoring %d frames without a CUDA graph: %s: %s",
                shape[0], type(error).__name__, text,
            )  # fmt: skip
            self._synchronize()
            return None

    def _synchronize(self) -> None:
        self._copying.synchronize()
        self._computing.synchronize()

    def gather(self, claims: Sequence[Any]) -> torch.Tensor:
        """As `Lane.gather`: one copy, and the only wait."""
        with (
            torch.cuda.device(self.device),
            torch.cuda.stream(self._fetching),
            torch.inference_mode(),
        ):
            for _, scored in claims:
                self._fetching.wait_event(scored)
            return torch.stack([row for row, _ in claims]).cpu()

    def close(self) -> None:
        """As `Lane.close`."""
        self._synchronize()
        self._graphs.clear()
        self._staging = self._page = None
