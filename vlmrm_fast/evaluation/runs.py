"""Stored runs: what a run folder still tells, whole or not."""

from __future__ import annotations

import csv
import json
import math
import os
import reprlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmrm_fast.config import TrainConfig
from vlmrm_fast.errors import ArgumentError, CheckpointError
from vlmrm_fast.run_folder import find_config, read_metrics

_MOST = sys.float_info.max
# Figures of a summary that are compared, with the range of each.
_FIGURES = {
    "steps": (0, sys.maxsize),
    "episodes": (0, sys.maxsize),
    "seconds": (0, _MOST),
    "ground_truth_return": (-_MOST, _MOST),
    "vlm_reward_mean": (-_MOST, _MOST),
    "success_rate": (0, 1),
}


@dataclass(frozen=True)
class Run:
    """A run folder, read.

    Attributes:
        folder: where it lies.
        config: its configuration.
        curve: rows of its metrics, in the order of the steps.
        summary: the content of summary.json, None where the run was not evaluated.
        report: the content of report.json, None where it was not evaluated by `eval`.
        notes: what is missing or damaged, a sentence each.
    """

    folder: Path
    config: TrainConfig
    curve: list[dict[str, float]]
    summary: dict[str, Any] | None
    report: dict[str, Any] | None
    notes: tuple[str, ...]

    @property
    def finished(self) -> bool:
        """Whether it was trained to the end and evaluated."""
        return self.summary is not None and self.steps >= (self.config.steps or 0)

    @property
    def steps(self) -> int:
        """Environment steps done, as far as the files tell."""
        if self.summary is not None:
            return int(self.summary["steps"])
        return int(self.curve[-1]["step"]) if self.curve else 0


def read_runs(folders: Sequence[str | Path]) -> list[Run]:
    """Read several run folders.

    Args:
        folders: at least one; each once.

    Returns:
        The runs, in order.

    Raises:
        ArgumentError: there is none, or one is given twice.
        CheckpointError: one holds no run.
    """
    if not folders:
        raise ArgumentError("runs must name at least one run folder, got none.")
    seen: dict[str, str | Path] = {}
    for folder in folders:
        place = os.path.realpath(folder)
        if place in seen:
            raise ArgumentError(f"runs must differ, got {seen[place]} and {folder}, one folder.")
        seen[place] = folder
    # All are checked before any is read: a misspelt name costs nothing.
    configs = [find_config(folder) for folder in folders]
    return [read_run(folder, config) for folder, config in zip(folders, configs, strict=True)]


def read_run(folder: str | Path, config: TrainConfig | None = None) -> Run:
    """Read one run folder; what cannot be read is noted, and the rest taken.

    Args:
        folder: the folder.
        config: its configuration, if it was read already.

    Returns:
        The run.

    Raises:
        CheckpointError: it holds no run.
    """
    folder = Path(folder)
    config = config or find_config(folder)
    if not (folder / "metrics.csv").exists() and (folder / "state.json").exists():
        raise CheckpointError(f"run must be a run folder, got a checkpoint, {folder}.")
    notes: list[str] = []
    curve = read_curve(folder, notes)
    summary = _read_json(folder / "summary.json", notes)
    if summary is not None:
        summary = _check_summary(summary, notes)
    report = _read_json(folder / "report.json", notes)
    if report is not None:
        report = _check_report(report, notes)
    if summary is not None and report is not None and report.get("steps") != summary["steps"]:
        notes.append(
            f"report.json is of step {report.get('steps')} and left out, the run is at "
            f"{summary['steps']}: run `vlmrm-fast eval` again."
        )
        report = None
    run = Run(folder, config, curve, summary, report, tuple(notes))
    if run.finished:
        return run
    wanted = "" if config.steps is None else f" of {config.steps}"
    rest = "no final evaluation" if summary is None else "its evaluation is of that step"
    notes.append(f"The run is not finished: {run.steps}{wanted} steps; {rest}.")
    return Run(folder, config, curve, summary, report, tuple(notes))


