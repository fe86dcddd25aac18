"""A Minari dataset with other rewards: a copy of the files in which only the rewards differ."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from vlmrm_fast.errors import ArgumentError, CheckpointError
from vlmrm_fast.relabel.minari_data import MAIN_FILE, Minari
from vlmrm_fast.relabel.results import Relabelled
from vlmrm_fast.relabel.source import Source, require


class MinariCopy:
    """Writes the copy; what would stand in its way is found out before any work."""

    def __init__(self, source: Source, dataset_id: str) -> None:
        """Check the id and the place.

        Args:
            source: what is relabelled.
            dataset_id: of the new dataset, "[namespace/]name-vN".

        Raises:
            ArgumentError: the source is no Minari dataset in HDF5, or the id is malformed or taken.
        """
        if not isinstance(source, Minari) or not (source.folder / MAIN_FILE).is_file():
            raise ArgumentError(
                "minari_id must go with a Minari dataset stored as HDF5, got another source. "
                "Read rewards.npz beside it."
            )
        minari = require("minari", "a Minari dataset")
        module = require("minari.dataset.minari_dataset", "a Minari dataset")
        try:
            self._namespace = module.parse_dataset_id(dataset_id)[0]
        except (ValueError, TypeError) as error:
            raise ArgumentError(
                f"minari_id must be like name-v0 or space/name-v0, got {dataset_id!r}."
            ) from error
        root = os.environ.get("MINARI_DATASETS_PATH")
        cache = Path(root) if root else Path.home() / ".minari" / "datasets"
        self._source, self._id, self._minari = source.folder, dataset_id, minari
        self._folder = cache / dataset_id
        if self._folder.exists():
            raise ArgumentError(
                f"minari_id must be new, got {dataset_id!r}, which is at {self._folder}."
            )
        self._indices = source.indices

    def write(self, results: Relabelled) -> None:
        """Copy the dataset with the rewards of the first goal, under its final name when whole.

        Args:
            results: of the whole dataset.

        Raises:
            ArgumentError: some frames have no reward.
            CheckpointError: the files cannot be written.
        """
        if results.faults:
            raise ArgumentError(
                f"minari_id must go with whole episodes, got {len(results.faults)} broken ones. "
                f"The rewards of the others are in {results.folder}."
            )
        part = self._folder.with_name(f".part-{self._folder.name}")
        try:
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(self._source, part / "data")
            self._replace(part / "data", results)
            self._describe(part / "data" / "metadata.json", results)
            if self._namespace is not None:
                names = self._minari.namespace
                if self._namespace not in names.list_local_namespaces():
                    names.create_namespace(self._namespace)
            part.rename(self._folder)
        except OSError as error:
            raise CheckpointError(
                f"dataset must be written to {self._folder}, got: {error}. The rewards are in "
                f"{results.folder}; free some disk space, then use --resume."
            ) from error

    def _replace(self, folder: Path, results: Relabelled) -> None:
        h5py = require("h5py", "a Minari dataset")
        with h5py.File(folder / MAIN_FILE, "r+") as file:
            for number, index in enumerate(self._indices):
                rewards: Any = file[f"episode_{index}/rewards"]
                rewards[...] = results.episode(number)[:, 0].astype(np.float64)

    def _describe(self, path: Path, results: Relabelled) -> None:
        """Give the copy its own id, and say where its rewards are from."""
        metadata = json.loads(path.read_text(encoding="utf-8"))
        report = results.report
        was = metadata.get("dataset_id", "")
        metadata["dataset_id"] = self._id
        # Scores of the old rewards mean nothing for the new ones.
        for name in ("ref_min_score", "ref_max_score", "num_episodes_average_score"):
            metadata.pop(name, None)
        metadata["description"] = (
            f"{was} with the rewards of a vision-language model, {report['model']}: "
            f"{results.goals[0]!r}, baseline {report['baseline']}, alpha {report['alpha']:g}, "
            f"rule {report['rule']}, negatives {report['negatives']}, "
            f"temperature {report['temperature']}."
        )
        names = ("model", "weights_sha256", "goals", "baseline", "alpha", "rule", "negatives",
                 "temperature", "precision", "compat")  # fmt: skip
        metadata["vlm_reward"] = {name: report[name] for name in names}
        path.write_text(json.dumps(metadata), encoding="utf-8")
