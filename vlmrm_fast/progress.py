"""Progress of a training run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

# In a log file a line every ten seconds shows life without drowning what matters.
PLAIN_INTERVAL_SECONDS = 10.0
_SHORT = {"simulate": "sim", "draw": "draw", "encode": "encode", "learn": "learn"}


def describe(row: Mapping[str, float]) -> str:
    """Return a row of metrics as one short line.

    Args:
        row: a row of `MetricsCallback`; what it lacks is left out.

    Returns:
        For example "412 steps/s (sim 5% draw 30% encode 40% learn 20%)  VLM 0.512  success 80%".
    """
    parts = []
    if "steps_per_second" in row:
        shares = " ".join(
            f"{short} {row[f'share_{name}']:.0%}"
            for name, short in _SHORT.items()
            if f"share_{name}" in row
        )
        parts.append(f"{row['steps_per_second']:.0f} steps/s ({shares})")
    if "vlm_reward_mean" in row:
        parts.append(f"VLM {row['vlm_reward_mean']:.3f}")
    if "success_rate" in row:
        parts.append(f"success {row['success_rate']:.0%}")
    return "  ".join(parts)


class Progress:
    """A context that shows how far a run is."""

    def __init__(self, total: int, mode: str = "auto", start: int = 0) -> None:
        """Prepare the display.

        Args:
            total: environment steps of the whole run.
            mode: "bar", "plain", "off", or "auto" for a bar on a terminal and lines elsewhere.
            start: steps done before a resume.
        """
        self.mode = mode
        if mode == "auto":
            self.mode = "bar" if sys.stderr.isatty() else "plain"
        self.total = total
        self._start = start
        self._bar: Any = None
        self._live: Any = None
        self._text = ""
        self._task: Any = None
        self._began = self._last = time.monotonic()

    def __enter__(self) -> Progress:
        """Show the bar.

        Returns:
            This object.
        """
        if self.mode == "bar":
            from rich.console import Console, Group
            from rich.live import Live
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar
            from rich.text import Text

            columns = (TextColumn("train"), BarColumn(), MofNCompleteColumn())
            self._bar = Bar(*columns, TimeRemainingColumn())
            self._task = self._bar.add_task("train", total=self.total, completed=self._start)
            # The numbers have a line of their own: beside the bar they leave it no room.
            self._live = Live(
                get_renderable=lambda: Group(self._bar, Text(self._text)),
                console=Console(stderr=True),
                refresh_per_second=4,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the bar away; a run that ended well shows its last state first."""
        if self._live is not None:
            self._live.stop()

    def tick(self, step: int, vlm_reward: float, row: Mapping[str, float]) -> None:
        """Show the state after a step; cheap, so call it after each.

        Args:
            step: environment steps done.
            vlm_reward: mean VLM reward of the step, shown until the first row is there; NaN where
                it is not known yet.
            row: the newest row of metrics, or an empty one.
        """
        if self.mode == "off":
            return
        now = time.monotonic()
        if now - self._last < (0.25 if self._bar else PLAIN_INTERVAL_SECONDS):
            return
        self._last = now
        # Of deferred rewards none may be there yet.
        first = "" if math.isnan(vlm_reward) else f"VLM {vlm_reward:.3f}"
        text = describe(row) or first
        if self._bar is not None:
            self._bar.update(self._task, completed=step)
            self._text = text
            return
        rate = (step - self._start) / max(now - self._began, 1e-9)
        left = (self.total - step) / max(rate, 1e-9)
        done = step / max(self.total, 1)
        self.note(f"{step}/{self.total} ({done:.0%}), {clock_text(left)} left  {text}")

    def note(self, text: str) -> None:
        """Show a line of text.

        Args:
            text: the line.
        """
        if self.mode == "off":
            return
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False)
            return
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def clock_text(seconds: float) -> str:
    """Return a duration as h:mm:ss or m:ss."""
    minutes, rest = divmod(int(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
