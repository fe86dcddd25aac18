"""The run folder's files, and the signals that end a run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vlmrm_fast import run_folder
from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.run_folder import MetricsFiles, read_metrics
from vlmrm_fast.signals import StopSignals


def test_overwrite_removes_the_old_run_and_nothing_else(tmp_path: Path) -> None:
    for name in ("config.yaml", "run.json", "run-64.json", "summary.json", "mine.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "checkpoints" / "000001-step-1").mkdir(parents=True)
    assert run_folder.create(str(tmp_path), "x", overwrite=True) == tmp_path
    assert (tmp_path / "summary.json").exists()
    run_folder.clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_folder_without_a_configuration_holds_no_run_to_remove(tmp_path: Path) -> None:
    (tmp_path / "video.mp4").write_text("")
    run_folder.clear(run_folder.create(str(tmp_path), "x", overwrite=True))
    assert (tmp_path / "video.mp4").exists()


def test_runs_that_start_together_get_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda form: "20260101-000000")
    # Every look finds the name free, as it does between another run's look and its mkdir.
    monkeypatch.setattr(Path, "exists", lambda path: False)
    made = [run_folder.create(None, "a task/PPO") for _ in range(3)]
    names = ["a-task-PPO-20260101-000000" + end for end in ("", ".2", ".3")]
    assert [folder.name for folder in made] == names
    elsewhere = [run_folder.create(None, "a task/PPO", base=tmp_path / "b" / "c") for _ in range(2)]
    assert elsewhere == [tmp_path / "b" / "c" / name for name in names[:2]]


def test_a_place_for_runs_that_is_a_file_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").write_text("")
    with pytest.raises(ArgumentError, match="run_dir must be a folder that can be written"):
        run_folder.create(None, "x")


def test_a_write_that_fails_keeps_the_former_content(tmp_path: Path) -> None:
    # A file size limit makes write() fail as a full disk does, in a process of its own.
    path = tmp_path / "config.yaml"
    run_folder.write_text(path, "task: x\n")
    code = f"""
import resource, signal
from pathlib import Path
from vlmrm_fast import run_folder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    run_folder.write_text(Path({str(path)!r}), "y" * 5000)
except OSError:
    print("refused")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"
    assert path.read_text() == "task: x\n"
    assert list(tmp_path.iterdir()) == [path]


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


def test_metrics_that_cannot_be_rewound_warn_and_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = MetricsFiles(tmp_path)
    for step in (10, 20):
        files.write(step, {"step": step}, {})
    # Replacing a file needs the temporary name, which is taken.
    (tmp_path / ".metrics.csv.part").mkdir()
    files = MetricsFiles(tmp_path, resume_step=10)
    assert capsys.readouterr().err.count("warning: metrics keep rows") == 1
    files.write(20, {"step": 20}, {})
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.csv")] == [10, 20, 20]


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


UNPRIVILEGED = """
import os, sys
from vlmrm_fast import run_folder
from vlmrm_fast.errors import ArgumentError

if os.geteuid() == 0:
    os.setuid(65534)  # root may write anywhere
for place in sys.argv[1:]:
    try:
        run_folder.create(place, "x")
    except ArgumentError as error:
        print(error)
"""


def test_a_place_without_write_permission_is_one_clear_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    (closed := tmp_path.parent / f"{tmp_path.name}-closed").mkdir(mode=0o000)
    places = [tmp_path / "run", closed / "inner" / "run"]
    command = [sys.executable, "-c", UNPRIVILEGED, *map(str, places)]
    done = subprocess.run(command, capture_output=True, text=True)
    closed.rmdir()
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line, place in zip(lines, places, strict=True):
        assert line.startswith(f"run_dir must be a folder that can be written, got {place}: ")
        assert "Permission denied" in line
        assert line.endswith("Name another one with --run-dir.")
