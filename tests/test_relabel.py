"""Rewards of stored trajectories: frames, states and videos, interrupted and not."""

from __future__ import annotations

import csv
import json
import re
import shutil
import tracemalloc

import numpy as np
import pytest
from relabel_data import ALPHA, BASELINE, GOALS, command, expected, make_frames, write_video

from vlmrm_fast.cli import main
from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.relabel import load_results, relabel
from vlmrm_fast.relabel.arrays import ArrayFiles
from vlmrm_fast.relabel.source import Clock
from vlmrm_fast.relabel.stream import Reader
from vlmrm_fast.tasks import fields_from_states, get_task

PROMPTS = {"goal": GOALS, "baseline": BASELINE, "alpha": ALPHA}


@pytest.fixture
def call(untrained_folder, tmp_path):
    """Relabel into a folder with the tests' prompts and an untrained model."""

    def call(source, out="out", **options):
        merged = PROMPTS | {"model": untrained_folder} | options
        return relabel(source, out=tmp_path / out, **merged)

    return call


def test_frames_of_a_file_get_the_rewards_of_the_plain_way(call, untrained_folder, tmp_path):
    frames = make_frames(70)
    np.save(tmp_path / "a.npy", frames)
    found = call(tmp_path / "a.npy")
    assert found.episodes == ("a.npy",)
    assert found.goals == GOALS
    assert found.rewards.shape == (70, 2)
    assert found.rewards.dtype == np.float32
    assert np.abs(found.rewards - expected(untrained_folder, frames)).max() <= 1e-6
    with (tmp_path / "out" / "episodes.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["episode"], row["start"], row["frames"], row["kept"]) == ("a.npy", "0", "70", "70")
    assert abs(float(row[GOALS[1]]) - found.rewards[:, 1].mean()) <= 1e-5
    report = json.loads((tmp_path / "out" / "relabel.json").read_text())
    assert report["complete"]
    assert len(report["weights_sha256"]) == 64
    assert report["rates"]["frames"] == 70
    assert not (tmp_path / "out" / "journal").exists()


@pytest.mark.parametrize("compressed", [False, True])
def test_flags_and_ends_cut_a_zipped_array_into_episodes(
    call, untrained_folder, tmp_path, compressed
):
    frames, save = make_frames(20), np.savez_compressed if compressed else np.savez
    flags = np.zeros((2, 20), bool)
    flags[0, 4] = flags[1, 11] = True
    save(tmp_path / "flags.npz", frames=frames, terminals=flags[0], timeouts=flags[1], other=[1.0])
    save(tmp_path / "ends.npz", images=frames, episode_ends=np.array([5, 12, 20]))
    truth = expected(untrained_folder, frames)
    for name in ("flags.npz", "ends.npz"):
        found = call(tmp_path / name, out=f"{name}.out")
        assert found.episode_starts.tolist() == [0, 5, 12, 20]
        assert found.episodes == tuple(f"{name}:{index}" for index in range(3))
        assert np.abs(found.rewards - truth).max() <= 1e-6
        assert np.array_equal(found.episode(1), found.rewards[5:12])


def test_episodes_of_equal_lengths_and_folders_of_files_keep_their_order(
    call, untrained_folder, tmp_path
):
    (tmp_path / "runs").mkdir()
    frames = make_frames(24)
    np.save(tmp_path / "runs" / "b.npy", frames[:18].reshape(3, 6, 40, 56, 3))
    np.save(tmp_path / "runs" / "c.npy", frames[18:, :20, :30])
    found = call(tmp_path / "runs")
    assert found.episodes == ("b.npy:0", "b.npy:1", "b.npy:2", "c.npy")
    assert found.episode_starts.tolist() == [0, 6, 12, 18, 24]
    small = expected(untrained_folder, np.ascontiguousarray(frames[18:, :20, :30]))
    assert np.abs(found.rewards[:18] - expected(untrained_folder, frames[:18])).max() <= 1e-6
    assert np.abs(found.rewards[18:] - small).max() <= 1e-6


def cartpole_states(count, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([rng.uniform(-0.5, 0.5, count), rng.uniform(-3, 3, count)], axis=1)


def draw(name, states, size):
    """Frames of states by one MjData a state."""
    import mujoco

    from vlmrm_fast.rendering import Renderer, Scene

    task = get_task(name)
    model = task.load_model()
    data = mujoco.MjData(model)
    with Renderer(Scene.from_model(model, task.camera), size, size) as renderer:
        frames = []
        for state in states:
            data.qpos[:] = state
            mujoco.mj_forward(model, data)
            frames.append(renderer.render(data)[0])
    return np.stack(frames)


def test_states_are_drawn_by_their_task_and_take_its_prompts(call, untrained_folder, tmp_path):
    states = cartpole_states(70)
    np.savez(tmp_path / "qpos.npz", qpos=states, qvel=np.ones((70, 2)), dones=np.arange(70) == 30)
    np.save(tmp_path / "both.npy", np.concatenate([states, np.ones((70, 2))], axis=1))
    task = get_task("cartpole-upright")
    options = {"task": task.name, "goal": (), "baseline": None, "alpha": None}
    first = call(tmp_path / "qpos.npz", out="a", **options)
    second = call(tmp_path / "both.npy", out="b", **options)
    assert first.goals == (task.goal,)
    assert first.episode_starts.tolist() == [0, 31, 70]
    assert np.array_equal(first.rewards, second.rewards)
    from vlmrm_fast import VLMReward

    reward = VLMReward(untrained_folder, goal=task.goal, baseline=task.baseline, alpha=task.alpha)
    frames = draw(task.name, states, reward.image_size)
    assert np.abs(first.rewards[:, 0] - reward.score(frames)).max() <= 1e-6


def test_another_look_and_another_rule_give_other_rewards(call, untrained_folder, tmp_path):
    from vlmrm_fast import VLMReward
    from vlmrm_fast.state_drawing import draw_states

    states = cartpole_states(12)
    np.save(tmp_path / "states.npy", states)
    negatives, task = ("a cart without a pole", "a floor"), get_task("cartpole-upright")
    rule = {"rule": "softmax", "negatives": negatives, "temperature": 0.05}
    found = call(tmp_path / "states.npy", task=task.name, textures="photographic", goal="a pole",
                 baseline=None, alpha=None, **rule)  # fmt: skip
    reward = VLMReward(untrained_folder, goal="a pole", baseline=task.baseline, **rule)
    (frames,) = draw_states(task, states, reward.image_size, textures="photographic")
    assert np.abs(found.rewards[:, 0] - reward.score(frames)).max() <= 1e-6
    with pytest.raises(ArgumentError, match="negatives"):
        call(tmp_path / "states.npy", out="b", task=task.name, rule="softmax", alpha=None)


def test_states_of_an_environment_without_mujoco_are_drawn_by_itself(
    call, untrained_folder, tmp_path
):
    from vlmrm_fast.state_drawing import draw_states

    task = get_task("cartpole")
    states = task.posed_states(np.random.default_rng(0), 9).qpos
    np.save(tmp_path / "states.npy", states)
    found = call(tmp_path / "states.npy", task=task.name)
    frames = np.concatenate(list(draw_states(task, states, 64)))
    assert np.abs(found.rewards - expected(untrained_folder, frames)).max() <= 1e-6


def test_the_builtin_model_prefers_stored_states_that_show_the_goal(call, tmp_path):
    states = cartpole_states(120)
    states[:, 0] *= 0.2
    np.save(tmp_path / "states.npy", states)
    found = call(tmp_path / "states.npy", task="cartpole-upright", model="builtin",
                 goal=(), baseline=None, alpha=None)  # fmt: skip
    task = get_task("cartpole-upright")
    _, upright = task.ground_truth(None, fields_from_states(task.load_model(), states, ()))
    assert 2 <= upright.sum() <= 60
    assert found.rewards[upright].mean() > found.rewards[~upright].mean() + 0.1


def test_videos_are_episodes_of_any_length_and_size(call, untrained_folder, tmp_path):
    clips = tmp_path / "clips"
    shown = [
        write_video(clips / "a.mp4", make_frames(33)),
        write_video(clips / "b.mkv", make_frames(7, 32, 64, seed=1)),
        write_video(clips / "c.avi", make_frames(21, seed=2)),
    ]
    (clips / "notes.txt").write_text("not a video")
    found = call(clips)
    assert found.episodes == ("a.mp4", "b.mkv", "c.avi")
    for index, frames in enumerate(shown):
        truth = expected(untrained_folder, frames)
        assert np.abs(found.episode(index) - truth).max() <= 1e-6
    one = call(clips / "b.mkv", out="one")
    assert np.abs(one.rewards - found.episode(1)).max() <= 1e-6


def cut(path, share):
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])


