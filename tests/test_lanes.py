"""The GPU lane's bookkeeping, on streams and graphs that run on the CPU in the order of calls.

What a GPU adds, work that goes on while the host is elsewhere, the tests marked gpu see.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from vlmrm_fast import lanes
from vlmrm_fast.errors import VLMRMError
from vlmrm_fast.lanes import CudaLane
from vlmrm_fast.scorer import Scorer


class Stream:
    """Runs what is given to it at once; keeps the order of waits and records."""

    log: list[tuple[str, Any, Any]]

    def __init__(self, device: Any) -> None:
        self.device = device

    def wait_event(self, event: Event) -> None:
        self.log.append(("wait", self, event))

    def wait_stream(self, stream: Any) -> None:
        assert stream is None

    def synchronize(self) -> None:
        self.log.append(("synchronize", self, None))


class Event:
    """An event that is done when it is recorded."""

    def record(self, stream: Stream) -> None:
        Stream.log.append(("record", stream, self))

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        Stream.log.append(("synchronize", None, self))


@contextlib.contextmanager
def entered(stream: Stream) -> Iterator[None]:
    Stream.log.append(("enter", stream, None))
    yield


class Graph:
    """Replays a function on the memory that it was captured with."""

    made: list[tuple[int, ...]]

    def __init__(self, encode: Any, shape: tuple[int, ...], stream: Any, pool: Any) -> None:
        assert pool is not None
        self.inputs, self._encode = torch.zeros(shape, dtype=torch.uint8), encode
        self.outputs = encode(self.inputs)
        self.made.append(shape)

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        self.inputs[: len(frames)].copy_(frames)
        self.outputs.copy_(self._encode(self.inputs))
        return self.outputs[: len(frames)]


@pytest.fixture
def cpu_streams(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Graph]]:
    """Put stand-ins into torch.cuda for one test."""
    Stream.log, Graph.made = [], []
    for name, value in {
        "Stream": Stream,
        "Event": Event,
        "current_stream": lambda device: None,
        "device": contextlib.nullcontext,
        "stream": entered,
        "graph_pool_handle": object,
        "empty_cache": lambda: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(lanes, "_Graph", Graph)
    return Graph


def shade(frames: torch.Tensor) -> torch.Tensor:
    """Reward that says which frame it is for."""
    return torch.stack([frames[:, 0, 0, 0].float(), frames[:, 0, 0, 1].float()], 1)


def scorer_of(encode: Callable[..., Any] = shade, batch_size: int = 8, count: int = 1) -> Scorer:
    device = torch.device("cpu")
    return Scorer([CudaLane(encode, device, batch_size, 3) for _ in range(count)], 3)


def numbered(count: int, first: int = 0) -> np.ndarray:
    frames = np.zeros((count, 4, 4, 3), np.uint8)
    frames[:, 0, 0, 0] = np.arange(first, first + count) % 251
    frames[:, 0, 0, 1] = 7
    return frames


def expected(count: int, first: int = 0) -> np.ndarray:
    numbers = np.arange(first, first + count) % 251
    return np.stack([numbers, np.full(count, 7)], 1).astype(np.float32)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 9, 13, 16, 21])
def test_every_frame_gets_its_own_reward_whatever_the_batches(cpu_streams: Any, count: int) -> None:
    with scorer_of() as scorer:
        tickets = [scorer.submit(numbered(count, 3 * t)) for t in range(200)]
        rewards = scorer.collect(tickets)
    np.testing.assert_array_equal(rewards, [expected(count, 3 * t) for t in range(200)])


@pytest.mark.parametrize(
    ("count", "batches"),
    [(1, {1}), (3, {3}), (8, {8}), (11, {8, 4}), (21, {8}), (17, {8, 1}), (6, {6})],
)
def test_a_graph_serves_a_batch_of_the_first_size_or_of_a_power_of_two(
    cpu_streams: type[Graph], count: int, batches: set[int]
) -> None:
    with scorer_of() as scorer:
        for _ in range(3):
            scorer.submit(numbered(count))
    assert {shape[0] for shape in cpu_streams.made} == batches
    assert len(cpu_streams.made) == len(batches)


def test_spare_rows_of_a_bucket_reach_no_reward(cpu_streams: Any) -> None:
    with scorer_of() as scorer:
        full = scorer.submit(numbered(16, 100))
        part = scorer.submit(numbered(11, 50))
        np.testing.assert_array_equal(scorer.collect([part])[0], expected(11, 50))
        np.testing.assert_array_equal(scorer.collect([full])[0], expected(16, 100))


def test_the_copy_waits_for_the_readers_and_the_readers_for_the_copy(cpu_streams: Any) -> None:
    with scorer_of() as scorer:
        for _ in range(5):
            scorer.submit(numbered(4))
    (lane,) = scorer.lanes
    copying, computing = lane._copying, lane._computing  # type: ignore[attr-defined]
    steps = [entry for entry in Stream.log if entry[0] in ("wait", "record")]
    # Each step: wait until the place was read, copy, wait for the copy, read.
    read = [steps[4 * step + 3][2] for step in range(5)]
    for step in range(5):
        copied = lane._copied[step % 3]  # type: ignore[attr-defined]
        before = read[step - 3] if step >= 3 else steps[4 * step][2]
        assert steps[4 * step : 4 * step + 4] == [
            ("wait", copying, before),
            ("record", copying, copied),
            ("wait", computing, copied),
            ("record", computing, read[step]),
        ]
    assert len(set(read)) == 5


def test_rewards_are_fetched_without_waiting_for_newer_submissions(cpu_streams: Any) -> None:
    with scorer_of() as scorer:
        tickets = [scorer.submit(numbered(4, t)) for t in range(4)]
        (lane,) = scorer.lanes
        computing, fetching = lane._computing, lane._fetching  # type: ignore[attr-defined]
        scored = [event for verb, on, event in Stream.log if (verb, on) == ("record", computing)]
        start = len(Stream.log)
        rewards = scorer.collect([tickets[1], tickets[0]])
        assert Stream.log[start:] == [
            ("enter", fetching, None),
            ("wait", fetching, scored[1]),
            ("wait", fetching, scored[0]),
        ]
        np.testing.assert_array_equal(rewards, [expected(4, 1), expected(4, 0)])


def test_a_changing_number_of_frames_takes_few_graphs_and_one_room(
    cpu_streams: type[Graph],
) -> None:
    rooms = []
    with scorer_of() as scorer:
        for count in (8, 7, 6, 5, 9, 3, 8):
            found = scorer.collect([scorer.submit(numbered(count, count))])[0]
            np.testing.assert_array_equal(found, expected(count, count))
            rooms.append(scorer.lanes[0]._staging)  # type: ignore[attr-defined]
    assert [shape[0] for shape in cpu_streams.made] == [8, 1, 4]
    # Made for 8 frames, and once more for 9.
    assert all(room is rooms[0] for room in rooms[:4])
    assert all(room is rooms[4] for room in rooms[4:])


def test_rewards_of_many_steps_lie_in_pages_that_are_given_back(cpu_streams: Any) -> None:
    with scorer_of() as scorer:
        tickets = [scorer.submit(numbered(4)) for _ in range(150)]
        rows = [ticket._claims[0][0] for ticket in tickets]  # type: ignore[index]
        pages = {row.untyped_storage().data_ptr() for row in rows}
        assert len(pages) == 3
        assert len({row.data_ptr() for row in rows}) == 150
        scorer.collect(tickets)
        assert all(ticket._claims is None for ticket in tickets)


def test_rows_are_split_among_lanes(cpu_streams: Any) -> None:
    with scorer_of(count=3) as scorer:
        for count in (1, 2, 7):
            tickets = [scorer.submit(numbered(count, t)) for t in range(4)]
            rewards = scorer.collect(tickets)
            np.testing.assert_array_equal(rewards, [expected(count, t) for t in range(4)])


class Limited:
    """An encoder that has no memory for more than some frames."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        if len(frames) > self.limit:
            raise torch.OutOfMemoryError("out of memory")
        return shade(frames)


