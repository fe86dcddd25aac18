"""A comparison of runs for people: one page, and a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vlmrm_fast.evaluation.html import Page

if TYPE_CHECKING:
    from vlmrm_fast.evaluation.compare import Group

_TITLES = {
    "success_rate": "success rate",
    "solved": "episodes solved, of all runs",
    "ground_truth_return": "ground-truth return",
    "vlm_reward_mean": "VLM reward",
    "epic": "EPIC",
    "auc": "AUC",
    "kendall": "policy order (Kendall)",
    "seconds": "training [s]",
}


def write_page(groups: Sequence[Group], path: str | Path) -> Path:
    """Write a comparison as one self-contained HTML page.

    Args:
        groups: what to show.
        path: the file to write.

    Returns:
        The file's path.
    """
    from vlmrm_fast.evaluation.compare import all_notes, run_figures

    count = sum(len(group.runs) for group in groups)
    page = Page(f"Comparison of {count} runs")
    page.text(
        "Runs whose configurations differ in the seed only are one group. Figures are means over "
        "the runs of a group with Student's 95 % interval, which a single run does not have; the "
        "share of solved episodes counts those of all runs, with Wilson's interval."
    )
    for note in all_notes(groups):
        page.note(note)
    page.heading("What differs")
    names = list(groups[0].settings)
    if names:
        rows = [[name, *(_text(group.settings[name]) for group in groups)] for name in names]
        page.table(["setting", *(group.name for group in groups)], rows)
    else:
        page.text("Nothing but the seed.")
    page.heading("Results")
    page.table(["group", "runs", *_TITLES.values()], _rows(groups))
    for target in dict.fromkeys(group.target for group in groups):
        page.heading(f"Learning curves, {target}")
        page.figure(
            plot_groups([group for group in groups if group.target == target]),
            "Mean over runs (thick), 95 % interval (band) and each run (thin). A run that is not "
            "finished counts as far as it went.",
        )
    page.heading("Runs")
    titles = [title for name, title in _TITLES.items() if name != "solved"]
    page.table(
        ["group", "run", "seed", "steps", "finished", *titles],
        [
            [group.name, str(run.folder), run.config.seed, run.steps, run.finished]
            + [run_figures(run).get(name) for name in _TITLES if name != "solved"]
            for group in groups
            for run in group.runs
        ],
    )
    return page.write(path)


def compare_table(groups: Sequence[Group]) -> Any:
    """Return a comparison as a table for the terminal, one column a group.

    Args:
        groups: what to show.

    Returns:
        A `rich.table.Table`.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text("runs by configuration"))
    table.add_column("mean [95 % interval over runs]")
    for group in groups:
        table.add_column(Text(group.label), overflow="fold")
    rows = [row[1:] for row in _rows(groups)]
    for index, title in enumerate(["runs", *_TITLES.values()]):
        cells = [row[index] for row in rows]
        if set(cells) != {"-"}:
            table.add_row(Text(title), *map(Text, cells))
    return table


def plot_groups(groups: Sequence[Group]) -> Any:
    """Plot the learning curves of groups of one task.

    Args:
        groups: at least one.

    Returns:
        A matplotlib `Figure`: VLM reward on the left, ground truth on the right.
    """
    from matplotlib.figure import Figure

    known = all(len(group.curves["success_rate"]["steps"]) for group in groups)
    columns = ("vlm_reward_mean", "success_rate" if known else "ground_truth_return")
    figure = Figure(figsize=(11, 4), layout="constrained")
    for axes, column in zip(figure.subplots(1, 2), columns, strict=True):
        seen: list[float] = []
        for index, group in enumerate(groups):
            seen += _plot_group(axes, group, column, f"C{index % 10}")
        axes.set(xlabel="environment steps", ylabel=_TITLES[column])
        if seen:
            # A band of two runs is many times as wide as their difference: it is cut, not shown.
            pad = 0.08 * (max(seen) - min(seen)) or 0.1
            axes.set_ylim(min(seen) - pad, max(seen) + pad)
    # Above both plots: inside, long names hide the curves.
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper center", fontsize="small")
    return figure


def _plot_group(axes: Any, group: Group, column: str, color: str) -> list[float]:
    """Draw one group; return the values of its runs."""
    seen: list[float] = []
    for run in group.runs:
        points = [(row["step"], row[column]) for row in run.curve if column in row]
        if points:
            axes.plot(*zip(*points, strict=True), color=color, linewidth=0.6, alpha=0.6)
            seen += [value for _, value in points]
    curve = group.curves[column]
    if len(curve["steps"]):
        axes.plot(curve["steps"], curve["mean"], color=color, linewidth=2, label=group.label)
        low, high = curve["low"], curve["high"]
        band = np.isfinite(low)
        axes.fill_between(
            curve["steps"], low, high, where=band, color=color, alpha=0.15, linewidth=0
        )
    return seen


def _rows(groups: Sequence[Group]) -> list[list[str]]:
    """Return a row a group: name, runs, and a cell a figure."""
    rows = []
    for group in groups:
        done = sum(run.finished for run in group.runs)
        runs = str(len(group.runs))
        runs += "" if done == len(group.runs) else f", {done} finished"
        cells = [_interval(group.figures[name]) for name in _TITLES]
        rows.append([group.label, runs, *cells])
    return rows


def _interval(interval: Mapping[str, Any] | None) -> str:
    """Return a mean with its 95 % interval."""
    if interval is None:
        return "-"
    if interval["low"] is None:
        return f"{interval['mean']:.3g}"
    return f"{interval['mean']:.3g} [{interval['low']:.3g}, {interval['high']:.3g}]"


def _text(value: Any) -> str:
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)
