"""What a run leaves for people: plots of the reward and a final table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def plot_run(
    path: str | Path,
    rows: Sequence[Mapping[str, float]],
    rewards: Sequence[float],
    title: str = "",
) -> Path:
    """Plot the learning curve, and the reward over one evaluation episode.

    Args:
        path: the PNG to write.
        rows: rows of metrics, with "step" and whatever else they have.
        rewards: VLM reward at each step of the episode; may be empty.
        title: heading, for example the goal prompt.

    Returns:
        The file's path.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _plot_curve(left, rows)
    right.plot(np.arange(1, len(rewards) + 1), rewards, color="tab:blue")
    right.set(xlabel="step of the episode", ylabel="VLM reward", title="Evaluation episode")
    if title:
        figure.suptitle(title)
    figure.savefig(path, dpi=120)
    return Path(path)


def _plot_curve(axes: Any, rows: Sequence[Mapping[str, float]]) -> None:
    """Draw the VLM reward on the left axis, the ground truth on the right one."""
    axes.set(xlabel="environment steps", ylabel="VLM reward (mean)", title="Training")
    axes.yaxis.label.set_color("tab:blue")
    _plot_column(axes, rows, "vlm_reward_mean", color="tab:blue")
    other = axes.twinx()
    if _plot_column(other, rows, "success_rate", color="tab:orange"):
        other.set(ylabel="success rate (ground truth)", ylim=(-0.02, 1.02))
    else:
        _plot_column(other, rows, "ground_truth_return", color="tab:orange")
        other.set(ylabel="return (ground truth)")
    other.yaxis.label.set_color("tab:orange")


def _plot_column(axes: Any, rows: Sequence[Mapping[str, float]], name: str, color: str) -> bool:
    """Draw one column over the steps; return whether it has any values."""
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    if points:
        axes.plot(*zip(*points, strict=True), color=color)
    return bool(points)


def summary_table(summary: Mapping[str, Any]) -> Any:
    """Return a run's summary as a table for the terminal.

    Args:
        summary: as in summary.json.

    Returns:
        A `rich.table.Table`.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(f"{summary['task']}: result"), show_header=False)
    shares = summary.get("time_shares") or {}
    lines = [
        ("goal", summary.get("goal")),
        ("model", summary.get("model")),
        ("algorithm", summary.get("algorithm")),
        ("environment steps", f"{summary['steps']:,}"),
        ("training time", f"{summary['seconds']:.0f} s"),
        ("steps per second", f"{summary['steps_per_second']:.0f}"),
        ("share of time", "  ".join(f"{name} {value:.0%}" for name, value in shares.items())),
        ("VLM reward, mean", _number(summary.get("vlm_reward_mean"))),
        ("ground-truth return", _number(summary.get("ground_truth_return"))),
        ("success rate", _success(summary)),
        ("run folder", summary.get("run_dir")),
    ]
    for name, value in lines:
        if value:
            table.add_row(name, Text(str(value)))
    return table


def tasks_table() -> Any:
    """Return the registered tasks as a table for the terminal.

    Returns:
        A `rich.table.Table`.
    """
    from rich.table import Table

    from vlmrm_fast.tasks import get_task, task_names

    table = Table(title="Tasks")
    table.add_column("task", no_wrap=True)
    table.add_column("goal prompt")
    table.add_column("steps", no_wrap=True)
    for name in task_names():
        task = get_task(name)
        steps = f"{task.algorithm} {task.total_steps / 1e6:g} M"
        table.add_row(name, task.goal, steps)
    return table


def _number(value: float | None) -> str | None:
    """Return a number as text, None where there is none."""
    return None if value is None else f"{value:.3f}"


def _success(summary: Mapping[str, Any]) -> str | None:
    """Return the success rate with its episodes, None where the task knows no success."""
    rate, episodes = summary.get("success_rate"), summary.get("episodes")
    if rate is None:
        return None
    return (
        f"{rate:.0%} ({round(rate * episodes)} of {episodes} episodes)"
        if episodes
        else f"{rate:.0%}"
    )
