"""Rewards of LeRobot and Minari datasets, written by pyarrow, av and minari."""

from __future__ import annotations

import json
import sys

import av
import gymnasium
import h5py
import minari
import numpy as np
import pyarrow.parquet as pq
import pytest
from minari.data_collector import EpisodeBuffer
from relabel_data import (
    ALPHA,
    BASELINE,
    GOALS,
    expected,
    make_frames,
    write_lerobot_images,
    write_lerobot_v2,
    write_lerobot_v3,
)

from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.relabel import load_results, relabel
from vlmrm_fast.relabel.drawing import TaskDrawer
from vlmrm_fast.relabel.lerobot import LeRobot
from vlmrm_fast.relabel.observations import make_positions, task_of
from vlmrm_fast.relabel.source import Clock

PROMPTS = {"goal": GOALS, "baseline": BASELINE, "alpha": ALPHA}


@pytest.fixture
def call(untrained_folder, tmp_path):
    def call(source, out="out", **options):
        merged = PROMPTS | {"model": untrained_folder} | options
        return relabel(source, out=tmp_path / out, **merged)

    return call


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "minari"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    return folder


def episodes_of(lengths):
    return [make_frames(length, seed=index) for index, length in enumerate(lengths)]


@pytest.mark.parametrize("version", ["v2.0", "v2.1", "v3.0"])
def test_lerobot_datasets_get_a_table_that_joins_theirs(call, untrained_folder, tmp_path, version):
    folder = tmp_path / "data"
    folder.mkdir()
    episodes = episodes_of((23, 5, 40))
    if version == "v3.0":
        shown = write_lerobot_v3(folder, episodes)
    else:
        shown = write_lerobot_v2(folder, episodes, version)
    found = call(folder)
    assert found.episodes == ("episode_000000", "episode_000001", "episode_000002")
    for index, frames in enumerate(shown):
        truth = expected(untrained_folder, frames)
        assert np.abs(found.episode(index) - truth).max() <= 1e-6
    table = pq.read_table(tmp_path / "out" / "rewards.parquet")
    assert table.column_names == ["episode_index", "frame_index", "index", "reward_0", "reward_1"]
    assert json.loads(table.schema.metadata[b"goals"]) == list(GOALS)
    assert table["index"].to_pylist() == list(range(68))
    assert table["episode_index"].to_pylist() == [0] * 23 + [1] * 5 + [2] * 40
    assert table["frame_index"].to_pylist() == [*range(23), *range(5), *range(40)]
    assert np.array_equal(table["reward_1"].to_numpy(), found.rewards[:, 1])
    one = call(folder, out="one", goal=GOALS[0])
    names = pq.read_table(tmp_path / "one" / "rewards.parquet").column_names
    assert names[3:] == ["reward"]
    assert np.abs(one.rewards[:, 0] - found.rewards[:, 0]).max() <= 1e-6


@pytest.mark.parametrize("start", [0, 1, 11, 12, 13, 39])
@pytest.mark.parametrize("codec", ["mpeg4", "libx264", "libsvtav1"])
def test_reading_goes_on_at_any_frame_of_a_shared_video(tmp_path, start, codec):
    if codec not in av.codecs_available:
        pytest.skip(f"this build of FFmpeg has no {codec}")
    episodes = [make_frames(length, 64, 64, seed=i) for i, length in enumerate((23, 30, 40))]
    shown = write_lerobot_v3(tmp_path, episodes, codec=codec)
    source = LeRobot(tmp_path)
    for episode in (2, 0, 1, 2):
        first = min(start, len(shown[episode]) - 1)
        frames = np.concatenate(list(source.read(episode, first, Clock())))
        assert np.array_equal(frames, shown[episode][first:])
    source.close()


