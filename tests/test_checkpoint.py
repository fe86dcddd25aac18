"""Checkpoints: atomic, safe to load, and exact."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from vlmrm_fast import checkpoint as checkpoints
from vlmrm_fast import snapshot
from vlmrm_fast.checkpoint import Checkpoint
from vlmrm_fast.errors import CheckpointError


def small(step: int = 5, size: int = 4) -> Checkpoint:
    rng = np.random.default_rng(step)
    weights = {"layer.weight": rng.standard_normal((size, size)).astype(np.float32)}
    moments = {"step": np.float32(3), "exp_avg": np.ones(size, np.float32)}
    return Checkpoint(
        step=step,
        modules={"policy": weights},
        optimizers={"policy.optimizer": {"state": {0: moments}, "param_groups": [{"lr": 0.1}]}},
        state={"numbers": {"a": 1, "b": (2.5, None, [True])}, "array": np.arange(6).reshape(2, 3)},
        replay={"observations": np.ones((size, 2), np.float32)},
        config="task: x\n",
    )


def test_a_tree_survives_packing() -> None:
    tree = {
        "a": [1, 2.5, None],
        "b": (np.arange(3), {"c": "x"}),
        "d": {0: np.float32(1), 7: True},
    }
    packed, arrays = snapshot.pack(tree)
    back = snapshot.unpack(json.loads(json.dumps(packed)), arrays)
    assert back["a"] == tree["a"]
    assert isinstance(back["b"], tuple)
    np.testing.assert_array_equal(back["b"][0], np.arange(3))
    assert back["d"] == {0: 1.0, 7: True}


def test_objects_are_refused_instead_of_pickled() -> None:
    with pytest.raises(CheckpointError, match="state must be numbers"):
        snapshot.pack({"x": object()})
    with pytest.raises(CheckpointError, match="state must be numbers"):
        snapshot.pack(np.array([object()]))


def test_random_generators_continue_where_they_were() -> None:
    import torch

    state = snapshot.random_state()
    first = (random.random(), np.random.rand(), torch.rand(3).tolist())
    packed, arrays = snapshot.pack(state)
    snapshot.set_random_state(snapshot.unpack(json.loads(json.dumps(packed)), arrays))
    assert (random.random(), np.random.rand(), torch.rand(3).tolist()) == first


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = checkpoints.save(tmp_path, small())
    for target in (path, tmp_path):
        back = checkpoints.load(target)
        assert back.step == 5
        assert back.config == "task: x\n"
        assert back.path == path
        np.testing.assert_array_equal(
            back.modules["policy"]["layer.weight"], small().modules["policy"]["layer.weight"]
        )
        assert back.optimizers["policy.optimizer"]["state"][0]["step"] == 3
        assert back.state["numbers"]["b"] == (2.5, None, [True])
        assert back.replay is not None
        assert back.replay["observations"].shape == (4, 2)


def test_only_some_are_kept_and_only_the_newest_has_a_replay_buffer(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        checkpoints.save(tmp_path, small(step), keep=2)
    assert [path.name[-1] for path in checkpoints.list_checkpoints(tmp_path)] == ["3", "4"]
    assert checkpoints.load(tmp_path / "000003-step-3").replay is None
    assert checkpoints.load(tmp_path).replay is not None
    assert checkpoints.pointed(tmp_path) == tmp_path / "000004-step-4"
    assert not list(tmp_path.glob(".part*"))


def test_the_best_one_stays(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        checkpoints.save(tmp_path, small(step), keep=1, best=step == 2)
    assert [path.name[-1] for path in checkpoints.list_checkpoints(tmp_path)] == ["2", "4"]
    assert checkpoints.pointed(tmp_path, "best") == tmp_path / "000002-step-2"
    assert checkpoints.load(tmp_path).step == 4


def test_a_second_checkpoint_at_one_step_does_not_touch_the_first(tmp_path: Path) -> None:
    first = checkpoints.save(tmp_path, small())
    second = checkpoints.save(tmp_path, small())
    assert first != second
    assert checkpoints.load(tmp_path).path == second


@pytest.mark.parametrize("name", ["policy.safetensors", "state.npz", "state.json", "config.yaml"])
def test_damage_is_found_and_the_checkpoint_before_is_used(tmp_path: Path, name: str) -> None:
    good = checkpoints.save(tmp_path, small(1))
    bad = checkpoints.save(tmp_path, small(2))
    data = bytearray((bad / name).read_bytes())
    data[len(data) // 2] ^= 0xFF
    (bad / name).write_bytes(data)
    if name != "state.json":
        with pytest.raises(CheckpointError, match="got damage"):
            checkpoints.load(bad)
        assert checkpoints.load(tmp_path).path == good
    (bad / name).write_bytes(data[:5])
    assert checkpoints.load(tmp_path).path == good


def test_a_pickle_in_place_of_an_array_is_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (os.system, (f"touch {tmp_path / 'boom'}",))

    path = checkpoints.save(tmp_path / "run", small())
    np.save(path / "replay" / "observations.npy", np.array([Bomb()]), allow_pickle=True)
    with pytest.raises(CheckpointError, match="whole"):
        checkpoints.load(path)
    assert not (tmp_path / "boom").exists()


def test_names_outside_the_folder_are_refused(tmp_path: Path) -> None:
    path = checkpoints.save(tmp_path, small())
    document = json.loads((path / "state.json").read_text())
    document["files"]["../../etc/passwd"] = [0, 0]
    (path / "state.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="got damage"):
        checkpoints.load(path)
    (tmp_path / "latest").write_text("../elsewhere")
    assert checkpoints.pointed(tmp_path) is None


def test_a_full_disk_is_an_error_and_keeps_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = checkpoints.save(tmp_path, small(1))
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage)
        with pytest.raises(CheckpointError, match="MiB free"):
            checkpoints.save(tmp_path, small(2))
        with pytest.raises(CheckpointError, match="MiB free"):
            checkpoints.check_room(tmp_path, 10)
    assert checkpoints.load(tmp_path).path == good


def test_a_disk_that_fills_while_writing_keeps_what_is_there(tmp_path: Path) -> None:
    # A file size limit makes write() fail as a full disk does, in a process of its own.
    good = checkpoints.save(tmp_path, small(1))
    code = f"""
