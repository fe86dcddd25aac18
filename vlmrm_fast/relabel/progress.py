"""What a user sees: a line while it runs, a table and the rates at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vlmrm_fast.progress import PLAIN_INTERVAL_SECONDS, clock_text
from vlmrm_fast.relabel.source import Clock

if TYPE_CHECKING:
    from vlmrm_fast.relabel.journal import Progress
    from vlmrm_fast.relabel.results import Relabelled


class ProgressLine:
    """One line on stderr, rewritten on a terminal and repeated every ten seconds elsewhere."""

    def __init__(self, mode: str, lengths: Sequence[int | None], start: int) -> None:
        """Prepare it.

        Args:
            mode: "auto", "plain" or "off".
            lengths: frames of all episodes, None where unknown.
            start: frames done before.
        """
        self._off = mode == "off"
        self._terminal = mode == "auto" and sys.stderr.isatty()
        self._episodes = len(lengths)
        known = [length for length in lengths if length is not None]
        self._total = sum(known) if len(known) == len(lengths) else None
        self._start = start
        self._began = self._last = time.monotonic()

    def tick(self, now: Progress, clock: Clock) -> None:
        """Show where the run stands; cheap, so call it after each batch.

        Args:
            now: of the journal.
            clock: times so far.
        """
        moment = time.monotonic()
        pause = 0.25 if self._terminal else PLAIN_INTERVAL_SECONDS
        if self._off or moment - self._last < pause:
            return
        self._last = moment
        text = self._text(now, clock, moment - self._began)
        sys.stderr.write(f"\r\x1b[K{text}" if self._terminal else f"{text}\n")
        sys.stderr.flush()

    def resumed(self, now: Progress) -> None:
        """Say where a resumed run goes on.

        Args:
            now: of the journal.
        """
        if not self._off:
            text = f"resuming after {now.rows} frames, in episode {now.episode + 1}"
            sys.stderr.write(f"{text} of {self._episodes}\n")

    def _text(self, now: Progress, clock: Clock, seconds: float) -> str:
        rate = (now.rows - self._start) / max(seconds, 1e-9)
        shares = _shares(clock, seconds)
        speed = f"{rate:.0f} frames/s ({' '.join(f'{k} {v:.0%}' for k, v in shares.items())})"
        place = f"episode {now.episode + 1}/{self._episodes}"
        if self._total is None:
            return f"{now.rows} frames, {place}  {speed}"
        left = clock_text((self._total - now.rows) / max(rate, 1e-9))
        share = now.rows / max(self._total, 1)
        return f"{now.rows}/{self._total} frames ({share:.0%}), {place}, {left} left  {speed}"

    def close(self, now: Progress) -> None:
        """Leave the terminal's line empty; where the run was cut off, say what is kept.

        Args:
            now: of the journal, committed.
        """
        if self._off:
            return
        if self._terminal:
            sys.stderr.write("\r\x1b[K")
        if isinstance(sys.exc_info()[1], KeyboardInterrupt):
            sys.stderr.write(f"{now.rows} frames are kept; use --resume to go on\n")
        sys.stderr.flush()


def _shares(clock: Clock, seconds: float) -> dict[str, float]:
    """Return the share of the wall time that each activity took; reading overlaps encoding."""
    parts = {
        "decode": max(clock.read - clock.draw, 0.0),
        "draw": clock.draw,
        "encode": clock.encode,
    }
    return {name: part / max(seconds, 1e-9) for name, part in parts.items()}


def describe_rates(num_frames: int, seconds: float, clock: Clock) -> dict[str, Any]:
    """Return the rates of a run for its report.

    Args:
        num_frames: that this call scored.
        seconds: wall time, loading of the model excluded.
        clock: times of all activities.

    Returns:
        Frames, seconds, frames a second overall and of the encoder while it ran, the share of the
        wall time of each activity, and all of it as text.
    """
    shares = _shares(clock, seconds)
    rate = num_frames / max(seconds, 1e-9)
    own = num_frames / max(clock.encode, 1e-9)
    split = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    text = (
        f"{num_frames} frames in {seconds:.1f} s: {rate:.0f} frames/s, {rate / max(own, 1e-9):.0%} "
        f"of the {own:.0f} frames/s of the encoder alone. Of the time: {split} (side by side)."
    )
    if not num_frames:
        text = "No frames were left to score."
    return {
        "frames": num_frames,
        "seconds": round(seconds, 3),
        "frames_per_second": round(rate, 2),
        "encoder_frames_per_second": round(own, 2) if num_frames else 0.0,
        "shares": {name: round(share, 4) for name, share in shares.items()},
        "text": text,
    }


def results_table(found: Relabelled) -> Any:
    """Return a table for the terminal: a line a goal.

    Args:
        found: results.

    Returns:
        A `rich.table.Table`.
    """
    from rich.table import Table
    from rich.text import Text

    count, frames = len(found.episodes), len(found.rewards)
    title = f"{frames} frames of {count} episodes, {found.report['model']}"
    table = Table(title=Text(f"{title}, alpha = {found.report['alpha']:g}"))
    table.add_column("goal", overflow="fold")
    for heading in ("mean", "std", "min", "max"):
        table.add_column(heading, justify="right")
    for heading in ("best episode", "worst episode"):
        table.add_column(heading)
    means = _episode_means(found)
    for column, goal in enumerate(found.goals):
        values = found.rewards[:, column]
        values = values[np.isfinite(values)].astype(np.float64)
        if not len(values):
            table.add_row(Text(goal), *["-"] * 6)
            continue
        numbers = [values.mean(), values.std(), values.min(), values.max()]
        order = np.argsort(np.nan_to_num(means[:, column], nan=-np.inf))
        known = order[np.isfinite(means[order, column])]
        ends = [f"{found.episodes[i]} ({means[i, column]:.3f})" for i in (known[-1], known[0])]
        table.add_row(Text(goal), *(f"{n:.4f}" for n in numbers), *map(Text, ends))
    return table


def _episode_means(found: Relabelled) -> np.ndarray:
    """Return (E, P) float64 mean rewards, NaN for episodes without any."""
    means = np.full((len(found.episodes), len(found.goals)), np.nan)
    for index in range(len(found.episodes)):
        rows = found.episode(index)
        rows = rows[np.isfinite(rows).all(axis=1)]
        if len(rows):
            means[index] = rows.mean(axis=0, dtype=np.float64)
    return means