@pytest.mark.parametrize("start", [0, 7, 22])
def test_reading_goes_on_at_any_frame_of_an_episodes_own_video(tmp_path, start):
    shown = write_lerobot_v2(tmp_path, episodes_of((23, 30)))
    source = LeRobot(tmp_path)
    for episode in (1, 0, 0, 1):
        frames = np.concatenate(list(source.read(episode, start, Clock())))
        assert np.array_equal(frames, shown[episode][start:])
    source.close()


def test_pictures_inside_a_lerobot_table_are_read(call, untrained_folder, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    episodes = episodes_of((70, 9))
    write_lerobot_images(folder, episodes)
    found = call(folder)
    truth = expected(untrained_folder, np.concatenate(episodes))
    assert np.abs(found.rewards - truth).max() <= 1e-6
    again = np.concatenate(list(LeRobot(folder).read(1, 4, Clock())))
    assert np.array_equal(again, episodes[1][4:])


def test_pictures_of_many_episodes_in_a_table_are_read_once(tmp_path, monkeypatch):
    folder = tmp_path / "data"
    folder.mkdir()
    episodes = [make_frames(10, seed=index) for index in range(40)]
    write_lerobot_images(folder, episodes)
    path = folder / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path), path, row_group_size=150)
    batches = pq.ParquetFile.iter_batches
    rows = 0

    def counted(self, *args, **options):
        nonlocal rows
        for batch in batches(self, *args, **options):
            rows += len(batch)
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    source = LeRobot(folder)
    for index, frames in enumerate(episodes):
        assert np.array_equal(np.concatenate(list(source.read(index, 0, Clock()))), frames)
    assert rows == 400
    for index, start in ((3, 0), (31, 4), (31, 2), (39, 9), (0, 1)):
        found = np.concatenate(list(source.read(index, start, Clock())))
        assert np.array_equal(found, episodes[index][start:])
    # Each of the five begins at a row group: none costs more than one.
    assert rows <= 400 + 5 * 150
    source.close()