@pytest.mark.parametrize("name", ["b.mkv", "b.mp4"])
def test_a_video_that_ends_early_is_named_and_what_came_before_is_kept(
    call, untrained_folder, tmp_path, name
):
    clips = tmp_path / "clips"
    first = write_video(clips / "a.mp4", make_frames(20))
    # The table of contents in front, so that the file opens when its end is missing.
    options = {"movflags": "faststart"} if name.endswith("mp4") else {}
    whole = write_video(clips / name, make_frames(60, 160, 160, seed=1), **options)
    last = write_video(clips / "c.mp4", make_frames(5, seed=2))
    cut(clips / name, 0.6)
    with pytest.raises(ArgumentError, match=rf"^{name}: video must be whole, got .*Kept in") as got:
        call(clips)
    assert "the rewards of 20 frames of 1 episodes before it" in str(got.value)
    assert "--skip-broken" in str(got.value)
    kept = load_results(tmp_path / "out")
    assert not kept.report["complete"]
    assert kept.episodes == ("a.mp4", name)
    count = len(kept.episode(1))
    assert 5 <= count < 60
    assert np.abs(kept.episode(0) - expected(untrained_folder, first)).max() <= 1e-6
    assert np.abs(kept.episode(1) - expected(untrained_folder, whole[:count])).max() <= 1e-6
    shutil.copytree(tmp_path / "out", tmp_path / "mended")
    done = call(clips, resume=True, skip_broken=True)
    assert done.report["complete"]
    assert list(done.faults) == [name]
    assert np.array_equal(done.rewards[: len(kept.rewards)], kept.rewards)
    assert np.abs(done.episode(2) - expected(untrained_folder, last)).max() <= 1e-6
    write_video(clips / name, make_frames(60, 160, 160, seed=1), **options)
    mended = call(clips, out="mended", resume=True)
    assert np.abs(mended.episode(1) - expected(untrained_folder, whole)).max() <= 1e-6
    assert np.abs(mended.episode(2) - done.episode(2)).max() <= 1e-6


