"""What the prompt lab leaves: a table on the terminal, lab.csv, lab.json and lab.html."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.evaluation import verdict
from vlmrm_fast.evaluation.figures import RECALL
from vlmrm_fast.evaluation.html import Page
from vlmrm_fast.evaluation.lab import LabResult
from vlmrm_fast.evaluation.verdict import Row, choose, verdict_lines
from vlmrm_fast.run_folder import provenance, write_json, write_text

# Rows on the terminal; all are in the files.
_SHOWN = 15
# Goals with pictures in the page, apart from the task's own.
_DETAILED = 3
_FRAMES = 6
_FRAME_SIZE = 160
_COLUMNS = [field.name for field in fields(Row) if field.name != "reasons"]
_FIGURES = {
    "EPIC": "epic",
    "Pearson": "pearson",
    "Spearman": "spearman",
    "AUC": "auc",
    "near AUC": "near_auc",
    "FPR": "fpr",
    "margin": "margin",
    "top": "top",
}
_SHOWN_FIGURES = ("EPIC", "AUC", "near AUC", "FPR", "top")
_COLORS = {"goal": "tab:green", "near miss": "tab:orange", "other": "tab:gray"}
_LEGEND = (
    f"EPIC: distance to the goal label, 0 is perfect, 0.71 is chance. Pearson and Spearman: "
    "correlation with the ground-truth reward. AUC: chance that a goal state beats another; "
    f"near AUC: a near miss. FPR: share of other states above the threshold that {RECALL:.0%} of "
    "goal states pass. Margin: gap between the goals' tenth percentile and the others' ninetieth, "
    "in standard deviations. Top: share of goal states among the best-rewarded."
)


def write_data(out: Path, result: LabResult) -> None:
    """Write lab.csv and lab.json, each in one piece.

    Args:
        out: the folder.
        result: what is there so far.

    Raises:
        ArgumentError: the folder cannot be written to.
    """
    try:
        write_text(out / "lab.csv", _csv_text(result.rows))
        write_json(out / "lab.json", _json_tree(result))
    except OSError as error:
        raise ArgumentError(f"out must be a folder to write to, got {out}: {error}.") from error


def _csv_text(rows: Iterable[Row]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["rank", *_COLUMNS, "go", "reasons"])
    for rank, row in enumerate(rows, 1):
        cells = [_csv_cell(getattr(row, name)) for name in _COLUMNS]
        writer.writerow([rank, *cells, "go" if row.go else "no go", "; ".join(row.reasons)])
    return buffer.getvalue()


def _csv_cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _json_tree(result: LabResult) -> dict[str, Any]:
    """Return everything but the rewards of single states."""
    subject = result.plan.subject
    groups, counts = np.unique(subject.groups, return_counts=True)
    bounds = ("EPIC_LIMIT", "AUC_LEAST", "NEAR_AUC_LEAST", "FPR_LIMIT", "TOP_LEAST", "LEAST_STATES")
    return {
        "source": subject.title,
        "states": len(subject.goal),
        "goal_states": int(subject.goal.sum()),
        "near_misses": int(subject.near.sum()),
        "groups": dict(zip(groups.tolist(), counts.tolist(), strict=True)),
        "settings": asdict(result.plan.settings),
        "models": {trial.model: trial.details for trial in result.trials},
        "bounds": {name.lower(): getattr(verdict, name) for name in bounds},
        "go": any(row.go for row in result.rows),
        "verdict": verdict_lines(result.rows),
        "failures": result.failures,
        "seconds": {f"{t.model}, {t.camera}": t.seconds for t in result.trials},
        "rows": [{**vars(row), "go": row.go} for row in result.rows],
        "provenance": provenance(result.plan.settings.seed, {}),
    }


def show(result: LabResult, out: Path) -> None:
    """Print the best rows, the verdict and where the files are.

    Args:
        result: what was found.
        out: the folder.
    """
    from rich.console import Console

    console = Console()
    console.print(lab_table(result))
    for kind, values in numbering(result).items():
        for value, number in values.items():
            console.print(f"{kind} {number}: {value}", markup=False, highlight=False)
    if len(result.rows) > _SHOWN:
        console.print(f"{len(result.rows)} rows in all: see lab.csv.", highlight=False)
    for line in verdict_lines(result.rows):
        console.print(line, markup=False, highlight=False)
    for model in result.failures:
        console.print(f"{model} could not be used.", markup=False, highlight=False)
    count = len(result.plan.subject.goal)
    for trial in result.trials:
        line = f"{trial.model}, camera {trial.camera}: {count} frames in {trial.seconds:.1f} s."
        console.print(line, markup=False, highlight=False)
    names = ", ".join(str(out / f"lab.{kind}") for kind in ("html", "csv", "json"))
    console.print(f"Wrote {names}.", markup=False, highlight=False, soft_wrap=True)


def lab_table(result: LabResult) -> Any:
    """Return the best rows as a table for the terminal, the task's own prompt among them.

    Args:
        result: what was found.

    Returns:
        A `rich.table.Table`; models, cameras and baselines are numbered where there are several,
        as `numbering` lists them.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    subject = result.plan.subject
    title = f"{subject.title}: {len(subject.goal)} states, {int(subject.goal.sum())} show the goal"
    table = Table(title=Text(title), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    several = numbering(result)
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("goal (* the task's own)", overflow="fold", min_width=12)
    for name in (*several, "alpha", *_SHOWN_FIGURES):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    own = next((row for row in result.rows if row.reference), None)
    for rank, row in enumerate(result.rows, 1):
        if rank > _SHOWN and row is not own:
            continue
        numbers = [values.get(getattr(row, name), "") for name, values in several.items()]
        table.add_row(
            str(rank),
            Text(row.goal + (" *" if row.reference else "")),
            *(str(number) for number in numbers),
            f"{row.alpha:g}",
            *(_two_digits(getattr(row, _FIGURES[name])) for name in _SHOWN_FIGURES),
            Text("go" if row.go else "no go", style="green" if row.go else "red"),
        )
    return table


def numbering(result: LabResult) -> dict[str, dict[str, int]]:
    """Return a number for each model, camera and baseline, where there are several of a kind.

    Args:
        result: what was found.

    Returns:
        {"model": {name: number from 1}, ...}, kinds with one value left out.
    """
    seen = {
        "model": dict.fromkeys(trial.model for trial in result.trials),
        "camera": dict.fromkeys(trial.camera for trial in result.trials),
        "baseline": dict.fromkeys(row.baseline for row in result.rows if row.baseline),
    }
    return {
        kind: {value: number for number, value in enumerate(values, 1)}
        for kind, values in seen.items()
        if len(values) > 1
    }


def _two_digits(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"


def write_page(out: Path, result: LabResult) -> Path:
    """Write lab.html: verdict, all rows, and the best goals' histograms and frames.

    Args:
        out: the folder.
        result: what was found.

    Returns:
        The file's path.
    """
    subject = result.plan.subject
    page = Page(f"Prompt lab: {subject.title}")
    page.note("\n".join(verdict_lines(result.rows)), "good" if choose(result.rows).go else "bad")
    groups, counts = np.unique(subject.groups, return_counts=True)
    made_of = ", ".join(f"{count} {group}" for group, count in zip(groups, counts, strict=True))
    page.text(
        f"{len(subject.goal)} states, {int(subject.goal.sum())} of which show the goal by the "
        f"ground truth: {made_of}."
    )
    for model, text in result.failures.items():
        page.note(f"{model} could not be used: {text}", "bad")
    if len({row.alpha for row in result.rows}) > 1:
        page.heading("EPIC distance over alpha")
        page.figure(alpha_figure(result.rows), "EPIC distance of each goal; smaller is better.")
    detailed = _detailed(result.rows)
    pictures = _pick_pictures(result, detailed)
    for row in detailed:
        _add_details(page, result, row, pictures)
    page.heading("All rows")
    page.text(_LEGEND)
    names = ["goal", "baseline", "alpha", "model", "camera"]
    page.table(
        ["#", *names, *_FIGURES, "verdict"],
        [
            [
                rank,
                *(row.goal + (" *" if row.reference else ""), row.baseline, row.alpha),
                *(row.model, row.camera),
                *(_blank(getattr(row, figure)) for figure in _FIGURES.values()),
                "go" if row.go else "no go: " + "; ".join(row.reasons),
            ]
            for rank, row in enumerate(result.rows, 1)
        ],
    )
    return page.write(out / "lab.html")


def _blank(value: float) -> str | float | None:
    return None if math.isnan(value) else f"{value:.3f}"


def _detailed(rows: Sequence[Row]) -> list[Row]:
    """Return the best row of each of the best goals, and of the task's own prompt."""
    by_goal: dict[str, Row] = {}
    for row in rows:
        by_goal.setdefault(row.goal, row)
    best = list(by_goal.values())
    return best[:_DETAILED] + [row for row in best[_DETAILED:] if row.reference]


def _telling(rewards: np.ndarray, goal: np.ndarray) -> dict[str, list[int]]:
    """Return the frames to show of one reward, by what they are."""
    order = np.argsort(-rewards, kind="stable")
    chosen = {
        "Highest rewards": order,
        "Lowest rewards": order[::-1],
        "Highest rewards of states that do not show the goal": order[~goal[order]],
        "Lowest rewards of states that do": order[::-1][goal[order[::-1]]],
    }
    return {title: indices[:_FRAMES].tolist() for title, indices in chosen.items()}


def _pick_pictures(result: LabResult, rows: Sequence[Row]) -> dict[tuple[str, int], np.ndarray]:
    """Return all frames that the page shows, by camera and index; a file is gone through once."""
    subject = result.plan.subject
    wanted: dict[str, set[int]] = {}
    for row in rows:
        for indices in _telling(result.rewards(row), subject.goal).values():
            wanted.setdefault(row.camera, set()).update(indices)
    found: dict[tuple[str, int], np.ndarray] = {}
    for text, union in wanted.items():
        indices = sorted(union)
        frames = subject.pick(indices, _FRAME_SIZE, result.plan.cameras[text])
        found |= {(text, i): frame for i, frame in zip(indices, frames, strict=True)}
    return found


def _add_details(
    page: Page, result: LabResult, row: Row, pictures: Mapping[tuple[str, int], np.ndarray]
) -> None:
    """Add a goal's histograms and its telling frames."""
    subject, rewards = result.plan.subject, result.rewards(row)
    page.heading(f'"{row.goal}"')
    page.text(
        f"alpha {row.alpha:g}"
        + (f', baseline "{row.baseline}"' if row.baseline else "")
        + f", model {row.model}, camera {row.camera}: EPIC {row.epic:.3f}, AUC {row.auc:.3f}, "
        f"rank {result.rows.index(row) + 1} of {len(result.rows)}."
    )
    page.figure(
        histogram_figure(rewards, subject.goal, subject.near),
        f"Rewards of goal states, near misses and others; {RECALL:.0%} of goal states lie right "
        "of the dashed line.",
    )
    for title, indices in _telling(rewards, subject.goal).items():
        page.heading(title, 3)
        page.frames(
            [pictures[row.camera, i] for i in indices],
            [
                f"{rewards[i]:.3f} {'goal, ' if subject.goal[i] else ''}{subject.names[i]}"
                for i in indices
            ],
        )


def histogram_figure(rewards: np.ndarray, goal: np.ndarray, near: np.ndarray) -> Any:
    """Return histograms of the rewards of goal states, near misses and others.

    Args:
        rewards: (N,) finite.
        goal: (N,) bool.
        near: (N,) bool.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.6), layout="constrained")
    axes = figure.subplots()
    edges = np.histogram_bin_edges(rewards.astype(np.float64), bins=40).tolist()
    for name, kept in (("other", ~(goal | near)), ("near miss", near), ("goal", goal)):
        if kept.any():
            share = np.full(int(kept.sum()), 1 / kept.sum())
            label = f"{name} ({int(kept.sum())})"
            axes.hist(
                rewards[kept], edges, weights=share, alpha=0.55, color=_COLORS[name], label=label
            )
    axes.axvline(np.quantile(rewards[goal], 1 - RECALL), color="black", linestyle="--", linewidth=1)
    axes.set(xlabel="VLM reward", ylabel="share of its kind")
    axes.legend(fontsize="small")
    return figure


def alpha_figure(rows: Sequence[Row], limit: int = 10) -> Any:
    """Return the EPIC distance over alpha, one line a goal, model and camera.

    Args:
        rows: ranked.
        limit: most lines; the best.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots()
    lines: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        lines.setdefault((row.goal, row.model, row.camera), []).append(row)
    several = len({key[1:] for key in lines}) > 1
    for key, members in list(lines.items())[:limit]:
        best: dict[float, float] = {}
        for row in members:
            best[row.alpha] = min(row.epic, best.get(row.alpha, math.inf))
        alphas = sorted(best)
        label = ", ".join(key) if several else key[0]
        label = label if len(label) <= 60 else label[:57] + "..."
        axes.plot(alphas, [best[alpha] for alpha in alphas], marker="o", markersize=3, label=label)
    axes.axhline(verdict.EPIC_LIMIT, color="black", linestyle="--", linewidth=1)
    axes.set(xlabel="alpha", ylabel="EPIC distance", ylim=(0, 1))
    axes.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
