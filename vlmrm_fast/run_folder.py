"""A run's folder: configuration, provenance, metrics. What breaks here never ends training."""

from __future__ import annotations

import contextlib
import csv
import importlib.metadata
import json
import math
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vlmrm_fast.config import TrainConfig, load_config
from vlmrm_fast.errors import ArgumentError, CheckpointError

COLUMNS = (
    "step",
    "seconds",
    "steps_per_second",
    "episodes",
    "diverged",
    "vlm_reward_mean",
    "vlm_return",
    "ground_truth_mean",
    "ground_truth_return",
    "success_rate",
    "episode_length",
    "share_simulate",
    "share_draw",
    "share_encode",
    "share_learn",
    "share_other",
)
_RUN_FOLDERS = ("checkpoints", "tensorboard", "wandb")
_RUN_FILES = (
    "config.yaml",
    "run.json",
    "summary.json",
    "metrics.csv",
    "metrics.jsonl",
    "reward.png",
    "video.mp4",
    "first_frame.png",
    "last_frame.png",
    "report.html",
    "report.json",
)
_PACKAGES = (
    "vlmrm-fast",
    "numpy",
    "torch",
    "mujoco",
    "gymnasium",
    "stable-baselines3",
    "open_clip_torch",
    "timm",
    "safetensors",
)


def create(
    path: str | None, label: str, *, base: str | Path = "runs", overwrite: bool = False
) -> Path:
    """Make a run folder and check that it can be written.

    Nothing in it is removed; see `clear`.

    Args:
        path: the folder; None: a new one, named by label and time, which no other run has.
        label: what the run is of.
        base: the folder that a new one is made in.
        overwrite: whether the folder may hold a run already.

    Returns:
        The folder.

    Raises:
        ArgumentError: it holds a run already, or cannot be written.
    """
    folder = None if path is None else Path(path)
    # Path.exists raises where a parent may not be entered; the probe below says so better.
    if folder is not None and os.path.exists(folder / "config.yaml") and not overwrite:
        raise ArgumentError(
            f"run_dir must not hold a run yet, got {folder}. Continue that run with "
            f"--resume {folder}, replace it with --overwrite, or name another folder."
        )
    try:
        if folder is None:
            folder = _new_folder(label, Path(base))
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".write-test"
        probe.write_text("x")
        probe.unlink()
    except OSError as error:
        raise ArgumentError(
            f"run_dir must be a folder that can be written, got {folder or base}: {error}. "
            "Name another one with --run-dir."
        ) from error
    return folder


def _new_folder(label: str, parent: Path) -> Path:
    """Make a folder that was not there before."""
    name = re.sub(r"[^\w.-]+", "-", label).strip("-")[:60]
    base = parent / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    base.parent.mkdir(parents=True, exist_ok=True)
    # mkdir itself decides: two runs that start together would both find a free name.
    folder, serial = base, 1
    while True:
        try:
            folder.mkdir()
            return folder
        except FileExistsError:  # noqa: PERF203 - rare
            serial += 1
            folder = base.with_name(f"{base.name}.{serial}")


def clear(folder: Path) -> None:
    """Remove what a run wrote, and nothing else that lies in its folder.

    Args:
        folder: the run folder; without a config.yaml it holds no run.
    """
    if not (folder / "config.yaml").exists():
        return
    for name in _RUN_FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
    parts = [_part(folder / name) for name in _RUN_FILES]
    files = [folder / name for name in _RUN_FILES]
    for item in [*files, *parts, *folder.glob("run-*.json")]:
        item.unlink(missing_ok=True)


def find_config(run: str | Path) -> TrainConfig:
    """Return the resolved configuration of a run folder or of one of its checkpoints.

    Args:
        run: the folder.

    Returns:
        The configuration.

    Raises:
        CheckpointError: there is no such run.
    """
    run = Path(run)
    if (run / "config.yaml").is_file():
        return load_config(run / "config.yaml")
    raise CheckpointError(
        f"run must be a run folder or one of its checkpoints, got {run}, which has no config.yaml."
    )


@contextlib.contextmanager
def spared(what: str) -> Iterator[None]:
    """Turn any error inside into one line of warning: codecs and renderers raise all kinds.

    Args:
        what: what is lost then.

    Yields:
        Nothing.
    """
    try:
        yield
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        sys.stderr.write(f"warning: {what} cannot be made: {text}\n")


