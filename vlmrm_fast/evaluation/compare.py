"""`vlmrm-fast compare`: runs side by side, seeds of one configuration together."""

from __future__ import annotations

import contextlib
import csv
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from vlmrm_fast import run_folder
from vlmrm_fast.config import TrainConfig
from vlmrm_fast.errors import ArgumentError, VLMRMError
from vlmrm_fast.evaluation.runs import Run, read_runs
from vlmrm_fast.evaluation.statistics import student, wilson
from vlmrm_fast.train import fixed_fields

# What runs of one configuration may differ in: chance, place, speed and what is looked at.
_FREE = (
    "seed",
    "run_dir",
    "base_dir",
    "device",
    "labels",
    "num_threads",
    "evaluation",
    "logging",
    "checkpoint",
)
# Points of a curve: more than a screen's plot shows.
_POINTS = 200
CURVES = ("vlm_reward_mean", "ground_truth_return", "success_rate")
# Figures of a run's summary that groups are compared by, with the range of each.
_FINAL = {
    "success_rate": (0.0, 1.0),
    "ground_truth_return": (-np.inf, np.inf),
    "vlm_reward_mean": (-np.inf, np.inf),
    "seconds": (0.0, np.inf),
}
_CARD = {"epic": (0.0, 1.0), "auc": (0.0, 1.0), "kendall": (-1.0, 1.0)}


@dataclass(frozen=True)
class CompareConfig:
    """Which runs to compare, and where to leave the results.

    Attributes:
        runs: run folders, at least one. Runs that differ in their seed only are one group.
        out: folder for compare.html, compare.json, runs.csv and curves.csv.
    """

    runs: tyro.conf.Positional[tuple[str, ...]]
    out: str = "comparison"


@dataclass(frozen=True)
class Group:
    """Runs of one configuration.

    Attributes:
        name: "A", "B", ...
        settings: what distinguishes it from the other groups, by dotted field name.
        target: task or environment.
        runs: its runs, by seed.
        curves: by column of the metrics: "steps", "runs", "mean", "low" and "high", (G,) each; low
            and high are NaN where a single run is left.
        figures: final figures by name, each {"mean", "low", "high", "count"} over the runs that
            have them, or None; "solved" is over the episodes of all runs.
        notes: what a reader must know, a sentence each.
    """

    name: str
    settings: dict[str, Any]
    target: str
    runs: tuple[Run, ...]
    curves: dict[str, dict[str, np.ndarray]]
    figures: dict[str, dict[str, Any] | None]
    notes: tuple[str, ...]

    @property
    def label(self) -> str:
        """Name and settings in one short line."""
        parts = [f"{key.split('.')[-1]}={_short(value)}" for key, value in self.settings.items()]
        text = f"{self.name}: {', '.join(parts) or self.target}"
        return text if len(text) <= 60 else text[:57] + "..."


def run_compare(config: CompareConfig) -> int:
    """Compare runs, write the page, JSON and CSV files, and print a table.

    Args:
        config: what to compare.

    Returns:
        The exit code 0.

    Raises:
        ArgumentError: there is no run, one is given twice, or `out` cannot be written.
        CheckpointError: a folder holds no run.
    """
    from rich.console import Console

    from vlmrm_fast.evaluation.compare_page import compare_table, write_page

    groups = compare_runs(config.runs)
    out = Path(config.out).expanduser()
    try:
        out.mkdir(parents=True, exist_ok=True)
        run_folder.write_json(out / "compare.json", to_json(groups))
        _write_runs(out / "runs.csv", groups)
        _write_curves(out / "curves.csv", groups)
    except OSError as error:
        raise ArgumentError(
            f"out must be a folder to write to, got {config.out!r}: {error}."
        ) from error
    names = ["compare.json", "runs.csv", "curves.csv"]
    with run_folder.spared("the comparison page"):
        write_page(groups, out / "compare.html")
        names.insert(0, "compare.html")
    console = Console()
    console.print(compare_table(groups))
    for note in all_notes(groups):
        console.print(f"note: {note}", markup=False, highlight=False)
    console.print(f"Wrote {', '.join(names)} in {out}.", markup=False, highlight=False)
    return 0


