"""Every kernel compiles for every target within the committed budget, without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import kernel_budget

BUDGET = json.loads(kernel_budget.FILE.read_text())


def test_no_kernel_spills_and_products_use_the_matrix_units() -> None:
    for name, used in BUDGET["kernels"].items():
        assert used["spills"] == used["stack"] == 0, name
        assert bool(used["matrix"]) == (
            "resize" in name or "score 16" in name or "score 256" in name
        )


def test_kernels_compile_to_the_committed_budget() -> None:
    # Interpreted kernels cannot be compiled: another process, without the interpreter.
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, str(Path(kernel_budget.__file__))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
