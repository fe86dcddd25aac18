"""What a resumed relabelling goes on with, and what it refuses."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
import torch
from relabel_data import (
    ALPHA,
    BASELINE,
    GOALS,
    command,
    expected,
    make_frames,
    write_video,
)

from vlmrm_fast.errors import ArgumentError, CheckpointError
from vlmrm_fast.relabel import fingerprint, journal, relabel, run


@pytest.fixture
def call(untrained_folder, tmp_path):
    """Relabel into a folder with the tests' prompts and an untrained model."""

    def call(source, out="out", **options):
        prompts = {"goal": GOALS, "baseline": BASELINE, "alpha": ALPHA}
        merged = prompts | {"model": untrained_folder} | options
        return relabel(source, out=tmp_path / out, **merged)

    return call


@pytest.fixture
def interrupt(call, monkeypatch):
    """Relabel, and stop as Ctrl-C does once so many frames have their rewards."""

    def interrupt(source, frames, **options):
        add = journal.Journal.add

        def stop(self, scored):
            add(self, scored)
            if self.progress.rows >= frames:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(journal.Journal, "add", stop)
            with pytest.raises(KeyboardInterrupt):
                call(source, **options)

    return interrupt


@pytest.fixture
def folder(tmp_path):
    """Three files of 20 frames, an episode each."""
    (tmp_path / "data").mkdir()
    for index in range(3):
        np.save(tmp_path / "data" / f"{index}.npy", make_frames(20, seed=index))
    return tmp_path / "data"


def test_a_file_that_changed_after_its_end_is_named_on_resume(call, interrupt, folder):
    interrupt(folder, 25, batch_size=5)
    np.save(folder / "0.npy", make_frames(20, seed=9))
    with pytest.raises(ArgumentError, match=r"same data, got 0\.npy of .*data changed after its"):
        call(folder, resume=True, batch_size=5)
    np.save(folder / "0.npy", make_frames(20, seed=0))
    call(folder, resume=True, batch_size=5)
    np.save(folder / "2.npy", make_frames(20, seed=9))
    with pytest.raises(ArgumentError, match=r"got 2\.npy of .* Put the old file back, or use"):
        call(folder, resume=True, batch_size=5)


def test_a_file_that_changed_under_way_is_scored_from_its_start(
    call, interrupt, folder, untrained_folder, tmp_path
):
    interrupt(folder, 25, batch_size=5)
    shutil.copytree(tmp_path / "out", tmp_path / "later")
    np.save(folder / "1.npy", make_frames(20, seed=9))
    found = call(folder, resume=True, batch_size=5)
    assert found.report["rates"]["frames"] == 40
    assert found.episode_starts.tolist() == [0, 20, 40, 60]
    truth = [expected(untrained_folder, make_frames(20, seed=seed)) for seed in (0, 9, 2)]
    assert np.abs(found.rewards - np.concatenate(truth)).max() <= 1e-6
    np.save(folder / "1.npy", make_frames(20, seed=1))
    np.save(folder / "2.npy", make_frames(20, seed=8))
    found = call(folder, out="later", resume=True, batch_size=5)
    assert found.report["rates"]["frames"] == 35
    assert (
        np.abs(found.episode(2) - expected(untrained_folder, make_frames(20, seed=8))).max() < 1e-6
    )


def test_a_file_of_many_episodes_that_changed_is_scored_anew(
    call, interrupt, untrained_folder, tmp_path
):
    ends = np.array([10, 30, 40])
    np.savez(tmp_path / "a.npz", frames=make_frames(40), episode_ends=ends)
    interrupt(tmp_path / "a.npz", 15, batch_size=5)
    np.savez(tmp_path / "a.npz", frames=make_frames(40, seed=1), episode_ends=ends)
    interrupt(tmp_path / "a.npz", 15, batch_size=5, resume=True)
    found = call(tmp_path / "a.npz", resume=True, batch_size=5)
    assert found.report["rates"]["frames"] == 25
    truth = expected(untrained_folder, make_frames(40, seed=1))
    assert np.abs(found.rewards - truth).max() <= 1e-6


def test_another_array_of_the_same_file_is_other_work(call, interrupt, tmp_path):
    frames = make_frames(20)
    np.savez(tmp_path / "a.npz", front=frames, side=frames[::-1])
    interrupt(tmp_path / "a.npz", 10, batch_size=5, key="front")
    with pytest.raises(ArgumentError, match=r"got identity .*'side'"):
        call(tmp_path / "a.npz", resume=True, batch_size=5, key="side")
    call(tmp_path / "a.npz", resume=True, batch_size=5, key="front")
    with pytest.raises(ArgumentError, match=r"got identity .*'side'"):
        call(tmp_path / "a.npz", resume=True, batch_size=5, key="side")


