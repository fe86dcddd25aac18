from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlmrm_fast import VLMReward
from vlmrm_fast.errors import ArgumentError, UnknownNameError
from vlmrm_fast.scoring import ScoreConfig, rank_correlation, run_score, score_frames


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (70, 40, 60, 3), dtype=np.uint8)


@pytest.fixture
def config(untrained_folder: str, tmp_path: Path) -> ScoreConfig:
    goals = ("a robot kneeling", "a robot, standing")
    return ScoreConfig(
        model=untrained_folder, goal=goals, baseline="a robot", alpha=0.5, out=str(tmp_path / "out")
    )


def expected(config: ScoreConfig, frames: np.ndarray) -> np.ndarray:
    assert config.alpha is not None
    return np.stack(
        [
            VLMReward(config.model, goal=goal, baseline=config.baseline, alpha=config.alpha).score(
                frames
            )
            for goal in config.goal
        ],
        axis=1,
    )


def test_array_files_are_scored_frame_by_frame(
    config: ScoreConfig, frames: np.ndarray, tmp_path: Path
) -> None:
    np.save(tmp_path / "a.npy", frames)
    np.savez(tmp_path / "b.npz", frames=frames, other=np.zeros(3))
    np.savez(tmp_path / "c.npz", frames)
    for name in ("a.npy", "b.npz", "c.npz"):
        scores = score_frames(replace(config, source=str(tmp_path / name)))
        assert scores.labels == [str(index) for index in range(70)]
        assert scores.rewards.shape == (70, 2)
        assert np.abs(scores.rewards - expected(config, frames)).max() <= 1e-6


