"""Stored runs: what a run folder still tells, whole or not."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmrm_fast.config import TrainConfig
from vlmrm_fast.errors import ArgumentError, CheckpointError
from vlmrm_fast.run_folder import find_config, read_metrics


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
    if summary is not None and not _is_summary(summary):
        notes.append("summary.json lacks its figures; it is left out.")
        summary = None
    report = _read_json(folder / "report.json", notes)
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
        Rows with "step" and whatever else they hold, in the order of the steps.
    """
    path = folder / "metrics.csv"
    try:
        rows = read_metrics(path)
    except (OSError, ValueError, csv.Error) as error:
        notes.append(f"{path.name} cannot be read, so there is no learning curve: {error}")
        return []
    if not rows:
        notes.append(f"{path.name} has no rows, so there is no learning curve.")
    return sorted(rows, key=lambda row: row["step"])


def _read_json(path: Path, notes: list[str]) -> dict[str, Any] | None:
    """Return a JSON file's content; None where it is missing, or damaged, which is noted."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
        problem = f"got {type(content).__name__}"
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        problem = str(error)
    notes.append(f"{path.name} cannot be read: {problem}")
    return None


def _is_summary(values: dict[str, Any]) -> bool:
    """Say whether a summary has the numbers that are compared."""
    numbers = ("steps", "seconds", "ground_truth_return", "vlm_reward_mean", "episodes")
    return all(isinstance(values.get(name), (int, float)) for name in numbers)