def compare_runs(folders: Sequence[str | Path]) -> list[Group]:
    """Read runs, put those of one configuration together and measure each group.

    An unfinished run takes part with the curve that it has.

    Args:
        folders: run folders, at least one.

    Returns:
        The groups, in the order in which their first runs are given.

    Raises:
        ArgumentError: there is no run, or one is given twice.
        CheckpointError: a folder holds no run.
    """
    parts: dict[str, list[Run]] = {}
    fields: dict[str, dict[str, Any]] = {}
    for run in read_runs(folders):
        values = fixed_fields(_filled(run.config), _FREE)
        key = repr(sorted(values.items()))
        parts.setdefault(key, []).append(run)
        fields[key] = values
    names = {name for values in fields.values() for name in values}
    differing = [
        name
        for name in sorted(names)
        if len({repr(values.get(name)) for values in fields.values()}) > 1
    ]
    return [
        _group(_letters(index), {name: fields[key].get(name) for name in differing}, runs)
        for index, (key, runs) in enumerate(parts.items())
    ]


def _filled(config: TrainConfig) -> TrainConfig:
    """Return a configuration with what an older version did not write; as it is if that fails."""
    from vlmrm_fast.sb3.building import resolve

    with contextlib.suppress(VLMRMError):
        return resolve(config)
    return config


def _group(name: str, settings: dict[str, Any], runs: list[Run]) -> Group:
    """Return a group with its curves and figures."""
    runs = sorted(runs, key=lambda run: run.config.seed)
    notes = [f"{name}, {run.folder}: {note}" for run in runs for note in run.notes]
    seeds = [run.config.seed for run in runs]
    notes += [
        f"{name}: seed {seed} occurs {seeds.count(seed)} times; such runs are no independent "
        "samples, and intervals are too narrow."
        for seed in sorted({seed for seed in seeds if seeds.count(seed) > 1})
    ]
    figures: dict[str, dict[str, Any] | None] = {}
    for figure, bounds in {**_FINAL, **_CARD}.items():
        values = [run_figures(run)[figure] for run in runs]
        known = [value for value in values if value is not None]
        figures[figure] = vars(student(known, *bounds)) if known else None
    figures["solved"] = _solved(runs)
    curves = {column: _curve(runs, column) for column in CURVES}
    target = str(runs[0].config.task or runs[0].config.env)
    return Group(name, settings, target, tuple(runs), curves, figures, tuple(notes))


def run_figures(run: Run) -> dict[str, float | None]:
    """Return a run's final figures: from its summary, and from its report card if it has one.

    Args:
        run: the run.

    Returns:
        Figures by name; None for what is not known. EPIC and AUC are those over the states of all
        policies of the report card, or of the newest one alone.
    """
    summary, report = run.summary or {}, run.report or {}
    rows = [row for row in report.get("state_measures", []) if row.get("reward") == "own"]
    rows.sort(key=lambda row: row.get("states") != "all policies")
    measures = rows[0] if rows else {}
    ranking = (report.get("ranking") or {}).get("own", {})
    return {
        **{name: summary.get(name) for name in _FINAL},
        "epic": measures.get("epic"),
        "auc": measures.get("auc"),
        "kendall": ranking.get("kendall"),
    }


def _solved(runs: Sequence[Run]) -> dict[str, Any] | None:
    """Return the share of solved episodes of all runs, with Wilson's interval."""
    known = [
        run.summary for run in runs if run.summary and run.summary.get("success_rate") is not None
    ]
    episodes = sum(summary["episodes"] for summary in known)
    if not episodes:
        return None
    solved = sum(round(summary["success_rate"] * summary["episodes"]) for summary in known)
    return vars(wilson(solved, episodes))


