"""How much two processes that share nothing slow each other down.

That is the machine's part (caches, memory, clock, its other tenants) in what a second thread lacks.
"""

from __future__ import annotations

import multiprocessing
from typing import Any

from render_cases import Ours, humanoid_worlds, seconds

from vlmrm_fast.rendering import Camera


def _serve(pipe: Any, view: Camera, size: int) -> None:
    """Draw as often as `pipe` says, with one thread, and answer how many seconds each call took."""
    ours = Ours(humanoid_worlds(), view, size, num_threads=1)
    for _ in range(4):
        ours()
    pipe.send(0.0)
    while calls := pipe.recv():
        pipe.send(seconds(ours, calls))


class Lone:
    """A process that draws the humanoid with one thread when it is told to."""

    def __init__(self, view: Camera, size: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, view, size), daemon=True)
        self._process.start()

    def start(self, calls: int) -> None:
        """Begin to draw."""
        self._pipe.send(calls)

    def finish(self) -> float:
        """Return the wall-clock time of one call, once it is ready for the next start()."""
        return self._pipe.recv()

    def close(self) -> None:
        """End the process."""
        self._pipe.send(0)
        self._process.join()


def ratios_of_two(view: Camera, size: int, pairs: int, calls: int) -> list[float]:
    """Return, sorted, the speed of each of two processes that draw at once over a lone one's."""
    processes = [Lone(view, size), Lone(view, size)]
    for process in processes:
        process.finish()
    ratios = []
    for pair in range(pairs):
        one = processes[pair % 2]
        one.start(calls)
        alone = one.finish()
        for process in processes:
            process.start(calls)
        ratios.append(alone / max(process.finish() for process in processes))
    for process in processes:
        process.close()
    return sorted(ratios)
