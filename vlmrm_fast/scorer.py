"""Two verbs from frames to rewards: `submit` enqueues, `collect` waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vlmrm_fast.errors import ArgumentError, VLMRMError
from vlmrm_fast.frames import Fence, FrameRing, Slot, check_slots
from vlmrm_fast.lanes import Lane


@dataclass(eq=False)
class Ticket:
    """A claim to the rewards of one submission.

    Attributes:
        num_frames: how many frames were submitted.
    """

    num_frames: int
    _owner: Scorer
    _claims: list[Any] | None


def split_rows(count: int, parts: int) -> list[slice]:
    """Split rows into consecutive parts whose sizes differ by one at most, larger ones first.

    Args:
        count: rows, at least 0.
        parts: at least 1; parts beyond `count` are empty.

    Returns:
        One slice a part.
    """
    size, larger = divmod(count, parts)
    bounds = [index * size + min(index, larger) for index in range(parts + 1)]
    return [slice(bounds[index], bounds[index + 1]) for index in range(parts)]


def check_rewards(rewards: np.ndarray, precision: str) -> np.ndarray:
    """Refuse rewards that are not numbers: NaN would stand for "not there yet" in what follows.

    Args:
        rewards: of any shape.
        precision: of the model that they are from.

    Returns:
        `rewards`.

    Raises:
        VLMRMError: some are not finite, with the precision to use.
    """
    wrong = rewards.size - int(np.isfinite(rewards).sum())
    if wrong:
        wider = " or ".join(f'"{name}"' for name in ("bf16", "fp32") if name != precision)
        fix = "Check the model's weights." if precision == "fp32" else f"Use precision={wider}."
        raise VLMRMError(
            f"rewards must be finite, got {wrong} of {rewards.size} that are not, from a model in "
            f"{precision}. {fix}"
        )
    return rewards


class Scorer:
    """Scores batches of frames while the next ones are made. Not for use from several threads.

    Frames go through a ring of host memory; on a GPU all work after that is enqueued, on the CPU
    it may run in a background thread. With several devices, each scores its share of the rows.

    Attributes:
        lanes: one a device.
        num_slots: K, submissions that can wait to be read at once.
    """

    def __init__(self, lanes: Sequence[Lane], num_slots: int = 3, precision: str = "fp32") -> None:
        """Take over the lanes.

        Args:
            lanes: at least one; `VLMReward.scorer` makes them.
            num_slots: K, at least 3.
            precision: of the lanes' models, for the text where rewards are not finite.

        Raises:
            ArgumentError: `num_slots` is out of range.
        """
        check_slots(num_slots)
        self.lanes = list(lanes)
        self.num_slots = num_slots
        self._precision = precision
        self._closed = False
        self._ring: FrameRing | None = None
        self._open: Slot | None = None

    @property
    def in_flight(self) -> int:
        """Submissions whose frames are still being read; never more than `num_slots`."""
        return 0 if self._ring is None else self._ring.in_flight

    def acquire(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return memory to draw the next frames into; blocks while all of it is being read.

        Args:
            shape: (N, H, W, 3). Another one than before waits for all frames under way.

        Returns:
            (N, H, W, 3) uint8, writeable, with old content; the same array until it is submitted.
            `submit` that very array: it is then not copied on the host. Its content stays, for
            reading only, until the array is handed out again.

        Raises:
            ArgumentError: the scorer is closed, or `shape` is no (N, H, W, 3).
        """
        self._check_open()
        if self._open is None or self._open.frames.shape != tuple(shape):
            self._open = self._acquire(tuple(shape))
        return self._open.frames

    def _acquire(self, shape: tuple[int, ...], *, spare: bool = False) -> Slot:
        """Return a slot for frames of `shape`; with `spare` it may have more rows than those."""
        ring = self._ring
        roomy = ring is not None and ring.shape[0] >= shape[0] and ring.shape[1:] == shape[1:]
        if ring is None or not (ring.shape == shape or (spare and roomy)):
            if ring is not None:
                ring.drain()
            # Pinned for a GPU only: locked pages are a scarce thing.
            pin = any(lane.device.type == "cuda" for lane in self.lanes)
            ring = self._ring = FrameRing(self.num_slots, shape, pin)
            self._open = None
        return ring.acquire()

    def submit(self, frames: np.ndarray) -> Ticket:
        """Enqueue frames; blocks only while all slots of the ring are being read.

        Args:
            frames: (N, H, W, 3) uint8: the array of the last `acquire`, or any other, whose
                content is copied.

        Returns:
            The claim to their rewards.

        Raises:
            ArgumentError: `frames` has another dtype or shape, or no rows; the scorer is closed.
        """
        self._check_open()
        slot = self._open
        if slot is not None and frames is slot.frames:
            self._open = None
            return self._launch(slot, len(frames))
        _check(frames)
        # Where only some rows of a step are scored, their number changes from step to step.
        slot = self._acquire(tuple(frames.shape), spare=True)
        np.copyto(slot.frames[: len(frames)], frames)
        return self._launch(slot, len(frames))

    def _launch(self, slot: Slot, count: int) -> Ticket:
        """Hand each lane its rows; whatever fails, the slot is not lost."""
        assert self._ring is not None
        fences: list[Fence] = []
        claims: list[Any] = []
        try:
            for lane, rows in zip(self.lanes, split_rows(count, len(self.lanes)), strict=True):
                if rows.start == rows.stop:
                    claims.append(None)
                    continue
                fence, claim = lane.launch(slot.tensor[rows], slot.index)
                fences.append(fence)
                claims.append(claim)
        finally:
            self._ring.send(slot, fences)
        return Ticket(count, self, claims)

    def collect(self, tickets: Sequence[Ticket]) -> np.ndarray:
        """Return rewards; blocks until they are there. Each ticket can be collected once.

        Args:
            tickets: T tickets of this scorer for N frames each, in any order.

        Returns:
            (T, N) float32, or (T, N, P) for P > 1 rewards a frame.

        Raises:
            ArgumentError: a ticket is another scorer's, was collected before, or is for another
                number of frames.
            VLMRMError: a reward is not finite, with the precision to use.
        """
        if not tickets:
            return np.empty((0, 0), np.float32)
        for ticket in tickets:
            if ticket._owner is not self or ticket._claims is None:
                what = "another scorer's" if ticket._owner is not self else "collected already"
                raise ArgumentError(f"tickets must be this scorer's own and new, got one {what}.")
            if ticket.num_frames != tickets[0].num_frames:
                raise ArgumentError(
                    f"tickets must be for equally many frames, got {tickets[0].num_frames} and "
                    f"{ticket.num_frames}. Collect them one by one."
                )
        rows: list[list[Any]] = [ticket._claims or [] for ticket in tickets]
        for ticket in tickets:
            ticket._claims = None
        parts = [
            lane.gather(claims)
            for lane, claims in zip(self.lanes, zip(*rows, strict=True), strict=True)
            if claims[0] is not None
        ]
        rewards = check_rewards(torch.cat(parts, dim=1).numpy(), self._precision)
        return rewards[..., 0] if rewards.shape[2] == 1 else rewards

    def _check_open(self) -> None:
        if self._closed:
            raise ArgumentError(
                "scorer must be open to take frames, got a closed one. Make another one."
            )

    def close(self) -> None:
        """Finish what was submitted; free threads and memory.

        Tickets can still be collected, frames no longer submitted. May be called twice.
        """
        self._closed = True
        if self._ring is not None:
            self._ring.drain()
        for lane in self.lanes:
            lane.close()

    def __enter__(self) -> Scorer:
        """Return self."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close."""
        self.close()


def _check(frames: Any) -> None:
    """Raise ArgumentError unless `frames` is a (N, H, W, 3) uint8 array with pixels."""
    shape: tuple[int, ...] = getattr(frames, "shape", ())
    dtype = getattr(frames, "dtype", type(frames).__name__)
    if not isinstance(frames, np.ndarray) or dtype != np.uint8 or len(shape) != 4:
        raise ArgumentError(
            f"frames must be a (N, H, W, 3) uint8 array, got {dtype} of shape {tuple(shape)}."
        )
    if shape[3] != 3 or min(shape) < 1:
        raise ArgumentError(f"frames must be (N, H, W, 3), each at least 1, got {tuple(shape)}.")
