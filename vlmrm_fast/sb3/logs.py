"""The logger of a run: metrics.csv, metrics.jsonl, TensorBoard, Weights & Biases."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import KVWriter, Logger, TensorBoardOutputFormat

from vlmrm_fast.config import TrainConfig, to_dict
from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.run_folder import MetricsFiles

# Where a column of a metrics row appears in TensorBoard.
_GROUPS = {"seconds": "time", "steps_per_second": "time"}


class RunWriter(KVWriter):
    """Writes every dump to the metrics files and to the trackers that are on.

    A tracker that fails (a full disk, a lost network) is reported once and left out from then on.
    """

    def __init__(self, files: MetricsFiles, trackers: Mapping[str, Any]) -> None:
        """Keep the outputs.

        Args:
            files: metrics.csv and metrics.jsonl.
            trackers: writers by name.
        """
        self._files = files
        self._trackers = dict(trackers)
        self.row: Mapping[str, float] = {}

    def write(
        self,
        key_values: dict[str, Any],
        key_excluded: dict[str, tuple[str, ...]],
        step: int = 0,
    ) -> None:
        """Write one dump.

        Args:
            key_values: values by name.
            key_excluded: outputs to leave out, by name.
            step: environment steps done.
        """
        self._files.write(step, self.row, key_values)
        for name, tracker in list(self._trackers.items()):
            try:
                tracker.write(key_values, key_excluded, step)
            except Exception as error:  # noqa: PERF203
                sys.stderr.write(f"warning: {name} is off from here on: {error}\n")
                del self._trackers[name]

    def close(self) -> None:
        """Close the trackers."""
        for name, tracker in self._trackers.items():
            try:
                tracker.close()
            except Exception as error:  # noqa: PERF203
                sys.stderr.write(f"warning: {name} could not be closed: {error}\n")


class WandbWriter(KVWriter):
    """Sends every dump to a Weights & Biases run."""

    def __init__(self, run: Any) -> None:
        """Keep the run.

        Args:
            run: what `wandb.init` returned.
        """
        self._run = run

    def write(
        self,
        key_values: dict[str, Any],
        key_excluded: dict[str, tuple[str, ...]],
        step: int = 0,
    ) -> None:
        """Send one dump.

        Args:
            key_values: values by name.
            key_excluded: not used.
            step: environment steps done.
        """
        self._run.log(dict(key_values), step=step)

    def close(self) -> None:
        """End the run."""
        self._run.finish()


class RunLogger(Logger):
    """Stable-Baselines3's logger with a way in for our rows."""

    def __init__(self, folder: Path, writer: RunWriter) -> None:
        """Keep the writer.

        Args:
            folder: the run folder.
            writer: the one output.
        """
        super().__init__(str(folder), [writer])
        self._writer = writer

    def row(self, row: Mapping[str, float]) -> None:
        """Log a row of metrics together with what the algorithm has recorded.

        Args:
            row: a row of `MetricsCallback`.
        """
        self._writer.row = row
        for name, value in row.items():
            if name != "step":
                group = "time" if name.startswith("share_") else _GROUPS.get(name, "rollout")
                self.record(f"{group}/{name}", value)
        self.dump(int(row["step"]))


def make_logger(folder: Path, files: MetricsFiles, *, tensorboard: bool, wandb: Any) -> RunLogger:
    """Build the logger of a run.

    Args:
        folder: the run folder.
        files: metrics.csv and metrics.jsonl.
        tensorboard: whether to write TensorBoard events into folder/tensorboard.
        wandb: a Weights & Biases run, or None.

    Returns:
        The logger, for `set_logger`.
    """
    trackers: dict[str, KVWriter] = {}
    if tensorboard:
        trackers["TensorBoard"] = TensorBoardOutputFormat(str(folder / "tensorboard"))
    if wandb is not None:
        trackers["Weights & Biases"] = WandbWriter(wandb)
    return RunLogger(folder, RunWriter(files, trackers))


def check_wandb(config: TrainConfig) -> None:
    """Check that Weights & Biases is installed where it is asked for.

    Args:
        config: the configuration.

    Raises:
        ArgumentError: it is not.
    """
    if not config.logging.wandb:
        return
    try:
        importlib.import_module("wandb")
    except ImportError as error:
        raise ArgumentError(
            "logging.wandb must be off where wandb is not installed, got on. "
            "Install it: pip install 'vlmrm-fast[wandb]'."
        ) from error


def start_wandb(config: TrainConfig, folder: Path) -> Any:
    """Start a Weights & Biases run where asked to.

    Args:
        config: the configuration.
        folder: the run folder.

    Returns:
        The run, or None.
    """
    if not config.logging.wandb:
        return None
    import wandb

    return wandb.init(project="vlmrm-fast", dir=str(folder), config=to_dict(config))