def read_curve(folder: Path, notes: list[str]) -> list[dict[str, float]]:
    """Read a run's metrics, whatever state they are in.

    Args:
        folder: the run folder.
        notes: gets a sentence where they are missing or damaged.

    Returns:
        Rows with "step" and whatever finite numbers else they hold, in the order of the steps.
    """
    path = folder / "metrics.csv"
    try:
        rows = read_metrics(path)
        damaged = _count_lines(path) - 1 - len(rows)
    except (OSError, ValueError, csv.Error) as error:
        notes.append(f"{path.name} cannot be read, so there is no learning curve: {error}")
        return []
    if not rows:
        notes.append(f"{path.name} has no rows, so there is no learning curve.")
    kept = [{k: value for k, value in row.items() if math.isfinite(value)} for row in rows]
    lost = sum(map(len, rows)) - sum(map(len, kept))
    for count, what in ((damaged, "damaged rows"), (lost, "numbers that are not finite")):
        if count > 0:
            notes.append(f"{path.name}: {what}, left out of the curve: {count}.")
    return sorted(kept, key=lambda row: row["step"])


def _count_lines(path: Path) -> int:
    """Return how many lines a file has that are not empty; a missing one has none."""
    if not path.exists():
        return 0
    with path.open(encoding="utf-8") as file:
        return sum(not line.isspace() for line in file)


def _read_json(path: Path, notes: list[str]) -> dict[str, Any] | None:
    """Return a JSON file's content; None where it is missing, or damaged, which is noted."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
        problem = f"got {type(content).__name__}"
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        problem = str(error)
    notes.append(f"{path.name} cannot be read: {problem}")
    return None


def _check_summary(values: dict[str, Any], notes: list[str]) -> dict[str, Any] | None:
    """Return a summary whose figures are finite numbers or None; None if it says too little."""
    damaged = {
        name: values.get(name)
        for name, (low, high) in _FIGURES.items()
        if not _is_number(values.get(name), low, high)
    }
    if values.get("success_rate") is None:
        # Nothing is wrong: the environment does not know success.
        damaged.pop("success_rate", None)
    useless = "steps" in damaged or "episodes" in damaged
    _note_damage("summary.json", damaged, notes, "it is" if useless else "these are")
    return None if useless else {**values, **dict.fromkeys(damaged)}


def _check_report(values: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """Return a report whose own measures and ranking are mappings of finite numbers or None."""
    damaged: dict[str, Any] = {}
    rows, ranking = values.get("state_measures", []), values.get("ranking") or {}
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        damaged["state_measures"], rows = rows, []
    own = ranking.get("own", {}) if isinstance(ranking, dict) else None
    if not isinstance(own, dict):
        damaged["ranking"], own = ranking, {}

    def cleaned(row: dict[str, Any]) -> dict[str, Any]:
        """Return a row without figures that are no numbers."""
        names = [n for n in ("epic", "auc", "kendall") if row.get(n) is not None]
        bad = {name: row[name] for name in names if not _is_number(row[name])}
        damaged.update(bad)
        return {**row, **dict.fromkeys(bad)}

    measures, order = [cleaned(row) for row in rows], cleaned(own)
    _note_damage("report.json", damaged, notes, "these are")
    return {**values, "state_measures": measures, "ranking": {"own": order}}


def _note_damage(file: str, damaged: Mapping[str, Any], notes: list[str], what: str) -> None:
    """Note the figures of a file that are no finite numbers in their range."""
    if damaged:
        found = ", ".join(f"{name} is {reprlib.repr(value)}" for name, value in damaged.items())
        notes.append(f"{file} is damaged, {found}; {what} left out.")


def _is_number(value: Any, low: float = -_MOST, high: float = _MOST) -> bool:
    """Say whether a value is a number of that range."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and low <= value <= high