def test_pictures_of_several_sizes_are_scored_in_order_of_their_names(
    config: ScoreConfig, frames: np.ndarray, tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    pictures = [frames[0], frames[1], frames[2, :30], frames[3]]
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{index}.png")
    Image.fromarray(frames[4]).convert("RGBA").save(folder / "4.png")
    (folder / "notes.txt").write_text("not a picture")
    scores = score_frames(replace(config, source=str(folder)))
    assert scores.labels == ["0.png", "1.png", "2.png", "3.png", "4.png"]
    for index, picture in enumerate([*pictures, frames[4]]):
        error = np.abs(scores.rewards[index] - expected(config, picture[None])[0])
        assert error.max() <= 1e-6
    one = score_frames(replace(config, source=str(folder / "2.png")))
    assert np.abs(one.rewards[0] - scores.rewards[2]).max() <= 1e-6


def test_a_video_is_scored_frame_by_frame(config: ScoreConfig, tmp_path: Path) -> None:
    import av

    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(130):
            picture = np.full((48, 64, 3), index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        decoded = np.stack([
            frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)
        ])
    scores = score_frames(replace(config, source=str(path)))
    assert len(scores.labels) == 130
    assert np.abs(scores.rewards - expected(config, decoded)).max() <= 1e-6


def test_a_tasks_states_are_scored_with_its_prompts_and_ground_truth(untrained_folder: str) -> None:
    config = ScoreConfig(task="cartpole-upright", model=untrained_folder, num_states=21, seed=3)
    scores = score_frames(config)
    assert scores.goals == ("pole vertically upright on top of the cart",)
    assert len(scores.labels) == 21
    # 8 worlds, 3 states of each: every 66th step of 200.
    assert scores.labels[:4] == [
        *(f"world 0 step {step}" for step in (66, 132, 198)),
        "world 1 step 66",
    ]
    assert scores.ground_truth is not None
    assert scores.ground_truth.shape == (21,)
    again = score_frames(config)
    assert np.array_equal(scores.rewards, again.rewards)
    assert again.ground_truth is not None
    assert np.array_equal(scores.ground_truth, again.ground_truth)
    other = score_frames(replace(config, goal=("a cart",), alpha=0.0, num_states=3))
    assert (other.goals, other.rule, len(other.labels)) == (("a cart",), "alpha = 0", 3)


def test_the_command_leaves_a_table_a_csv_file_and_a_plot(
    config: ScoreConfig,
    frames: np.ndarray,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    np.save(tmp_path / "a.npy", frames[:5])
    assert run_score(replace(config, source=str(tmp_path / "a.npy"))) == 0
    text = capsys.readouterr().out
    assert "a robot kneeling" in text
    assert "5 frames" in text
    with (tmp_path / "out" / "scores.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["frame", *config.goal]
    written = np.array([[float(number) for number in row[1:]] for row in rows[1:]])
    assert np.abs(written - expected(config, frames[:5])).max() <= 1e-5
    with Image.open(tmp_path / "out" / "scores.png") as plot:
        assert plot.width >= 1000
        assert np.unique(np.asarray(plot.convert("RGB")).reshape(-1, 3), axis=0).shape[0] > 20


def test_a_tasks_table_compares_with_the_ground_truth(
    untrained_folder: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    run_score(
        ScoreConfig(
            task="cartpole-upright", model=untrained_folder, num_states=16, out=str(tmp_path / "o")
        )
    )
    assert "rank corr. with truth" in capsys.readouterr().out
    assert "ground_truth" in (tmp_path / "o" / "scores.csv").read_text().splitlines()[0]


def test_rank_correlation_shares_ranks_among_equals() -> None:
    assert rank_correlation(np.array([1, 2, 3]), np.array([10, 20, 400])) == pytest.approx(1)
    assert rank_correlation(np.array([1, 2, 3]), np.array([3, 2, 1])) == pytest.approx(-1)
    # By hand: ranks 1.5 1.5 3 against 1 2 3.
    assert rank_correlation(np.array([5, 5, 9]), np.array([1, 2, 3])) == pytest.approx(0.8660254)
    assert np.isnan(rank_correlation(np.ones(3), np.arange(3)))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "source or --task must be given, one of them, got neither"),
        ({"source": "x", "task": "cartpole-upright"}, "got both"),
        ({"source": "/no/such/file"}, "existing file or folder, got '/no/such/file'"),
        ({"source": "/no/such/file", "goal": ()}, "goal must be given, got none"),
        ({"source": "/no/such/file", "goal": ("",)}, "goal must be a non-empty prompt"),
        ({"task": "cartpole-upright", "baseline": ("",)}, "baseline must be a non-empty prompt"),
        ({"source": "/no/such/file", "alpha": 2.0}, r"alpha must be a number in \[0, 1\]"),
        ({"source": "/no/such/file", "baseline": None}, "baseline must be given"),
        ({"task": "cartpole-upright", "num_states": 0}, "num_states must be at least 1, got 0"),
    ],
)
def test_wrong_settings_are_refused_before_any_work(
    config: ScoreConfig, changes: dict, text: str
) -> None:
    with pytest.raises(ArgumentError, match=text):
        score_frames(replace(config, **changes))
    with pytest.raises(UnknownNameError, match="task must be one of"):
        score_frames(replace(config, source=None, task="cartpool"))


def test_wrong_files_are_refused_by_name(config: ScoreConfig, tmp_path: Path) -> None:
    def refused(name: str, text: str) -> None:
        with pytest.raises(ArgumentError, match=text):
            score_frames(replace(config, source=str(tmp_path / name)))

    np.save(tmp_path / "float.npy", np.zeros((2, 8, 8, 3)))
    refused("float.npy", r"frames \(B, H, W, 3\) uint8, got \(2, 8, 8, 3\) float64")
    np.save(tmp_path / "none.npy", np.zeros((0, 8, 8, 3), np.uint8))
    refused("none.npy", r"got \(0, 8, 8, 3\) uint8")
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    refused("objects.npy", "NumPy file of frames")
    np.savez(tmp_path / "two.npz", a=np.zeros(1), b=np.zeros(1))
    refused("two.npz", 'an array "frames", got a, b')
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY")
    refused("cut.npy", "NumPy file of frames")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 cut")
    refused("cut.npz", "NumPy file of frames")
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    refused("broken.png", r"readable picture, got .*broken\.png")
    (tmp_path / "notes.txt").write_text("no video")
    refused("notes.txt", r"a video or one of \.npy, \.npz, .*notes\.txt")
    (tmp_path / "empty").mkdir()
    refused("empty", "folder with pictures")


def test_an_unwritable_output_folder_is_refused_before_any_work(
    config: ScoreConfig, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArgumentError, match="out must be a folder to write to"):
        run_score(replace(config, source="/no/such/file", out=str(tmp_path / "file" / "out")))


def test_the_configuration_is_read_from_flags() -> None:
    import tyro

    flags = ["clip.mp4", "--goal", "a", "b", "--baseline", "c", "--alpha", "0.5"]
    config = tyro.cli(ScoreConfig, args=flags)
    assert (config.source, config.goal, config.alpha) == ("clip.mp4", ("a", "b"), 0.5)
