"""Times of device work: events on a GPU, a plain clock where a rehearsal runs on the CPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

Call = Callable[[int], Any]
"""Does the work once; gets a running number, to take turns among inputs."""


class Clock:
    """Median times of repeated work on one device.

    Args:
        device: where the work runs.
        budget: about how long one figure may take [s].
    """

    def __init__(self, device: torch.device, budget: float = 0.25) -> None:
        self.device, self.budget = device, budget
        self.cuda = device.type == "cuda"

    def wait(self) -> None:
        """Block until the device is idle."""
        if self.cuda:
            torch.cuda.synchronize()

    def calls(self, call: Call) -> float:
        """Return the median seconds between two events around one call, launches included."""
        for index in range(3):
            call(index)
        self.wait()
        start = time.perf_counter()
        call(0)
        self.wait()
        once = max(time.perf_counter() - start, 1e-6)
        repeats = int(min(max(self.budget / once, 5), 200)) if self.cuda else 1
        if not self.cuda:
            return once
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
        for index, (first, last) in enumerate(events):
            first.record()
            call(index)
            last.record()
        self.wait()
        return statistics.median(first.elapsed_time(last) for first, last in events) / 1e3

    def graph(self, call: Call, repeats: int = 10) -> float:
        """Return the seconds of one of `repeats` calls within a CUDA graph: no launch gaps."""
        if not self.cuda:
            return self.calls(call)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for index in range(repeats):
                call(index)
        torch.cuda.current_stream().wait_stream(side)
        self.wait()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for index in range(repeats):
                call(index)
        return self.calls(lambda _: graph.replay()) / repeats

    def wall(self, call: Call, repeats: int) -> float:
        """Return the seconds a call of `repeats` in a row, from host to host."""
        call(0)
        call(1)
        self.wait()
        start = time.perf_counter()
        for index in range(repeats):
            call(index)
        self.wait()
        return (time.perf_counter() - start) / repeats


def error(ours: torch.Tensor, exact: torch.Tensor) -> float:
    """Return the largest difference; NaN counts as infinite."""
    gap = (ours.double() - exact.double()).abs().nan_to_num(nan=float("inf"))
    return float(gap.max()) if gap.numel() else 0.0
