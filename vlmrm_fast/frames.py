"""A ring of host buffers that frames are drawn into while earlier ones are still being scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import torch

from vlmrm_fast.errors import ArgumentError

# One slot is drawn into, one is copied, one waits: fewer and the renderer waits for the copy.
MIN_SLOTS = 3


class Fence(Protocol):
    """A point in the work of a device, such as `torch.cuda.Event`."""

    def query(self) -> bool:
        """Return whether the work before it is done; does not block."""

    def synchronize(self) -> None:
        """Block until the work before it is done."""


@dataclass(eq=False)
class Slot:
    """One buffer of a ring.

    Attributes:
        index: its place in the ring.
        tensor: (N, H, W, 3) uint8, contiguous host memory, pinned where the ring is.
        frames: the same memory as a writeable numpy array, to draw into.
        state: "free"; "writable" from `acquire` on; "in flight" from `send` on, until its fences
            are done.
        fences: what must be done before it is written again.
    """

    index: int
    tensor: torch.Tensor
    frames: np.ndarray
    state: Literal["free", "writable", "in flight"] = "free"
    fences: Sequence[Fence] = field(default=())


class FrameRing:
    """K slots of host memory, handed out in turn. Not for use from several threads at once.

    All memory is allocated at construction: frames that wait to be copied or scored never take
    more than K slots, however long a rollout is.

    Attributes:
        slots: the K slots.
        shape: (N, H, W, 3) of one slot.
        pinned: whether the memory is page-locked, as an asynchronous copy to a GPU needs it.
    """

    def __init__(
        self, num_slots: int = MIN_SLOTS, shape: tuple[int, ...] = (), pin: bool | None = None
    ) -> None:
        """Allocate the slots, filled with zeros.

        Args:
            num_slots: K, at least 3.
            shape: (N, H, W, 3) of one slot [frames, pixels, pixels, channels].
            pin: whether to lock the pages in memory; None: where CUDA is there.

        Raises:
            ArgumentError: a number is out of range, or pinning is asked for without CUDA.
        """
        check_slots(num_slots)
        shape = tuple(int(side) for side in shape)
        if len(shape) != 4 or shape[3] != 3 or min(shape) < 1:
            raise ArgumentError(f"shape must be (N, H, W, 3), each at least 1, got {shape}.")
        if pin and not torch.cuda.is_available():
            raise ArgumentError(
                "pin must be off where CUDA is not available, got on. Leave it out: None decides."
            )
        self.pinned = torch.cuda.is_available() if pin is None else bool(pin)
        self.shape = shape
        memory = torch.zeros((num_slots, *shape), dtype=torch.uint8, pin_memory=self.pinned)
        self.slots = [Slot(i, part, part.numpy()) for i, part in enumerate(memory)]
        self._next = 0

    @property
    def in_flight(self) -> int:
        """Number of slots whose frames are still being read."""
        return sum(not self._is_done(slot) for slot in self.slots if slot.state == "in flight")

    def acquire(self) -> Slot:
        """Return the next slot to draw into; blocks while all others are in flight.

        Returns:
            A slot in the state "writable", with its old content. `send` or `release` it.

        Raises:
            ArgumentError: every slot is writable already.
        """
        count = len(self.slots)
        turn = [self.slots[(self._next + step) % count] for step in range(count)]
        open_slots = [slot for slot in turn if slot.state != "writable"]
        if not open_slots:
            raise ArgumentError(
                f"at most {count} slots can be written at once, got a request for one more. "
                "Send or release one first."
            )
        # In turn, so the first one has been in flight for longest.
        slot = next((slot for slot in open_slots if self._is_done(slot)), open_slots[0])
        for fence in slot.fences:
            fence.synchronize()
        slot.fences, slot.state = (), "writable"
        self._next = (slot.index + 1) % count
        return slot

    def send(self, slot: Slot, fences: Sequence[Fence]) -> None:
        """Give up a writable slot until every fence is done.

        Args:
            slot: from `acquire`.
            fences: recorded after all that reads the slot.

        Raises:
            ArgumentError: the slot is not a writable one of this ring.
        """
        self._check(slot)
        slot.fences, slot.state = tuple(fences), "in flight"

    def release(self, slot: Slot) -> None:
        """Give back a writable slot that nothing reads.

        Args:
            slot: from `acquire`.

        Raises:
            ArgumentError: the slot is not a writable one of this ring.
        """
        self._check(slot)
        slot.state = "free"

    def drain(self) -> None:
        """Block until no slot is in flight."""
        for slot in self.slots:
            for fence in slot.fences:
                fence.synchronize()
            if slot.state == "in flight":
                slot.fences, slot.state = (), "free"

    def _check(self, slot: Slot) -> None:
        """Raise ArgumentError unless `slot` is a writable one of this ring."""
        if not any(slot is own for own in self.slots):
            raise ArgumentError("slot must be one of this ring's, got another's.")
        if slot.state != "writable":
            raise ArgumentError(
                f"slot must be writable, got one that is {slot.state}. Acquire it first, "
                "and send it once."
            )

    @staticmethod
    def _is_done(slot: Slot) -> bool:
        """Return whether nothing reads the slot any more."""
        return all(fence.query() for fence in slot.fences)


def check_slots(num_slots: int) -> None:
    """Check the number of slots of a ring.

    Args:
        num_slots: K.

    Raises:
        ArgumentError: it is no whole number, or below 3.
    """
    if not isinstance(num_slots, int) or num_slots < MIN_SLOTS:
        raise ArgumentError(f"num_slots must be at least {MIN_SLOTS}, got {num_slots!r}.")