import resource, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_checkpoint as t
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    t.checkpoints.save({str(tmp_path)!r}, t.small(2, size=400))
except t.CheckpointError as error:
    print("refused", error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("refused checkpoint must be written under")
    assert checkpoints.load(tmp_path).path == good
    assert not list(tmp_path.glob(".part*"))


def test_an_old_checkpoint_that_cannot_be_dropped_stays(tmp_path: Path) -> None:
    first = checkpoints.save(tmp_path / "run", small(1), keep=1)
    # A link in the place that the old one is moved to: rename refuses it.
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run" / f".part-gone-{first.name}").symlink_to(tmp_path / "elsewhere")
    second = checkpoints.save(tmp_path / "run", small(2), keep=1)
    assert checkpoints.list_checkpoints(tmp_path / "run") == [first, second]
    assert checkpoints.load(tmp_path / "run").step == 2


def test_leftovers_that_cannot_be_removed_are_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(f"{path} is not yours")

    (tmp_path / ".part-other").write_text("")
    monkeypatch.setattr(Path, "unlink", refuse)
    assert checkpoints.load(checkpoints.save(tmp_path, small(1))).step == 1
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(CheckpointError, match="MiB free"):
        checkpoints.save(tmp_path, small(2))


def test_a_missing_run_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="must hold a checkpoint, got none"):
        checkpoints.load(tmp_path)


def test_every_kill_during_a_save_leaves_a_loadable_checkpoint(tmp_path: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_checkpoint as t
checkpoint = t.small(1, size=300)
t.checkpoints.save({str(tmp_path)!r}, checkpoint, keep=2)
print("ready", flush=True)
step = checkpoint.step
while True:
    step += 1
    checkpoint.step = step
    t.checkpoints.save({str(tmp_path)!r}, checkpoint, keep=2)
"""
    rng = random.Random(0)
    # One warm process is killed in mid-save, then the next one: imports cost more than saves.
    for _ in range(12):
        writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.0, 0.05))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        found = checkpoints.load(tmp_path)
        assert found.modules["policy"]["layer.weight"].shape == (300, 300)
        assert found.replay is not None
