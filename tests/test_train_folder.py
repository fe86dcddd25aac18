"""The run folder's files, and the signals that end a run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vlmrm_fast import run_folder
from vlmrm_fast.run_folder import MetricsFiles, read_metrics
from vlmrm_fast.signals import StopSignals


def test_overwrite_removes_the_old_run_and_nothing_else(tmp_path: Path) -> None:
    for name in ("config.yaml", "run.json", "run-64.json", "summary.json", "mine.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "checkpoints" / "000001-step-1").mkdir(parents=True)
    run_folder.create(str(tmp_path), "x", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 143), (signal.SIGINT, 130)]
)
def test_the_first_signal_asks_and_handlers_are_put_back(number: int, code: int) -> None:
    before = signal.getsignal(number)
    with StopSignals() as signals:
        os.kill(os.getpid(), number)
        assert signals.received == number
        assert signals.exit_code == code
    assert signal.getsignal(number) is before


def test_the_second_signal_leaves_at_once() -> None:
    code = (
        "import os, signal, time\n"
        "from vlmrm_fast.signals import StopSignals\n"
        "with StopSignals():\n"
        "    os.kill(os.getpid(), signal.SIGUSR1)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 143


def test_a_step_that_outlasts_the_grace_period_is_left() -> None:
    code = (
        "import os, signal, time\n"
        "from vlmrm_fast import signals\n"
        "signals.GRACE_SECONDS = 0.1\n"
        "with signals.StopSignals():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(60)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert "Stopped without saving" in done.stderr


def test_metrics_survive_a_kill_in_mid_row_and_rewind_to_the_checkpoint(tmp_path: Path) -> None:
    files = MetricsFiles(tmp_path)
    for step in (10, 20, 30):
        files.write(step, {"step": step, "vlm_reward_mean": step / 7}, {"a": float("nan")})
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("40,1.0")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, ')
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.csv")] == [10, 20, 30]
    MetricsFiles(tmp_path, resume_step=20)
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.csv")] == [10, 20]
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 10, "a": None},
        {"step": 20, "a": None},
    ]


def test_metrics_that_cannot_be_written_warn_once_and_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = MetricsFiles(tmp_path)
    (tmp_path / "metrics.csv").unlink()
    (tmp_path / "metrics.csv").mkdir()
    (tmp_path / "metrics.jsonl").mkdir()
    files.write(1, {"step": 1}, {})
    files.write(2, {"step": 2}, {})
    assert capsys.readouterr().err.count("warning") == 1