def test_out_of_memory_halves_the_batch_and_scoring_goes_on(cpu_streams: Any) -> None:
    limited = Limited(4)
    with scorer_of(limited) as scorer:
        with pytest.warns(UserWarning, match="GPU out of memory: batch_size is now 4"):
            first = scorer.submit(numbered(13))
        tickets = [first, *(scorer.submit(numbered(13, t)) for t in range(1, 9))]
        np.testing.assert_array_equal(scorer.collect(tickets), [expected(13, t) for t in range(9)])
        limited.limit = 0
        scorer.lanes[0]._graphs.clear()  # type: ignore[attr-defined]
        with (
            pytest.warns(UserWarning, match="batch_size is now 1"),
            pytest.raises(VLMRMError, match="has no memory for scoring one frame"),
        ):
            scorer.submit(numbered(13))
        limited.limit = 8
        np.testing.assert_array_equal(
            scorer.collect([scorer.submit(numbered(13))])[0], expected(13)
        )
        assert scorer.in_flight == 0


def test_out_of_memory_in_a_capture_halves_the_batch(
    cpu_streams: type[Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    def capture(encode: Any, shape: tuple[int, ...], *rest: Any) -> Graph:
        if shape[0] > 4:
            raise torch.OutOfMemoryError("out of memory")
        return cpu_streams(encode, shape, *rest)

    monkeypatch.setattr(lanes, "_Graph", capture)
    with scorer_of() as scorer:
        with pytest.warns(UserWarning, match="GPU out of memory: batch_size is now 4"):
            ticket = scorer.submit(numbered(8))
        np.testing.assert_array_equal(scorer.collect([ticket])[0], expected(8))
    assert [shape[0] for shape in cpu_streams.made] == [4]


def test_no_memory_for_waiting_frames_is_said_with_its_size(
    cpu_streams: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = torch.empty
    with scorer_of() as scorer:
        scorer.submit(numbered(4))
        (lane,) = scorer.lanes

        def refuse(shape: Any, **options: Any) -> torch.Tensor:
            assert lane._staging is None  # type: ignore[attr-defined]
            raise torch.OutOfMemoryError("out of memory")

        monkeypatch.setattr(torch, "empty", refuse)
        with pytest.raises(VLMRMError, match=r"for 3 MB of frames.*Lower num_slots or num_envs"):
            scorer.submit(np.zeros((20, 128, 128, 3), np.uint8))
        monkeypatch.setattr(torch, "empty", empty)
        found = scorer.collect([scorer.submit(numbered(4, 9))])[0]
    np.testing.assert_array_equal(found, expected(4, 9))


def test_after_a_failed_launch_the_frames_have_left_the_host(cpu_streams: Any) -> None:
    def encode(frames: torch.Tensor) -> torch.Tensor:
        raise VLMRMError("the tower is broken")

    with scorer_of(encode) as scorer:
        with pytest.raises(VLMRMError, match="the tower is broken"):
            scorer.submit(numbered(4))
        (lane,) = scorer.lanes
        copied, read = lane._copied[0], lane._consumed[0]  # type: ignore[attr-defined]
        assert Stream.log[-2:] == [
            ("synchronize", None, copied),
            ("record", lane._computing, read),  # type: ignore[attr-defined]
        ]


def test_where_a_capture_fails_scoring_is_eager_and_says_so_once(
    cpu_streams: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: Any) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(lanes, "_Graph", refuse)
    with scorer_of() as scorer:
        tickets = [scorer.submit(numbered(4, t)) for t in range(5)]
        np.testing.assert_array_equal(scorer.collect(tickets), [expected(4, t) for t in range(5)])
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        "Scoring 4 frames without a CUDA graph: RuntimeError: "
        "operation not permitted when stream is capturing"
    ]


def test_another_shape_of_frames_gets_room_of_its_own(cpu_streams: Any) -> None:
    with scorer_of() as scorer:
        for count, side in ((4, 4), (4, 6), (2, 6), (4, 4)):
            frames = np.zeros((count, side, side, 3), np.uint8)
            frames[:, 0, 0, 0] = np.arange(count)
            found = scorer.collect([scorer.submit(frames)])[0]
            np.testing.assert_array_equal(found[:, 0], np.arange(count))
