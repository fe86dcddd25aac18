"""Cells of parquet files, read in order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vlmrm_fast.relabel.source import require

_ROWS = 64


class TableRows:
    """One column of an open parquet file; rows that are asked for in order are read once."""

    def __init__(self, path: Path, column: str) -> None:
        """Open the file and read to which episode each of its rows belongs.

        Args:
            path: of the parquet file.
            column: the one to read.

        Raises:
            ArgumentError: pyarrow is not installed.
            OSError, ValueError: the file cannot be read.
        """
        parquet = require("pyarrow.parquet", "LeRobot's parquet files")
        self.path, self._column = path, column
        self._file: Any = parquet.ParquetFile(path)
        table = self._file.read(columns=["episode_index"])
        self._episodes = np.asarray(table.column(0).to_numpy(), np.int64)
        groups = [
            self._file.metadata.row_group(g).num_rows for g in range(self._file.num_row_groups)
        ]
        self._starts = np.cumsum([0, *groups], dtype=np.int64)
        self._batches: Any = None
        self._batch: Any = None
        # Of the batch in hand its first row, and the row after its last one.
        self._first = self._last = 0

    def cells(self, episode: int, start: int) -> Iterator[Any]:
        """Yield an episode's cells.

        Args:
            episode: its index in the column `episode_index`.
            start: how many to leave out.

        Yields:
            Python objects.

        Raises:
            OSError, ValueError: the file cannot be read.
        """
        for row in np.flatnonzero(self._episodes == episode)[start:].tolist():
            yield self._cell(row)

    def _cell(self, row: int) -> Any:
        """Return the cell of a row; reads on from the last one, or from the row's group."""
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        if row < self._first or self._batches is None or self._starts[group] > self._last:
            groups = list(range(group, len(self._starts) - 1))
            self._batches = self._file.iter_batches(
                _ROWS, row_groups=groups, columns=[self._column]
            )
            self._first = self._last = int(self._starts[group])
        while row >= self._last:
            try:
                self._batch = next(self._batches).column(0)
            except BaseException:
                # Where the reader stands is unknown now.
                self._batches = None
                raise
            self._first, self._last = self._last, self._last + len(self._batch)
        return self._batch[row - self._first].as_py()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
