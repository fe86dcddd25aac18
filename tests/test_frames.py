"""Slots of the ring: free, writable, in flight, and never two of these at once."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch

from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.frames import FrameRing

SHAPE = (2, 5, 7, 3)


class Fence:
    """A fence that is done when it is told so."""

    def __init__(self) -> None:
        self._done = threading.Event()
        self.waited = threading.Event()

    def finish(self) -> None:
        self._done.set()

    def query(self) -> bool:
        return self._done.is_set()

    def synchronize(self) -> None:
        self.waited.set()
        assert self._done.wait(10)


def test_a_slot_is_one_piece_of_memory_for_numpy_and_torch() -> None:
    slot = FrameRing(3, SHAPE).acquire()
    assert slot.frames.flags.writeable
    assert slot.frames.flags.c_contiguous
    assert (slot.frames.shape, slot.frames.dtype) == (SHAPE, np.uint8)
    slot.frames[1, 2, 3] = (1, 2, 3)
    assert slot.tensor[1, 2, 3].tolist() == [1, 2, 3]


def test_memory_is_pinned_where_cuda_is_there_only() -> None:
    ring = FrameRing(3, SHAPE)
    assert ring.pinned == torch.cuda.is_available() == ring.slots[0].tensor.is_pinned()


def test_slots_go_free_writable_in_flight_and_free() -> None:
    ring, fence = FrameRing(3, SHAPE), Fence()
    slot = ring.acquire()
    assert slot.state == "writable"
    ring.send(slot, [fence])
    assert (slot.state, ring.in_flight) == ("in flight", 1)
    fence.finish()
    assert ring.in_flight == 0
    assert [ring.acquire() for _ in range(3)][2] is slot
    ring.release(slot)
    assert slot.state == "free"


@pytest.mark.parametrize("count", [3, 4, 7])
def test_a_slot_in_flight_is_waited_for_and_never_handed_out(count: int) -> None:
    ring = FrameRing(count, SHAPE)
    fences = [Fence() for _ in range(count)]
    slots = []
    for fence in fences:
        slots.append(ring.acquire())
        ring.send(slots[-1], [fence])
    assert ring.in_flight == count
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(ring.acquire()))
    thread.start()
    # It waits for the oldest, and goes on as soon as that one is done.
    assert fences[0].waited.wait(10)
    assert got == []
    fences[0].finish()
    thread.join(10)
    assert got == [slots[0]]
    assert not any(fence.waited.is_set() for fence in fences[1:])


def test_a_slot_with_several_readers_waits_for_all_of_them() -> None:
    ring, fences = FrameRing(3, SHAPE), [Fence(), Fence()]
    ring.send(ring.acquire(), fences)
    fences[0].finish()
    assert ring.in_flight == 1
    fences[1].finish()
    assert ring.in_flight == 0


def test_a_slot_that_is_done_early_is_used_before_one_in_flight() -> None:
    ring, fences = FrameRing(3, SHAPE), [Fence() for _ in range(3)]
    slots = [ring.acquire() for _ in range(3)]
    for slot, fence in zip(slots, fences, strict=True):
        ring.send(slot, [fence])
    fences[1].finish()
    assert ring.acquire() is slots[1]


def test_a_thousand_submissions_take_the_memory_of_the_ring() -> None:
    ring = FrameRing(4, SHAPE)
    addresses = set()
    for _ in range(1000):
        slot = ring.acquire()
        addresses.add(slot.tensor.data_ptr())
        fence = Fence()
        fence.finish()
        ring.send(slot, [fence])
    assert len(addresses) == 4


def test_drain_waits_for_everything() -> None:
    ring, fences = FrameRing(3, SHAPE), [Fence(), Fence()]
    for fence in fences:
        ring.send(ring.acquire(), [fence])
        fence.finish()
    ring.drain()
    assert all(fence.waited.is_set() for fence in fences)
    assert {slot.state for slot in ring.slots} == {"free"}


def test_misuse_says_what_to_do() -> None:
    ring, other = FrameRing(3, SHAPE), FrameRing(3, SHAPE)
    slots = [ring.acquire() for _ in range(3)]
    with pytest.raises(ArgumentError, match="at most 3 slots can be written at once, got a req"):
        ring.acquire()
    ring.send(slots[0], [])
    with pytest.raises(ArgumentError, match="slot must be writable, got one that is in flight"):
        ring.send(slots[0], [])
    ring.release(slots[1])
    with pytest.raises(ArgumentError, match="slot must be writable, got one that is free"):
        ring.release(slots[1])
    with pytest.raises(ArgumentError, match="one of this ring's, got another's"):
        ring.send(other.acquire(), [])


@pytest.mark.parametrize("count", [0, 2, 3.0, "3"])
def test_fewer_than_three_slots_are_refused(count: Any) -> None:
    with pytest.raises(ArgumentError, match="num_slots must be at least 3, got"):
        FrameRing(count, SHAPE)


@pytest.mark.parametrize("shape", [(), (4, 4, 3), (0, 4, 4, 3), (1, 4, 4, 4)])
def test_a_shape_that_is_none_of_frames_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ArgumentError, match=r"shape must be \(N, H, W, 3\), each at least 1, got"):
        FrameRing(3, shape)


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_pinning_without_cuda_is_refused() -> None:
    with pytest.raises(ArgumentError, match="pin must be off where CUDA is not available"):
        FrameRing(3, SHAPE, pin=True)