def test_a_fingerprint_sees_both_ends_and_the_middle_of_a_large_file(tmp_path):
    path, seen = tmp_path / "a", set()
    for size in (0, 1, 100, 2**22, 9_000_000):
        raw = bytearray(size)
        for at in (None, 0, size - 1) if size > 1 else (None,):
            if at is not None:
                raw[at] += 1
            path.write_bytes(raw)
            seen.add(fingerprint.fingerprint(path))
    raw[4_400_000:4_600_000] = b"x" * 200_000
    path.write_bytes(raw)
    seen.add(fingerprint.fingerprint(path))
    assert len(seen) == 12
    assert fingerprint.fingerprint(tmp_path / "b") == "missing"


def test_finished_results_are_not_those_of_other_numbers(call, folder, untrained_folder, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(untrained_folder, model)
    whole = call(folder, model=str(model))
    assert np.array_equal(call(folder, model=str(model), resume=True).rewards, whole.rewards)
    for options in ({"compat": True}, {"precision": "bf16"}, {"batch_size": 7}):
        with pytest.raises(ArgumentError, match=f"same work, got {next(iter(options))} .*another"):
            call(folder, model=str(model), resume=True, **options)
    change_weights(model)
    with pytest.raises(ArgumentError, match="same work, got weights_sha256"):
        call(folder, model=str(model), resume=True)


def change_weights(model):
    from safetensors.numpy import load_file, save_file

    (path,) = model.glob("*.safetensors")
    weights = load_file(path)
    name = next(name for name in weights if weights[name].ndim == 2)
    save_file(weights | {name: weights[name] * 2}, path)


def test_a_call_killed_while_it_cleans_up_has_finished(call, folder, tmp_path, monkeypatch):
    def half(self):
        self.close()
        (self.folder / "rewards.f32").unlink()

    with monkeypatch.context() as patch:
        patch.setattr(journal.Journal, "remove", half)
        whole = call(folder)
    assert np.array_equal(call(folder, resume=True).rewards, whole.rewards)
    assert not (tmp_path / "out" / "journal").exists()


def test_the_line_that_makes_a_journal_goes_first(call, folder, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(journal.shutil, "rmtree", lambda *args, **options: None)
        call(folder)
    assert [path.name for path in (tmp_path / "out" / "journal").iterdir()] == ["rewards.f32"]


@pytest.mark.parametrize("left", ["folder", "empty", "torn", "probe"])
def test_a_call_killed_at_its_start_is_begun_anew(call, folder, tmp_path, left):
    out = tmp_path / "out"
    (out / "journal").mkdir(parents=True)
    if left == "probe":
        (out / "journal").rmdir()
        (out / ".vlmrm-fast-probe").touch()
    elif left != "folder":
        (out / "journal" / "rewards.f32").touch()
        (out / "journal" / "lines.jsonl").write_text('{"form' if left == "torn" else "")
    assert call(folder, resume=True).rewards.shape == (60, 2)


def test_two_processes_cannot_write_to_one_folder(call, folder, tmp_path):
    (tmp_path / "out").mkdir()
    other = os.open(tmp_path / "out", os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(ArgumentError, match="out must be written by one process at a time"):
        call(folder)
    os.close(other)
    assert call(folder).rewards.shape == (60, 2)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "episodes.csv", "relabel.json", "rewards.npz",
    ]  # fmt: skip


def committed(path):
    """Rows that the journal counts."""
    try:
        lines = path.read_text().splitlines()
        return json.loads(lines[-1]).get("rows", 0)
    except (OSError, IndexError, ValueError):
        return 0


def test_a_killed_process_resumes_to_the_same_bits(call, untrained_folder, tmp_path):
    clips = tmp_path / "clips"
    for index in range(4):
        write_video(clips / f"{index}.mp4", make_frames(100, seed=index))
    whole = call(clips, out="whole", batch_size=4)
    out, journal = tmp_path / "killed", tmp_path / "killed" / "journal" / "lines.jsonl"
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(
        command(clips, out, untrained_folder), env=environment, stderr=subprocess.DEVNULL
    )
    while committed(journal) < 40:
        assert process.poll() is None, "the process was to be killed before its end"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    rows = committed(journal)
    assert 40 <= rows < 400
    assert not (out / "rewards.npz").exists()
    with pytest.raises(ArgumentError, match=r"new or empty folder.*--resume"):
        call(clips, out="killed", batch_size=4)
    found = call(clips, out="killed", batch_size=4, resume=True)
    assert found.report["rates"]["frames"] == 400 - rows
    assert found.episode_starts.tolist() == [0, 100, 200, 300, 400]
    assert np.array_equal(found.rewards, whole.rewards)
    again = call(clips, out="killed", batch_size=4, resume=True)
    assert np.array_equal(again.rewards, whole.rewards)


class Tripwire:
    """A source that fails after some frames, as a full disk or a bug would."""

    def __init__(self, source, frames, error=MemoryError):
        self._source, self._left, self._error = source, frames, error

    def __getattr__(self, name):
        return getattr(self._source, name)

    def read(self, episode, start, clock):
        for frames in self._source.read(episode, start, clock):
            self._left -= len(frames)
            if self._left < 0:
                raise self._error("no room")
            yield frames


def test_a_journal_cut_anywhere_resumes_to_the_same_bits(
    call, untrained_folder, tmp_path, monkeypatch
):
    frames = make_frames(90)
    np.savez(tmp_path / "a.npz", frames=frames, episode_ends=np.array([3, 3, 40, 50, 90]))
    whole = call(tmp_path / "a.npz", out="whole", batch_size=7)
    assert whole.episode_starts.tolist() == [0, 3, 3, 40, 50, 90]
    opened = run.open_source
    monkeypatch.setattr(run, "open_source", lambda config: Tripwire(opened(config), 70))
    monkeypatch.setattr(journal, "COMMIT_SECONDS", 0.0)
    with pytest.raises(MemoryError):
        call(tmp_path / "a.npz", out="part", batch_size=7)
    monkeypatch.undo()
    lines = (tmp_path / "part" / "journal" / "lines.jsonl").read_bytes()
    first = lines.index(b"\n") + 1
    for end in np.linspace(first, len(lines), 4).astype(int):
        out = tmp_path / f"cut{end}"
        shutil.copytree(tmp_path / "part", out)
        (out / "journal" / "lines.jsonl").write_bytes(lines[:end])
        with (out / "journal" / "rewards.f32").open("ab") as file:
            file.write(b"torn")
        found = call(tmp_path / "a.npz", out=out.name, batch_size=7, resume=True)
        assert np.array_equal(found.rewards, whole.rewards)
        assert found.episode_starts.tolist() == whole.episode_starts.tolist()


def test_ctrl_c_keeps_what_is_scored_and_says_so(call, tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "a.npy", make_frames(90))
    opened = run.open_source
    monkeypatch.setattr(
        run, "open_source", lambda config: Tripwire(opened(config), 64, KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        call(tmp_path / "a.npy", progress="plain")
    assert "64 frames are kept; use --resume to go on" in capsys.readouterr().err
    monkeypatch.undo()
    found = call(tmp_path / "a.npy", resume=True, progress="plain")
    assert "resuming after 64 frames, in episode 1 of 1" in capsys.readouterr().err
    assert found.report["rates"]["frames"] == 26


def test_resume_refuses_other_work(call, tmp_path, monkeypatch):
    frames = make_frames(90)
    np.save(tmp_path / "a.npy", frames)
    opened = run.open_source
    monkeypatch.setattr(run, "open_source", lambda config: Tripwire(opened(config), 64))
    monkeypatch.setattr(journal, "COMMIT_SECONDS", 0.0)
    with pytest.raises(MemoryError):
        call(tmp_path / "a.npy")
    monkeypatch.undo()
    for options in ({"alpha": 0.25}, {"goal": "a cart"}, {"batch_size": 5}):
        with pytest.raises(ArgumentError, match="resume must continue the same work, got"):
            call(tmp_path / "a.npy", resume=True, **options)
    np.save(tmp_path / "a.npy", frames[:80])
    with pytest.raises(ArgumentError, match="got identity"):
        call(tmp_path / "a.npy", resume=True)
    np.save(tmp_path / "a.npy", frames)
    call(tmp_path / "a.npy", resume=True)
    with pytest.raises(ArgumentError, match=r"got alpha 0\.25 where"):
        call(tmp_path / "a.npy", resume=True, alpha=0.25)


def test_rewards_that_do_not_match_their_journal_are_refused(call, tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", make_frames(90))
    opened = run.open_source
    monkeypatch.setattr(run, "open_source", lambda config: Tripwire(opened(config), 64))
    with pytest.raises(MemoryError):
        call(tmp_path / "a.npy")
    monkeypatch.undo()
    path = tmp_path / "out" / "journal" / "rewards.f32"
    raw = bytearray(path.read_bytes())
    raw[9] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match="journal must match its rewards"):
        call(tmp_path / "a.npy", resume=True)