def _curve(runs: Sequence[Run], column: str) -> dict[str, np.ndarray]:
    """Return mean and interval of one column over the steps; each run counts where it has rows."""
    lines = []
    for run in runs:
        points = [(row["step"], row[column]) for row in run.curve if column in row]
        if points:
            lines.append(np.array(points, np.float64).T)
    if not lines:
        return {name: np.zeros(0) for name in ("steps", "runs", "mean", "low", "high")}
    steps = np.linspace(min(x[0] for x, _ in lines), max(x[-1] for x, _ in lines), _POINTS)
    # Between its rows a run is interpolated, outside of them it is not there.
    values = np.stack([np.interp(steps, x, y, np.nan, np.nan) for x, y in lines])
    bounds = _FINAL.get(column, (-np.inf, np.inf))
    there = np.isfinite(values)
    kept = there.any(axis=0)
    intervals = [student(values[there[:, i], i], *bounds) for i in np.flatnonzero(kept)]
    return {
        "steps": steps[kept],
        "runs": there.sum(axis=0)[kept],
        "mean": np.array([item.mean for item in intervals]),
        "low": np.array([np.nan if item.low is None else item.low for item in intervals]),
        "high": np.array([np.nan if item.high is None else item.high for item in intervals]),
    }


def to_json(groups: Sequence[Group]) -> dict[str, Any]:
    """Return the content of compare.json.

    Args:
        groups: what was compared.

    Returns:
        Groups with their settings, runs, figures and curves, and all notes.
    """
    return {
        "groups": [
            {
                "name": group.name,
                "target": group.target,
                "settings": group.settings,
                "runs": [_run_row(run) for run in group.runs],
                "figures": group.figures,
                "curves": {
                    column: {name: values.tolist() for name, values in curve.items()}
                    for column, curve in group.curves.items()
                },
            }
            for group in groups
        ],
        "notes": all_notes(groups),
    }


def all_notes(groups: Sequence[Group]) -> list[str]:
    """Return what a reader must know about the comparison.

    Args:
        groups: what was compared.

    Returns:
        A sentence each.
    """
    notes = [note for group in groups for note in group.notes]
    targets = sorted({group.target for group in groups})
    if len(targets) > 1:
        notes.insert(
            0,
            f"The runs are of {len(targets)} tasks ({', '.join(targets)}): rewards and returns of "
            "different tasks cannot be compared.",
        )
    if not any(run.report for group in groups for run in group.runs):
        notes.append("No run has a report card, so there is no EPIC: run `vlmrm-fast eval RUN`.")
    return notes


def _run_row(run: Run) -> dict[str, Any]:
    """Return one run's figures."""
    return {
        "run": str(run.folder),
        "seed": run.config.seed,
        "steps": run.steps,
        "finished": run.finished,
        **run_figures(run),
    }


def _write_runs(path: Path, groups: Sequence[Group]) -> None:
    """Write a line a run."""
    rows = [{"group": group.name, **_run_row(run)} for group in groups for run in group.runs]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _write_curves(path: Path, groups: Sequence[Group]) -> None:
    """Write a line a group, column and step."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["group", "column", "step", "runs", "mean", "low", "high"])
        for group in groups:
            for column, curve in group.curves.items():
                for values in zip(*curve.values(), strict=True):
                    cells = ["" if np.isnan(value) else f"{value:.6g}" for value in values]
                    writer.writerow([group.name, column, *cells])


def _letters(index: int) -> str:
    """Return A ... Z, AA ..."""
    letters = string.ascii_uppercase
    first = _letters(index // len(letters) - 1) if index >= len(letters) else ""
    return first + letters[index % len(letters)]


def _short(value: Any) -> str:
    """Return a setting as text that fits a heading beside others."""
    text = "; ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 32 else text[:29] + "..."