def test_a_state_that_is_not_finite_ends_its_episode_and_rows_stay_in_place(call, tmp_path):
    states = cartpole_states(40)
    good = states.copy()
    states[17, 1] = np.nan
    np.savez(tmp_path / "states.npz", states=states, episode_ends=np.array([10, 30, 40]))
    with pytest.raises(ArgumentError, match=r"states\.npz:1: states must be finite, .*state 7 of"):
        call(tmp_path / "states.npz", task="cartpole-upright")
    found = call(tmp_path / "states.npz", out="b", task="cartpole-upright", skip_broken=True)
    assert found.episode_starts.tolist() == [0, 10, 30, 40]
    assert np.isfinite(found.rewards[:17]).all()
    assert np.isnan(found.rewards[17:30]).all()
    np.savez(tmp_path / "states.npz", states=good, episode_ends=np.array([10, 30, 40]))
    mended = call(tmp_path / "states.npz", task="cartpole-upright", resume=True)
    assert np.isfinite(mended.rewards).all()
    assert not mended.faults
    rest = np.r_[:17, 30:40]
    assert np.abs(mended.rewards[rest] - found.rewards[rest]).max() <= 1e-6


def test_memory_does_not_grow_with_the_source(call, tmp_path):
    """A file of 700 MB is read with less than 250 MB more than one of 7 MB."""
    rows = np.lib.format.open_memmap(
        tmp_path / "big.npy", mode="w+", dtype=np.uint8, shape=(1000, 480, 480, 3)
    )
    del rows
    peak = {}
    for count, name in ((10, "small.npy"), (1000, "big.npy")):
        if count == 10:
            np.save(tmp_path / name, np.zeros((10, 480, 480, 3), np.uint8))
        tracemalloc.start()
        chunks = Reader(ArrayFiles(tmp_path / name, None), (0, 0), Clock(), skip_broken=False)
        total = 0
        for chunk in chunks:
            total += 0 if chunk.frames is None else len(chunk.frames)
        peak[name] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        chunks.close()
        assert total == count
    assert peak["big.npy"] - peak["small.npy"] < 250e6