def test_a_lerobot_video_that_ends_early_keeps_rows_in_place(call, untrained_folder, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    shown = write_lerobot_v2(folder, episodes_of((10, 12, 8)))
    lines = (folder / "meta/episodes.jsonl").read_text().replace('"length": 12', '"length": 15')
    (folder / "meta/episodes.jsonl").write_text(lines)
    with pytest.raises(
        ArgumentError, match=r"^episode_000001: episode must hold 15 frames .*got 12"
    ):
        call(folder)
    found = call(folder, resume=True, skip_broken=True)
    assert found.episode_starts.tolist() == [0, 10, 25, 33]
    assert np.isnan(found.rewards[22:25]).all()
    for rows, frames in ((found.rewards[10:22], shown[1]), (found.rewards[25:], shown[2])):
        assert np.abs(rows - expected(untrained_folder, frames)).max() <= 1e-6
    table = pq.read_table(tmp_path / "out" / "rewards.parquet")
    assert table["index"].to_pylist() == list(range(33))


def test_lerobot_datasets_that_cannot_be_read_are_refused(call, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    write_lerobot_v2(folder, episodes_of((4,)), cameras=("observation.a", "observation.b"))
    with pytest.raises(ArgumentError, match=r"key must name one of the cameras observation\.a, ob"):
        call(folder)
    with pytest.raises(ArgumentError, match="key must be one of observation"):
        call(folder, key="observation.c")
    assert call(folder, key="observation.b").rewards.shape == (4, 2)
    with pytest.raises(ArgumentError, match="task must go with stored states"):
        call(folder, out="x", task="cartpole-upright")
    info = json.loads((folder / "meta/info.json").read_text())
    for change, text in (
        ({"codebase_version": "v1.6"}, r"version v2\.0, v2\.1 or v3\.0, got v1\.6"),
        ({"features": {}}, "source must have a camera"),
        ({"fps": None}, "source must be a LeRobot dataset of version 2 or 3"),
    ):
        (folder / "meta/info.json").write_text(json.dumps(info | change))
        with pytest.raises(ArgumentError, match=text):
            call(folder, out="x", key="observation.a")
    escape = info | {"video_path": "../../{video_key}.mp4"}
    (folder / "meta/info.json").write_text(json.dumps(escape))
    with pytest.raises(ArgumentError, match="video_path must stay inside the dataset"):
        call(folder, out="x", key="observation.a")


def buffers(observations, infos=None):
    """Episodes of T + 1 observations and T steps with rewards 0, 1, 2, ..."""
    made = []
    for index, rows in enumerate(observations):
        some = rows if not isinstance(rows, dict) else next(iter(rows.values()))
        steps = len(some) - 1
        made.append(
            EpisodeBuffer(
                id=index,
                observations=rows,
                actions=np.zeros((steps, 1), np.float32),
                rewards=np.arange(steps, dtype=np.float64),
                terminations=np.arange(steps) == steps - 1,
                truncations=np.zeros(steps, bool),
                infos=None if infos is None else infos[index],
            )
        )
    return made


def write_minari(name, space, observations, infos=None, env=None, data_format="hdf5", **options):
    return minari.create_dataset_from_buffers(
        name,
        buffers(observations, infos),
        env=env,
        observation_space=space,
        action_space=gymnasium.spaces.Box(-1, 1, (1,), np.float32),
        data_format=data_format,
        author="someone",
        author_email="someone@example.org",
        description="made for a test",
        **options,
    )


def picture_space(shape):
    return gymnasium.spaces.Box(0, 255, shape, np.uint8)


@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
@pytest.mark.parametrize("jpeg", [False, True])
def test_pictures_of_a_minari_dataset_reward_the_step_that_led_to_them(
    call, untrained_folder, cache, data_format, jpeg
):
    episodes = episodes_of((31, 2, 12))
    space = picture_space((40, 56, 3))
    dataset = write_minari(
        "pictures-v0", space, episodes, data_format=data_format, jpeg_encoding=jpeg
    )
    found = call("pictures-v0")
    assert found.episodes == ("episode_0", "episode_1", "episode_2")
    assert found.episode_starts.tolist() == [0, 30, 31, 42]
    for index, episode in enumerate(dataset.iterate_episodes()):
        truth = expected(untrained_folder, np.ascontiguousarray(episode.observations[1:]))
        assert np.abs(found.episode(index) - truth).max() <= 1e-6
    assert np.array_equal(call(cache / "pictures-v0", out="b").rewards, found.rewards)


def test_one_picture_of_several_observations_is_chosen_by_its_key(call, untrained_folder, cache):
    spaces = gymnasium.spaces.Dict({
        "state": gymnasium.spaces.Box(-1, 1, (3,), np.float64),
        "camera": gymnasium.spaces.Dict({
            "front": picture_space((40, 56, 3)),
            "side": picture_space((3, 40, 56)),
        }),
    })
    front, side = make_frames(9), make_frames(9, seed=1)
    cameras = {"front": front, "side": np.ascontiguousarray(side.transpose(0, 3, 1, 2))}
    rows = {"state": np.zeros((9, 3)), "camera": cameras}
    data = [EpisodeBuffer(
        id=0, observations=rows, actions=np.zeros((8, 1), np.float32), rewards=np.zeros(8),
        terminations=np.zeros(8, bool), truncations=np.arange(8) == 7,
    )]  # fmt: skip
    action = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    minari.create_dataset_from_buffers(
        "two/cameras-v3", data, observation_space=spaces, action_space=action, jpeg_encoding=False
    )
    with pytest.raises(ArgumentError, match="key must name one of the pictures camera/front, cam"):
        call("two/cameras-v3")
    with pytest.raises(ArgumentError, match="key must be one of the observations camera/front"):
        call("two/cameras-v3", key="camera/back")
    for key, frames in (("camera/front", front), ("camera/side", side)):
        found = call("two/cameras-v3", out=key.replace("/", "-"), key=key)
        assert np.abs(found.rewards - expected(untrained_folder, frames[1:])).max() <= 1e-6


def record(env_id, steps, seed=0, **options):
    """Observations, positions and infos of a random policy in a gymnasium environment."""
    env = gymnasium.make(env_id, **options)
    env.action_space.seed(seed)
    observation, info = env.reset(seed=seed)
    observations, states, infos = [observation], [env.unwrapped.data.qpos.copy()], [info]
    for _ in range(steps):
        observation, _, _, _, info = env.step(env.action_space.sample())
        observations.append(observation)
        states.append(env.unwrapped.data.qpos.copy())
        infos.append(info)
    env.close()
    # Minari keeps an entry for each observation; what reset does not tell, it repeats.
    names = [name for name in ("x_position", "y_position") if name in infos[1]]
    columns = {name: np.array([i.get(name, 0.0) for i in infos]) for name in names}
    return np.stack(observations), np.stack(states), columns


def test_observations_of_a_minari_dataset_are_drawn_by_their_environments_task(
    call, untrained_folder, cache
):
    observations, states, infos = record("Humanoid-v5", 12)
    space = gymnasium.make("Humanoid-v5").observation_space
    write_minari("humanoid-v0", space, [observations], [infos], env="Humanoid-v5")
    found = call("humanoid-v0")
    drawer = TaskDrawer("humanoid-kneeling")
    from vlmrm_fast import VLMReward

    drawer.size = VLMReward(untrained_folder, goal="x").image_size
    frames = drawer.draw(states[1:])
    drawer.close()
    assert np.abs(found.rewards - expected(untrained_folder, frames)).max() <= 1e-6


@pytest.mark.parametrize(
    ("env_id", "options"),
    [
        ("Humanoid-v5", {}),
        ("Humanoid-v5", {"exclude_current_positions_from_observation": False}),
        ("Ant-v5", {}),
        ("HalfCheetah-v5", {}),
        ("Hopper-v5", {}),
        ("Walker2d-v5", {}),
        ("Reacher-v5", {}),
    ],
)
def test_positions_are_found_in_the_observations_of_gymnasiums_environments(env_id, options):
    name = task_of(env_id)
    if name is None:
        pytest.skip(f"no task draws {env_id}")
    observations, states, infos = record(env_id, 6, **options)
    drawer = TaskDrawer(name)
    find = make_positions(drawer, observations.shape[1], options)
    found = find(observations[2:], infos, slice(2, None))
    assert np.abs(found - states[2:]).max() <= 1e-9
    without = find(observations[2:], {}, slice(2, None))
    assert np.abs(without[:, 2:] - states[2:, 2:]).max() <= 1e-9
    exact = find(observations[2:], {"qpos": states + 1}, slice(2, None))
    assert np.array_equal(exact, states[2:] + 1)


def test_our_cart_pole_is_found_in_its_observations():
    task = TaskDrawer("cartpole-upright").task
    states = np.random.default_rng(0).uniform(-3, 3, (20, 2))
    fields = {"qpos": states, "qvel": np.zeros((20, 2))}
    observations = task.observation(None, fields)
    find = make_positions(TaskDrawer(task.name), observations.shape[1], {})
    assert np.abs(find(observations, {}, slice(None)) - states).max() <= 1e-12


def test_a_minari_copy_differs_in_its_rewards_alone(call, cache):
    episodes, space = episodes_of((31, 2, 12)), picture_space((40, 56, 3))
    infos = [{"depth": np.arange(len(e), dtype=np.float64)} for e in episodes]
    source = write_minari("space/pictures-v0", space, episodes, infos)
    found = call("space/pictures-v0", minari_id="other/kneeling-v1")
    copy = minari.load_dataset("other/kneeling-v1")
    assert copy.id == "other/kneeling-v1"
    assert copy.total_episodes == 3
    assert copy.total_steps == source.total_steps
    metadata = copy.storage.metadata
    assert metadata["author"] == {"someone"}
    said = metadata["vlm_reward"]
    assert said["goals"] == list(GOALS)
    assert (said["rule"], said["negatives"], said["temperature"]) == ("goal-baseline", [], None)
    for index, (old, new) in enumerate(zip(source, copy, strict=True)):
        assert np.array_equal(new.rewards, found.episode(index)[:, 0].astype(np.float64))
        assert np.array_equal(old.rewards, np.arange(len(old.rewards)))
        assert np.array_equal(old.observations, new.observations)
        assert np.array_equal(old.infos["depth"], new.infos["depth"])
    with pytest.raises(ArgumentError, match="minari_id must be new"):
        call("space/pictures-v0", out="b", minari_id="other/kneeling-v1")
    with pytest.raises(ArgumentError, match="minari_id must be like name-v0"):
        call("space/pictures-v0", out="b", minari_id="kneeling")


def test_a_minari_copy_names_the_rule_its_negatives_and_temperature(call, cache):
    write_minari("a-v0", picture_space((40, 56, 3)), episodes_of((4,)))
    contest = {"rule": "softmax", "negatives": ["a heap", 'a "box"'], "temperature": 0.25}
    call("a-v0", minari_id="b-v0", baseline=None, alpha=None, **contest)
    metadata = minari.load_dataset("b-v0").storage.metadata
    assert {name: metadata["vlm_reward"][name] for name in contest} == contest
    assert (
        "rule softmax, negatives ['a heap', 'a \"box\"'], temperature 0.25"
        in (metadata["description"])
    )


def test_a_copy_of_a_dataset_in_arrow_files_is_refused_before_any_work(call, cache, tmp_path):
    write_minari("a-v0", picture_space((40, 56, 3)), episodes_of((4,)), data_format="arrow")
    with pytest.raises(ArgumentError, match="minari_id must go with a Minari dataset stored as"):
        call("a-v0", minari_id="b-v0")
    assert not (tmp_path / "out").exists()


def test_broken_minari_datasets_are_named(call, cache, tmp_path):
    space = gymnasium.spaces.Box(-np.inf, np.inf, (5,), np.float64)
    rows = np.random.default_rng(0).uniform(-1, 1, (2, 9, 5))
    rows[1, 4] = np.nan
    write_minari("carts-v0", space, list(rows))
    with pytest.raises(ArgumentError, match="of an environment that a task draws, got no env"):
        call("carts-v0")
    task = {"task": "cartpole-upright"}
    with pytest.raises(ArgumentError, match=r"^episode_1: states must be finite, .*state 3 of"):
        call("carts-v0", **task)
    with pytest.raises(ArgumentError, match="minari_id must go with whole episodes, got 1 broken"):
        call("carts-v0", resume=True, skip_broken=True, minari_id="new-v0", **task)
    assert np.isnan(load_results(tmp_path / "out").rewards).all(axis=1).tolist() == (
        [False] * 11 + [True] * 5
    )
    narrow = gymnasium.spaces.Box(-1, 1, (2,), np.float64)
    write_minari("narrow-v0", narrow, [np.zeros((3, 2))])
    with pytest.raises(ArgumentError, match="observations must hold the positions of cartpole-upr"):
        call("narrow-v0", out="b", **task)
    with h5py.File(cache / "carts-v0" / "data" / "main_data.hdf5", "r+") as file:
        del file["episode_0/observations"]
    with pytest.raises(ArgumentError, match=r"^episode_0: episode must be readable"):
        call("carts-v0", out="c", **task)
    (cache / "narrow-v0" / "data" / "metadata.json").write_text("{}")
    with pytest.raises(ArgumentError, match="source must be a readable Minari dataset"):
        call("narrow-v0", out="d")


def test_a_missing_package_is_named_with_its_extra(call, cache, monkeypatch):
    write_minari("a-v0", picture_space((40, 56, 3)), episodes_of((4,)))
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(ArgumentError, match=r"pip install 'vlmrm-fast\[datasets\]'"):
        call("a-v0")