def write_text(path: Path, text: str) -> None:
    """Write a file in one piece: whatever fails, the former content stays.

    Args:
        path: the file.
        text: its content.

    Raises:
        OSError: it cannot be written.
    """
    part = _part(path)
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file in one piece; NaN becomes null.

    Args:
        path: the file.
        values: its content.
    """
    write_text(path, json.dumps(_finite(values), indent=2) + "\n")


def _part(path: Path) -> Path:
    """Return the name that a file has until it is whole."""
    return path.with_name(f".{path.name}.part")


def other_reward(folder: Path, reward: Mapping[str, Any]) -> str | None:
    """Say that a run was trained on other weights of its model, or other pictures, if it was.

    Names fix neither: a local folder may be written anew, `builtin` changes with releases, and a
    picture may be drawn over.

    Args:
        folder: the run folder; one without provenance is not judged.
        reward: `VLMReward.describe()` of the reward as it is now.

    Returns:
        A sentence with both digests for each, or None.
    """
    try:
        recorded = dict(json.loads((folder / "run.json").read_text(encoding="utf-8"))["reward"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    found = []
    for name, requirement in (
        ("weights_sha256", "reward.model must have the weights"),
        ("goal_images_sha256", "reward.goal_images must hold the pictures"),
    ):
        before, now = recorded.get(name), reward.get(name)
        if isinstance(before, str) and isinstance(now, str) and before != now:
            digests = f"sha256 {before[:12]}, got {now[:12]}"
            found.append(f"{requirement} that the run was trained on, {digests}.")
    return " ".join(found) or None


def provenance(seed: int, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return where a run comes from.

    Args:
        seed: the run's seed.
        extra: more entries, for example the reward's description.

    Returns:
        Command, versions, git state, machine, and `extra`.
    """
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # noqa: PERF203
            continue
    return {
        "command": shlex.join(sys.argv),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "versions": versions,
        "git": _git_state(),
        "seed": seed,
        **extra,
    }


def _git_state() -> str:
    """Return commit and cleanliness of the working directory, or that it is no repository."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return "git is not installed"
    return found.stdout.strip() if found.returncode == 0 else "not a repository"


def _finite(value: Any) -> Any:
    """Return a tree with NaN and infinities as None, which JSON has no words for."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)


class MetricsFiles:
    """metrics.csv (fixed columns) and metrics.jsonl (everything), one row at a time.

    A full disk costs rows, not the run: the first failure is reported, then rows are dropped until
    writing works again.
    """

    def __init__(self, folder: Path, resume_step: int | None = None) -> None:
        """Open the files.

        Args:
            folder: the run folder.
            resume_step: rows after this step are dropped first, since they will come again;
                None for a new run.
        """
        self._csv, self._jsonl = folder / "metrics.csv", folder / "metrics.jsonl"
        self._warned = False
        if resume_step is not None:
            try:
                self._rewind(resume_step)
            except (OSError, ValueError, csv.Error) as error:
                sys.stderr.write(f"warning: metrics keep rows that come again: {error}\n")
        elif not self._csv.exists():
            self._append(self._csv, ",".join(COLUMNS) + "\n")

    def write(self, step: int, row: Mapping[str, Any], everything: Mapping[str, Any]) -> None:
        """Append a row to each file.

        Args:
            step: environment steps done.
            row: values by column of `COLUMNS`; what is missing stays empty.
            everything: all logged values by name.
        """
        values = [row.get(name) for name in COLUMNS]
        cells = ["" if value is None else f"{value:.6g}" for value in values]
        cells[0] = str(step)
        self._append(self._csv, ",".join(cells) + "\n")
        self._append(self._jsonl, json.dumps(_finite({"step": step, **everything})) + "\n")

    def _append(self, path: Path, text: str) -> None:
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(text)
            self._warned = False
        except OSError as error:
            if not self._warned:
                sys.stderr.write(f"warning: {path.name} cannot be written: {error}\n")
            self._warned = True

    def _rewind(self, step: int) -> None:
        """Drop rows after `step`, and the half-written last row that a kill can leave."""
        rows = [row for row in read_metrics(self._csv) if row["step"] <= step]
        lines = [",".join(COLUMNS)]
        lines += [
            ",".join("" if row.get(name) is None else f"{row[name]:.10g}" for name in COLUMNS)
            for row in rows
        ]
        write_text(self._csv, "\n".join(lines) + "\n")
        kept = []
        if self._jsonl.exists():
            for line in self._jsonl.read_text(encoding="utf-8").splitlines():
                try:
                    if json.loads(line)["step"] <= step:
                        kept.append(line)
                except (ValueError, KeyError, TypeError):  # noqa: PERF203
                    continue
        write_text(self._jsonl, "".join(line + "\n" for line in kept))


def read_metrics(path: str | Path) -> list[dict[str, float]]:
    """Read metrics.csv.

    Args:
        path: the file; a missing one has no rows.

    Returns:
        One dict a row, without the empty cells; rows cut short by a kill, or whose step is no
        finite number, are left out.
    """
    path = Path(path)
    if not path.exists():
        return []
    rows = []
    with path.open(encoding="utf-8", newline="") as file:
        for cells in csv.DictReader(file):
            try:
                if None not in cells.values():
                    rows.append({k: float(v) for k, v in cells.items() if v not in {"", None}})
            except (TypeError, ValueError):  # noqa: PERF203
                continue
    return [row for row in rows if math.isfinite(row.get("step", math.nan))]