BAD = {
    "there is no source": ({}, "source must be an existing file or folder, or the id of a Minari"),
    "there is no goal": ({"goal": ()}, "goal must be given, got none"),
    "alpha lacks a baseline": ({"baseline": None}, "baseline"),
    "the batch is empty": ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    "progress is odd": ({"progress": "loud"}, "progress must be one of auto, off, plain"),
    "the option is unknown": ({"gaol": "x"}, "options must be fields of RelabelConfig"),
    "the task is unknown": ({"task": "cartpole-uprigth"}, "Did you mean 'cartpole-upright'"),
    "the look is unknown": ({"task": "cartpole-upright", "textures": "photo"}, "must be one of or"),
    "the rule is unknown": ({"rule": "cosin"}, "Did you mean 'cosine'"),
    "a Minari copy is of no Minari": ({"minari_id": "a-v0"}, "minari_id must go with a Minari"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_options_are_refused_before_any_work(call, tmp_path, name):
    options, text = BAD[name]
    if name != "there is no source":
        np.save(tmp_path / "a.npy", make_frames(2))
    with pytest.raises(ArgumentError, match=re.escape(text)):
        call(tmp_path / "a.npy", **options)
    assert not (tmp_path / "out").exists()


def test_bad_files_are_refused_before_any_work(call, tmp_path):
    def refused(text, save, *arrays, name="a.npz", options=None, **named):
        save(tmp_path / name, *arrays, **named)
        with pytest.raises(ArgumentError, match=text):
            call(tmp_path / name, **(options or {}))
        assert not (tmp_path / "out").exists()

    frames, task = make_frames(4), {"task": "cartpole-upright"}
    refused("must hold an array frames, or states", np.savez, x=frames, y=frames)
    refused("must hold an array 'z', got x, y", np.savez, x=frames, y=frames, options={"key": "z"})
    refused(r"got \(4, 3\) float64", np.savez, frames=np.zeros((4, 3)))
    refused("together with --task", np.save, np.zeros((4, 2)), name="a.npy")
    refused("2 or 4\\) of cartpole", np.save, np.zeros((4, 3)), name="a.npy", options=task)
    refused("got frames in", np.save, frames, name="a.npy", options=task)
    refused("episode_ends must rise up to", np.savez, frames=frames, episode_ends=np.array([2, 3]))
    refused("dones must hold a flag a row", np.savez, frames=frames, dones=np.zeros(3))
    refused("must hold at least one state, got", np.save, np.zeros((0, 4)), name="a.npy",
            options=task)  # fmt: skip
    refused("must hold at least one state, got", np.save, np.zeros((0, 5, 4)), name="a.npy",
            options=task)  # fmt: skip
    refused("must hold at least one state, got", np.savez, states=np.zeros((0, 4)), options=task)
    refused("must hold at least one frame, got", np.save, np.zeros((0, 5, 4)), name="a.npy")
    refused(
        "must hold at least one frame", np.save, np.zeros((2, 0, 4, 4, 3), np.uint8), name="a.npy"
    )
    refused("qpos and qvel must be", np.savez, qpos=np.zeros((4, 2)), qvel=np.zeros((3, 2)),
            options=task)  # fmt: skip
    (tmp_path / "a.npy").write_bytes(b"no array")
    with pytest.raises(ArgumentError, match="source must be a NumPy file"):
        call(tmp_path / "a.npy")
    (tmp_path / "b.txt").write_text("text")
    with pytest.raises(ArgumentError, match="source must be one of"):
        call(tmp_path / "b.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArgumentError, match="must be a folder with videos"):
        call(tmp_path / "empty")
    (tmp_path / "c.mp4").write_bytes(b"no video")
    with pytest.raises(ArgumentError, match=r"^c.mp4: video must be readable"):
        call(tmp_path / "c.mp4")
    np.save(tmp_path / "a.npy", frames)
    with pytest.raises(ArgumentError, match="out must be a folder to write to"):
        call(tmp_path / "a.npy", out="b.txt")
    with pytest.raises(ArgumentError, match="with files"):
        call(tmp_path / "a.npy", out=".")
    with pytest.raises(ArgumentError, match="must hold the results of relabelling"):
        load_results(tmp_path)


def test_the_command_prints_a_table_and_its_rates(untrained_folder, tmp_path, capsys):
    np.savez(tmp_path / "a.npz", frames=make_frames(30), episode_ends=np.array([10, 30]))
    arguments = command(tmp_path / "a.npz", tmp_path / "out", untrained_folder)[3:]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert GOALS[0] in text
    assert "30 frames of 2 episodes" in text
    assert "of the encoder alone" in text
    assert "Wrote episodes.csv, relabel.json, rewards.npz" in text
    assert main(arguments) == 2
    assert "out must be a new or empty folder" in capsys.readouterr().err
    assert main([*arguments, "--resume"]) == 0


def test_the_command_exits_with_1_where_it_skipped_an_episode(untrained_folder, tmp_path, capsys):
    states = cartpole_states(12)
    states[5] = np.inf
    np.save(tmp_path / "a.npy", states)
    more = ("--task", "cartpole-upright", "--skip-broken")
    assert main(command(tmp_path / "a.npy", tmp_path / "out", untrained_folder, *more)[3:]) == 1
    assert "skipped the rest of a.npy: states must be finite" in capsys.readouterr().out
